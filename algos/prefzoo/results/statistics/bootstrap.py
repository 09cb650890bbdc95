"""Intervals of statistics that are not means: a bootstrap over seeds and over prompts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from prefzoo.results.statistics.two_way_anova import Estimate, estimate_from_mean_squares

DRAWS = 500
SEED = 0

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(draws x seeds) and (draws x prompts) weights, each row adding up to 1 -> (draws x ...) values. Of one of the two
there may be a single row, which goes with all rows of the other."""


def pigeonhole_bootstrap(statistic: Statistic, seeds: int, prompts: int) -> list[Estimate]:
    """Estimate each value of a statistic of seeds and prompts.

    Seeds alone, prompts alone, and both are drawn again with replacement, `DRAWS` times each, always with the same
    random numbers. The variance over draws of both is, to first order, the sum of the parts of seeds, prompts and
    noise (Owen 2007, https://arxiv.org/abs/0712.1111), so that the three give the three mean squares, from which the
    interval is made as that of a mean (`two_way_anova`). Few seeds, drawn again, vary less than seeds do, by
    (S - 1) / S, which is undone. The percentiles of the draws themselves are not used: with three seeds they cover far
    too little (docs/calibration.md).
    """
    equal = np.full((1, seeds), 1 / seeds), np.full((1, prompts), 1 / prompts)
    drawn = _draw_weights(seeds, prompts)
    values = statistic(*equal).ravel()
    var_seeds, var_prompts, var_both = (
        statistic(*weights).reshape(DRAWS, -1).var(0, ddof=1)
        for weights in ((drawn[0], equal[1]), (equal[0], drawn[1]), drawn)
    )
    unbias_seeds, unbias_prompts = (n / (n - 1) if n > 1 else 0.0 for n in (seeds, prompts))
    var_noise = np.maximum(0.0, var_both - var_seeds - var_prompts)
    squares = np.stack(
        [var_seeds * unbias_seeds, var_prompts * unbias_prompts, var_noise * unbias_seeds * unbias_prompts], 1
    )
    squares[squares < 1e-24] = 0.0  # what rounding leaves of no variance at all
    squares *= seeds * prompts
    return [
        estimate_from_mean_squares(float(value), (float(a), float(b), float(c)), seeds, prompts)
        for value, (a, b, c) in zip(values, squares, strict=True)
    ]


@lru_cache(maxsize=4)
def _draw_weights(seeds: int, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    seed_weights, prompt_weights = (rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n for n in (seeds, prompts))
    return seed_weights, prompt_weights
