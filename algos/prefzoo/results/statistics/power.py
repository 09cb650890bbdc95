"""Power of a comparison: its minimum detectable effect, and the chance that it finds a given difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from prefzoo.results.statistics.two_way_anova import ALPHA, mean_squares, standard_error, tail_distribution

POWER = 0.8
"""The chance of a right verdict that is asked for."""
QUANTILES = (np.arange(32) + 0.5) / 32


@dataclass(frozen=True)
class Design:
    """How large a comparison is."""

    seeds: int
    prompts: int


@dataclass(frozen=True)
class Pilot:
    """A finished comparison of two policies, from which the power of other designs is computed.

    How much seeds differ is known from few seeds only, and a lucky pilot would promise too much. Its mean square is
    therefore no single number here, but spread as what it estimates may be (fiducially: MS df / chi-square), and never
    below the noise, of which it is a part. Prompts are many, and their mean square is taken as it is.

    Attributes:
        squares: mean squares of seeds, prompts and noise.
        design: its size.
    """

    squares: tuple[float, float, float]
    design: Design

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray) -> Pilot:
        """Make one from the paired (seeds x prompts) tables of two policies, with two prompts at least."""
        return cls(mean_squares(a - b), Design(*a.shape))

    def power(self, difference: float, design: Design, family: int = 1) -> float:
        """Return the chance that a comparison of that design calls a true difference, on the right side.

        Args:
            difference: in units of the metric.
            design: with more than one seed only from a pilot with more than one.
            family: how many tests Holm corrects together; the strictest of them is meant.
        """
        critical, error = self._critical_values(design, family)
        return float(_power(abs(difference), critical, error))

    def minimum_detectable_effect(self, design: Design, family: int = 1) -> float:
        """Return the difference that a comparison of that design calls with 80% probability."""
        critical, error = self._critical_values(design, family)
        if not critical.any():
            return 0.0
        high = float(critical.max() + 3 * error.max())
        return float(optimize.brentq(lambda d: _power(d, critical, error) - POWER, 0.0, high, rtol=1e-6))

    def _critical_values(self, design: Design, family: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what a mean must exceed to be called different, for each error that it may have, and these errors."""
        ms_seeds, ms_prompts, noise = self.squares
        seeds, prompts = design.seeds, design.prompts
        var_prompts = max(0.0, (ms_prompts - noise) / self.design.seeds)
        if seeds == 1:
            var_seeds, chi_square = np.zeros(1), np.zeros(1)
        else:
            var_seeds = np.maximum(0.0, ms_seeds / _chi_square(self.design.seeds - 1) - noise) / self.design.prompts
            chi_square = _chi_square(seeds - 1)
        error = np.sqrt(var_seeds / seeds + var_prompts / prompts + noise / (seeds * prompts))
        new_seeds = (prompts * var_seeds + noise)[:, None] * chi_square
        new_prompts = np.full_like(new_seeds, seeds * var_prompts + noise)
        new_noise = np.full_like(new_seeds, noise if seeds > 1 else 0.0)
        estimated, df = standard_error(new_seeds, new_prompts, new_noise, seeds, prompts)
        tail_df, scale = tail_distribution(df, seeds, prompts)
        return special.stdtrit(tail_df, 1 - ALPHA / family / 2) * scale * estimated, error[:, None]


def _chi_square(df: int) -> np.ndarray:
    """Return equally probable values of a mean square with these degrees of freedom, in units of its expectation."""
    return special.chdtri(df, QUANTILES) / df


def _power(difference: float, critical: np.ndarray, error: np.ndarray) -> np.ndarray:
    excess = difference - critical
    z = np.divide(excess, error, out=np.where(excess > 0, np.inf, -np.inf), where=error > 0)
    return special.ndtr(z).mean()
