"""What a comparison could have found, and how large one must be to find a difference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from prefzoo.comparison.statistics.estimates import ALPHA, Estimate, mean_squares

POWER = 0.8
"""The chance of a right verdict that is asked for."""
GRID = (np.arange(128) + 0.5) / 128
FREEDOM = 10_000.0
"""More degrees of freedom than these are as good as infinitely many."""


@lru_cache(maxsize=4096)
def _errors(freedom: float) -> np.ndarray:
    """Equally probable values of an estimated standard error in units of the true one."""
    freedom = min(freedom, FREEDOM)
    return np.sqrt(stats.chi2.ppf(GRID, freedom) / freedom)


def chance(ratio: float, freedom: float, known: float, level: float = ALPHA) -> float:
    """The chance that a two-sided t-test of this level finds a difference, on the right side.

    Args:
        ratio: the difference in units of its standard error, as far as that is known from a pilot.
        freedom: degrees of freedom of the test.
        known: degrees of freedom of the pilot's standard error, whose own uncertainty is averaged over. A pilot of
            three seeds may have been lucky; ignoring that promises too much.
        level: of the test.
    """
    needed = float(stats.t.ppf(1 - level / 2, freedom)) * _errors(freedom)
    return float(stats.norm.cdf(ratio * _errors(known)[:, None] - needed).mean())


def detectable(found: Estimate, family: int = 1) -> float | None:
    """The minimum detectable difference: one that another comparison, of this size, finds with 80% probability.

    Args:
        found: a difference of which the standard error and its degrees of freedom are used, not the mean.
        family: how many tests Holm corrects together; the strictest of them must find it.
    """
    if not np.isfinite(found.error):
        return None
    return found.error * _ratio(round(found.freedom, 2), ALPHA / family)


@lru_cache(maxsize=4096)
def _ratio(freedom: float, level: float) -> float:
    return float(optimize.brentq(lambda ratio: chance(ratio, freedom, freedom, level) - POWER, 0.0, 1e4))


@dataclass(frozen=True)
class Design:
    """How large a comparison is."""

    seeds: int
    prompts: int


@dataclass(frozen=True)
class Pilot:
    """What a finished comparison of two policies says of any other design: its mean squares and its size."""

    squares: tuple[float, float, float]
    seeds: int
    prompts: int

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray) -> Pilot:
        """From the paired (seeds x prompts) tables of two policies; at least two seeds and two prompts."""
        return cls(mean_squares(a - b), *a.shape)

    @property
    def variances(self) -> tuple[float, float, float]:
        """The variance between seeds, between prompts, and of the noise, none below 0."""
        of_seeds, of_prompts, noise = self.squares
        return max(0.0, (of_seeds - noise) / self.prompts), max(0.0, (of_prompts - noise) / self.seeds), noise

    def error(self, design: Design) -> float:
        """The standard error of the difference in a comparison of that design."""
        by_seed, by_prompt, noise = self.variances
        return (by_seed / design.seeds + by_prompt / design.prompts + noise / (design.seeds * design.prompts)) ** 0.5

    def power(self, difference: float, design: Design, family: int = 1) -> float:
        """The chance that a comparison of that design calls this difference, on the right side."""
        error = self.error(design)
        if error == 0.0:
            return 1.0
        by_seed, by_prompt, noise = self.variances
        seeds, prompts = design.seeds, design.prompts
        expected = (prompts * by_seed + noise, seeds * by_prompt + noise, noise)
        square = expected[0] + expected[1] - noise
        freedoms = (seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1))
        parts = sum(part**2 / df for part, df in zip(expected, freedoms, strict=True) if df)
        freedom = max(min(seeds, prompts) - 1, square**2 / parts)
        return chance(abs(difference) / error, freedom, self._known(design), ALPHA / family)

    def _known(self, design: Design) -> float:
        """Satterthwaite's degrees of freedom of `error`, which is a sum of the pilot's mean squares."""
        of_seeds, of_prompts, noise = self.squares
        by_seeds, by_prompts = 1 / (self.prompts * design.seeds), 1 / (self.seeds * design.prompts)
        by_noise = 1 / (design.seeds * design.prompts) - by_seeds - by_prompts
        freedoms = (self.seeds - 1, self.prompts - 1, (self.seeds - 1) * (self.prompts - 1))
        parts = (of_seeds * by_seeds, of_prompts * by_prompts, noise * by_noise)
        below = sum(part**2 / df for part, df in zip(parts, freedoms, strict=True))
        return max(min(freedoms[:2]), self.error(design) ** 4 / below) if below else FREEDOM
