"""Names of a package that are loaded when first used, so that importing the package loads nothing.

What belongs here: the ``__getattr__`` that such packages share. What doesn't: which names they have.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def from_homes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's ``__getattr__``; ``homes`` says in which of its modules a name lives."""

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return load
