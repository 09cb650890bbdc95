"""Intervals of statistics that are no means: a bootstrap over seeds and over prompts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prefzoo.comparison.statistics.estimates import Estimate, from_mean_squares

DRAWS = 1000
SEED = 0

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(draws x seeds) and (draws x prompts) weights, each row adding up to 1 -> (draws x ...) values"""


def resampled(statistic: Statistic, seeds: int, prompts: int) -> list[Estimate]:
    """Estimates of a statistic of seeds and prompts, one for each value it has.

    Seeds alone, prompts alone, and both are drawn again with replacement, `DRAWS` times each, always with the same
    random numbers. The variance over draws of both is, to first order, the sum of the parts of seeds, prompts and
    noise (the pigeonhole bootstrap: Owen 2007, https://arxiv.org/abs/0712.1111), so that the three give the three
    mean squares, from which the interval is made as that of a mean (`estimates`). Few seeds, drawn again, vary less
    than seeds do, by (S - 1) / S, which is undone. The percentiles of the draws themselves are not used: with three
    seeds they cover far too little (docs/calibration.md).
    """
    rng = np.random.default_rng(SEED)
    one = np.full((1, seeds), 1 / seeds), np.full((1, prompts), 1 / prompts)
    drawn = rng.multinomial(seeds, one[0][0], DRAWS) / seeds, rng.multinomial(prompts, one[1][0], DRAWS) / prompts
    fixed = np.repeat(one[0], DRAWS, 0), np.repeat(one[1], DRAWS, 0)
    values = np.atleast_1d(np.squeeze(statistic(*one), 0)).ravel()
    by_seeds, by_prompts, by_both = (
        statistic(*weights).reshape(DRAWS, -1).var(0, ddof=1)
        for weights in ((drawn[0], fixed[1]), (fixed[0], drawn[1]), drawn)
    )
    undone = [n / (n - 1) if n > 1 else 0.0 for n in (seeds, prompts)]
    by_noise = np.maximum(0.0, by_both - by_seeds - by_prompts)
    parts = np.stack([by_seeds * undone[0], by_prompts * undone[1], by_noise * undone[0] * undone[1]], 1)
    parts[parts < 1e-24] = 0.0  # what rounding leaves of no variance at all
    parts *= seeds * prompts
    return [
        from_mean_squares(float(value), (float(a), float(b), float(e)), seeds, prompts)
        for value, (a, b, e) in zip(values, parts, strict=True)
    ]
