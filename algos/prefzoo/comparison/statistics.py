"""Means, intervals, paired differences, verdicts: from a table of seeds by prompts.

A mean over S seeds and P prompts errs for two reasons: another seed would have trained another policy, and other
prompts would have been harder or easier. Its squared standard error here is the sum of both parts,

    s_seeds^2 / S + s_prompts^2 / P,

with s_seeds the standard deviation of the seeds' means and s_prompts that of the prompts' means, and Student's t
with Welch-Satterthwaite degrees of freedom. Noise of single replies is in both parts, so that the interval is rather
too wide than too narrow. With one seed the first part is unknown, and the interval covers prompts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ALPHA = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval and the two-sided p-value of its being 0."""

    mean: float
    low: float
    high: float
    p: float


def estimate(table: np.ndarray) -> Estimate:
    """The mean of a (seeds x prompts) table. With one seed and one prompt the interval is infinite."""
    seeds, prompts = table.shape
    mean = float(table.mean())
    parts = []
    if seeds > 1:
        parts.append((float(table.mean(1).var(ddof=1)) / seeds, seeds - 1))
    if prompts > 1:
        parts.append((float(table.mean(0).var(ddof=1)) / prompts, prompts - 1))
    if not parts:
        return Estimate(mean, -np.inf, np.inf, 1.0)
    square = sum(part for part, _ in parts)
    if square == 0.0:
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    freedom = square**2 / sum(part**2 / df for part, df in parts)
    error = square**0.5
    half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)))


def difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """a minus b, paired by seed and prompt; both (seeds x prompts)."""
    return estimate(a - b)


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
