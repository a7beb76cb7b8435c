"""Every test starts from the shipped settings, whatever the shell that runs them has set."""

import os

for name in [name for name in os.environ if name.startswith(("ENERGY_ML_", "DAGSTER_"))]:
    del os.environ[name]
