"""Linear median regression: the ensemble's one member that extrapolates.

What belongs here: robust scaling of columns and the fit. What doesn't: trees, target spaces.

Iteratively reweighted least squares for least absolute deviations (Schlossmacher 1973, JASA 68) with a ridge penalty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energy_ml.arrays import Floats, Floats32
from energy_ml.kernels import kernel

_LIMIT = 4.0
"""Scaled columns are clipped here: one spike must not move a coefficient or a forecast without bound."""


@dataclass(frozen=True)
class MedianRegression:
    """Coefficients over robustly scaled columns: ``center``, ``scale``, ``weights`` (columns,), ``intercept``."""

    center: Floats
    scale: Floats
    weights: Floats
    intercept: float

    def predict(self, rows: npt.NDArray[np.floating]) -> Floats:
        """Forecast of the target's median, shape (n,); NaN counts as the column's training median."""
        out = np.empty(len(rows))
        _dot(np.asarray(rows, dtype=np.float32), self.center, self.scale, self.weights, self.intercept, _LIMIT, out)
        return out

    @classmethod
    def fit(
        cls, rows: npt.NDArray[np.floating], target: Floats, penalty: float = 0.1, iterations: int = 25
    ) -> MedianRegression:
        """Fit on ``rows`` (n, columns) and ``target`` (n,); ``penalty`` is the ridge per row in scaled units."""
        rows = np.asarray(rows, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            counted = np.isfinite(rows)
        filled = np.where(counted, rows, np.nan)
        empty = ~counted.any(axis=0)
        filled[:, empty] = 0.0
        center = np.nanmedian(filled, axis=0)
        scale = 1.5 * np.nanmean(np.abs(filled - center), axis=0)
        constant = scale < 1e-9
        scale = np.where(constant, 1.0, scale)
        scaled = np.clip(np.nan_to_num((filled - center) / scale, nan=0.0), -_LIMIT, _LIMIT)
        scaled[:, constant] = 0.0
        design = np.column_stack([scaled, np.ones(len(scaled))])
        ridge = np.full(design.shape[1], penalty * len(scaled))
        ridge[-1] = 1e-9 * len(scaled)
        beta = np.zeros(design.shape[1])
        for step in range(iterations):
            # The floor on |residual| shrinks after the first rounds: a loose start converges faster.
            weight = 1.0 / np.maximum(np.abs(target - design @ beta), 1e-2 if step < 8 else 1e-3)
            gram = (design * weight[:, None]).T @ design
            gram[np.diag_indices_from(gram)] += ridge
            updated = np.linalg.solve(gram, design.T @ (weight * target))
            change = float(np.abs(updated - beta).max())
            beta = updated
            if change < 1e-4:
                break
        return cls(center, scale, np.where(constant, 0.0, beta[:-1]), float(beta[-1]))


@kernel
def _dot(
    rows: Floats32, center: Floats, scale: Floats, weights: Floats, intercept: float, limit: float, out: Floats
) -> None:
    # Not a BLAS product: its rounding depends on how many rows are asked at once, and batch and live must agree.
    for i in range(rows.shape[0]):
        total = intercept
        for j in range(rows.shape[1]):
            x = (rows[i, j] - center[j]) / scale[j]
            if x == x:
                total += weights[j] * min(max(x, -limit), limit)
        out[i] = total
