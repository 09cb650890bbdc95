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
        its Wilson interval (pairs of one prompt or group are one cluster), `test_pairs` their number, `ties`; and with
        a truth `gold_correlation`, Pearson's, over
        all replies of the test pairs, with `gold_correlation_ci95` by Fisher's z over the number of pairs.
    """
    pairs = distinct_pairs(rows)
    prompts = [row.prompt for row in pairs]
    chosen = [row.chosen or "" for row in pairs]
    rejected = [row.rejected or "" for row in pairs]
    if not pairs:
        return {"test_accuracy": None, "ci95": None, "test_pairs": 0, "ties": 0}
    better, worse = reward(prompts, chosen), reward(prompts, rejected)
    ties = sum(a == b for a, b in zip(better, worse, strict=True))
    wins = sum(a > b for a, b in zip(better, worse, strict=True))
    right = [0.5 if a == b else float(a > b) for a, b in zip(better, worse, strict=True)]
    report: dict[str, Any] = {
        "test_accuracy": (wins + ties / 2) / len(pairs),
        "ci95": list(clustered_wilson(right, [cluster_of(row) for row in pairs])),
        "test_pairs": len(pairs),
        "ties": ties,
        "mean_margin": (sum(better) - sum(worse)) / len(pairs),
    }
    if gold is not None:
        truth = [part["gold"] for part in gold([*prompts, *prompts], [*chosen, *rejected])]
        scores = [*better, *worse]
        if len(set(truth)) > 1 and len(set(scores)) > 1:
            result = stats.pearsonr(scores, truth)
            # The two replies of a pair share a prompt: counting pairs, not replies, keeps the interval honest.
            half = stats.norm.ppf(0.975) / max(1.0, (len(pairs) - 3)) ** 0.5
            z = math.atanh(max(-0.999999, min(0.999999, result.statistic)))
            report["gold_correlation"] = float(result.statistic)
            report["gold_correlation_ci95"] = [math.tanh(z - half), math.tanh(z + half)]
    return report
