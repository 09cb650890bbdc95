"""How much of a gain remains between replies of equal length.

Longer replies are often preferred for being longer (Dubois et al. 2024, https://arxiv.org/abs/2404.04475). They fit a
model of the preference with the difference of the lengths in it, and read it where that difference is 0. The same is
done here by least squares: over all seeds and prompts, a policy's outcome against the start is fitted as

    outcome = intercept + slope * (length of its reply - length of the start's),

and the intercept is what is left at equal length. Where a policy's replies all have other lengths than the start's,
that is an extrapolation, and the interval is wide.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prefzoo.results import statistics
from prefzoo.results.results_schema import LengthAdjusted


def length_adjusted(
    policy: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray], metric: str, groups: statistics.Groups = None
) -> LengthAdjusted | None:
    """Compare a policy's tables (metric -> seeds x prompts) with those of the start at equal length, of groups of
    prompts by their means.

    None where the lengths or the metric were not measured, or all replies are longer by the same number of tokens.
    """
    if not all(name in table for name in (metric, "length") for table in (policy, start)):
        return None
    gain, longer = policy[metric] - start[metric], policy["length"] - start["length"]
    won = np.sign(gain) / 2 + 0.5
    gain, longer, won = (statistics.group_means(table, groups) for table in (gain, longer, won))
    gain_fit, win_fit = at_equal_length(gain, longer), at_equal_length(won, longer)
    if gain_fit is None or win_fit is None:
        return None
    (gains, slope), (won, _) = gain_fit, win_fit
    difference = statistics.paired_difference(gains, np.zeros_like(gains))
    win_rate = statistics.proportion(statistics.estimate(won), won)
    bounds = np.clip([win_rate.mean, win_rate.low, win_rate.high], 0.0, 1.0)
    return LengthAdjusted(
        difference=difference.mean,
        difference_ci95=(difference.low, difference.high) if np.isfinite(difference.low) else None,
        win_rate=float(bounds[0]),
        win_rate_ci95=(float(bounds[1]), float(bounds[2])) if np.isfinite(win_rate.low) else None,
        slope=slope,
        tokens=float(longer.mean()),
    )


def at_equal_length(outcome: np.ndarray, longer: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Fit `outcome` by least squares on `longer`, both (seeds x prompts).

    Returns:
        A table of the same shape whose mean is the intercept, and the slope. Each entry holds how much its own pair of
        replies moves the intercept (its linear influence), so that the interval of a mean over seeds and prompts, made
        of this table, covers the error of the slope too. None where the slope is not determined.
    """
    mean, variance = longer.mean(), longer.var()
    if variance == 0:
        return (outcome, 0.0) if mean == 0 else None
    slope = float(((longer - mean) * outcome).mean() / variance)
    intercept = outcome.mean() - slope * mean
    residual = outcome - intercept - slope * longer
    return intercept + residual * (1 - mean * (longer - mean) / variance), slope
