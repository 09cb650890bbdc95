"""Explain the rewards of replies that a comparison measured."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import write_whole
from prefzoo.commands.sample_policies import choose_policy
from prefzoo.errors import PrefzooError, os_errors_told, unknown
from prefzoo.judges.dimensions import METRIC
from prefzoo.report.explained_replies import EXPLANATIONS
from prefzoo.report.replies_section import shown_records
from prefzoo.results import results_file
from prefzoo.run.stage_graph import START
from prefzoo.run.subprocesses import quiet
from prefzoo.stored_code import allowing

PART = "proxy/"
METHODS = ("gradients", "ablation")


@os_errors_told("explaining")
def explain(
    folder: Path, label: str | None = None, prompts: int = 8, method: str | None = None, run_code: bool = False
) -> list[dict[str, Any]]:
    """Explain the rewards of the replies (first seed) that the report shows first, and write `explanations.jsonl`.

    A line holds the prompt, the label, the reply, the `method`, its `score`, that of the `baseline`, the relative
    `error` of completeness (null where the difference is 0), `pieces` as `[begin, end, value]` in characters of the
    reply, the weighted `parts` of a sum, the `dimensions`, the `principles` against the start's reply (see
    `gold_metric.principle_scores`), and the `nearest` reply of another label to the same prompt.

    Args:
        label: None is every policy.
        method: `gradients` or `ablation`; None takes gradients where the reward has any.
        run_code: whether code may run that the folder names.

    Raises:
        PrefzooError: when there is no reward, no such label, or no such method for this reward.
    """
    if method not in (None, *METHODS):
        raise PrefzooError(unknown("method", method, METHODS))
    plan = choose_policy(folder, START).plan
    results = results_file.load(folder)
    labels = [name for name, result in results.algorithms.items() if result.seeds]
    if label is not None and label not in labels:
        raise PrefzooError(unknown("policy", label, labels))
    seed = plan.recipe.seeds[0]
    if not plan.stages[plan.reward_name(seed)].done:
        raise PrefzooError(f"{folder}: its reward did not finish, so that there is nothing to explain")
    groups = [dict(zip(labels, same, strict=True)) for same in shown_records(results, folder)[:prompts]]
    asked = [(name, group) for group in groups for name in ([label] if label else labels)]
    quiet()
    from prefzoo.rewards.attribution import attribute  # torch
    from prefzoo.run.stages.gold_metric import principle_scores
    from prefzoo.run.stages.recipe_inputs import reward_of

    with allowing(None) if run_code else contextlib.nullcontext():
        reward = reward_of(plan, seed)
    found = attribute(
        reward,
        [group[name]["prompt"] for name, group in asked],
        [group[name]["reply"] for name, group in asked],
        method,  # type: ignore[arg-type]
    )
    others = [k for k, (name, group) in enumerate(asked) if group[name]["reply"] != group[START]["reply"]]
    told = principle_scores(
        plan,
        [asked[k][1][START]["prompt"] for k in others],
        [asked[k][1][asked[k][0]]["reply"] for k in others],
        [asked[k][1][START]["reply"] for k in others],
    )
    principles = dict(zip(others, told, strict=True))
    lines = [
        {
            "prompt": group[name]["prompt"],
            "label": name,
            "reply": group[name]["reply"],
            "method": each.method,
            "score": each.score,
            "baseline": each.baseline,
            "error": each.error if math.isfinite(each.error) else None,
            "pieces": [[piece.begin, piece.end, piece.value] for piece in each.pieces],
            "parts": _with_prefix(group[name], PART),
            "dimensions": _with_prefix(group[name], METRIC),
            "principles": principles.get(k, {}),
            "nearest": nearest(name, group),
        }
        for k, ((name, group), each) in enumerate(zip(asked, found, strict=True))
    ]
    write_whole(folder / EXPLANATIONS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return lines


def _with_prefix(record: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}


def nearest(label: str, group: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The reply of another label to the same prompt that shares most words: its label, the reply, its reward (`score`),
    and the `overlap`, the share of both replies' words that both have. Equal replies are not other ones; None where
    there is no other."""
    mine = group[label]["reply"]
    others = [
        {"label": name, "reply": record["reply"], "score": record["proxy"], "overlap": overlap(mine, record["reply"])}
        for name, record in group.items()
        if record["reply"] != mine and record.get("proxy") is not None
    ]
    return max(others, key=lambda other: other["overlap"], default=None)


def overlap(one: str, other: str) -> float:
    """Jaccard's index of the words of two texts; letters where a script puts no spaces between words."""
    from prefzoo.rewards.attribution import WORD

    words: Sequence[set[str]] = [{match[0].lower() for match in WORD.finditer(text)} for text in (one, other)]
    either = words[0] | words[1]
    return len(words[0] & words[1]) / len(either) if either else 1.0
