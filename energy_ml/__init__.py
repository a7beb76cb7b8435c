"""energy_ml: price forecasts and battery policies for people who trade electricity.

Only the version lives here; importing the package has no side effects and never loads Dagster.
"""

__version__ = "0.1.0"
