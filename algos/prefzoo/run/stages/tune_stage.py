"""The tune stage: train an algorithm with settings that tuning tries, and measure it on validation prompts."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from transformers import set_seed

from prefzoo.data import splits
from prefzoo.interface import MILESTONES
from prefzoo.ledger import CHARGES, Ledger
from prefzoo.models import shared_base
from prefzoo.models.policy_kinds import load_policy
from prefzoo.run import distributed
from prefzoo.run.stage_graph import START, Plan, Stage
from prefzoo.run.stages.evaluate_stage import Measure
from prefzoo.run.stages.gold_metric import gold_metric
from prefzoo.run.stages.recipe_inputs import reward_of
from prefzoo.run.stages.start_stage import start_path, start_policy
from prefzoo.run.stages.train_stage import train
from prefzoo.run.tuning_graph import BASELINE, MEASURING, metric_of, trial_recipe
from prefzoo.types import Progress


def tune(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Do one trial with one seed, or measure the start; the test split is out of reach.

    Raises:
        PrefzooError: when training failed, or a measurement is no finite number.
    """
    with splits.sealed_test_split(stage.name):
        if stage.label != START:
            train(replace(plan, recipe=trial_recipe(plan.recipe, stage)), stage, folder, progress)
        if distributed.is_follower():
            return
        distributed.enter(distributed.environments(1)[0])
        _measure(plan, stage, folder, progress)
    for name in ("policy", MILESTONES):  # the winner is trained anew
        shutil.rmtree(folder / name, ignore_errors=True)


@shared_base.shared()
def _measure(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    recipe, of_start = plan.recipe, stage.label == START
    assert stage.seed is not None and recipe.tuning is not None
    set_seed(stage.seed)
    rows = splits.load_split(plan.stages["data"].folder, "validation")
    baseline = None if of_start else plan.stages[BASELINE.format(stage.seed)].folder
    measure = Measure.on(
        rows,
        recipe.tuning.prompts,
        generation=recipe.generation,
        seed=stage.seed,
        gold=gold_metric(plan, baseline),
        proxy=reward_of(plan, stage.seed) if metric_of(recipe) == "reward" else None,
        progress=progress,
        start=lambda: start_policy(recipe, start_path(plan)),
    )
    policy = start_policy(recipe, start_path(plan)) if of_start else load_policy(folder / "policy")
    measuring = Ledger()
    measure(policy, measuring, folder)
    (folder / MEASURING).write_text(json.dumps(asdict(measuring)), encoding="utf-8")
    training = Ledger(**json.loads((folder / "ledger.json").read_text(encoding="utf-8"))) if not of_start else Ledger()
    whole = {name: getattr(training, name) + getattr(measuring, name) for name in (*CHARGES, "seconds")}
    whole["peak_memory_bytes"] = max(training.peak_memory_bytes, measuring.peak_memory_bytes)
    (folder / "ledger.json").write_text(json.dumps(whole), encoding="utf-8")
