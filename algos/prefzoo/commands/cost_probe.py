"""Run the stages of a comparison on a small part of its budget, and measure what each takes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from prefzoo.data import splits
from prefzoo.data.rejects import Rejects
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.recipe.recipe_schema import Recipe, Tracking, Wandb
from prefzoo.run.executor import Runner
from prefzoo.run.progress_display import Watcher, seconds_left
from prefzoo.run.stage_graph import Plan, Stage, make_plan
from prefzoo.run.stages.run_stage import run_stage

STEPS = 8
"""Optimizer steps of the larger probe, where the budget allows them."""
FEWEST_TESTED = 16
"""Prompts in the test split of a probe, where there are so many."""

StageGroup = tuple[str, str | None]
"""The kind and label of stages, which cost about the same whatever their seed."""


@dataclass(frozen=True)
class Size:
    """Prompts in the training split and in the test split, test prompts that a policy answers, and prompts in the
    validation split."""

    train: int
    test: int
    evaluated: int
    validation: int = 0

    @classmethod
    def of(cls, plan: Plan) -> Size:
        """The size of a plan whose data stage is done."""
        manifest = json.loads((plan.stages["data"].folder / "manifest.json").read_text(encoding="utf-8"))
        train, validation, test = (manifest["splits"][name]["prompts"] for name in splits.SPLITS)
        return cls(train, test, min(plan.recipe.evaluation.prompts, test), validation)


@dataclass(frozen=True)
class StageCost:
    """What one stage cost: seconds from the start of its process to the end, its ledger, bytes on disk, and the seconds
    until it first said how far it was, which do not grow with its work."""

    seconds: float
    ledger: dict[str, float]
    disk_bytes: int
    begun: float = 0.0


@dataclass(frozen=True)
class Probe:
    """The result of a small comparison with one seed.

    Attributes:
        size: of the probe.
        costs: of each group of stages that ended well.
        failed: the error of each group that failed.
        shared_bytes: on disk, of work that trials share.
        seconds: of the whole probe.
        starting: the seconds of it in which nothing ran yet, because the server of stages imported libraries.
    """

    size: Size
    costs: dict[StageGroup, StageCost]
    failed: dict[StageGroup, str]
    shared_bytes: int
    seconds: float
    starting: float


def sizes(recipe: Recipe, whole: Size) -> tuple[Size, Size]:
    """Two sizes to probe, the second twice the first: in whole batches where the budget allows it, because a half-full
    batch takes nearly as long as a full one."""
    step = recipe.training.batch_size
    batch = max(step, recipe.generation.batch_size)
    most = min(whole.train, max(2 * step, min(max(2 * batch, STEPS * step), whole.train // 2)))
    least = max(1, most // 2 // step * step or most // 2)
    evaluated = min(whole.evaluated, 2 * batch)
    return _size(whole, least, max(min(2, evaluated), evaluated // 2)), _size(whole, most, evaluated)


def _size(whole: Size, train: int, evaluated: int) -> Size:
    share = -(-whole.test * train // whole.train)
    return Size(train, min(whole.test, max(share, evaluated, FEWEST_TESTED)), evaluated)


def probe(plan: Plan, size: Size, labels: Collection[str], workers: int, folder: Path, console: Console) -> Probe:
    """Run these labels of a plan in a folder of their own.

    Args:
        plan: the whole comparison; its data stage is done.
        size: of the probe.
        labels: of the algorithms to run.
        workers: stages at a time, as in the comparison itself, so that they compete for cores as much.
        folder: of the probe; its content is deleted.
        console: where progress goes.
    """
    by_people = plan.recipe.judge.type == "people"  # who are not asked for the sake of an estimate
    recipe = plan.recipe.model_copy(
        update={
            **({"judge": JudgeSettings(type="random", audit_pairs=0)} if by_people else {}),
            "budget": plan.recipe.budget.model_copy(update={"prompts": size.train}),
            "evaluation": plan.recipe.evaluation.model_copy(update={"prompts": size.evaluated}),
            "algorithms": {label: plan.recipe.algorithms[label] for label in labels},
            "seeds": plan.recipe.seeds[:1],
            "tracking": Tracking(wandb=Wandb(mode="disabled")),
        }
    )
    shutil.rmtree(folder, ignore_errors=True)
    small = make_plan(recipe, folder)
    _copy_data(plan, small, size)
    todo = {name: stage for name, stage in small.stages.items() if not stage.done}
    began = time.monotonic()
    watcher = _BeginningWatcher(len(small.stages), workers, console)
    with watcher:
        watcher.expect(list(todo.values()))
        outcomes = Runner(small, run_stage, workers, watcher).run()
    seconds = time.monotonic() - began
    costs = {
        stage_group(stage): _stage_cost(stage, outcomes[name].seconds, watcher.begun.get(name, 0.0))
        for name, stage in todo.items()
        if stage.done
    }
    ran = {name: costs[stage_group(stage)].seconds if stage.done else 0.0 for name, stage in todo.items()}
    failed = {stage_group(s): str(outcomes[n].error) for n, s in todo.items() if outcomes[n].status == "failed"}
    starting = max(0.0, seconds - seconds_left(todo, ran, {}, workers))
    own = {parent for stage in small.stages.values() for parent in stage.folder.parents}
    shared = sum(_bytes(place) for place in folder.iterdir() if place not in own)
    return Probe(size, costs, failed, shared, seconds, starting)


class _BeginningWatcher(Watcher):
    """Keeps the seconds until each stage first said how far it was."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.begun: dict[str, float] = {}

    def progressed(self, stage: Stage, activity: str, done: int, total: int) -> None:
        self.begun.setdefault(stage.name, self.clock() - self.began[stage.name])
        super().progressed(stage, activity, done, total)


def stage_group(stage: Stage) -> StageGroup:
    """The kind and label of a stage."""
    return stage.kind, stage.label


def _copy_data(plan: Plan, small: Plan, size: Size) -> None:
    """Put a part of the plan's rows where the small plan's data stage would."""
    whole, folder = plan.stages["data"].folder, small.stages["data"].folder
    limits = {"train": size.train, "validation": size.test, "test": size.test}
    parts = {name: splits.limit_prompts(splits.load_split(whole, name), limit) for name, limit in limits.items()}
    folder.mkdir(parents=True)
    splits.seal(parts, {}, Rejects()).save(folder)


def _stage_cost(stage: Stage, seconds: float, begun: float) -> StageCost:
    ledger: dict[str, Any] = {}
    if (file := stage.folder / "ledger.json").is_file():
        ledger = json.loads(file.read_text(encoding="utf-8"))
    elif stage.kind == "reward":
        ledger = json.loads((stage.folder / "report.json").read_text(encoding="utf-8"))["ledger"]
    return StageCost(seconds, ledger, _bytes(stage.folder), begun)


def _bytes(place: Path) -> int:
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
