"""What a comparison could have found, and how large one must be to find a difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from prefzoo.results.statistics.estimates import ALPHA, beyond, mean_squares, standard_error

POWER = 0.8
"""The chance of a right verdict that is asked for."""
GRID = (np.arange(32) + 0.5) / 32


def _scaled(freedom: int) -> np.ndarray:
    """Equally probable values of a mean square with these degrees of freedom, in units of its expectation."""
    return special.chdtri(freedom, GRID) / freedom


@dataclass(frozen=True)
class Design:
    """How large a comparison is."""

    seeds: int
    prompts: int


@dataclass(frozen=True)
class Pilot:
    """What a finished comparison of two policies tells of others: its mean squares (seeds, prompts, noise), its size.

    How much seeds differ is known from few seeds only, and a lucky pilot would promise too much. Its mean square is
    therefore no single number here, but spread as what it estimates may be (fiducially: MS df / chi-square), and never
    below the noise, of which it is a part. Prompts are many, and their mean square is taken as it is.
    """

    squares: tuple[float, float, float]
    design: Design

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray) -> Pilot:
        """From the paired (seeds x prompts) tables of two policies, with two prompts at least."""
        return cls(mean_squares(a - b), Design(*a.shape))

    def power(self, difference: float, design: Design, family: int = 1) -> float:
        """The chance that a comparison of that design calls a true difference, on the right side.

        Args:
            difference: in units of the metric.
            design: with more than one seed only from a pilot with more than one.
            family: how many tests Holm corrects together; the strictest of them is meant.
        """
        needed, error = self._test(design, family)
        return float(_chance(abs(difference), needed, error))

    def detectable(self, design: Design, family: int = 1) -> float:
        """The minimum detectable difference: one that a comparison of that design calls with 80% probability."""
        needed, error = self._test(design, family)
        if not needed.any():
            return 0.0
        high = float(needed.max() + 3 * error.max())
        return float(optimize.brentq(lambda d: _chance(d, needed, error) - POWER, 0.0, high, rtol=1e-6))

    def _test(self, design: Design, family: int) -> tuple[np.ndarray, np.ndarray]:
        """What a mean must exceed to be called different, for each of the errors it may have, and these errors."""
        of_seeds, of_prompts, noise = self.squares
        seeds, prompts = design.seeds, design.prompts
        between_prompts = max(0.0, (of_prompts - noise) / self.design.seeds)
        if seeds == 1:
            between_seeds, luck = np.zeros(1), np.zeros(1)
        else:
            spread = of_seeds / _scaled(self.design.seeds - 1)
            between_seeds = np.maximum(0.0, spread - noise) / self.design.prompts
            luck = _scaled(seeds - 1)
        error = np.sqrt(between_seeds / seeds + between_prompts / prompts + noise / (seeds * prompts))
        seen = (prompts * between_seeds + noise)[:, None] * luck
        rest = np.full_like(seen, seeds * between_prompts + noise)
        estimated, freedom = standard_error(seen, rest, np.full_like(seen, noise if seeds > 1 else 0.0), seeds, prompts)
        tail, scale = beyond(freedom, seeds, prompts)
        return special.stdtrit(tail, 1 - ALPHA / family / 2) * scale * estimated, error[:, None]


def _chance(difference: float, needed: np.ndarray, error: np.ndarray) -> np.ndarray:
    distance = difference - needed
    safe = np.divide(distance, error, out=np.where(distance > 0, np.inf, -np.inf), where=error > 0)
    return special.ndtr(safe).mean()
