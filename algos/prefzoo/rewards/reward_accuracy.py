"""How good a reward is: on held-out pairs, and against the truth where there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scipy import stats

from prefzoo.data.agreement import clustered_wilson
from prefzoo.data.formats import Row
from prefzoo.data.row_views import cluster_of, distinct_pairs
from prefzoo.types import Reward, Truth


def reward_report(
    reward: Reward,
    rows: Sequence[Row],
    gold: Truth | None,
) -> dict[str, Any]:
    """Held-out accuracy and correlation with gold, each with a 95% interval.

    Args:
        reward: what is judged.
        rows: test rows; the reward has seen none of their prompts. Of several votes on two replies most decide.
        gold: the truth, or None.

    Returns:
        `test_accuracy`: the share of test pairs in which the chosen reply scores higher (a tie counts half), `ci95`
        its Wilson interval, for which pairs of one prompt or group are a cluster, `test_pairs` their number, `ties`;
        where test replies are labelled one by one, `label_auc`: the chance that a liked one scores above one that was
        not liked (a tie counts half), of `labelled_replies`; and with a truth `gold_correlation`, Pearson's, over all
        replies of the test pairs, with
        `gold_correlation_ci95` by Fisher's z over the number of prompts.
    """
    labels = _label_report(reward, rows)
    pairs = distinct_pairs(rows)
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
    if gold is not None:
        truth = [part["gold"] for part in gold([*prompts, *prompts], [*chosen, *rejected])]
        scores = [*better, *worse]
        if len(set(truth)) > 1 and len(set(scores)) > 1:
            result = stats.pearsonr(scores, truth)
            # Replies that share a prompt are not independent: counting prompts keeps the interval honest.
            half = stats.norm.ppf(0.975) / max(1.0, (len(set(clusters)) - 3)) ** 0.5
            z = math.atanh(max(-0.999999, min(0.999999, result.statistic)))
            report["gold_correlation"] = float(result.statistic)
            report["gold_correlation_ci95"] = [math.tanh(z - half), math.tanh(z + half)]
    return report


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
