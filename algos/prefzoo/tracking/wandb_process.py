"""The tracking process: sees what the stages have finished, and logs it run by run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from prefzoo.results.collect import seed_result
from prefzoo.results.results_file import load
from prefzoo.run.executor import OUTCOMES
from prefzoo.run.stage_graph import START, Plan, Stage, load_plan
from prefzoo.tracking import wandb_content
from prefzoo.tracking.wandb_client import Door
from prefzoo.tracking.wandb_state import read_state, write_state

LOOK_SECONDS = 2.0
LOG = "tracking.log"


def work(out: Path, settings: dict[str, Any], connection: Connection, init: float, finish: float) -> None:
    """The life of the tracking process; it ends when the comparison says so or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the comparison decides what Ctrl-C ends
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)  # trials are timed; tracking can wait
    with (out / LOG).open("a", encoding="utf-8") as log:
        sys.stdout.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        logbook = Logbook(load_plan(out), settings, connection, init, finish)
        try:
            asked = logbook.watch()
            logbook.close(asked)
        except Exception as error:
            traceback.print_exc()
            logbook.say("problem", f"Weights & Biases: {type(error).__name__}: {error}")
        logbook.say("done")
        sys.stdout.flush()
    os._exit(0)  # at a normal exit wandb would wait for its server once more


@dataclass
class Trial:
    """One label with one seed, and how far its run has come."""

    label: str
    seed: int
    train: Stage | None
    evaluate: Stage
    baseline: Stage

    @property
    def done(self) -> bool:
        """Whether it is measured, and so is the start that it is compared with."""
        stages = [self.evaluate, self.baseline, *([self.train] if self.train else [])]
        return all(stage.done for stage in stages)

    @property
    def key(self) -> str:
        """Known by its stages' folders: whoever trains the same again goes on with the same run."""
        return " ".join(stage.folder.name for stage in (self.train, self.evaluate) if stage)

    def points(self) -> Iterator[Mapping[str, float]]:
        """The curve so far, also of a training that goes on."""
        if self.train is not None:
            folder = self.train.folder
            yield from wandb_content.points(folder if folder.is_dir() else folder.with_name(f"{folder.name}.partial"))


@dataclass
class Logbook:
    """What is logged already, and what is still to be.

    Args:
        plan: the comparison.
        settings: of each label, every hyper-parameter of its algorithm.
        connection: to the comparison.
        init, finish: seconds that a server may take.
    """

    plan: Plan
    settings: dict[str, Any]
    connection: Connection
    init: float
    finish: float
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.out, self.state = self.plan.out, read_state(self.plan.out)
        write_state(self.out, self.state)
        self.door = Door(self.plan.recipe.tracking.wandb, self.out, self.group, self.say, self.init, self.finish)
        self.waiting = [_trial(self.plan, s) for s in self.plan.stages.values() if s.kind == "evaluate"]
        self.logged = 0

    @property
    def group(self) -> str:
        return f"{self.out.name}-{self.state['comparison']}"

    def say(self, what: str, told: Any = None) -> None:
        """Tell the comparison, which may be gone."""
        if what == "problem":
            print(told, flush=True)
        with contextlib.suppress(OSError):
            self.connection.send((what, told))

    def watch(self) -> bool:
        """Log trials as they end, and where a server listens their curves as they grow; True when asked to finish."""
        while True:
            self.sweep()
            if self.connection.poll(LOOK_SECONDS):
                try:
                    return self.connection.recv() == "finish"
                except EOFError:
                    return False

    def sweep(self) -> None:
        """One look at what is there."""
        for trial in list(self.waiting):
            if trial.done:
                self.waiting.remove(trial)
                result, _ = seed_result(self.plan, trial.label, trial.seed)
                self.log(trial, wandb_content.final(result))
            elif self.door.live:
                new = [point for point in trial.points() if point[wandb_content.STEP] > self.held(trial.key)["steps"]]
                if new:
                    self.add(trial, self.open(trial), new)
                    write_state(self.out, self.state)

    def close(self, asked: bool) -> None:
        """Log what failed, and the summary, once the results are there; end what is still open."""
        if asked:
            self.sweep()  # the last trials ended after the last look
            outcomes = json.loads((self.out / OUTCOMES).read_text(encoding="utf-8"))
            for trial in self.waiting:
                stages = [s for s in (trial.train, trial.evaluate) if s]
                errors = [outcomes[s.name]["error"] for s in stages if outcomes[s.name]["status"] != "ok"]
                self.log(
                    trial, {"status": "failed", "error": (errors or ["the start was not measured"])[0]}, exit_code=1
                )
            self.summarize()
            if self.logged:
                self.say("said", self.door.where())
        else:
            for trial in self.waiting:
                self.door.finish(self.run_id(trial.key), exit_code=1)

    def log(self, trial: Trial, summary: dict[str, Any], exit_code: int = 0) -> None:
        """One trial's whole run, unless it was logged so already."""
        held = self.held(trial.key)
        mark = _digest(summary)
        if held["content"] == mark or self.door.mode == "disabled":
            self.door.finish(self.run_id(trial.key), exit_code)
            return
        run = self.open(trial)
        self.add(trial, run, trial.points())
        run.summary.update(summary)
        policy = trial.train.folder / "policy" if trial.train else None
        if self.door.settings.artifacts and exit_code == 0 and policy is not None and policy.is_dir():
            self.door.artifact(run, f"policy-{trial.label}-seed-{trial.seed}", policy)
        self.done(trial.key, mark, exit_code)

    def summarize(self) -> None:
        """The comparison's own run: table, pictures, completions, and the curves that all trials share."""
        results = load(self.out)
        key = " ".join(stage.folder.name for stage in self.plan.stages.values())
        mark = _digest(results.model_dump(mode="json", exclude={"call", "workers"}))  # who called is not what was found
        held = self.held(key)
        if held["content"] == mark or self.door.mode == "disabled":
            return
        config = {**self.config(), "labels": list(self.plan.recipe.algorithms)}
        run = self.door.open(self.run_id(key), f"{self.out.name} summary", "summary", config)
        if not held["steps"]:
            for stage in self.plan.stages.values():
                if stage.kind in ("start", "reward"):
                    wandb_content.shared_curve(run, stage)
        held["steps"] += 1
        wandb_content.summary(run, results, self.out)
        model = self.plan.stages[START].folder / "model"
        if self.door.settings.artifacts and model.is_dir():
            self.door.artifact(run, "start", model)
        self.done(key, mark, 0)

    def config(self) -> dict[str, Any]:
        """What every run's config holds: the resolved recipe, the data's seal, and versions."""
        manifest = json.loads((self.plan.stages["data"].folder / "manifest.json").read_text(encoding="utf-8"))
        recipe = self.plan.recipe.model_dump(mode="json")
        return {"recipe": recipe, "manifest_sha256": manifest["sha256"], "versions": self.plan.versions}

    def open(self, trial: Trial) -> Any:
        """The trial's run, open already, new or gone on with."""
        recipe = self.plan.recipe
        own = {"label": trial.label, "seed": trial.seed}
        if trial.label != START:
            algorithm = recipe.algorithms[trial.label].get("algorithm", trial.label)
            settings = self.settings[trial.label]
            own |= {"algorithm": algorithm, "settings": settings, "trial_seed": recipe.seed_of(trial.label, trial.seed)}
        name = f"{trial.label} seed {trial.seed}"
        run = self.door.open(self.run_id(trial.key), name, "trial", {**self.config(), **own})
        run.define_metric(wandb_content.STEP)
        run.define_metric(f"{wandb_content.TRAIN}/*", step_metric=wandb_content.STEP)
        return run

    def add(self, trial: Trial, run: Any, curve: Iterable[Mapping[str, float]]) -> None:
        """The points of a curve that the run does not hold yet: a training that is done again repeats the others."""
        held = self.held(trial.key)
        for point in curve:
            if point[wandb_content.STEP] > held["steps"]:
                run.log(dict(point))
                held["steps"] = point[wandb_content.STEP]

    def held(self, key: str) -> dict[str, Any]:
        """What a run holds: the last step of its curve, and a digest of its final content."""
        return self.state["runs"].setdefault(self.run_id(key), {"steps": 0, "content": None})

    def run_id(self, key: str) -> str:
        """The same whenever the same is logged from the same folder, and no other folder's."""
        return f"{self.state['comparison']}-{_digest(key)}"

    def done(self, key: str, mark: str, exit_code: int) -> None:
        """End a run and remember what it holds."""
        self.door.finish(self.run_id(key), exit_code)
        self.held(key)["content"] = mark
        self.logged += 1
        write_state(self.out, self.state)


def _trial(plan: Plan, evaluate: Stage) -> Trial:
    assert evaluate.label is not None and evaluate.seed is not None
    train = plan.stages.get(f"train {evaluate.label} seed {evaluate.seed}")
    baseline = plan.stages[f"evaluate {START} seed {evaluate.seed}"]
    return Trial(evaluate.label, evaluate.seed, train, evaluate, baseline)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:10]
