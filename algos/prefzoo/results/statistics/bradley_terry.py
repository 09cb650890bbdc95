"""One rating a policy from all wins between policies.

`choix` fits one data set at a time; the bootstrap needs thousands, which here are fitted side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from prefzoo.results.statistics.aggregates import wins
from prefzoo.results.statistics.bootstrap import resampled
from prefzoo.results.statistics.estimates import ALPHA, Estimate
from prefzoo.results.statistics.unvaried import effective


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

    games = seeds * prompts

    def fitted(share: np.ndarray) -> np.ndarray:
        matrix = np.zeros((len(share), count, count))
        matrix[:, first, second], matrix[:, second, first] = share, 1 - share
        return bradley_terry(matrix)

    def statistic(by_seed: np.ndarray, by_prompt: np.ndarray) -> np.ndarray:
        share = np.stack([((by_seed @ table) * by_prompt).sum(1) for table in each], 1)
        return fitted((share * games + 0.5) / (games + 1))

    found = resampled(statistic, seeds, prompts)
    separate = [i for i, table in enumerate(each) if np.all(table == 0) or np.all(table == 1)]
    if not separate or games == 1:
        return found
    share = (each.mean((1, 2)) * games + 0.5) / (games + 1)
    return _widened(found, fitted, share, separate, effective(each[0]))


def _widened(
    found: Sequence[Estimate],
    fitted: Callable[[np.ndarray], np.ndarray],
    share: np.ndarray,
    separate: Sequence[int],
    prompts: int,
) -> list[Estimate]:
    """The ratings with the error of those pairs of which one always won, which do not vary when drawn again.

    To each such pair the binomial variance of its share with the tie on top is given, over so many prompts; what that
    makes of a rating is its gradient by that share, squared, times the variance.
    """
    step = 1e-6
    moved = np.repeat(share[None], len(separate) + 1, 0)
    moved[np.arange(1, len(separate) + 1), separate] += np.where(share[separate] > 0.5, -step, step)
    ratings = fitted(moved)
    variances = share[separate] * (1 - share[separate]) / (prompts + 2)
    more = (((ratings[1:] - ratings[0]) / step) ** 2 * variances[:, None]).sum(0)
    wider = []
    for each, added in zip(found, more, strict=True):
        error = float(np.sqrt(each.error**2 + added))
        freedom = max(each.freedom, prompts - 1.0)
        half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error if error else 0.0
        half = max(half, each.high - each.mean)
        p = float(2 * stats.t.sf(abs(each.mean) / error, freedom)) if error else each.p
        wider.append(Estimate(each.mean, each.mean - half, each.mean + half, max(p, each.p), error, freedom))
    return wider


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
