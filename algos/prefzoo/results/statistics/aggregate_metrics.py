"""Win rates, and aggregates that outliers do not carry (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264)."""

from __future__ import annotations

import numpy as np

from prefzoo.results.statistics.bootstrap import pigeonhole_bootstrap
from prefzoo.results.statistics.hypothesis_tests import proportion
from prefzoo.results.statistics.two_way_anova import Estimate

CHUNK = 25
"""Draws worked on together: as many as fit into a processor's cache."""


def interquartile_mean(table: np.ndarray) -> Estimate:
    """Estimate the mean of the middle half of all values of a (seeds x prompts) table.

    Values at the quartiles count by the share of them that lies within, so that it is exact for any number of values.
    """
    order = np.argsort(table, axis=None)
    values = table.ravel()[order]
    seed, prompt = np.unravel_index(order, table.shape)

    def weighted_mean(seed_weights: np.ndarray, prompt_weights: np.ndarray) -> np.ndarray:
        weights = seed_weights[:, seed] * prompt_weights[:, prompt]
        upper = np.cumsum(weights, 1)
        inside = np.clip(upper, 0.25, 0.75) - np.clip(upper - weights, 0.25, 0.75)
        return inside @ values / inside.sum(1)

    def statistic(*weights: np.ndarray) -> np.ndarray:
        draws = max(map(len, weights))
        chunks = [np.array_split(np.broadcast_to(side, (draws, side.shape[1])), -(-draws // CHUNK)) for side in weights]
        return np.concatenate([weighted_mean(*chunk) for chunk in zip(*chunks, strict=True)])

    return pigeonhole_bootstrap(statistic, *table.shape)[0]


def wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return 1 where a is higher than b, 0.5 where they are equal, else 0."""
    return np.where(a > b, 1.0, np.where(a == b, 0.5, 0.0))


def probability_of_improvement(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Estimate how probably a run of a is higher than a run of b on a prompt: of any seed of a with any seed of b, ties
    half, averaged over prompts. Both are (seeds x prompts) tables of the same shape."""
    seeds, prompts = a.shape
    won = wins(a[:, None], b[None]).reshape(seeds * seeds, prompts)

    def statistic(seed_weights: np.ndarray, prompt_weights: np.ndarray) -> np.ndarray:
        pair_weights = (seed_weights[:, :, None] * seed_weights[:, None]).reshape(len(seed_weights), -1)
        return ((prompt_weights @ won.T) * pair_weights).sum(1)

    plain = pigeonhole_bootstrap(statistic, seeds, prompts)[0]
    return proportion(plain, won.reshape(seeds, seeds, prompts).mean(1))
