"""Bradley-Terry ratings of policies from all wins between them.

`choix` fits one data set at a time; the bootstrap needs thousands, which here are fitted side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from prefzoo.results.statistics.bootstrap import pigeonhole_bootstrap, wins
from prefzoo.results.statistics.hypothesis_tests import sample_size
from prefzoo.results.statistics.prompt_groups import Groups, group_means
from prefzoo.results.statistics.two_way_anova import ALPHA, Estimate


def bradley_terry_ratings(tables: np.ndarray, groups: Groups = None) -> list[Estimate]:
    """Rate policies (Bradley and Terry 1952); the first has rating 0.

    Args:
        tables: (policies x seeds x prompts). On each prompt, with each seed, every policy plays every other; the
            higher value wins, ties are half a win for each.
        groups: of the prompts; each counts as one game.

    Returns:
        Ratings in log-odds: the model's odds that i wins over j are exp(rating i - rating j). Every two policies are
        given one tie on top, without which a policy that always wins would have no finite rating.
    """
    policies = len(tables)
    first, second = np.triu_indices(policies, 1)
    won = np.stack([group_means(wins(tables[i], tables[j]), groups) for i, j in zip(first, second, strict=True)])
    _, seeds, prompts = won.shape
    games = seeds * prompts

    def fit(win_rates: np.ndarray) -> np.ndarray:
        matrix = np.zeros((len(win_rates), policies, policies))
        matrix[:, first, second], matrix[:, second, first] = win_rates, 1 - win_rates
        return fit_bradley_terry(matrix)

    def statistic(seed_weights: np.ndarray, prompt_weights: np.ndarray) -> np.ndarray:
        win_rates = np.stack([((seed_weights @ table) * prompt_weights).sum(1) for table in won], 1)
        return fit((win_rates * games + 0.5) / (games + 1))

    ratings = pigeonhole_bootstrap(statistic, seeds, prompts)
    one_sided = [i for i, table in enumerate(won) if np.all(table == 0) or np.all(table == 1)]
    if not one_sided or games == 1:
        return ratings
    win_rates = (won.mean((1, 2)) * games + 0.5) / (games + 1)
    return _widen(ratings, fit, win_rates, one_sided, sample_size(won[0]))


def _widen(
    ratings: Sequence[Estimate],
    fit: Callable[[np.ndarray], np.ndarray],
    win_rates: np.ndarray,
    one_sided: Sequence[int],
    prompts: int,
) -> list[Estimate]:
    """Add the error of those pairs of which one always won, which the bootstrap cannot see.

    Each such pair's win rate (with the tie on top) is given its binomial variance over so many prompts; what that makes
    of a rating is its gradient by that win rate, squared, times the variance.
    """
    step = 1e-6
    moved = np.repeat(win_rates[None], len(one_sided) + 1, 0)
    moved[np.arange(1, len(one_sided) + 1), one_sided] += np.where(win_rates[one_sided] > 0.5, -step, step)
    fitted = fit(moved)
    variances = win_rates[one_sided] * (1 - win_rates[one_sided]) / (prompts + 2)
    added = (((fitted[1:] - fitted[0]) / step) ** 2 * variances[:, None]).sum(0)
    widened = []
    for rating, variance in zip(ratings, added, strict=True):
        error = float(np.sqrt(rating.error**2 + variance))
        df = max(rating.df, prompts - 1.0)
        half = float(stats.t.ppf(1 - ALPHA / 2, df)) * error if error else 0.0
        half = max(half, rating.high - rating.mean)
        p = float(2 * stats.t.sf(abs(rating.mean) / error, df)) if error else rating.p
        widened.append(Estimate(rating.mean, rating.mean - half, rating.mean + half, max(p, rating.p), error, df))
    return widened


def fit_bradley_terry(matrix: np.ndarray) -> np.ndarray:
    """Return maximum-likelihood ratings in log-odds, the first one 0, by Newton's method.

    Args:
        matrix: (draws x policies x policies); [.., i, j] is how often i won over j. Every draw is fitted by itself.

    Returns:
        (draws x policies).
    """
    draws, policies, _ = matrix.shape
    games = matrix + matrix.transpose(0, 2, 1)
    ratings = np.zeros((draws, policies))
    for _ in range(100):
        odds = 1 / (1 + np.exp(ratings[:, None, :] - ratings[:, :, None]))
        gradient = (matrix - games * odds).sum(2)
        curvature = games * odds * (1 - odds)
        hessian = np.eye(policies) * curvature.sum(2)[:, :, None] - curvature
        step = np.clip(np.linalg.solve(hessian[:, 1:, 1:], gradient[:, 1:, None])[..., 0], -1, 1)
        ratings[:, 1:] += step
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return ratings
