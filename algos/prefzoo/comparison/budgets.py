"""Policies at equal cost, from what was measured along their trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from pydantic import Field

from prefzoo.comparison import statistics
from prefzoo.comparison.analysis import Block, Summary, Tables, decides, summarized
from prefzoo.comparison.plan import START
from prefzoo.comparison.records import read_records
from prefzoo.interface import MILESTONES

if TYPE_CHECKING:
    from prefzoo.comparison.results import AlgorithmResult

Axis = Literal["prompts", "generated_tokens", "flops", "seconds"]
Point = tuple[Mapping[str, float], np.ndarray]
"""What a training had used, and the score of each test prompt by then."""


class EqualBudget(Block):
    """The metric that decides when each policy had used the same in training."""

    axis: Axis
    budget: float = Field(description="the most that every trial of these policies used in training")
    policies: dict[str, Summary] = Field(
        description="scores interpolated linearly between the measured points of each trial, the start at a budget of 0"
    )
    over_start: dict[str, Summary] = Field(description="those scores minus the start's, paired by seed and prompt")
    missing: dict[str, str] = Field(description="label -> why it is not among them; nothing is extrapolated")


def at_equal_budgets(
    algorithms: Mapping[str, AlgorithmResult], tables: Mapping[str, Tables], out: Path
) -> list[EqualBudget]:
    """For each axis the policies that were measured on their way along it, where they are two or more.

    Args:
        tables: of the same labels.
        out: the folder that paths in `algorithms` are relative to.
    """
    metric = decides(tables)
    kept = {label: [trial.milestones for trial in each.seeds.values()] for label, each in algorithms.items()}
    if metric is None or sum(any(of_seeds) for of_seeds in kept.values()) < 2:
        return []
    ways: dict[str, list[list[Point]]] = {}
    missing = {}
    for label, each in algorithms.items():
        if label == START:
            continue
        if metric not in tables[label]:
            missing[label] = f"no result ({each.status})"
        elif not all(kept[label]):
            missing[label] = "no policy was kept on its way"
        else:
            ways[label] = []
            for trial, start, final in zip(
                each.seeds.values(), tables[START][metric], tables[label][metric], strict=True
            ):
                folders = sorted(((out / trial.replies).parent / MILESTONES).glob("*"))
                measured = [np.array([float(r[metric]) for r in read_records(folder)]) for folder in folders]
                used = [milestone.ledger for milestone in trial.milestones]
                ways[label].append([({}, start), *zip(used, measured, strict=True), (trial.training, final)])
    return [found for axis in get_args(Axis) if (found := compare(axis, ways, missing))]


def compare(
    axis: Axis, ways: Mapping[str, Sequence[Sequence[Point]]], missing: Mapping[str, str]
) -> EqualBudget | None:
    """One axis; None where fewer than two policies go along it.

    Args:
        ways: for each label, for each seed, the points from the start to the final policy.
        missing: labels that have none.
    """
    reached = {label: min(points[-1][0].get(axis, 0.0) for points in of_seeds) for label, of_seeds in ways.items()}
    along = [label for label, used in reached.items() if used > 0]
    if len(along) < 2:
        return None
    budget = min(reached[label] for label in along)
    found = {label: np.stack([_at(budget, axis, points) for points in ways[label]]) for label in along}
    start = {label: np.stack([points[0][1] for points in ways[label]]) for label in along}
    return EqualBudget(
        axis=axis,
        budget=budget,
        policies={label: summarized(statistics.estimate(table)) for label, table in found.items()},
        over_start={label: summarized(statistics.difference(found[label], start[label])) for label in along},
        missing={**missing, **{label: "its training uses none" for label in ways if label not in along}},
    )


def _at(budget: float, axis: Axis, points: Sequence[Point]) -> np.ndarray:
    """The scores at a budget that the last point is not below."""
    used = [ledger.get(axis, 0.0) for ledger, _ in points]
    before = max(i for i, amount in enumerate(used) if amount <= budget)
    scores = points[before][1]
    if before + 1 == len(points):
        return scores
    share = (budget - used[before]) / (used[before + 1] - used[before])
    return scores + share * (points[before + 1][1] - scores)
