"""What trainings left of their course: curves and milestones, readable without torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prefzoo.atomic_files import read_json
from prefzoo.interface import MILESTONES
from prefzoo.results.analysis import NO_GROUPS, PromptGroups, Tables, group_tables, read_tables
from prefzoo.run.stage_graph import Stage

if TYPE_CHECKING:
    from prefzoo.results.results_schema import AlgorithmResult, SeedResult

CURVES = "curves.json"
Curve = list[dict[str, float]]
"""The numbers of each logged step, the steps of several rounds counted on from one another under `step`."""
Milestones = list[tuple[str, Tables]]
"""In order, of each milestone of a label: its name, and metric -> (seeds x groups of prompts)."""


def read_curve(folder: Path) -> Curve:
    """Read a trial's curve; empty where nothing is trained, or not yet.

    Raises:
        PrefzooError: when the file is damaged.
    """
    if not (folder / CURVES).is_file():
        return []
    rounds = read_json(folder / CURVES, list)
    curve, steps_before = [], 0
    for entries in rounds:
        for entry in entries:
            if "train_loss" not in entry:  # that one is of the round as a whole
                numbers = {name: value for name, value in entry.items() if isinstance(value, int | float)}
                curve.append({**numbers, "step": steps_before + entry["step"]})
        steps_before += entries[-1]["step"] if entries else 0
    return curve


def read_curves(stages: Iterable[Stage]) -> dict[str, list[Curve]]:
    """Read the curve of each training that is done, by label, in the order of the seeds."""
    curves: dict[str, list[Curve]] = {}
    for stage in stages:
        if stage.kind == "train" and stage.label is not None and stage.folder.is_dir():
            curves.setdefault(stage.label, []).append(read_curve(stage.folder))
    return curves


def milestone_folders(trial: SeedResult, out: Path) -> list[Path]:
    """Return the evaluations of a trial's milestones, in order; `out` is the folder that its paths are relative to."""
    return sorted(((out / trial.replies).parent / MILESTONES).glob("*"))


def milestone_tables(result: AlgorithmResult, out: Path, groups: PromptGroups = NO_GROUPS) -> Milestones:
    """Read the milestones that every trial of a label kept, the first of each with the first of the others, as means of
    these groups of prompts."""
    trials = result.seeds.values()
    folders = [milestone_folders(trial, out) for trial in trials]
    names = [[milestone.name for milestone in trial.milestones] for trial in trials]
    milestones: Milestones = []
    for of_seeds, called in zip(zip(*folders, strict=False), zip(*names, strict=False), strict=False):
        name = called[0] if len(set(called)) == 1 else f"milestone {len(milestones) + 1}"
        milestones.append((name, group_tables(read_tables(of_seeds), groups)))
    return milestones
