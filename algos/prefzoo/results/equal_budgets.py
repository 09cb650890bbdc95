"""Policies at equal cost, from what was measured along their trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from prefzoo.interface import MILESTONES
from prefzoo.results import statistics
from prefzoo.results.analysis import Tables, decides, summarized
from prefzoo.results.results_schema import Axis, EqualBudget
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START

if TYPE_CHECKING:
    from prefzoo.results.results_schema import AlgorithmResult, SeedResult

FINAL = "final"
MOST = 5
"""Budgets on one axis."""
NEAR = 0.9
"""Trainings that end at more than this share of a larger budget get no column of their own."""
UNTRAINED = "nothing is trained: it pays for each answer"


class Point(NamedTuple):
    """A policy of a trial: its name, what the training had used by then, and the score of each test prompt."""

    name: str
    used: Mapping[str, float]
    scores: np.ndarray


def at_equal_budgets(
    algorithms: Mapping[str, AlgorithmResult], tables: Mapping[str, Tables], out: Path
) -> list[EqualBudget]:
    """For each axis, where two policies or more were measured on their way along it, some budgets.

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
        elif not any(trial.training.get("flops") for trial in each.seeds.values()):
            missing[label] = UNTRAINED
        elif not all(kept[label]):
            missing[label] = "no policy was kept on its way"
        else:
            ways[label] = [
                _way(trial, metric, start, final, out)
                for trial, start, final in zip(
                    each.seeds.values(), tables[START][metric], tables[label][metric], strict=True
                )
            ]
    return [found for axis in get_args(Axis) for found in compare(axis, ways, missing)]


def _way(trial: SeedResult, metric: str, start: np.ndarray, final: np.ndarray, out: Path) -> list[Point]:
    folders = sorted(((out / trial.replies).parent / MILESTONES).glob("*"))
    measured = [np.array([float(record[metric]) for record in read_records(folder)]) for folder in folders]
    on_the_way = [Point(m.name, m.ledger, scores) for m, scores in zip(trial.milestones, measured, strict=True)]
    return [Point(START, {}, start), *on_the_way, Point(FINAL, trial.training, final)]


def compare(axis: Axis, ways: Mapping[str, Sequence[Sequence[Point]]], missing: Mapping[str, str]) -> list[EqualBudget]:
    """One axis at several budgets, smallest first; none where fewer than two policies go along it.

    Args:
        ways: for each label, for each seed, the points from the start to the final policy.
        missing: labels that have none.
    """
    ends = {label: max(points[-1].used.get(axis, 0.0) for points in of_seeds) for label, of_seeds in ways.items()}
    along = [label for label, used in ends.items() if used > 0]
    if len(along) < 2:
        return []
    start = {label: np.stack([points[0].scores for points in ways[label]]) for label in along}
    unused = {label: "its training uses none" for label in ways if label not in along}
    found = []
    for budget in budgets([ends[label] for label in along]):
        at = {label: [_latest(budget, axis, points) for points in ways[label]] for label in along}
        scores = {label: np.stack([point.scores for point in points]) for label, points in at.items()}
        found.append(
            EqualBudget(
                axis=axis,
                budget=budget,
                policies={label: summarized(statistics.estimate(table)) for label, table in scores.items()},
                over_start={label: summarized(statistics.difference(scores[label], start[label])) for label in along},
                reached={label: [point.name for point in points] for label, points in at.items()},
                missing={**missing, **unused},
            )
        )
    return found


def budgets(ends: Sequence[float]) -> list[float]:
    """At what budgets trainings that end there are compared: at the ends themselves, of those near one another only at
    the largest, and of more than `MOST` at so many, the first and the last among them."""
    kept: list[float] = []
    for end in sorted(ends, reverse=True):
        if not kept or end < NEAR * kept[-1]:
            kept.append(end)
    kept.reverse()
    if len(kept) > MOST:
        kept = [kept[round(i)] for i in np.linspace(0, len(kept) - 1, MOST)]
    return kept


def _latest(budget: float, axis: Axis, points: Sequence[Point]) -> Point:
    return [point for point in points if point.used.get(axis, 0.0) <= budget][-1]
