"""The tracking process: it looks at what the stages left on disk and logs each trial to a W&B run."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from prefzoo.atomic_files import text_sha256, write_whole
from prefzoo.results.collect import seed_result
from prefzoo.results.results_file import load
from prefzoo.results.training_history import read_curve
from prefzoo.results.tuning_results import found_tuning
from prefzoo.results.tuning_schema import TuningTrial
from prefzoo.run.executor import OUTCOMES
from prefzoo.run.stage_graph import START, Plan, Stage, load_plan
from prefzoo.tracking import wandb_content
from prefzoo.tracking.wandb_client import WandbClient

POLL_SECONDS = 2.0
LOG = "tracking.log"
STATE_FILE = "tracking.json"


def track(
    out: Path, settings: dict[str, Any], connection: Connection, init: float, finish: float, scratch: str
) -> None:
    """Track the comparison in `out` until it says "finish" or is gone; see `RunLogger` for the arguments.

    Args:
        scratch: the folder for temporary files, which wandb leaves behind; it is removed in the end.
    """
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the comparison decides what Ctrl-C ends
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)  # trials are timed; tracking can wait
    with (out / LOG).open("a", encoding="utf-8") as log:
        sys.stdout.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        run_logger = RunLogger(load_plan(out), settings, connection, init, finish)
        try:
            if run_logger.client.mode != "disabled":
                run_logger.close(finished=run_logger.watch())
        except Exception as error:
            traceback.print_exc()
            run_logger.send("problem", f"Weights & Biases: {type(error).__name__}: {error}")
        run_logger.send("done")
        sys.stdout.flush()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)  # wandb's exit hook would wait for its server without a limit


class Trial(NamedTuple):
    """One label with one seed, and the stages that its run is made from."""

    label: str
    seed: int
    train: Stage | None
    evaluate: Stage
    start: Stage

    @property
    def done(self) -> bool:
        """True where it is measured, and so is the start that it is compared with."""
        return all(stage.done for stage in (self.train, self.evaluate, self.start) if stage)

    @property
    def key(self) -> str:
        """The names of its stages' folders: the same trial, done again, continues the same run."""
        return " ".join(stage.folder.name for stage in (self.train, self.evaluate) if stage)


class RunLogger:
    """Logs each trial and the comparison's summary once.

    Args:
        plan: the comparison.
        settings: label -> every hyper-parameter of its algorithm.
        connection: to the comparison.
        init, finish: seconds that a server may take to open a run, and to take its last uploads.
    """

    def __init__(
        self, plan: Plan, settings: dict[str, Any], connection: Connection, init: float, finish: float
    ) -> None:
        self.plan, self.out, self.settings, self.connection = plan, plan.out, settings, connection
        self.state = read_state(self.out)
        write_state(self.out, self.state)
        group = f"{self.out.name}-{self.state['comparison']}"
        self.client = WandbClient(plan.recipe.tracking.wandb, self.out, group, self.send, init, finish)
        self.pending = []
        for stage in plan.stages.values():
            if stage.kind == "evaluate" and stage.label is not None and stage.seed is not None:
                train = plan.stages.get(f"train {stage.label} seed {stage.seed}")
                start = plan.stages[f"evaluate {START} seed {stage.seed}"]
                self.pending.append(Trial(stage.label, stage.seed, train, stage, start))
        self.tuning = found_tuning(plan.recipe, self.out)
        labels = self.tuning.labels if self.tuning is not None else {}
        self.pending_tuning = [(label, trial) for label, tuned in labels.items() for trial in tuned.trials]
        self.logged_runs = 0

    def send(self, kind: str, content: Any = None) -> None:
        """Send a message to the comparison, which may be gone."""
        if kind == "problem":
            print(content, flush=True)
        with contextlib.suppress(OSError):
            self.connection.send((kind, content))

    def watch(self) -> bool:
        """Log what there is every few seconds, until told to finish (True) or the comparison is gone (False)."""
        while True:
            self.log_progress()
            if self.connection.poll(POLL_SECONDS):
                try:
                    return bool(self.connection.recv() == "finish")
                except EOFError:
                    return False

    def log_progress(self) -> None:
        """Log the trials that are done, and where a server listens the new points of running ones."""
        for trial in list(self.pending):
            if trial.done:
                self.pending.remove(trial)
                result, _ = seed_result(self.plan, trial.label, trial.seed)
                self.log_trial(trial, wandb_content.trial_summary(result))
            elif self.client.mode == "online" and self.new_points(trial):
                self.log_points(trial)
                write_state(self.out, self.state)
        if self.pending_tuning:  # one at each look, so that the curves of running trials do not wait for them
            self.log_tuning_trial(*self.pending_tuning.pop(0))

    def log_tuning_trial(self, label: str, trial: TuningTrial) -> None:
        """Log a trial of the search for settings as a run of its own."""
        assert self.tuning is not None, "its trials are pending"
        algorithm = self.plan.recipe.algorithms.get(label, {}).get("algorithm", label)
        config = wandb_content.tuning_config(label, algorithm, trial, self.tuning)
        summary = wandb_content.tuning_summary(trial, self.tuning.labels[label].best == trial.number)
        key, content = f"tune {_digest(config)}", _digest(summary)[:10]
        if self.entry(key)["content"] == content:
            return
        run = self.open_run(key, f"{label} tuning trial {trial.number}", "tuning", **config)
        run.summary.update(summary)
        self.end_run(key, content, int(trial.state == "failed"), "", None)

    def close(self, finished: bool) -> None:
        """End all runs; of a comparison that finished, log the failed trials and the summary too."""
        if not finished:
            for trial in self.pending:
                self.client.finish(self.run_id(trial.key), exit_code=1)
            return
        self.log_progress()  # the last trials ended after the last look
        while self.pending_tuning:
            self.log_tuning_trial(*self.pending_tuning.pop(0))
        outcomes = json.loads((self.out / OUTCOMES).read_text(encoding="utf-8"))
        for trial in self.pending:
            of_trial = [outcomes[stage.name] for stage in (trial.train, trial.evaluate) if stage]
            errors = [outcome["error"] for outcome in of_trial if outcome["status"] != "ok"]
            summary = {"status": "failed", "error": (errors or ["the start was not measured"])[0]}
            self.log_trial(trial, summary, exit_code=1)
        self.log_summary()
        if self.logged_runs:
            self.send("location", self.client.location())

    def log_trial(self, trial: Trial, summary: dict[str, Any], exit_code: int = 0) -> None:
        """Log one trial's whole run, unless it was logged so already."""
        content = _digest(summary)[:10]
        if self.entry(trial.key)["content"] == content:
            self.client.finish(self.run_id(trial.key), exit_code)
            return
        run = self.log_points(trial)
        run.summary.update(summary)
        policy = trial.train.folder / "policy" if trial.train and exit_code == 0 else None
        self.end_run(trial.key, content, exit_code, f"policy-{trial.label}-seed-{trial.seed}", policy)

    def log_summary(self) -> None:
        """Log the comparison's own run: tables, pictures, completions, and the curves that all trials share."""
        results = load(self.out)
        key = " ".join(stage.folder.name for stage in self.plan.stages.values())
        content = _digest(results.model_dump(mode="json", exclude={"call", "workers"}))[:10]
        entry = self.entry(key)
        if entry["content"] == content:
            return
        run = self.open_run(key, f"{self.out.name} summary", "summary", labels=list(self.plan.recipe.algorithms))
        if not entry["steps"]:
            for stage in self.plan.stages.values():
                if stage.kind in ("start", "reward"):
                    wandb_content.log_curve(run, stage.name.replace(" ", "_"), read_curve(stage.folder))
        entry["steps"] += 1
        wandb_content.log_report(run, results, self.out)
        self.end_run(key, content, 0, "start", self.plan.stages[START].folder / "model")

    def open_run(self, key: str, name: str, job_type: str, **config: Any) -> Any:
        """Return a run whose config holds the resolved recipe, the data's hash and versions, beside its own."""
        manifest = json.loads((self.plan.stages["data"].folder / "manifest.json").read_text(encoding="utf-8"))
        recipe = self.plan.recipe.model_dump(mode="json")
        shared = {"recipe": recipe, "manifest_sha256": manifest["sha256"], "versions": self.plan.versions}
        return self.client.open(self.run_id(key), name=name, job_type=job_type, config={**shared, **config})

    def log_points(self, trial: Trial) -> Any:
        """Open a trial's run, log the new points of its training curve, and return it."""
        recipe = self.plan.recipe
        config: dict[str, Any] = {"label": trial.label, "seed": trial.seed}
        if trial.label != START:
            config["algorithm"] = recipe.algorithms[trial.label].get("algorithm", trial.label)
            config["settings"] = self.settings[trial.label]
            config["trial_seed"] = recipe.seed_of(trial.label, trial.seed)
        run = self.open_run(trial.key, f"{trial.label} seed {trial.seed}", "trial", **config)
        if points := self.new_points(trial):
            wandb_content.log_curve(run, wandb_content.TRAIN, points)
            self.entry(trial.key)["steps"] = points[-1]["step"]
        return run

    def new_points(self, trial: Trial) -> list[dict[str, float]]:
        """Return the points that the run does not hold yet; a training that is done again repeats the others."""
        if trial.train is None:
            return []
        folder = trial.train.folder
        points = read_curve(folder if folder.is_dir() else folder.with_name(f"{folder.name}.partial"))
        return [point for point in points if point["step"] > self.entry(trial.key)["steps"]]

    def entry(self, key: str) -> dict[str, Any]:
        """Return what a run holds: the last step of its curve, and a digest of its final content."""
        entry: dict[str, Any] = self.state["runs"].setdefault(self.run_id(key), {"steps": 0, "content": None})
        return entry

    def run_id(self, key: str) -> str:
        """Return an id that is the same for the same stages in the same folder, and differs from other folders'."""
        return f"{self.state['comparison']}-{_digest(key)[:10]}"

    def end_run(self, key: str, content: str, exit_code: int, artifact: str, folder: Path | None) -> None:
        """End a run, with the model in `folder` if the recipe asks for artifacts, and remember what it holds."""
        if self.client.settings.artifacts and folder is not None and folder.is_dir():
            self.client.log_artifact(self.run_id(key), artifact, folder)
        self.client.finish(self.run_id(key), exit_code)
        self.entry(key)["content"] = content
        self.logged_runs += 1
        write_state(self.out, self.state)


def read_state(out: Path) -> dict[str, Any]:
    """Read a comparison's random id, what each of its runs holds, and problems; anew where the file is damaged."""
    try:
        state = json.loads((out / STATE_FILE).read_text(encoding="utf-8"))
        return {"comparison": state["comparison"], "runs": dict(state["runs"]), "problems": list(state["problems"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"comparison": secrets.token_hex(4), "runs": {}, "problems": []}


def write_state(out: Path, state: dict[str, Any]) -> None:
    """Write the state atomically."""
    write_whole(out / STATE_FILE, json.dumps(state, indent=1))


def _digest(content: Any) -> str:
    return text_sha256(json.dumps(content, sort_keys=True, default=str))
