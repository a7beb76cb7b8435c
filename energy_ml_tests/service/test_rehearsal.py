"""After a rehearsal the first answers find everything compiled."""

from __future__ import annotations

import os
import subprocess
import sys

from energy_ml_tests.service.conftest import Server

PROGRAM = """
import gc
from numba.core.dispatcher import Dispatcher
from energy_ml.rehearsal import rehearse
from energy_ml.service.ml_service import MLService

def compiled():
    return {(f.py_func.__qualname__, s) for f in gc.get_objects() if isinstance(f, Dispatcher)
            and f.py_func.__module__.startswith("energy_ml.") for s in f.signatures}

rehearse()
before = compiled()
service = MLService()
service.forecast(), service.act(0.5), service.plan(0.5)
assert len(before) > 10, before
print(*compiled() - before)
"""
LOADED = """
import sys
from energy_ml.service.ml_service import MLService
service = MLService()
service.forecast(), service.act(0.5)
print(*{"scipy.linalg", "numba.np.arraymath", "xgboost", "dagster"} & sys.modules.keys())
"""


def test_answers_need_nothing_that_a_rehearsal_leaves_uncompiled(server: Server) -> None:
    """Nor do they load the compiler, or what trains."""
    for program in (PROGRAM, LOADED):
        done = subprocess.run(
            [sys.executable, "-c", program], env=server.environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_kernels_are_plain_functions_for_who_debugs() -> None:
    code = (
        "from energy_ml.rl_battery.optimum import perfect_foresight as best; from energy_ml.rl_battery import Battery; "
    )
    code += "import numpy as np; print(best(Battery(), np.array([10.0, 50.0, 20.0]), 1.0).profit > 0)"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
