"""How right the reward is: on held-out pairs, the best of four, equally good replies, and the policies' own replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefzoo.report.sections import PROSE, Cells, Part, Section, Table, Text
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import Results


def reward_section(results: Results, labels: Sequence[str]) -> Section:
    """Return the section; empty where nothing is known of the reward. `labels` in the order of the rows."""
    cells = reward_cells(results.reward, labels)
    parts: list[Part] = []
    if of_attributes := attribute_cells(results.reward):
        parts += [Table(of_attributes, "how the parts of the reward go with ratings", key="reward attributes")]
    if cells[1]:
        table = Table(cells, "how often the reward is right", key="reward accuracy")
        parts = [table, Text(PROSE["reward_accuracy"]), *parts]
    return Section("reward", "The reward", parts)


def reward_cells(reward: Mapping[str, Any], labels: Sequence[str]) -> Cells:
    """Return a row for each kind of comparison: what is compared, how often the reward is right, and of how many."""
    rows = []
    if reward.get("test_accuracy") is not None:
        rows.append(["held-out pairs", _share(reward["test_accuracy"], reward["ci95"]), str(reward["test_pairs"])])
    if "best_of_four" in reward:
        share = _share(reward["best_of_four"], reward["best_of_four_ci95"])
        rows.append(["best of four (chance 0.25)", share, str(reward["best_of_four_prompts"])])
    if "equal_sets" in reward:
        sets, chance = str(reward["equal_sets"]), fixed(reward["equal_chance"])
        for key, text in (
            ("equal_above", f"all equally good above all worse (chance {chance})"),
            ("equal_alike", "and nearer to one another than to the worse"),
        ):
            rows.append([text, _share(reward[key], reward[f"{key}_ci95"]), sets])
    for name, text in (("own", "two replies of {}"), ("against_start", "a reply of {} and the start's")):
        for label in labels:
            if numbers := reward.get("on_policies", {}).get(label, {}).get(name):
                share = _share(numbers["accuracy"], numbers["ci95"])
                rows.append([text.format(label), share, str(numbers["pairs"])])
    return ["what is compared", "right [95%]", "of how many"], rows


def attribute_cells(reward: Mapping[str, Any]) -> Cells | None:
    """Return a row for the reward and each part of it that learned from ratings in one respect; None where none did."""
    rows = []
    for part in (reward, *reward.get("parts", [])):
        if "attribute_correlation" in part:
            low, high = part["attribute_correlation_ci95"]
            text = f"{fixed(part['attribute_correlation'], '+.2f')} {interval(low, high)}"
            rows.append([part["attribute"], text, str(part["rated_replies"])])
    return (["rated in respect of", "correlation with held-out ratings [95%]", "replies"], rows) if rows else None


def _share(share: float, ends: Sequence[float]) -> str:
    return f"{fixed(share)} {interval(ends[0], ends[1], sign='')}"
