"""How long a large comparison takes to be analysed and reported, and how much memory: 12 policies, 1,000 prompts, 5
seeds, on two cores, or as many as is said.

    python benchmarks/reporting.py [--work runs/reporting] [--repeats 3] [--out benchmarks/results/reporting.json]
    python benchmarks/reporting.py --labels 20 --seeds 3 --prompts 2000 --out reporting_large.json

One trial is trained and evaluated on so many prompts; the folders of the other trials are made of it, each with other
noise in its rewards, so that a finished run of all trials lies there. `prefzoo report` is timed on that, as a process
of its own from its start to its end: reading, analysis, tables, figures, page.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, medians, write

from prefzoo.run.evaluation_records import RECORDS, read_records

GOAL = 20.0
CORES = 2


def recipe(labels: int, seeds: int, prompts: int) -> dict[str, Any]:
    """Trials of one algorithm under many labels."""
    return {
        "extends": "base",
        "budget": {"prompts": 64},
        "evaluation": {"prompts": prompts},
        "reward": {"type": "random"},
        "tracking": {"wandb": {"mode": "disabled"}},
        "seeds": seeds,
        "algorithms": {f"sft-{i}": {"algorithm": "sft"} for i in range(labels)},
    }


def make_run(work: Path, labels: int, seeds: int, prompts: int) -> None:
    """A run of which one trial was really made and the others are made of it."""
    import prefzoo
    from prefzoo.recipe.check_recipe import load
    from prefzoo.run.integrity import seal
    from prefzoo.run.stage_graph import make_plan

    prefzoo.compare(recipe(1, 1, prompts), out=work)
    one = {(s.kind, s.seed): s for s in make_plan(load(recipe(1, 1, prompts)), work).stages.values()}
    whole = make_plan(load(recipe(labels, seeds, prompts)), work)
    rng = np.random.default_rng(0)
    for stage in whole.stages.values():
        if stage.done:
            continue
        made = one[stage.kind, None if stage.seed is None else 0]
        shutil.copytree(made.folder, stage.folder)
        if stage.kind == "evaluate":
            add_noise(stage.folder, rng)
            seal(stage.folder)
    whole.save()


def add_noise(folder: Path, rng: np.random.Generator) -> None:
    """Give the replies in an evaluation's folder other rewards."""
    records = read_records(folder)
    for record in records:
        record["gold"] += rng.normal()
    (folder / RECORDS).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def timed(work: Path) -> dict[str, float]:
    """Seconds of one `prefzoo report`, by the clock and of processor, and the most memory that it held."""
    began = time.perf_counter()
    program = str(Path(sys.executable).with_name("prefzoo"))
    process = subprocess.Popen([program, "report", str(work)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"prefzoo report {work} ended with {os.waitstatus_to_exitcode(status)}")
    spent = usage.ru_utime + usage.ru_stime
    return {
        "seconds": time.perf_counter() - began,
        "processor_seconds": spent,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/reporting"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("reporting.json"))
    parser.add_argument("--labels", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=1000)
    args = parser.parse_args()
    make_run(args.work, args.labels, args.seeds, args.prompts)
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    runs = []
    for _ in range(args.repeats):
        runs.append({**timed(args.work), "load": os.getloadavg()[0]})
        print({key: round(value, 1) for key, value in runs[-1].items()}, flush=True)
    found = json.loads((args.work / "results.json").read_text(encoding="utf-8"))
    measured = [len(each["seeds"]) for label, each in found["algorithms"].items() if label != "start"]
    if measured != [args.seeds] * args.labels:
        raise SystemExit(f"the report is not of {args.labels} policies and {args.seeds} seeds: {measured}")
    write(args.out, {"machine": machine(), "cores": CORES, "goal": GOAL, "median": medians(runs), "runs": runs})


if __name__ == "__main__":
    main()
