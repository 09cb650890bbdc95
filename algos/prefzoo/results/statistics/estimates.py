"""Means and paired differences of (seeds x prompts) tables, with intervals.

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

That this interval, among others, is the one which verdicts go by was measured: docs/calibration.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

ALPHA = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, the two-sided p-value of its being 0, its standard error and how many degrees
    of freedom that has."""

    mean: float
    low: float
    high: float
    p: float
    error: float
    freedom: float


def from_mean_squares(mean: float, squares: tuple[float, float, float], seeds: int, prompts: int) -> Estimate:
    """An estimate of a mean over a (seeds x prompts) table with these mean squares of seeds, prompts and noise.

    With one seed its part is 0 and the interval covers prompts only; the same with one prompt. Without any variance it
    has no width; what that leaves open is in `unseen`.
    """
    if seeds == prompts == 1:
        return Estimate(mean, -np.inf, np.inf, 1.0, np.inf, 0)
    of_seeds, of_prompts, of_noise = map(np.array, squares)
    error, freedom = map(float, standard_error(of_seeds, of_prompts, of_noise, seeds, prompts))
    if error == 0.0:
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else 0.0, error, freedom)
    half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    if p < ALPHA:
        tail, scale = (float(each) for each in beyond(np.array(freedom), seeds, prompts))
        p = float(2 * stats.t.sf(abs(mean) / error / scale, tail))
    return Estimate(mean, mean - half, mean + half, p, error, freedom)


def standard_error(
    of_seeds: np.ndarray, of_prompts: np.ndarray, of_noise: np.ndarray, seeds: int, prompts: int
) -> tuple[np.ndarray, np.ndarray]:
    """The standard error of the mean, and its degrees of freedom, from mean squares, as many as there are."""
    least = np.sqrt((of_seeds**2 + of_prompts**2) / (2 if seeds > 1 and prompts > 1 else 1))
    square = np.maximum(of_seeds + of_prompts - of_noise, least)
    sides = ((of_seeds, seeds - 1), (of_prompts, prompts - 1), (of_noise, (seeds - 1) * (prompts - 1)))
    below = np.sum([part**2 / df for part, df in sides if df], 0)
    known = np.divide(square**2, below, out=np.zeros_like(below), where=below > 0)
    freedom = np.maximum(_fewest(seeds, prompts), known)
    return np.sqrt(square / (seeds * prompts)), freedom


def beyond(freedom: np.ndarray, seeds: int, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """How t is distributed beyond its 5% points: like Student's t of the first number of degrees of freedom, times the
    second number, which makes its 5% points those of `freedom` degrees."""
    tail = np.minimum(freedom, 2 * _fewest(seeds, prompts))
    return tail, special.stdtrit(freedom, 1 - ALPHA / 2) / special.stdtrit(tail, 1 - ALPHA / 2)


def _fewest(seeds: int, prompts: int) -> int:
    """The degrees of freedom of the smaller side of a table, of those that have any."""
    return min(side - 1 for side in (seeds, prompts) if side > 1)


def mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of seeds, prompts and noise of a (seeds x prompts) table; 0 where there is one of a kind."""
    seeds, prompts = table.shape
    rows, columns = table.mean(1), table.mean(0)
    of_seeds = prompts * float(rows.var(ddof=1)) if seeds > 1 else 0.0
    of_prompts = seeds * float(columns.var(ddof=1)) if prompts > 1 else 0.0
    if seeds == 1 or prompts == 1:
        return of_seeds, of_prompts, 0.0
    rest = table - rows[:, None] - columns + table.mean()
    return of_seeds, of_prompts, float((rest**2).sum()) / ((seeds - 1) * (prompts - 1))


def estimate(table: np.ndarray) -> Estimate:
    """The mean of a (seeds x prompts) table. With one seed and one prompt the interval is infinite."""
    return from_mean_squares(float(table.mean()), mean_squares(table), *table.shape)


def effect_size(a: np.ndarray, b: np.ndarray) -> float | None:
    """Cohen's d of paired differences (d_z; Cohen 1988, 2.3.5): their mean over all seeds and prompts, divided by the
    standard deviation of the single differences. It tells how large a difference is beside what one prompt makes of
    it, and does not grow with the number of prompts or seeds. None where all differences are equal."""
    differences = (a - b).ravel()
    spread = float(differences.std(ddof=1)) if differences.size > 1 else 0.0
    rounding = 1e-12 * float(np.abs(differences).max())
    return float(differences.mean()) / spread if spread > rounding else None
