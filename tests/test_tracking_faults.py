"""Nothing that befalls a tracker reaches the results; the trackers that trainers report to; mistakes in recipes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import prefzoo
from conftest import LABELS, OFFLINE, TRACKED, metrics
from prefzoo.errors import RecipeError
from prefzoo.recipe import check_recipe as recipes
from prefzoo.results.results_file import load
from prefzoo.run.stage_graph import make_plan
from prefzoo.tracking import tracker as tracking
from prefzoo.trainers.trainer_arguments import arguments
from wandb_files import read_runs

pytestmark = pytest.mark.faults

KEY = "0123456789abcdef" * 2 + "01234567"


def forget_trials(out: Path) -> None:
    """Have all trials trained and measured again; the start, the data and the reward stay."""
    for folder in [p for label in LABELS for p in out.glob(f"trials/*-{label}-*") if p.is_dir()]:
        shutil.rmtree(folder)


def test_a_server_that_refuses_changes_no_number_and_is_told_of_once(tracked, copied, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(tracking, "INIT_SECONDS", 2.0)
    waits = []
    finish = tracking.Tracker.finish

    def timed(tracker: tracking.Tracker) -> None:
        began = time.monotonic()
        finish(tracker)
        waits.append(time.monotonic() - began)

    monkeypatch.setattr(tracking.Tracker, "finish", timed)
    forget_trials(copied)
    found = prefzoo.compare("quickstart", LABELS, seeds=2, sets=[*TRACKED, "tracking.wandb.mode=online"], out=copied)
    assert waits[0] < 30
    assert metrics(found) == metrics(tracked[0])
    (note,) = [note for note in found.notes if "Weights & Biases" in note]
    assert "could not be reached" in note and "wandb sync" in note
    assert load(copied).model_dump() == found.model_dump()
    assert len(read_runs(copied)) == 7
    assert not [p for p in copied.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


@pytest.mark.parametrize(
    ("package", "says"),
    [
        ("raise ModuleNotFoundError('No module named wandb')", "No module named wandb"),
        ("import os; os._exit(7)", "exit code 7"),
        ("raise OSError(28, 'No space left on device')", "No space left"),
        ("import time; time.sleep(60)", "no answer"),
    ],
    ids=["missing", "crashing", "full disk", "hanging"],
)
def test_a_broken_wandb_costs_a_note(tracked, copied, tmp_path, monkeypatch, package: str, says: str) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "wandb.py").write_text(package)
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))
    for name in ("INIT_SECONDS", "FINISH_SECONDS", "STOP_SECONDS"):
        monkeypatch.setattr(tracking, name, 1.0)
    monkeypatch.setattr(tracking, "MARGIN_SECONDS", 2.0)
    began = time.monotonic()
    found = prefzoo.compare("quickstart", LABELS, seeds=2, sets=OFFLINE, out=copied)
    assert time.monotonic() - began < 50, "the broken package would sleep for 60 seconds"
    assert [note for note in found.notes if says in note] == [n for n in found.notes if "Weights & Biases" in n] != []
    assert metrics(found) == metrics(tracked[0])
    assert load(copied).notes == found.notes


def test_a_tracker_that_ended_early_is_still_heard(copied, tmp_path, monkeypatch) -> None:
    (tmp_path / "wandb.py").write_text("raise ModuleNotFoundError('No module named wandb')")
    monkeypatch.syspath_prepend(str(tmp_path))
    finish = tracking.Tracker.finish

    def late(self: tracking.Tracker) -> None:
        self.process.join(60)
        finish(self)

    monkeypatch.setattr(tracking.Tracker, "finish", late)
    found = prefzoo.compare("quickstart", LABELS, seeds=2, sets=OFFLINE, out=copied)
    assert ["No module named wandb" in note for note in found.notes if "Weights & Biases" in note] == [True]


def test_disabled_leaves_no_trace(copied) -> None:
    for sets in (TRACKED, [*TRACKED, "tracking.wandb.mode=disabled"]):  # the first by WANDB_MODE, which conftest sets
        prefzoo.compare("quickstart", LABELS, seeds=2, sets=sets, out=copied)
        assert not list(copied.glob("tracking*")) and not (copied / "wandb").exists()


def test_a_failed_trial_is_logged_as_failed(copied) -> None:
    sets = [*OFFLINE, "algorithms.rejection_sampling.keep=threshold", "algorithms.rejection_sampling.threshold=1e9"]
    prefzoo.compare("quickstart", LABELS, seeds=1, sets=sets, out=copied)
    runs = read_runs(copied)
    failed = runs["rejection_sampling seed 0"]
    assert failed["exit_code"] == 1 and failed["summary"]["status"] == "failed"
    assert "none of" in failed["summary"]["error"]
    assert runs["start seed 0"]["summary"]["status"] == "ok"


def test_mistakes_in_tracking_are_named(monkeypatch) -> None:
    with pytest.raises(RecipeError) as caught:
        sets = ["tracking.report_to=[tensorbord]", "tracking.wandb.mode=onlin", "tracking.wandb.projct=x"]
        recipes.load("quickstart", sets)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    for meant in ("tensorboard", "online", "project"):
        assert f"Did you mean '{meant}'" in text
    monkeypatch.setattr("prefzoo.recipe.cross_check.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"report_to: 'mlflow' is not installed here; pip install mlflow"):
        recipes.load("quickstart", ["tracking.report_to=[mlflow]"])


def test_checking_and_listing_import_no_tracker() -> None:
    code = (
        "import sys; from prefzoo.commands import comparison; from prefzoo.recipe import check_recipe\n"
        "check_recipe.load('quickstart', ['tracking.report_to=[tensorboard]', 'tracking.wandb.mode=online'])\n"
        "assert not {'wandb', 'tensorboard', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_result_depends_on_tracking(tmp_path) -> None:
    def folders(*sets: str) -> list[Path]:
        return [s.folder for s in make_plan(recipes.load("quickstart", sets), tmp_path).stages.values()]

    assert folders() == folders("tracking.wandb.mode=online", "tracking.report_to=[tensorboard]")


def test_tensorboard_gets_each_trial_under_its_folder(tracked, copied) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    forget_trials(copied)
    sets = [*TRACKED, "tracking.report_to=[tensorboard]"]
    assert metrics(prefzoo.compare("quickstart", LABELS, seeds=2, sets=sets, out=copied)) == metrics(tracked[0])
    logs = [file.parent.relative_to(copied / "trials") for file in copied.glob("trials/**/events.out.tfevents.*")]
    assert sorted((log.parts[0].rpartition("-")[0], *log.parts[1:]) for log in logs) == [
        *[(f"train-dpo-seed-{seed}", "tensorboard") for seed in (0, 1)],
        *[
            (f"train-rejection_sampling-seed-{seed}", "tensorboard", *part)
            for seed in (0, 1)
            for part in ((), ("round-2",))
        ],
    ]
    (dpo,) = copied.glob("trials/train-dpo-seed-0-*/tensorboard")
    events = EventAccumulator(str(dpo)).Reload()
    curve = json.loads((dpo.parent / "curves.json").read_text())[0]
    logged = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert logged == [(e["step"], pytest.approx(e["loss"])) for e in curve if "loss" in e]


def test_a_tracker_that_fails_in_training_is_left_out(make_bench, monkeypatch) -> None:
    from transformers.integrations import TensorBoardCallback
    from trl import SFTConfig

    def broken(*given: Any, **more: Any) -> None:
        raise ConnectionError("the tracker is down")

    monkeypatch.setattr(TensorBoardCallback, "on_log", broken)
    bench = make_bench().replace(reporting={"report_to": ["tensorboard"], "run_name": "sft seed 7"})
    prefzoo.get("sft").train(bench)
    assert "the tracker is down" in bench.report["tracking"]["TensorBoardCallback"]
    assert (bench.out / "policy").is_dir()
    named = arguments(bench, SFTConfig, {})
    assert (named.run_name, named.report_to) == ("sft seed 7 round 2", ["tensorboard"])
    silent = make_bench(name="silent")
    assert arguments(silent, SFTConfig, {}).report_to == []
