"""What Weights & Biases holds of a comparison, read back from disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import prefzoo
from conftest import LABELS, OFFLINE
from prefzoo.recipe import check_recipe as recipes
from prefzoo.recipe.recipe_schema import Wandb
from prefzoo.recipe.tuning_settings import Tuning
from prefzoo.results.training_history import read_curve
from prefzoo.run.stage_graph import load_plan, make_plan
from prefzoo.tracking.wandb_client import WandbClient
from prefzoo.tracking.wandb_process import RunLogger
from reported import searched
from wandb_files import read_runs, steps

KEY = "0123456789abcdef" * 2 + "01234567"


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
    assert steps(runs["dpo seed 0"]) == [1, 5, 10]
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
    assert {"results", "verdicts", "win matrix", "ratings", "warnings", "cost", "at equal length"} <= logged
    pictures = {f"figures/{file.stem}" for file in (out / "figures").glob("*.png")}
    assert {"figures/score", "figures/frontier", "figures/gold_proxy", "figures/curve_loss"} <= pictures <= logged
    assert {"start/step", "start/loss", "reward/step", "reward/loss"} <= logged
    charts = json.dumps(run["config"]["_wandb"])
    assert "wandb/bar/v0" in charts and "wandb/scatter/v0" in charts

    def table(key: str) -> dict[str, Any]:
        (entry,) = [row[key] for row in run["history"] if key in row]
        return json.loads((run["folder"] / "files" / entry["path"]).read_text())

    final = table("results")
    gold = {row[0]: row[final["columns"].index("gold")] for row in final["data"]}
    assert gold == {label: pytest.approx(each.summary["gold"].mean) for label, each in results.algorithms.items()}
    judged = table("verdicts")
    found = {tuple(row[:3]): row[judged["columns"].index("verdict")] for row in judged["data"]}
    assert found == {(v.metric, v.a, v.b): v.verdict for v in results.verdicts}
    image = next(row["figures/frontier"] for row in run["history"] if "figures/frontier" in row)
    kept = (run["folder"] / "files" / image["path"]).read_bytes()
    assert kept == (out / "figures" / "frontier.png").read_bytes()
    answers = table("completions")
    assert answers["columns"][:3] == ["prompt", "start", "start gold"] and "dpo" in answers["columns"]
    first = json.loads((out / results.algorithms["dpo"].seeds["0"].replies).read_text().splitlines()[0])
    row = next(row for row in answers["data"] if row[0] == first["prompt"][-1]["content"])
    assert row[answers["columns"].index("dpo")] == first["reply"]
    assert run["summary"]["verdict"]


def test_a_second_call_logs_nothing_again_and_more_seeds_only_their_own(tracked, tmp_path) -> None:
    _, source = tracked
    out = tmp_path / source.name
    shutil.copytree(source, out, symlinks=True)
    before = read_runs(out)
    prefzoo.compare("quickstart", LABELS, seeds=2, sets=OFFLINE, out=out)
    assert read_runs(out).keys() == before.keys()
    assert {run["files"] for run in read_runs(out).values()} == {1}
    prefzoo.compare("quickstart", LABELS, seeds=3, sets=OFFLINE, out=out)
    after = read_runs(out)
    assert after.keys() - before.keys() == {"dpo seed 2", "rejection_sampling seed 2", "start seed 2"}
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
    assert steps(after) == [1, 5, 10, 10]  # the first file holds both, the second what the state says is missing
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
        "from pathlib import Path; from prefzoo.recipe.recipe_schema import Wandb\n"
        "from prefzoo.tracking.wandb_client import WandbClient\n"
        "print(WandbClient(Wandb(), Path('.'), 'g', print, 1, 1).mode)"
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
    points = read_curve(tmp_path)
    assert [point["step"] for point in points] == [5, 10, 17]
    assert points[-1] == {"loss": 1.0, "step": 17, "epoch": 0.5}
    assert read_curve(tmp_path / "none") == []


def test_each_tuning_trial_is_a_run_in_the_group_whose_settings_are_its_config(copied, monkeypatch) -> None:
    monkeypatch.setattr(RunLogger, "log_summary", lambda run_logger: None)
    (copied / "tuning.json").write_text(json.dumps(searched({"dpo": [0.25, 1.0, None]})))
    plan = load_plan(copied)
    plan = replace(plan, recipe=plan.recipe.model_copy(update={"tuning": Tuning()}))
    for _ in range(2):  # the second call logs nothing again
        nobody: Any = SimpleNamespace(send=lambda message: None)
        RunLogger(plan, {label: {} for label in LABELS}, nobody, 60, 60).close(finished=True)
    runs = read_runs(copied)
    trials = {name: run for name, run in runs.items() if run["type"] == "tuning"}
    assert sorted(trials) == [f"dpo tuning trial {number}" for number in range(3)] and len(runs) == 9
    assert {run["files"] for run in trials.values()} == {1}
    assert len({run["group"] for run in runs.values()}) == 1
    config, summary = (trials["dpo tuning trial 1"][part] for part in ("config", "summary"))
    assert (config["label"], config["algorithm"], config["trial"]) == ("dpo", "dpo", 1)
    assert config["settings"] == {"beta": 0.2, "trainer": {"learning_rate": 5e-4}}
    assert (summary["score"], summary["kl"], summary["length"], summary["state"]) == (1.0, 2.5, 20.0, "complete")
    assert summary["won"] and not trials["dpo tuning trial 0"]["summary"]["won"]
    failed = trials["dpo tuning trial 2"]
    assert failed["exit_code"] == 1 and failed["summary"]["error"] == "loss is nan" and "score" not in failed["summary"]


class FakeClient(WandbClient):
    """A server that is there, and remembers."""

    mode = "online"

    def __init__(self) -> None:
        super().__init__(Wandb(mode="online"), Path(), "g", lambda *message: None, 1, 1)
        self.logged: list[int] = []
        self.summary: dict[str, Any] = {}
        self.exits: list[int] = []

    def finish(self, run_id: str, exit_code: int) -> None:
        self.exits.append(exit_code)

    def open(self, run_id: str, **description: Any) -> Any:
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

    def look(run_logger: RunLogger, *trained: int) -> list[int]:
        curves.write_text(json.dumps([[{"loss": 1.0, "step": step} for step in trained]]))
        client = run_logger.client = FakeClient()
        run_logger.log_progress()
        return client.logged

    def begin() -> RunLogger:
        return RunLogger(plan, {"dpo": {}}, None, 1, 1)  # type: ignore[arg-type]

    run_logger = begin()
    assert look(run_logger, 5, 10) == [5, 10]
    assert look(run_logger, 5, 10, 15) == [15]
    again = begin()  # killed: the training begins anew, the run does not
    assert again.run_id("x") == run_logger.run_id("x")
    assert look(again, 5) == []
    assert look(again, 5, 10, 15, 20) == [20]


def test_trials_that_ended_just_before_the_comparison_are_seen(tracked, copied, monkeypatch) -> None:
    monkeypatch.setattr(RunLogger, "log_summary", lambda run_logger: None)
    settings = {label: {} for label in LABELS}
    run_logger = RunLogger(load_plan(copied), settings, None, 1, 1)  # type: ignore[arg-type]
    monkeypatch.setattr(run_logger, "send", lambda *message: None)
    client = run_logger.client = FakeClient()
    run_logger.close(finished=True)
    assert client.exits == [0] * 6
    assert client.summary["status"] == "ok"
