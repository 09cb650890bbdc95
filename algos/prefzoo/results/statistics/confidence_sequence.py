"""An interval for a mean that may be looked at after every observation, for as long as anyone likes.

It is the hedged capital process of Waudby-Smith and Ramdas (2024, Estimating means of bounded random variables by
betting, Journal of the Royal Statistical Society B 86, https://arxiv.org/abs/2010.09686, theorem 3). Against each mean
m somebody bets half of the money that observations are above it, and half that they are below. If m is the mean, nobody
can expect to win, and by Ville's inequality the money ever grows to 1/alpha times its beginning with probability alpha
at most. The interval is what has not been bet away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

GRID = 1001
"""Means at which the money is followed; the ends of the interval are rounded outward to them."""
MOST_BET = 0.5
"""The truncation c of theorem 3: of a bet, as a share of the largest that cannot lose everything."""


def confidence_sequence(values: Sequence[float], alpha: float = 0.05) -> tuple[float, float]:
    """The interval for the mean of observations in [0, 1] after the last of these.

    With probability 1 - alpha or more it holds the mean at every number of observations at once, provided that each
    observation has this mean given those before it. It never grows with more observations.

    Args:
        values: in the order in which they were made.
        alpha: the probability of ever missing the mean.

    Raises:
        ValueError: for values outside [0, 1].
    """
    observed = np.asarray(values, dtype=float)
    if observed.size and not (observed.min() >= 0 and observed.max() <= 1):
        raise ValueError("every value must be from 0 to 1")
    means = np.linspace(0, 1, GRID)
    up, down = np.zeros(GRID), np.zeros(GRID)
    highest = np.full(GRID, -np.inf)
    total, spread = 0.5, 0.25  # as if one observation of 1/2, with variance 1/4, were there before
    room_up, room_down = MOST_BET / np.maximum(means, 1e-12), MOST_BET / np.maximum(1 - means, 1e-12)
    for t, value in enumerate(observed, 1):
        # The predictable plug-in bet: it knows only the observations before this one.
        bet = math.sqrt(2 * math.log(2 / alpha) / (spread * math.log(t + 1)))
        up += np.log1p(np.minimum(bet, room_up) * (value - means))
        down += np.log1p(-np.minimum(bet, room_down) * (value - means))
        highest = np.maximum(highest, np.maximum(up, down))
        total += value
        spread += (value - total / (t + 1)) ** 2
    # Each direction began with half of the money, so that either must make 2 / alpha times what it had.
    left = np.flatnonzero(highest < math.log(2 / alpha)) if observed.size else np.arange(GRID)
    if not left.size:  # the mean changed on the way
        best = float(np.clip(observed.mean(), 0, 1))
        return best, best
    return float(means[max(left[0] - 1, 0)]), float(means[min(left[-1] + 1, GRID - 1)])
