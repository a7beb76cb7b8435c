"""Every test starts from the shipped settings, whatever the shell that runs them has set."""

import os

from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # how fast it is depends on what else runs there
settings.load_profile("any machine")
for name in [name for name in os.environ if name.startswith(("ENERGY_ML_", "DAGSTER_"))]:
    del os.environ[name]
