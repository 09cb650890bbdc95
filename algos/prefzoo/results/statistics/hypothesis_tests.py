"""Paired differences, proportions, and verdicts corrected for multiple testing.

Where nothing varies, the interval of the analysis of variance has no width, although n equal prompts do not prove that
all prompts are equal. The bound of Clopper and Pearson is used instead (1934, Biometrika 26:404, for n successes of n;
close to the rule of three): with the confidence of our intervals, at most a share of 1 - (ALPHA / 2)^(1 / n) of all
prompts differs from these n. In the interval of a difference, that share is taken to lie as far on the other side of 0.
Such an interval excludes 0 from six prompts on, exactly where the sign test has a p-value below 5%: when all n prompts
differ in one direction, that p-value is 2^(1 - n).

Replies of several seeds to one prompt are not independent: n counts a prompt once, however many seeds there are. Where
prompts are analysed in groups (`prompt_groups`), the tables hold means of groups, and n counts groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from prefzoo.results.statistics.two_way_anova import ALPHA, Estimate, estimate

ROUNDING = 1e-12


def paired_difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Estimate a minus b, paired by seed and prompt; both (seeds x prompts).

    Where all differences are equal and not 0, or prompts too few for the sign test ever to call a difference, the
    interval is not narrower, nor the p-value smaller, than so many prompts allow.
    """
    differences = a - b
    plain = estimate(differences)
    n, prompts = sample_size(differences), differences.shape[1]
    too_few = prompts > 1 and sign_test(prompts) >= ALPHA
    if differences.size == 1 or not differences.any() or not (too_few or all_differ_alike(a, b)):
        return plain
    half = 2 * clopper_pearson_bound(n) * abs(plain.mean)
    low, high = min(plain.low, plain.mean - half), max(plain.high, plain.mean + half)
    return replace(plain, low=low, high=high, p=max(plain.p, sign_test(n)))


def proportion(plain: Estimate, table: np.ndarray) -> Estimate:
    """Give an estimate from a table of values from 0 to 1 an interval within 0 and 1.

    It is Wilson's (1927), of as many independent replies as would have the estimate's standard error, and with its
    Student's t in the place of 1.96. Where all values are 0, or all 1, it is that of Clopper and Pearson.
    """
    if table.size == 1:
        return plain
    if np.all(table == 0) or np.all(table == 1):
        bound = clopper_pearson_bound(sample_size(table))
        return replace(plain, low=0.0, high=bound) if plain.mean < 0.5 else replace(plain, low=1 - bound, high=1.0)
    return score_interval(plain)


def score_interval(plain: Estimate) -> Estimate:
    """Give the estimate of a share between 0 and 1 Wilson's interval (see `proportion`)."""
    share, variance = plain.mean, plain.mean * (1 - plain.mean)
    if variance <= 0 or not 0 < plain.error < np.inf:
        return plain
    ratio = (float(stats.t.ppf(1 - ALPHA / 2, plain.df)) * plain.error) ** 2 / variance
    centre, half = share + ratio / 2, (ratio * variance + ratio**2 / 4) ** 0.5
    return replace(plain, low=max(0.0, (centre - half) / (1 + ratio)), high=min(1.0, (centre + half) / (1 + ratio)))


def effect_size(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Cohen's d of paired differences (d_z; Cohen 1988, 2.3.5): their mean over all seeds and prompts, divided
    by the standard deviation of the single differences.

    It tells how large a difference is beside what one prompt makes of it, and does not grow with the number of prompts
    or seeds. None where all differences are equal.
    """
    differences = (a - b).ravel()
    deviation = float(differences.std(ddof=1)) if differences.size > 1 else 0.0
    rounding = ROUNDING * float(np.abs(differences).max())
    return float(differences.mean()) / deviation if deviation > rounding else None


def clopper_pearson_bound(n: int) -> float:
    """Return the largest share of prompts that do otherwise when n of n do the same."""
    return float(1 - (ALPHA / 2) ** (1 / n))


def sign_test(n: int) -> float:
    """Return the two-sided p-value of n differences in one direction."""
    return 2.0 ** (1 - n)


def all_differ_alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Return True where all differences between a and b are equal, up to rounding."""
    rounding = ROUNDING * float(max(np.abs(a).max(), np.abs(b).max()))
    return bool(np.ptp(a - b) <= rounding)


def sample_size(table: np.ndarray) -> int:
    """Return how many prompts a (seeds x prompts) table has; of one prompt, how many seeds."""
    seeds, prompts = table.shape
    return int(prompts if prompts > 1 else seeds)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust a family of p-values by Holm's step-down method (1979), in the order they came in."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(np.argsort(p_values)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def verdict(mean: float, p_adjusted: float) -> str:
    """Return `better`, `worse`, or `inconclusive` at the 5% level."""
    if p_adjusted >= ALPHA:
        return "inconclusive"
    return "better" if mean > 0 else "worse"
