"""From p-values to verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prefzoo.results.statistics.estimates import ALPHA


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979) of a family of p-values, in the order they came in."""
    order = np.argsort(p_values)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def verdict(mean: float, p_adjusted: float) -> str:
    """`better`, `worse`, or `inconclusive` at the 5% level."""
    if p_adjusted >= ALPHA:
        return "inconclusive"
    return "better" if mean > 0 else "worse"
