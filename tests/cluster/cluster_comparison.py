"""A comparison of 12 trials on a cluster, as a user starts it, and what is to be the same as on one machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import BRIEF
from prefzoo.run.host_lock import holder_file, read_holder

LABELS = (
    "algorithms={sft: {}, dpo: {beta: 0.5}, best_of_n: {n: 4}, random_choice: {algorithm: rejection_sampling, n: 4,"
    " keep: random}}"
)
SETS = [*BRIEF, LABELS, "tracking.wandb.mode=disabled"]
CODE = "from prefzoo.cli import main; main()"
CLOCKS = ("seconds", "seconds_waited", "peak_memory_bytes", "reused", "workers", "call")
"""Keys of results that tell of clocks and memory, of which trial came first, and of the command."""


class Comparison:
    """One in a folder, with the environment in which its engine is found, and further arguments of the call."""

    def __init__(self, out: Path, environment: Mapping[str, str], on: Path | None = None, *more: str) -> None:
        self.out, self.environment, self.log = out, {**environment, "OMP_NUM_THREADS": "1"}, out.with_suffix(".txt")
        self.more = [*(["--on", str(on)] if on is not None else ["--workers", "2"]), *more]
        self.memory: list[int] = []

    def start(self) -> subprocess.Popen:
        sets = [part for each in SETS for part in ("--set", each)]
        command = [sys.executable, "-c", CODE, "compare", "quickstart", "--seeds", "3", *sets, "--out", str(self.out)]
        log = self.log.open("a")
        return subprocess.Popen([*command, *self.more], env=self.environment, stdout=log, stderr=log)

    def finish(self, process: subprocess.Popen) -> None:
        while process.poll() is None:
            try:
                self.memory.append(psutil.Process(process.pid).memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
        assert process.wait() == 0, self.log.read_text()[-3000:]

    def check_memory(self) -> None:
        """The controller's memory is flat while jobs run; at the end it draws a report."""
        early, late = (self.memory[len(self.memory) * share // 4] for share in (1, 3))
        print(f"controller: {early / 2**20:.0f} MiB after a quarter of the time, {late / 2**20:.0f} after three")
        assert late < 1.1 * early

    def until(self, process: subprocess.Popen, ready: Callable[[dict[str, Any]], Any]) -> Any:
        """What `ready` finds in the status of the stages, as soon as that is something."""
        end = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < end:
            if found := ready(self.status()):
                return found
            time.sleep(1.0)
        process.kill()
        pytest.fail(f"{self.log.read_text()[-3000:]}\n{self.status()}")

    def status(self) -> dict[str, Any]:
        """Name -> status of each stage."""
        from prefzoo.commands.run_status import status

        with pytest.MonkeyPatch.context() as patch:
            for key in ("PATH", "SLURM_CONF"):
                if key in self.environment:
                    patch.setenv(key, self.environment[key])
            return {each.stage: each for each in status(self.out)} if (self.out / "plan.json").is_file() else {}

    def numbers(self) -> Any:
        """Results without clocks and memory, and every reply."""

        def timeless(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: timeless(each) for key, each in value.items() if key not in CLOCKS}
            if isinstance(value, list):
                return [timeless(v) for v in value if not (isinstance(v, dict) and v.get("axis") == "seconds")]
            return value

        replies = {file.parent.name: file.read_text() for file in sorted(self.out.glob("trials/*/replies.jsonl"))}
        results = json.loads((self.out / "results.json").read_text())
        measured = sum(len(each["seeds"]) for each in results["algorithms"].values())
        assert sum(name.startswith("evaluate-") for name in replies) == measured >= 5
        return timeless(results), replies

    def attempts(self) -> dict[str, dict[str, Any]]:
        """Stage -> its last try."""
        files = self.out.glob("jobs/*/attempt.json")
        return {content["stage"]: content for content in (json.loads(file.read_text()) for file in files)}


def is_running(status: Mapping[str, Any], kind: str, count: int = 1) -> list[str]:
    """Names of stages of a kind that run, where there are so many."""
    names = [name for name, each in status.items() if name.startswith(kind) and each.state == "running"]
    return names if len(names) >= count else []


def process_of(comparison: Comparison, stage: str) -> psutil.Process:
    """The process of a stage's job, by the file that names it."""
    folder = next(path for path in comparison.out.glob("jobs/*") if path.name.startswith(stage.replace(" ", "-")))
    return psutil.Process(read_holder(holder_file(folder / "lock"))["pid"])
