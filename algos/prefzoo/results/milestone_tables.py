"""Policies on the way to the final one, as tables of seeds by prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prefzoo.interface import MILESTONES
from prefzoo.run.evaluation_records import read_records

if TYPE_CHECKING:
    from prefzoo.results.results_schema import AlgorithmResult

Way = list[tuple[str, dict[str, np.ndarray]]]
"""In order: what a policy on the way is called, and metric -> (seeds x prompts)."""


def on_the_way(each: AlgorithmResult, out: Path, metrics: tuple[str, ...] = ("gold", "proxy")) -> Way:
    """The policies that every trial of a label kept on its way, the first of each with the first of the others.

    Args:
        out: the folder that paths in `each` are relative to.
        metrics: those that are read, as far as every reply has them.
    """
    trials = list(each.seeds.values())
    folders = [sorted(((out / trial.replies).parent / MILESTONES).glob("*")) for trial in trials]
    names = [[kept.name for kept in trial.milestones] for trial in trials]
    way: Way = []
    for i, (of_seeds, called) in enumerate(zip(zip(*folders, strict=False), zip(*names, strict=False), strict=False)):
        records = [read_records(folder) for folder in of_seeds]
        tables = {
            metric: np.array([[float(r[metric]) for r in rows] for rows in records])
            for metric in metrics
            if all(metric in r for rows in records for r in rows)
        }
        way.append((called[0] if len(set(called)) == 1 else f"milestone {i + 1}", tables))
    return way
