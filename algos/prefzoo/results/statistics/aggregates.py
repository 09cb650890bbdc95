"""Statistics that outliers do not carry (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264), and win rates."""

from __future__ import annotations

import numpy as np

from prefzoo.results.statistics.bootstrap import resampled
from prefzoo.results.statistics.estimates import Estimate
from prefzoo.results.statistics.unvaried import share

AT_ONCE = 25
"""Draws worked on together: as many as fit into a processor's cache."""


def interquartile_mean(table: np.ndarray) -> Estimate:
    """The mean of the middle half of all values of a (seeds x prompts) table.

    Values at the quartiles count by the share of them that lies within, so that it is exact for any number of values.
    """
    order = np.argsort(table, axis=None)
    values = table.ravel()[order]
    seed, prompt = np.unravel_index(order, table.shape)

    def middle(seeds: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        weights = seeds[:, seed] * prompts[:, prompt]
        upper = np.cumsum(weights, 1)
        inside = np.clip(upper, 0.25, 0.75) - np.clip(upper - weights, 0.25, 0.75)
        return inside @ values / inside.sum(1)

    def statistic(seeds: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        draws = max(len(seeds), len(prompts))
        sides = [
            np.array_split(np.broadcast_to(side, (draws, side.shape[1])), -(-draws // AT_ONCE))
            for side in (seeds, prompts)
        ]
        return np.concatenate([middle(*part) for part in zip(*sides, strict=True)])

    return resampled(statistic, *table.shape)[0]


def wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where a is higher than b, as 1; equal as 0.5."""
    return np.where(a > b, 1.0, np.where(a == b, 0.5, 0.0))


def probability_of_improvement(a: np.ndarray, b: np.ndarray) -> Estimate:
    """How probably a run of a is higher than a run of b on a prompt: of any seed of a with any seed of b, ties half,
    averaged over prompts. Both are (seeds x prompts) tables of the same shape."""
    seeds, prompts = a.shape
    each = wins(a[:, None], b[None]).reshape(seeds * seeds, prompts)

    def statistic(by_seed: np.ndarray, by_prompt: np.ndarray) -> np.ndarray:
        pairs = (by_seed[:, :, None] * by_seed[:, None]).reshape(len(by_seed), -1)
        return ((by_prompt @ each.T) * pairs).sum(1)

    return share(resampled(statistic, seeds, prompts)[0], each.reshape(seeds, seeds, prompts).mean(1))
