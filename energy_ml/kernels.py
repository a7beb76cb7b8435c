"""How compiled code is compiled and kept; what is private of numba stands here: look here first after an upgrade.

What belongs here: the two decorators, and what several rooms have compiled. What doesn't: any function of the domain.

Much of what compiling a small function takes is wrapping it for callers: from Python, and as a callback of C, which
nobody asks for. Division by zero gives an infinity or NaN, as in NumPy. Code is kept beside the package.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core.runtime.nrt import rtsys

from energy_ml.arrays import Floats

_Function = TypeVar("_Function", bound=Callable[..., object])


def kernel(function: _Function) -> _Function:
    """Compile a function that Python calls; other threads run meanwhile."""
    return _compiled(function, nogil=True)


def part(function: _Function) -> _Function:
    """Compile a function that compiled code alone calls."""
    return _compiled(function, no_cpython_wrapper=True)


def _compiled(function: _Function, **more: bool) -> _Function:
    compiler = numba.njit(cache=True, error_model="numpy", no_cfunc_wrapper=True, **more)  # type: ignore[call-overload]
    made = compiler(function)
    if made is not function:  # it is with NUMBA_DISABLE_JIT, for who debugs
        made._cache.load_overload = functools.partial(_load, made._cache)
    return cast(_Function, made)


def _load(cache: Any, signature: object, context: object) -> object:
    """What numba does to load compiled code, but for loading its compiler before: a third of a second of a forecast."""
    rtsys.initialize(context)
    with cache._guard_against_spurious_io_errors():
        return cache._load_overload(signature, context)


@part
def exchange(ordered: Floats, known: int, old: float, new: float) -> int:
    """Put ``new`` in the place of ``old`` among ascending numbers, of which the first ``known`` count.

    NaN is none: a number then comes in, or goes. Returns how many count then.
    """
    place, stop = (0, known) if old == old else (known, known)
    while place < stop:  # by hand: numba takes a second to compile np.searchsorted
        middle = (place + stop) // 2
        if ordered[middle] < old:
            place = middle + 1
        else:
            stop = middle
    while place > 0 and ordered[place - 1] > new:
        ordered[place] = ordered[place - 1]
        place -= 1
    while place + 1 < known and (ordered[place + 1] < new or new != new):
        ordered[place] = ordered[place + 1]
        place += 1
    ordered[place] = new
    return known + (new == new) - (old == old)
