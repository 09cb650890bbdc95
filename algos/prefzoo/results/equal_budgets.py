"""Policies at equal cost, from the milestones that were measured during training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from prefzoo.results import statistics
from prefzoo.results.analysis import (
    ALL,
    NO_GROUPS,
    PromptGroups,
    Tables,
    is_share,
    primary_metric,
    read_tables,
    to_summary,
)
from prefzoo.results.results_schema import Axis, EqualBudget, Summary
from prefzoo.results.training_history import milestone_folders
from prefzoo.run.stage_graph import START

if TYPE_CHECKING:
    from prefzoo.results.results_schema import AlgorithmResult, SeedResult

FINAL = "final"
MAX_BUDGETS = 5
"""On one axis."""
NEAR = 0.9
"""Trainings that end at more than this share of a larger budget get no column of their own."""
UNTRAINED = "nothing is trained: it pays for each answer"


class Point(NamedTuple):
    """A policy of a trial: its name, what the training had used by then, and the score of each test prompt."""

    name: str
    used: Mapping[str, float]
    scores: np.ndarray


def at_equal_budgets(
    algorithms: Mapping[str, AlgorithmResult],
    tables: Mapping[str, Tables],
    out: Path,
    groups: PromptGroups = NO_GROUPS,
) -> list[EqualBudget]:
    """Compare policies at some budgets of each axis along which two or more have milestones.

    Args:
        tables: of the same labels.
        out: the folder that paths in `algorithms` are relative to.
        groups: of the prompts.
    """
    metric = primary_metric(tables)
    milestones = {label: [t.milestones for t in result.seeds.values()] for label, result in algorithms.items()}
    if metric is None or sum(any(of_seeds) for of_seeds in milestones.values()) < 2:
        return []
    trajectories: dict[str, list[list[Point]]] = {}
    missing = {}
    for label, result in algorithms.items():
        trials = result.seeds.values()
        if label == START:
            continue
        if metric not in tables[label]:
            missing[label] = f"no result ({result.status})"
        elif not any(trial.training.get("flops") for trial in trials):
            missing[label] = UNTRAINED
        elif not all(milestones[label]):
            missing[label] = "no policy was kept on its way"
        else:
            scores = zip(trials, tables[START][metric], tables[label][metric], strict=True)
            trajectories[label] = [_trajectory(trial, metric, start, final, out) for trial, start, final in scores]
    return [row for axis in get_args(Axis) for row in compare(axis, trajectories, missing, groups.get(ALL))]


def _trajectory(trial: SeedResult, metric: str, start: np.ndarray, final: np.ndarray, out: Path) -> list[Point]:
    scores = [read_tables([folder], [metric])[metric][0] for folder in milestone_folders(trial, out)]
    milestones = [Point(m.name, m.ledger, column) for m, column in zip(trial.milestones, scores, strict=True)]
    return [Point(START, {}, start), *milestones, Point(FINAL, trial.training, final)]


def compare(
    axis: Axis,
    trajectories: Mapping[str, Sequence[Sequence[Point]]],
    missing: Mapping[str, str],
    groups: statistics.Groups = None,
) -> list[EqualBudget]:
    """Compare policies at several budgets of one axis, smallest first; at none where fewer than two use any of it.

    Args:
        trajectories: for each label, for each seed, the points from the start to the final policy.
        missing: label -> why it has none.
        groups: of the prompts.
    """
    totals = {
        label: max(points[-1].used.get(axis, 0.0) for points in of_seeds) for label, of_seeds in trajectories.items()
    }
    labels = [label for label, total in totals.items() if total > 0]
    if len(labels) < 2:
        return []
    shares = all(
        is_share(point.scores) for of_seeds in trajectories.values() for points in of_seeds for point in points
    )

    def table(points: Iterable[Point]) -> np.ndarray:
        return statistics.group_means(np.stack([point.scores for point in points]), groups)

    def mean(scores: np.ndarray) -> Summary:
        estimate = statistics.estimate(scores)
        return to_summary(statistics.proportion(estimate, scores) if shares else estimate)

    start = {label: table(points[0] for points in trajectories[label]) for label in labels}
    unused = {label: "its training uses none" for label in trajectories if label not in labels}
    rows = []
    for budget in budgets([totals[label] for label in labels]):
        reached = {label: [_latest(budget, axis, points) for points in trajectories[label]] for label in labels}
        scores = {label: table(points) for label, points in reached.items()}
        over_start = {label: statistics.paired_difference(scores[label], start[label]) for label in labels}
        rows.append(
            EqualBudget(
                axis=axis,
                budget=budget,
                policies={label: mean(of_label) for label, of_label in scores.items()},
                over_start={label: to_summary(difference) for label, difference in over_start.items()},
                reached={label: [point.name for point in points] for label, points in reached.items()},
                missing={**missing, **unused},
            )
        )
    return rows


def budgets(totals: Sequence[float]) -> list[float]:
    """Choose the budgets at which trainings that use these totals are compared: the totals themselves, of those near
    one another only the largest, and of more than `MAX_BUDGETS` so many, the first and the last among them."""
    chosen: list[float] = []
    for total in sorted(totals, reverse=True):
        if not chosen or total < NEAR * chosen[-1]:
            chosen.append(total)
    chosen.reverse()
    if len(chosen) > MAX_BUDGETS:
        chosen = [chosen[round(i)] for i in np.linspace(0, len(chosen) - 1, MAX_BUDGETS)]
    return chosen


def _latest(budget: float, axis: Axis, points: Sequence[Point]) -> Point:
    return [point for point in points if point.used.get(axis, 0.0) <= budget][-1]
