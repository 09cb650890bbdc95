"""The recipe `quickstart` as it is, timed: all of it, each kind of stage, and how long stages take to begin.

python gpu_stages.py SETTINGS.json
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import write

from prefzoo import compare
from prefzoo.run.stage_graph import load_plan


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the whole, the sum of the seconds of each kind of stage, and the median and the longest of what passes
    before a stage's own work begins."""
    out = Path(given["out"]) / "run"
    began = time.perf_counter()
    compare("quickstart", sets=["tracking.wandb.mode=disabled"], out=out)
    seconds = time.perf_counter() - began
    outcomes = json.loads((out / "outcomes.json").read_text())
    kinds: dict[str, float] = {}
    begins = []
    for name, stage in load_plan(out).stages.items():
        taken = outcomes.get(name, {}).get("seconds")
        if taken:
            kinds[stage.kind] = kinds.get(stage.kind, 0.0) + taken
            begins.append(taken - (stage.seconds or 0))
    return {
        "seconds": seconds,
        "seconds_of_kinds": kinds,
        "to_begin": {"median": statistics.median(begins), "longest": max(begins)},
    }


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    write(Path(settings["out"]) / "found.json", main(settings))
