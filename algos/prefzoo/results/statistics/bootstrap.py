"""A bootstrap over seeds and over prompts for statistics that are not means: the interquartile mean and the
probability of improvement (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from prefzoo.results.statistics.hypothesis_tests import proportion
from prefzoo.results.statistics.prompt_groups import Groups, group_means
from prefzoo.results.statistics.two_way_anova import Estimate, estimate_from_mean_squares

DRAWS = 500
SEED = 0
CHUNK = 25
"""Draws worked on together: as many as fit into a processor's cache."""

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


def interquartile_mean(table: np.ndarray, groups: Groups = None) -> Estimate:
    """Estimate the mean of the middle half of all values of a (seeds x prompts) table, each group of prompts counting
    once.

    Values at the quartiles count by the share of them that lies within, so that it is exact for any number of values.
    """
    order = np.argsort(table, axis=None)
    values = table.ravel()[order]
    seed, prompt = np.unravel_index(order, table.shape)
    size = np.ones(1) if groups is None else np.bincount(groups)
    group = prompt if groups is None else groups[prompt]

    def weighted_mean(seed_weights: np.ndarray, group_weights: np.ndarray) -> np.ndarray:
        weights = seed_weights[:, seed] * (group_weights / size)[:, group]
        upper = np.cumsum(weights, 1)
        inside = np.clip(upper, 0.25, 0.75) - np.clip(upper - weights, 0.25, 0.75)
        return inside @ values / inside.sum(1)

    def statistic(*weights: np.ndarray) -> np.ndarray:
        draws = max(map(len, weights))
        chunks = [np.array_split(np.broadcast_to(side, (draws, side.shape[1])), -(-draws // CHUNK)) for side in weights]
        return np.concatenate([weighted_mean(*chunk) for chunk in zip(*chunks, strict=True)])

    return pigeonhole_bootstrap(statistic, len(table), table.shape[1] if groups is None else len(size))[0]


def wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return 1 where a is higher than b, 0.5 where they are equal, else 0."""
    return np.where(a > b, 1.0, np.where(a == b, 0.5, 0.0))


def probability_of_improvement(a: np.ndarray, b: np.ndarray, groups: Groups = None) -> Estimate:
    """Estimate how probably a run of a is higher than a run of b on a prompt: of any seed of a with any seed of b, ties
    half, averaged over prompts, or groups of them. Both are (seeds x prompts) tables of the same shape."""
    seeds = len(a)
    won = group_means(wins(a[:, None], b[None]).reshape(seeds * seeds, -1), groups)
    prompts = won.shape[1]

    def statistic(seed_weights: np.ndarray, prompt_weights: np.ndarray) -> np.ndarray:
        pair_weights = (seed_weights[:, :, None] * seed_weights[:, None]).reshape(len(seed_weights), -1)
        return ((prompt_weights @ won.T) * pair_weights).sum(1)

    plain = pigeonhole_bootstrap(statistic, seeds, prompts)[0]
    return proportion(plain, won.reshape(seeds, seeds, prompts).mean(1))
