"""Means of (seeds x prompts) tables, with intervals.

A mean over S seeds and P prompts errs for two reasons: another seed would have trained another policy, and other
prompts would have been harder or easier. In the two-way random-effects model

    value = mean + seed effect + prompt effect + noise of this seed on this prompt

the squared standard error of the mean is estimated without bias by (MS_seeds + MS_prompts - MS_noise) / (S P), from
the mean squares of the two-way analysis of variance (Cornfield and Tukey 1956, Annals of Mathematical Statistics
27:907; for balanced tables, where no part is negative, it is what REML gives). Few seeds may by luck differ less than
their noise; it is therefore never taken smaller than the root mean square of what seeds alone and prompts alone give.
Student's t has the degrees of freedom of Satterthwaite (1946, Biometrics 2:110), every mean square counted, and never
fewer than the smaller side of the table has.

Satterthwaite's approximation fits t around its 5% points and is too bold far beyond them when seeds are few, where the
first tests of a large family are. A p-value below 5% is therefore that of a t with at most twice the degrees of freedom
of the smaller side, as two policies of so many seeds each have, scaled to agree with the interval at 5%.

Student's t takes the mean to be distributed symmetrically. Where prompts are skewed, a sample without the rare large
values has both a mean and a variance that are too small, so that t is too sure on the side away from the skew. From a
skewness of the mean of `SKEWED` on, the p-value and the end of the interval on that side are those of Hall's
transformation of t (1992, Journal of the Royal Statistical Society B 54:221), where they are the more cautious ones.

Intervals of this kind and others were compared: docs/calibration.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats

ALPHA = 0.05
SKEWED = 0.2
"""Skewness of a mean (that of one prompt, divided by the square root of their number) from which it is corrected for:
two-sided tests at the 5% level reject about one point more."""
UNSEEN = 2.0
"""What the skewness of a sample, which misses the rarest values, is multiplied by; see docs/calibration.md."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        p: two-sided p-value of the mean being 0.
        error: standard error of the mean.
        df: degrees of freedom of that error.
        skewness: of the mean, from that of its prompts.
    """

    mean: float
    low: float
    high: float
    p: float
    error: float
    df: float
    skewness: float = 0.0

    @property
    def skewed(self) -> bool:
        """Whether a few prompts count for so much that the interval allows for others that were not drawn."""
        return abs(self.skewness) > SKEWED


def estimate(table: np.ndarray) -> Estimate:
    """Estimate the mean of a (seeds x prompts) table. With one seed and one prompt the interval is infinite."""
    plain = estimate_from_mean_squares(float(table.mean()), mean_squares(table), *table.shape)
    return _allow_for_skewness(replace(plain, skewness=_skewness(table, plain.error)), *table.shape)


def _skewness(table: np.ndarray, error: float) -> float:
    """Return the skewness that prompts give to the mean of a table, whose standard error is given."""
    prompts = table.shape[1]
    if prompts < 3 or not 0 < error < np.inf:
        return 0.0
    cubes = float(((table.mean(0) - table.mean()) ** 3).sum())
    return cubes / ((prompts - 1) * (prompts - 2) * prompts) / error**3


def _allow_for_skewness(plain: Estimate, seeds: int, prompts: int) -> Estimate:
    """Move the end of the interval, and the p-value, that t has too close on the side where rare values are missing."""
    if not plain.skewed:
        return plain
    skewness, mean, error = UNSEEN * plain.skewness, plain.mean, plain.error
    sign = np.sign(skewness)
    limit = float(stats.t.ppf(1 - ALPHA / 2, plain.df))
    reach = -float(np.cbrt(1 - abs(skewness) * (limit + abs(skewness) / 6)) - 1) * 3 / abs(skewness)
    end = mean + sign * max(limit, reach) * error
    p = plain.p
    if mean * sign < 0:
        t = mean / error
        p = max(p, _p_value(abs(((1 + skewness * t / 3) ** 3 - 1) / skewness + skewness / 6), plain.df, seeds, prompts))
    return replace(plain, low=min(plain.low, end), high=max(plain.high, end), p=p)


def widened(plain: Estimate, error: float, seeds: int, prompts: int) -> Estimate:
    """Allow for an error of the mean that no table shows, beside that of a (seeds x prompts) table.

    Args:
        error: its standard deviation.
    """
    if error == 0 or not 0 < plain.error < np.inf:
        return plain
    whole = float(np.hypot(plain.error, error))
    ratio = whole / plain.error
    low, high = (plain.mean + ratio * (end - plain.mean) for end in (plain.low, plain.high))
    p = max(plain.p, _p_value(abs(plain.mean) / whole, plain.df, seeds, prompts))
    return replace(plain, low=low, high=high, p=p, error=whole)


def mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    """Return mean squares of seeds, prompts and noise of a (seeds x prompts) table; 0 where there is one of a kind."""
    seeds, prompts = table.shape
    seed_means, prompt_means = table.mean(1), table.mean(0)
    ms_seeds = prompts * float(seed_means.var(ddof=1)) if seeds > 1 else 0.0
    ms_prompts = seeds * float(prompt_means.var(ddof=1)) if prompts > 1 else 0.0
    if seeds == 1 or prompts == 1:
        return ms_seeds, ms_prompts, 0.0
    residual = table - seed_means[:, None] - prompt_means + table.mean()
    return ms_seeds, ms_prompts, float((residual**2).sum()) / ((seeds - 1) * (prompts - 1))


def estimate_from_mean_squares(mean: float, squares: tuple[float, float, float], seeds: int, prompts: int) -> Estimate:
    """Estimate a mean over a (seeds x prompts) table from its mean squares of seeds, prompts and noise.

    With one seed its part is 0 and the interval covers prompts only; the same with one prompt. Without any variance the
    interval has no width (see `hypothesis_tests`).
    """
    if seeds == prompts == 1:
        return Estimate(mean, -np.inf, np.inf, 1.0, np.inf, 0)
    ms_seeds, ms_prompts, ms_noise = map(np.array, squares)
    error, df = map(float, standard_error(ms_seeds, ms_prompts, ms_noise, seeds, prompts))
    if error == 0.0:
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else 0.0, error, df)
    half = float(stats.t.ppf(1 - ALPHA / 2, df)) * error
    return Estimate(mean, mean - half, mean + half, _p_value(abs(mean) / error, df, seeds, prompts), error, df)


def _p_value(t: float, df: float, seeds: int, prompts: int) -> float:
    p = float(2 * stats.t.sf(t, df))
    if p < ALPHA:
        tail_df, scale = map(float, tail_distribution(np.array(df), seeds, prompts))
        p = float(2 * stats.t.sf(t / scale, tail_df))
    return p


def standard_error(
    ms_seeds: np.ndarray, ms_prompts: np.ndarray, ms_noise: np.ndarray, seeds: int, prompts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard error of the mean and its degrees of freedom, elementwise from arrays of mean squares."""
    least = np.sqrt((ms_seeds**2 + ms_prompts**2) / (2 if seeds > 1 and prompts > 1 else 1))
    square = np.maximum(ms_seeds + ms_prompts - ms_noise, least)
    parts = ((ms_seeds, seeds - 1), (ms_prompts, prompts - 1), (ms_noise, (seeds - 1) * (prompts - 1)))
    denominator = np.sum([part**2 / df for part, df in parts if df], 0)
    satterthwaite = np.divide(square**2, denominator, out=np.zeros_like(denominator), where=denominator > 0)
    return np.sqrt(square / (seeds * prompts)), np.maximum(_smaller_df(seeds, prompts), satterthwaite)


def tail_distribution(df: np.ndarray, seeds: int, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the degrees of freedom of Student's t beyond its 5% points, and the factor that makes the 5% points of
    that t those of `df` degrees of freedom."""
    tail_df = np.minimum(df, 2 * _smaller_df(seeds, prompts))
    return tail_df, special.stdtrit(df, 1 - ALPHA / 2) / special.stdtrit(tail_df, 1 - ALPHA / 2)


def _smaller_df(seeds: int, prompts: int) -> int:
    """Return the degrees of freedom of the smaller side of a table, of those sides that have any."""
    return min(side - 1 for side in (seeds, prompts) if side > 1)
