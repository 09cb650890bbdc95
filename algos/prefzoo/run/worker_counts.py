"""How many stages of a comparison ran side by side, which the seconds that they took depend on."""

from __future__ import annotations

import json
from pathlib import Path

BESIDE = "workers.json"
"""In a comparison's folder: a list of different numbers, in the order in which calls ran with them."""


def note_workers(out: Path, workers: int) -> None:
    """Keep that stages now run so many at a time."""
    (out / BESIDE).write_text(json.dumps(list(dict.fromkeys([*noted_workers(out), workers]))), encoding="utf-8")


def noted_workers(out: Path) -> list[int]:
    """How many stages ran at a time; empty where that was not kept."""
    try:
        return [int(each) for each in json.loads((out / BESIDE).read_text(encoding="utf-8"))]
    except (FileNotFoundError, ValueError):
        return []
