"""How good a reward is: on held-out pairs, and against the truth where there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from scipy import stats

from prefzoo.data.agreement import clustered_wilson
from prefzoo.data.formats import Row
from prefzoo.data.row_views import cluster_of, distinct_pairs
from prefzoo.types import Message, Reward, Truth
from prefzoo.views import prompt_key

ASKED = 128
"""Prompts of which the best of four is asked, and of sets of equally good replies: each takes scores of its own."""


def reward_report(
    reward: Reward,
    rows: Sequence[Row],
    gold: Truth | None,
    attribute: str | None = None,
) -> dict[str, Any]:
    """Held-out accuracy and correlation with gold, each with a 95% interval.

    Args:
        reward: what is judged.
        rows: test rows; the reward has seen none of their prompts. Of several votes on two replies most decide.
        gold: the truth, or None.
        attribute: in which respect the reward has learned from ratings.

    Returns:
        `test_accuracy`: the share of test pairs in which the chosen reply scores higher (a tie counts half), `ci95`
        its Wilson interval, for which pairs of one prompt or group are a cluster, `test_pairs` their number, `ties`;
        where test replies are labelled one by one, `label_auc`: the chance that a liked one scores above one that was
        not liked (a tie counts half), of `labelled_replies`; `best_of_four`, of `best_of_four_prompts`: how often the
        chosen reply scores above the rejected one and two replies that were chosen for other prompts, with its interval
        (after RewardBench 2, Malik et al. 2025, https://arxiv.org/abs/2506.01937; chance is 0.25; not of a judge, who
        is asked no more than needed); `equal_above`: of `equal_sets`, how often all of several equally good replies
        score above all worse ones (`equal_chance` by chance), and `equal_alike`: how often they are also nearer to one
        another than to these, each with its interval ("ties" there; see `EqualSet`); and with a truth
        `gold_correlation`, Pearson's, over all replies of the test pairs, with `gold_correlation_ci95` by Fisher's z
        over the number of prompts. With an `attribute`, that, and with its interval `attribute_correlation`, with the
        ratings in that respect of `rated_replies` of the test split.
    """
    pairs = distinct_pairs(rows)
    labels = {**_label_report(reward, rows), **(_attribute_report(reward, rows, attribute) if attribute else {})}
    prompts = [row.prompt for row in pairs]
    chosen = [row.chosen or "" for row in pairs]
    rejected = [row.rejected or "" for row in pairs]
    if not pairs:
        return {"test_accuracy": None, "ci95": None, "test_pairs": 0, "ties": 0, **labels}
    better, worse = reward(prompts, chosen), reward(prompts, rejected)
    ties = sum(a == b for a, b in zip(better, worse, strict=True))
    wins = sum(a > b for a, b in zip(better, worse, strict=True))
    right = [0.5 if a == b else float(a > b) for a, b in zip(better, worse, strict=True)]
    clusters = [cluster_of(row) for row in pairs]
    report: dict[str, Any] = {
        "test_accuracy": (wins + ties / 2) / len(pairs),
        "ci95": list(clustered_wilson(right, clusters)),
        "test_pairs": len(pairs),
        "ties": ties,
        "mean_margin": (sum(better) - sum(worse)) / len(pairs),
        **labels,
    }
    if not getattr(reward, "questions", False):  # a judge was asked about the pairs
        report |= _best_of_four(reward, pairs, better, worse, clusters)
        report |= _on_equals(reward, _sets_by_gold(pairs, gold) if gold else _sets_by_ratings(rows, attribute))
    if gold is not None:
        truth = [part["gold"] for part in gold([*prompts, *prompts], [*chosen, *rejected])]
        scores = [*better, *worse]
        if len(set(truth)) > 1 and len(set(scores)) > 1:
            report["gold_correlation"], report["gold_correlation_ci95"] = _correlation(scores, truth, clusters)
    return report


def _correlation(scores: Sequence[float], truth: Sequence[float], clusters: Sequence[str]) -> tuple[float, list[float]]:
    """Return Pearson's correlation, and its interval by Fisher's z. Replies that share a prompt are not independent:
    counting prompts keeps the interval honest."""
    found = float(stats.pearsonr(scores, truth).statistic)
    half = stats.norm.ppf(0.975) / max(1.0, (len(set(clusters)) - 3)) ** 0.5
    z = math.atanh(max(-0.999999, min(0.999999, found)))
    return found, [math.tanh(z - half), math.tanh(z + half)]


def _attribute_report(reward: Reward, rows: Sequence[Row], attribute: str) -> dict[str, Any]:
    """Return how scores go with the test split's ratings in one respect; no correlation where either is constant."""
    rated = [row for row in rows if row.attributes is not None]
    truth = [row.attributes[attribute] for row in rated if row.attributes]
    scores = reward([row.prompt for row in rated], [row.reply or "" for row in rated]) if rated else []
    report: dict[str, Any] = {"attribute": attribute, "rated_replies": len(rated)}
    if len(set(truth)) > 1 and len(set(scores)) > 1:
        found, interval = _correlation(scores, truth, [cluster_of(row) for row in rated])
        report |= {"attribute_correlation": found, "attribute_correlation_ci95": interval}
    return report


def _best_of_four(
    reward: Reward, pairs: Sequence[Row], better: Sequence[float], worse: Sequence[float], clusters: Sequence[str]
) -> dict[str, Any]:
    """Return `best_of_four`, `best_of_four_ci95` and `best_of_four_prompts`; a reply that ties with others for the
    highest score counts as its share of them. Empty where there are not three prompts."""
    firsts = {clusters[i]: i for i in reversed(range(len(pairs)))}  # one pair of each prompt
    asked = [firsts[cluster] for cluster in list(dict.fromkeys(clusters))[:ASKED]]
    if len(asked) < 3:
        return {}
    right = []
    others = [[asked[(place + ahead) % len(asked)] for place in range(len(asked))] for ahead in (1, 2)]
    prompts = [pairs[i].prompt for i in asked]
    strange = [reward(prompts, [pairs[i].chosen or "" for i in of_others]) for of_others in others]
    for place, i in enumerate(asked):
        against = [worse[i], *(scores[place] for scores in strange)]
        best = better[i] >= max(against)
        right.append(1 / (1 + sum(score == better[i] for score in against)) if best else 0.0)
    interval = clustered_wilson(right, [clusters[i] for i in asked])
    return {
        "best_of_four": sum(right) / len(right),
        "best_of_four_ci95": list(interval),
        "best_of_four_prompts": len(right),
    }


@dataclass(frozen=True)
class EqualSet:
    """Replies to one prompt that are equally good, and worse ones."""

    prompt: list[Message]
    right: list[str]
    wrong: list[str]
    cluster: str


def _sets_by_gold(pairs: Sequence[Row], gold: Truth) -> list[EqualSet]:
    """Both replies of pairs to which the truth gives the same, beside those of the replies chosen for the next two
    prompts that are worse here."""
    firsts = [*{cluster_of(row): row for row in reversed(pairs)}.values()][::-1]  # one pair of each prompt
    prompts = [row.prompt for row in firsts]

    def truth(texts: Sequence[str | None]) -> list[float]:
        return [part["gold"] for part in gold(prompts, [text or "" for text in texts])]

    chosen = [row.chosen for row in firsts]
    strange = [chosen[ahead:] + chosen[:ahead] for ahead in (1, 2)]
    values = [truth(texts) for texts in (chosen, [row.rejected for row in firsts], *strange)]
    sets = []
    for i, row in enumerate(firsts):
        wrong = {strange[k][i] or "" for k in range(2) if values[2 + k][i] < values[0][i]}
        if values[0][i] == values[1][i] and wrong:
            sets.append(EqualSet(row.prompt, [row.chosen or "", row.rejected or ""], sorted(wrong), cluster_of(row)))
    return sets


def _sets_by_ratings(rows: Sequence[Row], attribute: str | None) -> list[EqualSet]:
    """Prompts of which several replies have the highest rating, in this respect where one is given, and others have a
    lower one."""
    by_prompt: dict[str, list[tuple[Row, float]]] = {}
    for row in rows:
        rating = row.rating if attribute is None else (row.attributes or {}).get(attribute)
        if rating is not None:
            by_prompt.setdefault(prompt_key(row.prompt), []).append((row, rating))
    sets = []
    for rated in by_prompt.values():
        highest, first = max(rating for _, rating in rated), rated[0][0]
        right = [row.reply or "" for row, rating in rated if rating == highest]
        wrong = [row.reply or "" for row, rating in rated if rating != highest]
        if len(right) > 1 and wrong:
            sets.append(EqualSet(first.prompt, right, wrong, cluster_of(first)))
    return sets


def _on_equals(reward: Reward, sets: Sequence[EqualSet]) -> dict[str, Any]:
    """Return what `reward_report` says of sets of equally good replies; empty without a set."""
    sets = sets[:ASKED]
    if not sets:
        return {}
    asked = [(each.prompt, text) for each in sets for text in (*each.right, *each.wrong)]
    scores = iter(reward([prompt for prompt, _ in asked], [text for _, text in asked]))
    above, alike = [], []
    for each in sets:
        right, wrong = list(islice(scores, len(each.right))), list(islice(scores, len(each.wrong)))
        gap = min(right) - max(wrong)
        above.append(float(gap > 0))
        alike.append(float(gap > 0 and max(right) - min(right) < gap))
    clusters = [each.cluster for each in sets]
    by_chance = [1 / math.comb(len(each.right) + len(each.wrong), len(each.right)) for each in sets]
    return {
        "equal_above": sum(above) / len(sets),
        "equal_above_ci95": list(clustered_wilson(above, clusters)),
        "equal_alike": sum(alike) / len(sets),
        "equal_alike_ci95": list(clustered_wilson(alike, clusters)),
        "equal_chance": sum(by_chance) / len(sets),
        "equal_sets": len(sets),
    }


def _label_report(reward: Reward, rows: Sequence[Row]) -> dict[str, Any]:
    """Return `label_auc` and `labelled_replies` of the rows that are labelled one by one; empty without both labels."""
    labelled = [row for row in rows if row.liked is not None]
    liked = sum(bool(row.liked) for row in labelled)
    if not 0 < liked < len(labelled):
        return {}
    scores = reward([row.prompt for row in labelled], [row.reply or "" for row in labelled])
    ranks = stats.rankdata(scores)
    total = sum(rank for rank, row in zip(ranks, labelled, strict=True) if row.liked)
    auc = (total - liked * (liked + 1) / 2) / (liked * (len(labelled) - liked))
    return {"label_auc": float(auc), "labelled_replies": len(labelled)}
