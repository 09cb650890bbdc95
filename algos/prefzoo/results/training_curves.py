"""The curves that trainings left on disk, readable without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from prefzoo.run.stage_graph import Stage

CURVES = "curves.json"


def read_curve(folder: Path) -> list[dict[str, float]]:
    """A trial's curve: a dictionary of numbers for each logged step, the steps of several rounds counted on from one
    another under `step`; empty where nothing is trained, or not yet."""
    try:
        rounds = json.loads((folder / CURVES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    curve, before = [], 0
    for entries in rounds:
        for entry in entries:
            if "train_loss" not in entry:  # that one is of the round as a whole
                numbers = {name: value for name, value in entry.items() if isinstance(value, int | float)}
                curve.append({**numbers, "step": before + entry["step"]})
        before += entries[-1]["step"] if entries else 0
    return curve


def read_curves(stages: Iterable[Stage]) -> dict[str, list[list[dict[str, float]]]]:
    """The curve of each training that is done, by label, in the order of the seeds."""
    curves: dict[str, list[list[dict[str, float]]]] = {}
    for stage in stages:
        if stage.kind == "train" and stage.label is not None and stage.folder.is_dir():
            curves.setdefault(stage.label, []).append(read_curve(stage.folder))
    return curves
