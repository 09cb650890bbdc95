"""One rating a policy from all wins between policies.

`choix` fits one data set at a time; the bootstrap needs thousands, which here are fitted side by side.
"""

from __future__ import annotations

import numpy as np

from prefzoo.comparison.statistics.aggregates import wins
from prefzoo.comparison.statistics.estimates import Estimate
from prefzoo.comparison.statistics.resampling import resampled


def ratings(tables: np.ndarray) -> list[Estimate]:
    """Bradley-Terry ratings (Bradley and Terry 1952) of policies, the first of which has rating 0.

    Args:
        tables: (policies x seeds x prompts). On each prompt, with each seed, every policy plays every other; the
            higher value wins, ties are half a win for each.

    Returns:
        Ratings in log-odds: the model's odds that i wins over j are exp(rating i - rating j). Every two policies are
        given one tie on top, without which a policy that always wins would have no finite rating.
    """
    count, seeds, prompts = tables.shape
    first, second = np.triu_indices(count, 1)
    each = np.stack([wins(tables[i], tables[j]) for i, j in zip(first, second, strict=True)])

    def statistic(by_seed: np.ndarray, by_prompt: np.ndarray) -> np.ndarray:
        share = np.stack([((by_seed @ table) * by_prompt).sum(1) for table in each], 1)
        share = (share * seeds * prompts + 0.5) / (seeds * prompts + 1)
        matrix = np.zeros((len(share), count, count))
        matrix[:, first, second], matrix[:, second, first] = share, 1 - share
        return bradley_terry(matrix)

    return resampled(statistic, seeds, prompts)


def bradley_terry(matrix: np.ndarray) -> np.ndarray:
    """Maximum-likelihood ratings in log-odds, the first one 0, by Newton's method.

    Args:
        matrix: (draws x policies x policies); [.., i, j] is how often i won over j. Every draw is fitted by itself.

    Returns:
        (draws x policies).
    """
    draws, count, _ = matrix.shape
    games = matrix + matrix.transpose(0, 2, 1)
    rating = np.zeros((draws, count))
    for _ in range(100):
        odds = 1 / (1 + np.exp(rating[:, None, :] - rating[:, :, None]))
        gradient = (matrix - games * odds).sum(2)
        curve = games * odds * (1 - odds)
        hessian = np.eye(count) * curve.sum(2)[:, :, None] - curve
        step = np.clip(np.linalg.solve(hessian[:, 1:, 1:], gradient[:, 1:, None])[..., 0], -1, 1)
        rating[:, 1:] += step
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return rating
