"""Tracking: what W&B holds, read back from disk; and that nothing which befalls a tracker reaches the results."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import prefzoo
from conftest import SMALL
from prefzoo.comparison import recipe_check as recipes
from prefzoo.comparison import tracking, tracking_process
from prefzoo.comparison.plan import load_plan, make_plan
from prefzoo.comparison.recipe import Wandb
from prefzoo.comparison.results import load
from prefzoo.comparison.wandb_content import points
from prefzoo.comparison.wandb_door import Door
from prefzoo.errors import RecipeError
from prefzoo.policies.fitting import arguments

KEY = "0123456789abcdef" * 2 + "01234567"
SETS = [*SMALL, "training.batch_size=4", "algorithms.rejection_sampling.iterations=2"]
OFFLINE = [*SETS, "tracking.wandb.mode=offline"]
LABELS = ["dpo", "rejection_sampling"]


def records(file: Path) -> list[Any]:
    """What a run's file holds: LevelDB's log format behind a header of 7 bytes, a protobuf message each."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole, found = file.read_bytes(), 7, b"", []
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last piece
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


def nested(items: Any, found: dict[str, Any] | None = None) -> dict[str, Any]:
    """Keys with their values, of which some are spread over several keys below one; added to `found`."""
    found = {} if found is None else found
    for item in items:
        first, *rest = item.nested_key or [item.key]
        place = found
        for key in rest:
            place, first = place.setdefault(first, {}), key
        place[first] = json.loads(item.value_json)
    return found


def read_runs(out: Path) -> dict[str, dict[str, Any]]:
    """Every offline run below `out` by its name; several files of one run in the order in which they were written."""
    runs: dict[str, dict[str, Any]] = defaultdict(lambda: {"files": 0, "history": [], "summary": {}, "artifacts": []})
    for file in sorted((out / "wandb").glob("offline-run-*/*.wandb")):
        found = records(file)
        run = next(r.run for r in found if r.WhichOneof("record_type") == "run")
        held = runs[run.display_name]
        held |= {"id": run.run_id, "group": run.run_group, "type": run.job_type, "project": run.project}
        held["config"] = nested(run.config.update)
        held["files"] += 1
        held["folder"] = file.parent
        for record in found:
            kind = record.WhichOneof("record_type")
            if kind == "history":
                held["history"].append(nested(record.history.item))
            elif kind == "config":
                nested(record.config.update, held["config"])
            elif kind == "summary":
                held["summary"] |= nested(record.summary.update)
            elif kind == "artifact":
                held["artifacts"].append(record.artifact.name)
            elif kind == "metric":
                held.setdefault("axes", {})[record.metric.glob_name] = record.metric.step_metric
            elif kind == "exit":
                held["exit_code"] = record.exit.exit_code
    return dict(runs)


def steps(run: dict[str, Any]) -> list[int]:
    return [row["train/step"] for row in run["history"] if "train/step" in row]


def metrics(results: Any) -> dict[tuple[str, str], dict[str, float]]:
    return {(k, s): trial.metrics for k, each in results.algorithms.items() for s, trial in each.seeds.items()}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A comparison that was tracked offline, started in an empty folder."""
    out, empty = tmp_path_factory.mktemp("tracked"), tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(empty)
        results = prefzoo.compare("quickstart", LABELS, seeds=2, sets=OFFLINE, out=out)
    assert not list(empty.iterdir())
    return results, out


@pytest.fixture
def copied(tracked, tmp_path):
    """The finished stages of `tracked`, of which nothing is logged yet."""
    out = tmp_path / "copy"
    shutil.copytree(tracked[1], out, ignore=shutil.ignore_patterns("wandb", "tracking.*"), symlinks=True)
    return out


def forget_trials(out: Path) -> None:
    """Have all trials trained and measured again; the start, the data and the reward stay."""
    for folder in [p for label in LABELS for p in out.glob(f"trials/*-{label}-*") if p.is_dir()]:
        shutil.rmtree(folder)


def test_one_run_for_each_trial_and_one_summary_in_one_group(tracked) -> None:
    _, out = tracked
    runs = read_runs(out)
    trials = {f"{label} seed {seed}" for label in ("start", *LABELS) for seed in (0, 1)}
    assert set(runs) == {*trials, f"{out.name} summary"}
    assert {run["files"] for run in runs.values()} == {1}
    assert len({run["id"] for run in runs.values()}) == 7
    (group,) = {run["group"] for run in runs.values()}
    assert group.startswith(out.name)
    assert {run["project"] for run in runs.values()} == {"prefzoo"}
    assert {run["exit_code"] for run in runs.values()} == {0}


def test_configs_say_all_that_made_a_trial(tracked) -> None:
    results, out = tracked
    config = read_runs(out)["dpo seed 1"]["config"]
    assert (config["label"], config["algorithm"], config["seed"], config["trial_seed"]) == ("dpo", "dpo", 1, 1)
    assert config["settings"]["beta"] == 0.5 and config["settings"]["loss_type"] == "sigmoid"
    assert config["recipe"] == results.recipe
    assert config["manifest_sha256"] == results.manifest["sha256"]
    assert config["versions"]["trl"] == results.versions["trl"]


def test_curves_have_one_axis_that_increases_over_rounds(tracked) -> None:
    _, out = tracked
    runs = read_runs(out)
    assert steps(runs["dpo seed 0"]) == [5, 10]
    run = runs["rejection_sampling seed 0"]
    rounds = json.loads(next(out.glob("trials/train-rejection_sampling-seed-0-*/curves.json")).read_text())
    first, second = ([e["step"] for e in entries if "loss" in e] for entries in rounds)
    assert second
    assert steps(run) == [*first, *(rounds[0][-1]["step"] + step for step in second)]
    assert run["axes"]["train/*"] == "train/step"
    assert all(isinstance(row["train/loss"], float) for row in run["history"])


def test_final_metrics_are_those_of_the_results(tracked) -> None:
    results, out = tracked
    for name, run in read_runs(out).items():
        if run["type"] == "trial":
            label, _, seed = name.split()
            trial = results.algorithms[label].seeds[seed]
            assert {k: run["summary"][f"test/{k}"] for k in trial.metrics} == pytest.approx(trial.metrics)
            assert run["summary"]["ledger/trained_tokens"] == trial.ledger["trained_tokens"]


def test_the_summary_holds_table_charts_and_completions(tracked) -> None:
    results, out = tracked
    run = read_runs(out)[f"{out.name} summary"]
    logged = {key for row in run["history"] for key in row}
    assert {"results", "completions", "picture"} <= logged
    assert {"start/step", "start/loss", "reward/step", "reward/loss"} <= logged
    charts = json.dumps(run["config"]["_wandb"])
    assert "wandb/bar/v0" in charts and "wandb/scatter/v0" in charts

    def table(key: str) -> dict[str, Any]:
        (entry,) = [row[key] for row in run["history"] if key in row]
        return json.loads((run["folder"] / "files" / entry["path"]).read_text())

    final = table("results")
    gold = {row[0]: row[final["columns"].index("gold")] for row in final["data"]}
    assert gold == {label: pytest.approx(each.summary["gold"].mean) for label, each in results.algorithms.items()}
    answers = table("completions")
    assert answers["columns"][:3] == ["prompt", "start", "start gold"] and "dpo" in answers["columns"]
    first = json.loads((out / results.algorithms["dpo"].seeds["0"].replies).read_text().splitlines()[0])
    assert answers["data"][0][0] == first["prompt"][-1]["content"]
    assert answers["data"][0][answers["columns"].index("dpo")] == first["reply"]
    assert run["summary"]["verdict"]


def test_a_second_call_logs_nothing_again_and_more_seeds_only_their_own(tracked, tmp_path) -> None:
    _, source = tracked
    out = tmp_path / source.name
    shutil.copytree(source, out, symlinks=True)
    before = read_runs(out)
    prefzoo.compare("quickstart", LABELS, seeds=2, sets=OFFLINE, out=out)
    assert read_runs(out).keys() == before.keys()
    assert {run["files"] for run in read_runs(out).values()} == {1}
    prefzoo.compare("quickstart", ["dpo"], seeds=3, sets=OFFLINE, out=out)
    after = read_runs(out)
    assert after.keys() - before.keys() == {"dpo seed 2", "start seed 2"}
    assert {name: run["id"] for name, run in after.items() if run["type"] == "trial" and name in before} == {
        name: run["id"] for name, run in before.items() if run["type"] == "trial"
    }
    assert {run["group"] for run in after.values()} == {run["group"] for run in before.values()}


def test_a_run_that_was_cut_off_goes_on_under_its_id_where_it_stopped(tracked, tmp_path) -> None:
    _, source = tracked
    out = tmp_path / source.name
    shutil.copytree(source, out, symlinks=True)
    before = read_runs(out)["dpo seed 0"]
    state = json.loads((out / "tracking.json").read_text())
    state["runs"][before["id"]] = {"steps": 5, "content": None}
    (out / "tracking.json").write_text(json.dumps(state))
    prefzoo.compare("quickstart", LABELS, seeds=2, sets=OFFLINE, out=out)
    after = read_runs(out)["dpo seed 0"]
    assert (after["id"], after["files"]) == (before["id"], 2)
    assert steps(after) == [5, 10, 10]  # the first file holds both, the second what the state says is missing
    assert {run["files"] for name, run in read_runs(out).items() if name != "dpo seed 0"} == {1}


def test_turned_on_later_it_logs_what_is_finished_and_trains_nothing(tracked, copied) -> None:
    times = {path: path.stat().st_mtime_ns for path in copied.glob("*/*") if path.is_dir()}
    sets = [*OFFLINE, "tracking.wandb.project=other", "tracking.wandb.artifacts=true"]
    prefzoo.compare("quickstart", LABELS, seeds=2, sets=sets, out=copied)
    new = {path for path in copied.glob("*/*") if path.is_dir()} - set(times)
    assert {path.parent.name for path in new} == {"wandb"}
    runs = read_runs(copied)
    assert len(runs) == 7 and {run["project"] for run in runs.values()} == {"other"}
    assert runs["dpo seed 1"]["artifacts"] == [f"policy-dpo-seed-1-{runs['dpo seed 1']['group']}"]
    assert any(name.startswith("start-") for name in runs["copy summary"]["artifacts"])
    assert not {run["id"] for run in runs.values()} & {run["id"] for run in read_runs(tracked[1]).values()}


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
    found = prefzoo.compare("quickstart", LABELS, seeds=2, sets=[*SETS, "tracking.wandb.mode=online"], out=copied)
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
    assert time.monotonic() - began < 20
    assert [note for note in found.notes if says in note] == [n for n in found.notes if "Weights & Biases" in n] != []
    assert metrics(found) == metrics(tracked[0])
    assert load(copied).notes == found.notes


def test_disabled_leaves_no_trace(copied) -> None:
    for sets in (SETS, [*SETS, "tracking.wandb.mode=disabled"]):  # the first by WANDB_MODE, which conftest sets
        prefzoo.compare("quickstart", LABELS, seeds=2, sets=sets, out=copied)
        assert not list(copied.glob("tracking*")) and not (copied / "wandb").exists()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_auto_is_online_for_who_is_logged_in(tmp_path, environment: dict[str, str], expected: str) -> None:
    code = (
        "import socket; connect = socket.socket.connect\n"
        "def local(self, to): assert isinstance(to, str), to; return connect(self, to)\n"
        "socket.socket.connect = local\n"  # this decision asks nobody
        "from pathlib import Path; from prefzoo.comparison.recipe import Wandb\n"
        "from prefzoo.comparison.wandb_door import Door\n"
        "print(Door(Wandb(), Path('.'), 'g', print, 1, 1).mode)"
    )
    home = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(p for p in sys.path if p), "WANDB_SILENT": "true"}
    done = subprocess.run([sys.executable, "-c", code], env={**home, **environment}, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == [expected], done.stderr


def test_points_count_on_over_rounds(tmp_path) -> None:
    rounds = [
        [{"loss": 3.0, "step": 5}, {"loss": 2.0, "step": 10}, {"train_loss": 2.5, "step": 12}],
        [{"loss": 1.0, "step": 5, "epoch": 0.5}, {"train_loss": 1.0, "step": 6}],
    ]
    (tmp_path / "curves.json").write_text(json.dumps(rounds))
    found = list(points(tmp_path))
    assert [point["train/step"] for point in found] == [5, 10, 17]
    assert found[-1] == {"train/loss": 1.0, "train/step": 17, "train/epoch": 0.5}
    assert list(points(tmp_path / "none")) == []


class FakeDoor(Door):
    """A server that is there, and remembers."""

    mode = "online"

    def __init__(self) -> None:
        super().__init__(Wandb(mode="online"), Path(), "g", lambda *said: None, 1, 1)
        self.logged: list[int] = []
        self.summary: dict[str, Any] = {}
        self.exits: list[int] = []

    def finish(self, run_id: str, exit_code: int) -> None:
        self.exits.append(exit_code)

    def open(self, *run: Any) -> Any:
        return self

    def define_metric(self, *names: str, **more: str) -> None:
        pass

    def log(self, point: dict[str, float]) -> None:
        self.logged.append(int(point["train/step"]))


def test_curves_grow_while_training_goes_on_and_never_go_back(tmp_path) -> None:
    plan = make_plan(recipes.load("quickstart", ["seeds=1"], ["dpo"]), tmp_path)
    plan.stages["data"].folder.mkdir(parents=True)
    (plan.stages["data"].folder / "manifest.json").write_text('{"sha256": "0"}')
    folder = plan.stages["train dpo seed 0"].folder
    curves = folder.with_name(f"{folder.name}.partial") / "curves.json"
    curves.parent.mkdir(parents=True)

    def look(book: tracking_process.Logbook, *trained: int) -> list[int]:
        curves.write_text(json.dumps([[{"loss": 1.0, "step": step} for step in trained]]))
        book.door = book.door if isinstance(book.door, FakeDoor) else FakeDoor()
        book.door.logged.clear()
        book.sweep()
        return book.door.logged

    def begin() -> tracking_process.Logbook:
        return tracking_process.Logbook(plan, {"dpo": {}}, None, 1, 1)  # type: ignore[arg-type]

    book = begin()
    assert look(book, 5, 10) == [5, 10]
    assert look(book, 5, 10, 15) == [15]
    again = begin()  # killed: the training begins anew, the run does not
    assert again.run_id("x") == book.run_id("x")
    assert look(again, 5) == []
    assert look(again, 5, 10, 15, 20) == [20]


def test_trials_that_ended_just_before_the_comparison_are_seen(tracked, copied, monkeypatch) -> None:
    monkeypatch.setattr(tracking_process.Logbook, "summarize", lambda book: None)
    settings = {label: {} for label in LABELS}
    book = tracking_process.Logbook(load_plan(copied), settings, None, 1, 1)  # type: ignore[arg-type]
    monkeypatch.setattr(book, "say", lambda *said: None)
    book.door = FakeDoor()
    book.close(asked=True)
    assert book.door.exits == [0] * 6
    assert book.door.summary["status"] == "ok"


def test_a_failed_trial_is_logged_as_failed(copied) -> None:
    sets = [*OFFLINE, "algorithms.rejection_sampling.keep=threshold", "algorithms.rejection_sampling.threshold=1e9"]
    prefzoo.compare("quickstart", ["rejection_sampling"], seeds=1, sets=sets, out=copied)
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
    monkeypatch.setattr("prefzoo.comparison.recipe_check.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"report_to: 'mlflow' is not installed here; pip install mlflow"):
        recipes.load("quickstart", ["tracking.report_to=[mlflow]"])


def test_checking_and_listing_import_no_tracker() -> None:
    code = (
        "import sys; from prefzoo.comparison import recipe_check, compare\n"
        "recipe_check.load('quickstart', ['tracking.report_to=[tensorboard]', 'tracking.wandb.mode=online'])\n"
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
    sets = [*SETS, "tracking.report_to=[tensorboard]"]
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
