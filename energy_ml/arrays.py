"""Array types by element, named once: what a signature says of an array beside its shape in the docstring.

What belongs here: aliases. What doesn't: functions on arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Unsigned32 = npt.NDArray[np.uint32]
