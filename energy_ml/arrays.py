"""Array types by element, named once: what a signature says of an array beside its shape in the docstring.

What belongs here: aliases, and the one number that compiled code needs typed. What doesn't: functions on arrays.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Unsigned32 = npt.NDArray[np.uint32]

ZERO = cast(int, np.int64(0))
"""What a variable of compiled code begins with: a function that is handed a plain 0 first is compiled for that too."""
