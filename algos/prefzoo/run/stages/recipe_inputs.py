"""What a recipe gives to its stages: how models are read, the truth, judges, the reward, and an algorithm's bench."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prefzoo.data import splits
from prefzoo.data.row_views import views_of
from prefzoo.interface import Assistant, Bench, Machinery
from prefzoo.judges.assistant import EndpointAssistant, ModelAssistant
from prefzoo.judges.build_judge import build_judge, load_truth
from prefzoo.judges.endpoint import EndpointClient
from prefzoo.judges.judge import Judge
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.ledger import Ledger
from prefzoo.models.chat_templates import template_text
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import resolve
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.rewards.load_reward import RandomReward, load_reward
from prefzoo.run.stage_graph import LABEL_STAGE, Plan, Stage
from prefzoo.run.stages.shared_work import SHARED_WORK, SharedWork
from prefzoo.settings import Adapter
from prefzoo.stored_code import check_code
from prefzoo.types import Progress, Reward, Truth

JUDGE_ANSWERS = "judge-answers"
"""Folder of a comparison in which a server's answers are kept."""


def loading(recipe: Recipe, adapter: Adapter) -> dict[str, Any]:
    """The arguments with which model files are read."""
    model = recipe.model
    template = template_text(model.chat_template)
    return {
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "attn_implementation": model.attn_implementation,
        "quantization": adapter.quantization,
        **({} if template is None else {"chat_template": template}),
    }


def judge_loading(recipe: Recipe, judge: JudgeSettings) -> dict[str, Any]:
    """The same for a model that judges or criticises: only the recipe's own model has the recipe's template."""
    read = loading(recipe, recipe.adapter)
    return read if judge.path is None else {key: value for key, value in read.items() if key != "chat_template"}


def gold_name(recipe: Recipe) -> str | None:
    """The recipe's truth as `build_judge.load_truth` reads it; None where there is none."""
    source = recipe.gold_source
    if source in ("none", "judge"):
        return None
    return source.path if isinstance(source, GoldFunction) else source


def gold_function(recipe: Recipe) -> Truth | None:
    """The recipe's truth; None where there is none."""
    return load_truth(gold_name(recipe))


def judge_of(
    plan: Plan,
    settings: JudgeSettings,
    seed: int | None = None,
    progress: Progress | None = None,
    asker: str = LABEL_STAGE,
) -> Judge:
    """The judge that a block of the recipe describes.

    Args:
        seed: of a random one; None is the comparison's first.
        progress: is told how many of a server's answers have come.
        asker: for whom people are asked, such as `iterative_dpo seed 0`.
    """
    return build_judge(describe_judge(plan, settings, seed, asker), progress)


def checked_by_of(plan: Plan, path: str | None, judge: JudgeSettings, seed: int | None = None) -> dict[str, Any]:
    """Who checks facts, as `knowledge_reward.build_fact_checker` takes it: the entailment model at `path`, or the
    judge."""
    if path is None:
        return {"judge": describe_judge(plan, judge, seed)}
    place = Path(path).expanduser()
    return {"path": str(place.resolve()) if place.is_dir() else path}


def describe_judge(
    plan: Plan, settings: JudgeSettings, seed: int | None = None, asker: str = LABEL_STAGE
) -> dict[str, Any]:
    """What `build_judge` makes the judge of; see `judge_of`."""
    recipe = plan.recipe
    description = {
        "settings": settings.model_dump(mode="json"),
        "model": recipe.model.path,
        "loading": judge_loading(recipe, settings),
        "gold": gold_name(recipe),
        "seed": recipe.seeds[0] if seed is None else seed,
        "cache": str((plan.out / JUDGE_ANSWERS).resolve()),
        "asker": asker,
    }
    if recipe.generation.engine == "vllm":
        description["sampling"] = recipe.generation.model_dump(mode="json", include={"engine", "vllm"})
    return description


def assistant_of(plan: Plan, progress: Progress) -> Assistant:
    """The model that writes critiques and revisions: the judge's where the judge is one, else the recipe's."""
    recipe = plan.recipe
    if recipe.judge.endpoint is not None:
        client = EndpointClient(recipe.judge.endpoint, plan.out / JUDGE_ANSWERS, progress)
        return EndpointAssistant(client, recipe.lengths["max_new_tokens"])
    path = recipe.judge.path or recipe.model.path
    model = LanguageModelPolicy.from_start(resolve(path), **judge_loading(recipe, recipe.judge))
    return ModelAssistant(model, recipe.generation)


def reward_of(plan: Plan, seed: int) -> Reward:
    """The reward that trials of this seed learn from, as its stage left it."""
    folder = plan.stages[plan.reward_name(seed)].folder
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    check_code(spec, folder)
    if spec["type"] == "random":
        return RandomReward(seed)
    return load_reward(spec, folder, loading(plan.recipe, plan.recipe.adapter))


def bench_of(
    plan: Plan,
    stage: Stage,
    folder: Path,
    start: str,
    seed: int,
    progress: Progress,
    shuffle_seed: int | None = None,
    rows: str | None = None,
) -> Bench:
    """The bench of a stage that trains, with a new ledger, and without reward, judge and constitution.

    Args:
        folder: where the stage writes.
        start: folder of the model that is trained.
        shuffle_seed: of the coin that shuffles labels, where the recipe wants that; None leaves them.
        rows: the stage whose training rows are learned from; None is the one that the plan names.
    """
    recipe = plan.recipe
    train = splits.load_split(plan.stages[rows or plan.rows_name].folder, "train")
    views = views_of(splits.limit_prompts(train, recipe.budget.prompts))  # a trial of tuning has fewer than there are
    if recipe.data.shuffle_labels and shuffle_seed is not None:
        views = views.with_shuffled_labels(shuffle_seed)
    return Bench(
        start=start,
        data=views,
        reward=None,
        adapter=recipe.adapter,
        budget=recipe.budget,
        generation=recipe.generation,
        training=recipe.training,
        seed=seed,
        out=folder,
        ledger=Ledger(),
        progress=progress,
        machinery=Machinery(
            loading=loading(recipe, recipe.adapter),
            reporting=_trainer_trackers(plan, stage),
            shaping=recipe.reward.shaping,
            reuse=SharedWork(plan.out / SHARED_WORK),
        ),
    )


def _trainer_trackers(plan: Plan, stage: Stage) -> dict[str, Any]:
    """The training arguments under which trainers report to TensorBoard, Trackio or MLflow; empty where the recipe
    names none of them.

    Trackio and MLflow keep their logs in the comparison's folder, unless the environment names another place; this
    sets the environment of the stage's own process.
    """
    names = plan.recipe.tracking.report_to
    if not names:
        return {}
    out, project = plan.out.resolve(), plan.recipe.tracking.wandb.project
    os.environ.setdefault("TRACKIO_DIR", str(out / "trackio"))
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{out / 'mlflow.db'}")
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", project)
    run = f"{stage.label} seed {stage.seed}" if stage.kind == "train" else stage.name
    return {"report_to": list(names), "run_name": run, "project": project}
