"""How compiled code is compiled: kept beside the package, without the parts of numba's wrapping that nobody calls.

What belongs here: the two decorators. What doesn't: any function of the domain.

Much of what compiling a small function takes is wrapping it for callers: from Python, and as a callback of C. Division
by zero gives an infinity or NaN, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])


def kernel(function: _Function) -> _Function:
    """Compile a function that Python calls; other threads run meanwhile."""
    return _compiled(function, nogil=True)


def part(function: _Function) -> _Function:
    """Compile a function that compiled code alone calls."""
    return _compiled(function, no_cpython_wrapper=True)


def _compiled(function: _Function, **more: bool) -> _Function:
    compiler = numba.njit(cache=True, error_model="numpy", no_cfunc_wrapper=True, **more)  # type: ignore[call-overload]
    return cast(_Function, compiler(function))
