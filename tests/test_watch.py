"""What is said of the time left, by a clock that the test sets."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from prefzoo.run.progress_display import Watcher
from prefzoo.run.stage_graph import SECONDS_FILE, Stage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def stage(name: str, *needs: str, folder: Path = Path("none")) -> Stage:
    kind, *rest = name.split()
    label = rest[0] if rest else None
    return Stage(name, kind, folder, needs, label=label, seed=int(rest[1]) if rest else None)  # type: ignore[arg-type]


class Told:
    """A watcher on a console that nobody sees, and its clock."""

    def __init__(self, stages: list[Stage], workers: int) -> None:
        self.clock, self.file = Clock(), io.StringIO()
        self.watcher = Watcher(len(stages), workers, Console(file=self.file, width=200), self.clock)
        self.watcher.__enter__()
        self.watcher.expect(stages)
        self.stages = {each.name: each for each in stages}

    def run(self, name: str, seconds: float, status: str = "ok") -> str:
        self.watcher.started(self.stages[name])
        self.clock.now += seconds
        self.watcher.ended(self.stages[name], status, None, seconds, reused=False)
        return self.watcher.time_left()


@pytest.fixture
def trials() -> list[Stage]:
    """Two seeds of two algorithms."""
    trains = [stage(f"train {label} {seed}", "data") for label in ("a", "b") for seed in (0, 1)]
    return [stage("data"), *trains, *(stage(f"evaluate {s.label} {s.seed}", s.name) for s in trains)]


def test_one_at_a_time_it_is_the_sum_of_what_each_kind_takes(trials) -> None:
    told = Told(trials, workers=1)
    assert told.watcher.time_left() == ""
    assert told.run("data", 50) == ""  # nothing that is left is like it
    assert told.run("train a 0", 60) == "at least 1:00 left"
    assert told.run("train a 1", 80) == ""
    assert told.run("train b 0", 7) == "at least 0:07 left"
    assert told.run("evaluate a 0", 10) == "about 0:37 left"  # 7, and an evaluation each of a and of b twice
    told.watcher.started(told.stages["train b 1"])
    told.clock.now += 3
    assert told.watcher.time_left() == "about 0:34 left"
    told.clock.now += 30
    assert told.watcher.time_left() == "about 0:30 left"  # late, but never less than nothing


def test_several_at_a_time_what_needs_another_waits_for_it(trials) -> None:
    told = Told(trials, workers=4)
    for name, seconds in (("data", 1.0), ("train a 0", 60), ("train b 0", 20), ("evaluate a 0", 10)):
        told.run(name, seconds)
    # a: 60, then its evaluation of 10; the others fit beside it. A quarter of all work would be 30.
    assert told.watcher.time_left() == "about 1:10 left"
    told.run("train a 1", 60)
    told.run("evaluate a 1", 12)
    # b: 20, then 11, the mean of both evaluations so far
    assert told.watcher.time_left() == "about 0:31 left"


def test_failed_stages_say_nothing_of_the_time_and_the_end_nothing_at_all(trials) -> None:
    told = Told(trials[:3], workers=1)
    told.run("data", 1)
    assert told.run("train a 0", 2, status="failed") == ""
    assert told.run("train a 1", 2) == ""


def test_an_earlier_run_of_the_folder_is_gone_by(trials, tmp_path) -> None:
    (tmp_path / SECONDS_FILE).write_text("40.5")
    before = stage("train a 0", folder=tmp_path)
    told = Told([before, stage("train a 1"), stage("train a 2")], workers=1)
    told.watcher.ended(before, "ok", None, 0.0, reused=True)
    assert told.watcher.time_left() == "about 1:21 left"
    assert "[1/3] train a 0: already there (about 1:21 left)" in told.file.getvalue()


def test_without_a_terminal_it_says_now_and_then_what_runs(trials) -> None:
    told = Told(trials, workers=1)
    told.run("data", 1)
    told.watcher.started(told.stages["train a 0"])
    told.watcher.progressed(told.stages["train a 0"], "sampling", 3, 9)
    told.clock.now += 29
    told.watcher.tick()
    assert "running" not in told.file.getvalue()
    told.clock.now += 2
    told.watcher.tick()
    told.watcher.tick()
    assert told.file.getvalue().count("[1/9] running train a 0: sampling 3/9") == 1
