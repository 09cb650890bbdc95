"""Evaluations that share a process and its base, beside ones that have a process each and read everything anew."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from conftest import SMALL
from prefzoo.lab import MODEL_DIR
from prefzoo.recipe import check_recipe as recipes
from prefzoo.run import executor
from prefzoo.run.progress_display import Watcher
from prefzoo.run.resources import forget_peak, peak_memory
from prefzoo.run.stage_graph import Plan, Stage, make_plan
from prefzoo.run.stages.run_stage import run_stage

GOLD = """
import gc, json, os, signal
from pathlib import Path
import torch

HERE = Path(__file__).parent

def gold(prompts, completions):
    weights = [each for each in gc.get_objects() if type(each) is torch.nn.Parameter]
    tables = {each.untyped_storage().data_ptr() for each in weights if len(each) == VOCABULARY}
    with (HERE / "calls").open("a") as file:
        file.write(json.dumps([os.getpid(), len(tables)]) + chr(10))
    calls = len((HERE / "calls").read_text().splitlines())
    if (HERE / f"raise-{calls}").exists():
        raise ValueError("broken on purpose")
    if (HERE / f"kill-{calls}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return [len(text) + float(torch.rand(())) for text in completions]
"""


def alone(plan, stage, folder, progress) -> None:
    """Does a stage with every model read for itself."""
    from prefzoo.models import shared_base
    from prefzoo.models.loading import load_model

    shared_base.load_with_shared_weights = load_model
    shared_base.load_classifier_with_shared_weights = lambda *args, **more: None
    run_stage(plan, stage, folder, progress)


class Run:
    """A small comparison in a folder, and what its evaluations did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        vocabulary = json.loads((MODEL_DIR / "config.json").read_text())["vocab_size"]
        (folder / "gold.py").write_text(GOLD.replace("VOCABULARY", str(vocabulary)))

    def evaluate(
        self, *algorithms: str, job: Callable[..., None] = run_stage, anew: bool = True
    ) -> dict[str, executor.Outcome]:
        """All evaluations anew, one after another, of trainings that are there already, should they be."""
        if anew:
            self.forget()
        gold = f"gold={{path: {self.folder / 'gold.py'}:gold}}"
        sets = [*SMALL, gold, "seeds=1", "start=none", "evaluation.prompts=8", "evaluation.milestones=1",
                "training.batch_size=8", "algorithms.best_of_n.n=2"]  # fmt: skip
        plan = make_plan(recipes.load("quickstart", sets, algorithms or ("sft", "best_of_n")), self.folder / "run", {})
        with Watcher(len(plan.stages), 1, Console(quiet=True)) as watcher:
            watcher.expect(list(plan.stages.values()))
            return executor.Runner(plan, job, 1, watcher).run()

    def forget(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)
        for place in (self.folder / "run" / "trials").glob("evaluate-*"):
            shutil.rmtree(place) if place.is_dir() else place.unlink()

    def calls(self) -> list[tuple[int, int]]:
        """Of each call of the truth in an evaluation: its process, and how many tables of embeddings were in memory."""
        return [tuple(json.loads(line)) for line in (self.folder / "calls").read_text().splitlines()]

    def records(self) -> dict[str, bytes]:
        found = (self.folder / "run" / "trials").rglob("replies.jsonl")
        return {str(file.relative_to(self.folder)): file.read_bytes() for file in found}

    def peaks(self) -> dict[str, int]:
        ledgers = (self.folder / "run" / "trials").glob("evaluate-*/ledger.json")
        return {file.parent.name: json.loads(file.read_text())["peak_memory_bytes"] for file in ledgers}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    made = Run(tmp_path_factory.mktemp("evaluating"))
    made.evaluate()
    return made


def test_policies_that_share_a_base_are_found_as_by_processes_of_their_own(run, monkeypatch) -> None:
    together, calls, peaks = run.records(), run.calls()[-4:], run.peaks()
    assert len(together) == 4, "the start, a policy and it on the way, and the best of several"
    assert len({process for process, _ in calls}) == 1 and [tables for _, tables in calls] == [1, 1, 1, 1]
    run.evaluate("best_of_n", "sft")
    assert run.records() == together, "another order"
    monkeypatch.setattr(executor, "REUSABLE_STAGE_KINDS", ())
    run.evaluate(job=alone)
    apart = run.calls()
    assert len({process for process, _ in apart}) == 3 and min(tables for _, tables in apart) == 2
    assert run.records() == together
    if sys.platform == "linux":
        assert all(peaks[name] == pytest.approx(peak, rel=0.1) for name, peak in run.peaks().items()), "each its own"


def test_an_evaluation_that_dies_or_fails_does_so_alone_and_is_made_up_for(run) -> None:
    whole = run.records()
    for fault in ("kill-1", "raise-2"):
        (run.folder / fault).touch()
    found = run.evaluate()
    for fault in ("kill-1", "raise-2"):
        (run.folder / fault).unlink()
    failed = {name: outcome.error for name, outcome in found.items() if outcome.status != "ok"}
    assert list(failed) == ["evaluate start seed 0", "evaluate sft seed 0"]
    assert "SIGKILL" in str(failed["evaluate start seed 0"])
    assert "broken on purpose" in str(failed["evaluate sft seed 0"])
    assert len({process for process, _ in run.calls()}) == len(run.calls()) == 3, "none that died or failed goes on"
    mended = run.evaluate(anew=False)
    assert {outcome.status for outcome in mended.values()} == {"ok"} and run.records() == whole
    assert len(run.calls()) == 3 + 4, "what had ended well was not done again; the start is asked for test pairs too"


def note(plan, stage, folder, progress) -> None:
    """Notes its process, which others are alive, and fails where its name says so."""
    noted = plan.out / "processes.jsonl"
    before = [json.loads(line)[1] for line in noted.read_text().splitlines()] if noted.exists() else []
    alive = sorted({each for each in before if each != os.getpid() and Path(f"/proc/{each}").exists()})
    with noted.open("a") as file:
        file.write(json.dumps([stage.name, os.getpid(), alive]) + "\n")
    print(f"this is {stage.name}, {os.environ['SAID']}")
    if "dies" in stage.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "fails" in stage.name:
        raise ValueError("broken on purpose")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks there for processes")
def test_a_process_goes_on_to_the_next_evaluation_alone_and_only_as_long_as_that_is_what_comes_next(
    tmp_path, monkeypatch
) -> None:
    kinds = {"a": "evaluate", "b": "evaluate", "c": "train", "d": "evaluate", "e dies": "evaluate", "f": "evaluate",
             "g fails": "evaluate", "h": "evaluate", "i": "evaluate", "j": "audit", "k": "audit"}  # fmt: skip
    stages = {name: Stage(name, kind, tmp_path / "trials" / name) for name, kind in kinds.items()}  # type: ignore[arg-type]
    plan = Plan(recipes.load("quickstart"), tmp_path, stages)
    monkeypatch.setenv("SAID", "a key that a notebook set")
    with Watcher(len(stages), 1, Console(quiet=True)) as watcher:
        watcher.expect(list(stages.values()))
        outcomes = executor.Runner(plan, note, 1, watcher).run()
    noted = [json.loads(line) for line in (tmp_path / "processes.jsonl").read_text().splitlines()]
    assert [name for name, *_ in noted] == list(kinds)
    assert [alive for *_, alive in noted] == [[]] * len(kinds), "one that waits is gone before another begins"
    of = {name: process for name, process, _ in noted}
    by_process = [[name for name in of if of[name] == process] for process in dict.fromkeys(of.values())]
    assert by_process == [["a", "b"], ["c"], ["d", "e dies"], ["f", "g fails"], ["h", "i"], ["j"], ["k"]]
    assert {name for name, outcome in outcomes.items() if outcome.status == "failed"} == {"e dies", "g fails"}
    assert "SIGKILL" in outcomes["e dies"].error and "broken on purpose" in outcomes["g fails"].error
    for name, stage in stages.items():
        log = stage.folder.with_name(f"{name}.log").read_text()
        # Not the log's first line everywhere: what is loaded before the stage may warn first, on some processors.
        assert "dies" in name or f"this is {name}, a key that a notebook set" in log.splitlines(), log


def test_the_peak_of_memory_is_forgotten() -> None:
    if sys.platform != "linux":
        pytest.skip("only there it goes down")
    forget_peak()
    before = peak_memory()
    big = torch.ones(2**26)  # 256 MiB
    held = peak_memory()
    assert held - before > 200 * 2**20
    forget_peak()
    assert peak_memory() - before > 200 * 2**20, "what is held counts"
    del big
    forget_peak()
    assert held - peak_memory() > 200 * 2**20
