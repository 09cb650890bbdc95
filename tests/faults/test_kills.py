"""Kills at random moments, over every way to train and all stages: what is resumed ends as what was never killed.

python -m pytest -m kills -s --timeout 0        # or: make test-kills; PREFZOO_KILLS=10 for fewer
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import representatives
from prefzoo.atomic_files import partial_folder
from prefzoo.run.stage_graph import Plan, load_plan
from test_stage_faults import UNUSED

KILLS = int(os.environ.get("PREFZOO_KILLS", "100"))
SEED = int(os.environ.get("PREFZOO_TEST_SEED", "0"))
pytestmark = pytest.mark.kills

CHECKPOINTS = (
    UNUSED
    + """
from prefzoo.trainers import checkpoints

checkpoints.CHECKPOINT_INTERVAL_SECONDS = 0.3
"""
)
"""A plugin: trainings are short here, and are to resume from the middle."""
CLOCKS = ("seconds", "seconds_waited", "peak_memory_bytes", "flos", "resumed_at_step", "reused", "workers", "call")
"""Keys of results that tell of clocks and memory, of how work was divided, and of the command."""


def recipe(folder: Path) -> Path:
    (folder / "checkpoints.py").write_text(CHECKPOINTS)
    more: dict[str, Any] = {"constitutional_ai": {"rounds": 2}, "rejection_sampling": {"iterations": 2, "n": 2}}
    content = {
        "extends": "quickstart",
        "plugins": ["checkpoints.py"],
        "budget": {"prompts": 48},
        "evaluation": {"prompts": 16, "milestones": 1},
        "generation": {"max_new_tokens": 24},
        "training": {"batch_size": 8},
        "tracking": {"wandb": {"mode": "disabled"}},
        "judge": {"audit_pairs": 8},
        "algorithms": {name: more.get(name, {}) for name in representatives()},
    }
    (folder / "recipe.yaml").write_text(json.dumps(content))
    return folder / "recipe.yaml"


def start(path: Path, out: Path) -> subprocess.Popen:
    code = "from prefzoo.cli import main; main()"
    command = [sys.executable, "-c", code, "compare", str(path), "--seeds", "1", "--workers", "2", "--out", str(out)]
    log = out.with_suffix(".log").open("a")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def found(out: Path) -> tuple[Any, dict[str, str]]:
    """Results without clocks and memory, and every reply."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(each) for key, each in value.items() if key not in CLOCKS}
        if isinstance(value, list):
            return [timeless(each) for each in value if not (isinstance(each, dict) and each.get("axis") == "seconds")]
        return value

    replies = {str(file.relative_to(out)): file.read_text() for file in out.glob("trials/**/replies.jsonl")}
    return timeless(json.loads((out / "results.json").read_text())), replies


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two trees of results are not the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        lacking = [f"{place}/{key}: in one alone" for key in sorted(one.keys() ^ other.keys())]
        return lacking + [
            d for key in one.keys() & other.keys() for d in differences(one[key], other[key], f"{place}/{key}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [d for i, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f"{place}/{i}")]
    return [] if one == other else [f"{place}: {str(one)[:200]} | {str(other)[:200]}"]


def kill(process: subprocess.Popen, plan: Plan, out: Path, left: Counter[str], rng: random.Random) -> str:
    """Kill the whole group at a random moment of the first stage that is to be killed (once more) and runs; return its
    name, or an empty text where the comparison ended before.

    Args:
        plan: of the same comparison in another folder, where it is done.
        left: how often each stage is to be killed.
    """
    while process.poll() is None:
        folders = {stage: partial_folder(out / stage.folder.relative_to(plan.out)) for stage in plan.stages.values()}
        running = [stage for stage, folder in folders.items() if left[stage.name] and folder.is_dir()]
        if running:
            time.sleep(rng.uniform(0, 1.2 * (running[0].seconds or 1.0)))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return running[0].name
        time.sleep(0.02)
    return ""


def test_what_is_killed_again_and_again_ends_as_what_never_was(tmp_path) -> None:
    path, rng = recipe(tmp_path), random.Random(SEED)
    assert start(path, tmp_path / "whole").wait() == 0, (tmp_path / "whole.log").read_text()[-3000:]
    wanted = found(tmp_path / "whole")
    plan = load_plan(tmp_path / "whole")
    kills: Counter[str] = Counter()
    chains = 0
    while kills.total() < KILLS:
        chains += 1
        out = tmp_path / f"chain-{chains}"
        drawn = {
            name: rng.choice((1, 1, 2)) for name in plan.stages if rng.random() < max(0.2, KILLS / len(plan.stages))
        }
        left = Counter(drawn)
        while True:
            process = start(path, out)
            name = kill(process, plan, out, left, rng) if kills.total() < KILLS else ""
            if not name:
                break
            left[name] -= 1
            kills[name] += 1
            print(f"{kills.total()}: {name}", flush=True)
        assert process.wait() == 0, out.with_suffix(".log").read_text()[-3000:]
        assert not differences(found(out), wanted)
        shutil.rmtree(out)
    print(f"{kills.total()} kills, {chains} chains, {len(kills)} of {len(plan.stages)} stages: {dict(kills)}")
