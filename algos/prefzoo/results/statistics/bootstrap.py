"""Intervals of statistics that are no means: a bootstrap over seeds and over prompts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from prefzoo.results.statistics.estimates import Estimate, from_mean_squares

DRAWS = 500
SEED = 0

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(draws x seeds) and (draws x prompts) weights, each row adding up to 1 -> (draws x ...) values. Of one of the two
there may be a single row, which goes with all rows of the other."""


def resampled(statistic: Statistic, seeds: int, prompts: int) -> list[Estimate]:
    """Estimates of a statistic of seeds and prompts, one for each value it has.

    Seeds alone, prompts alone, and both are drawn again with replacement, `DRAWS` times each, always with the same
    random numbers. The variance over draws of both is, to first order, the sum of the parts of seeds, prompts and
    noise (the pigeonhole bootstrap: Owen 2007, https://arxiv.org/abs/0712.1111), so that the three give the three
    mean squares, from which the interval is made as that of a mean (`estimates`). Few seeds, drawn again, vary less
    than seeds do, by (S - 1) / S, which is undone. The percentiles of the draws themselves are not used: with three
    seeds they cover far too little (docs/calibration.md).
    """
    one = np.full((1, seeds), 1 / seeds), np.full((1, prompts), 1 / prompts)
    drawn = _drawn(seeds, prompts)
    values = statistic(*one).ravel()
    by_seeds, by_prompts, by_both = (
        statistic(*weights).reshape(DRAWS, -1).var(0, ddof=1)
        for weights in ((drawn[0], one[1]), (one[0], drawn[1]), drawn)
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


@lru_cache(maxsize=4)
def _drawn(seeds: int, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    by_seed, by_prompt = (rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n for n in (seeds, prompts))
    return by_seed, by_prompt
