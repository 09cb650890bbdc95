"""What people would say on all test replies, from what a judge says on all and people say on some.

Prediction-powered inference (Angelopoulos et al. 2023, Science 382:669; https://arxiv.org/abs/2301.09633): the judge's
mean over all replies, and the mean over those that people answered of how far the judge was from them, which corrects
it. Whatever the judge's error or bias, what is estimated is the people's mean. With power tuning (Angelopoulos, Duchi,
Zrnic 2023, https://arxiv.org/abs/2311.01453) the judge counts by a factor, here the slope of people's answers on the
judge's: 0 leaves people alone, 1 is the plain method. Each prompt is corrected with a slope that was fitted without it
(as in Zrnic and Candes 2024, https://arxiv.org/abs/2309.16598, with as many folds as prompts), so that no answer is
used twice, and every slope is shrunk to 0 by 1 - 1 / F, the more the less it is known: F is its square over its squared
error.

Answers that were chosen with different probabilities are weighted by the inverse of these (Hajek 1971), so that those
asked stand for all. The estimate is then the mean over a (seeds x prompts) table: what the judge says, times the slope,
and where people answered, the weighted residual too. What seeds' means differ by, all noise of answers in it, has
S - 1 degrees of freedom; what prompts add, whose replies of several seeds are alike, has as many as people answered
prompts. With two seeds Satterthwaite's approximation to the sum of two such parts is too bold (88 to 96% coverage), and
each part with its own t too cautious (94 to 98%). The square of the half width is their geometric mean, in which the
second counts `CAUTION` (93 to 97%; docs/calibration.md). Few seeds may by luck agree to the digit, answers being yes or
no: the interval is never narrower than `LEAST` of the one that prompts alone give. And people may by luck not
contradict a good judge once: the error of its correction is taken to be as if they had, by the share `UNSEEN` of an
answer, at least. The interval is then made Wilson's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from prefzoo.results.statistics.hypothesis_tests import clopper_pearson_bound
from prefzoo.results.statistics.prompt_groups import Groups, group_means
from prefzoo.results.statistics.two_way_anova import ALPHA, Estimate, mean_squares

CAUTION = 2 / 3
LEAST = 0.3
UNSEEN = 0.5
NO_TEST = 1.0
"""The p-value of a share, of which nothing is tested."""


@dataclass(frozen=True)
class PredictionPowered:
    """A share by people's answers alone, and joined with a judge's.

    Attributes:
        people, joined: with intervals over other prompts and other seeds.
        people_here, joined_here: the same, with intervals over other prompts with these seeds alone.
        slope: by which the judge's verdicts count, the mean over prompts.
        correlation: of people's and the judge's verdicts, weighted; None where either does not vary.
        answered: replies with an answer.
        worth: how many answers alone would err as little as these with the judge.
    """

    people: Estimate
    joined: Estimate
    people_here: Estimate
    joined_here: Estimate
    slope: float
    correlation: float | None
    answered: int
    worth: float


def prediction_powered(
    judge: np.ndarray,
    people: np.ndarray,
    weights: np.ndarray | None = None,
    groups: Groups = None,
    known: np.ndarray | None = None,
) -> PredictionPowered:
    """Estimate the mean of people's verdicts over a (seeds x prompts) table.

    Args:
        judge: (seeds x prompts), from 0 to 1.
        people: the same, with NaN where nobody answered; every seed has an answer.
        weights: the inverse of the probability of each reply to be asked, up to a factor; None where all are alike.
        groups: of the prompts, each of which counts once.
        known: the same, with what is sure without asking (two equal replies are a tie) and NaN elsewhere; that is used
            as it is, and the answers stand for the other replies alone.
    """
    sure = np.zeros(judge.shape, bool) if known is None else ~np.isnan(known)
    asked = ~np.isnan(people) & ~sure
    prompts = judge.shape[1]
    groups = np.arange(prompts) if groups is None else groups
    # so that the mean of every table over groups is its sum with these
    target = np.broadcast_to(1 / (np.bincount(groups)[groups] * (groups.max() + 1) * len(judge)), judge.shape)
    open_share = float((target * ~sure).sum()) if sure.any() else 1.0
    target = target / open_share  # so that it adds up to 1 over the replies that are not sure
    weights = np.where(asked, target if weights is None else target * weights, 0.0)
    weights = weights / weights.sum()
    answers = np.where(asked, people, 0.0)
    verdicts = np.where(sure, 0.0, judge - float((judge * target * ~sure).sum()))
    slopes = _slopes_without_each_group(verdicts, answers, weights, groups)
    correlation = _correlation(verdicts, answers, weights)

    def table(slope: np.ndarray) -> np.ndarray:
        residuals = answers - slope * verdicts
        mean = float((weights * residuals).sum())
        inside = float((weights * slope).sum())
        values = mean + inside * verdicts + np.where(asked, weights / target * (residuals - mean), 0.0)
        return values if known is None else np.where(sure, known, values)

    slope = float((weights * slopes).sum())
    residuals = answers - slopes * verdicts
    spread = weights**2 * (residuals - (weights * residuals).sum()) ** 2
    unseen = UNSEEN * (slope * float((weights**2).sum())) ** 2 - float(spread.sum())
    unseen = max(0.0, unseen) * open_share**2 * (1 - float(asked.sum() / (~sure).sum()))
    answered_groups = len(np.unique(groups[asked.any(0)]))
    if np.ptp(answers[asked]) == 0:
        sure_part = 0.0 if known is None else float(np.where(sure, known * target, 0.0).sum()) * open_share
        alike = _all_alike(float(answers[asked][0]), answered_groups, sure_part, open_share)
        people_all = people_here = joined = joined_here = alike
    else:
        people_all, people_here = _estimates(group_means(table(np.zeros(prompts)), groups), answered_groups, 0.0)
        joined, joined_here = _estimates(group_means(table(slopes), groups), answered_groups, unseen)
    return PredictionPowered(
        people=people_all,
        joined=joined,
        people_here=people_here,
        joined_here=joined_here,
        slope=slope,
        correlation=correlation,
        answered=int(asked.sum()),
        worth=_worth(verdicts, answers, weights, slopes, int((~sure).sum())),
    )


def _slopes_without_each_group(
    verdicts: np.ndarray, answers: np.ndarray, weights: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Return for each prompt the slope of answers on verdicts by weighted least squares over all other groups, shrunk
    to 0; 0 where the others are fewer than three, or all verdicts on them the same."""
    x, y, w = verdicts, answers, weights
    columns = (w, w * x, w * y, w * x * x, w * x * y, w * y * y, w * w)
    of_groups = np.stack([np.bincount(groups, column.sum(0)) for column in columns])
    total, sum_x, sum_y, xx, xy, yy, squares = of_groups.sum(1, keepdims=True) - of_groups
    with np.errstate(divide="ignore", invalid="ignore"):
        ss_x, ss_xy, ss_y = xx - sum_x**2 / total, xy - sum_x * sum_y / total, yy - sum_y**2 / total
        slope = ss_xy / ss_x
        effective = total**2 / squares  # answers of equal weight that would be worth as much (Kish 1965)
        f = slope * ss_xy * (effective - 2) / (ss_y - slope * ss_xy)
        shrunk = slope * np.clip(1 - 1 / f, 0, 1)
    known = (ss_x > 1e-9 * total) & (effective > 2.5) & (ss_y > 1e-9 * total)
    shrunk = np.where(ss_y - slope * ss_xy <= 1e-12 * ss_y, slope, shrunk)  # an exact fit has an infinite F
    return np.where(known, shrunk, 0.0)[groups]


def _correlation(verdicts: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> float | None:
    (x, y) = (values - (weights * values).sum() for values in (verdicts, answers))
    scale = float(np.sqrt((weights * x * x).sum() * (weights * y * y).sum()))
    return float((weights * x * y).sum()) / scale if scale > 1e-12 else None


def _estimates(table: np.ndarray, answered: int, unseen: float) -> tuple[Estimate, Estimate]:
    """Estimate the mean of a (seeds x groups) table over other seeds and groups, and over other groups alone.

    Args:
        answered: groups in which people answered.
        unseen: squared error of what no answer showed yet.
    """
    mean, (ms_seeds, ms_prompts, ms_noise) = float(table.mean()), mean_squares(table)
    seeds, prompts = table.shape
    both, here = half_widths((ms_seeds, ms_prompts + unseen * table.size, ms_noise), seeds, prompts, answered)
    return share_estimate(mean, both), share_estimate(mean, here)


def half_widths(squares: tuple[float, float, float], seeds: int, prompts: int, answered: int) -> tuple[float, float]:
    """Return half the widths of the plain intervals of a mean over other seeds and prompts, and over other prompts
    alone, from the mean squares of seeds, prompts and noise; people answered about so many prompts."""
    ms_seeds, ms_prompts, ms_noise = squares
    size, df = seeds * prompts, max(1, answered - 1)
    here = _t(df) * (ms_prompts / size) ** 0.5 if prompts > 1 else float("inf")
    if seeds == 1:
        return here, here
    added = max(0.0, ms_prompts - ms_noise)
    square = ms_seeds + added
    parts = ms_seeds**2 / (seeds - 1) + added**2 / df
    satterthwaite = max(seeds - 1.0, square**2 / parts) if parts > 0 else float(df)
    together = _t(satterthwaite) ** 2 * square
    apart = _t(seeds - 1) ** 2 * ms_seeds + _t(df) ** 2 * added
    half = (together ** (1 - CAUTION) * apart**CAUTION / size) ** 0.5
    return max(half, LEAST * here), here


def _t(df: float) -> float:
    return float(special.stdtrit(df, 1 - ALPHA / 2))


def share_estimate(mean: float, half: float) -> Estimate:
    """Return the estimate of a share with Wilson's interval, of as many independent answers as have a plain interval of
    this half width; what the correction of a judge brings beyond 0 or 1 is cut."""
    share = min(1.0, max(0.0, mean))
    low, high, variance = mean - half, mean + half, share * (1 - share)
    if variance > 0 and half < np.inf:
        ratio = half**2 / variance
        centre, reach = share + ratio / 2, (half**2 + ratio**2 / 4) ** 0.5
        low, high = (centre - reach) / (1 + ratio), (centre + reach) / (1 + ratio)
    error = half / _t(np.inf)
    return Estimate(share, max(0.0, low), min(1.0, high), NO_TEST, error, float("inf"))


def _all_alike(answer: float, answered: int, sure: float, share: float) -> Estimate:
    """Return the interval where people said the same of so many prompts: at most the share of Clopper and Pearson of
    all prompts has another answer.

    Args:
        sure: what the mean has of replies that nobody had to be asked about.
        share: of the other ones.
    """
    bound = clopper_pearson_bound(answered)
    mean, low, high = (sure + share * end for end in (answer, answer * (1 - bound), answer + bound * (1 - answer)))
    return Estimate(mean, low, high, NO_TEST, 0.0, max(1, answered - 1))


def _worth(
    verdicts: np.ndarray, answers: np.ndarray, weights: np.ndarray, slopes: np.ndarray, all_replies: int
) -> float:
    """Return how many answers without the judge would leave the same error of asking some and not all."""
    residuals = answers - slopes * verdicts
    left, alone = (float((weights * (v - (weights * v).sum()) ** 2).sum()) for v in (residuals, answers))
    n = int((weights > 0).sum())
    if alone == 0 or n == all_replies:
        return float(n)
    return 1 / (1 / all_replies + (1 / n - 1 / all_replies) * left / alone)
