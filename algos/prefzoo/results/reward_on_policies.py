"""How often the reward is right about the policies' own replies: where they went, which test pairs do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from prefzoo.data.agreement import clustered_wilson
from prefzoo.results.analysis import Tables
from prefzoo.results.statistics import Groups
from prefzoo.run.stage_graph import START


def reward_on_policies(tables: Mapping[str, Tables], groups: Groups) -> dict[str, Any]:
    """Return label -> {`own`, `against_start`}, each with `accuracy`, `ci95` and `pairs`, as far as there are pairs.

    `own` are all two replies of the policy to one prompt, with two seeds; `against_start` each reply and the start's
    with the same seed. The reward is right where it scores the one higher that is higher in gold; a tie of its scores
    counts half, and pairs that tie in gold are left out. The interval is Wilson's, with the pairs of one prompt, or
    of one group of prompts, as a cluster.

    Args:
        tables: label -> metric -> (seeds x prompts), with `gold` and `proxy`; a label without either is left out.
        groups: of the prompts.
    """
    found: dict[str, Any] = {}
    start = tables.get(START, {})
    for label, table in tables.items():
        if not {"gold", "proxy"} <= table.keys():
            continue
        gold, proxy = table["gold"], table["proxy"]
        ahead, behind = np.array([*combinations(range(len(gold)), 2)], dtype=int).reshape(-1, 2).T
        of_label = {"own": _accuracy(gold[ahead] - gold[behind], proxy[ahead] - proxy[behind], groups)}
        if label != START and {"gold", "proxy"} <= start.keys():
            of_label["against_start"] = _accuracy(gold - start["gold"], proxy - start["proxy"], groups)
        if known := {name: numbers for name, numbers in of_label.items() if numbers is not None}:
            found[label] = known
    return found


def _accuracy(gold: np.ndarray, proxy: np.ndarray, groups: Groups) -> dict[str, Any] | None:
    """Compare the signs of differences, both (pairs x prompts)."""
    clusters = np.arange(gold.shape[1]) if groups is None else groups
    told = gold != 0
    right = np.where(proxy == 0, 0.5, np.sign(proxy) == np.sign(gold))[told]
    if not right.size:
        return None
    of_pair = np.broadcast_to(clusters, gold.shape)[told]
    interval = clustered_wilson(right.tolist(), of_pair.tolist())
    return {"accuracy": float(right.mean()), "ci95": list(interval), "pairs": int(right.size)}
