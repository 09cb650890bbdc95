"""What the stages do. Each job reads the folders of the stages it needs and writes its own."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Imported here, in the server that all stages are forked from, and not once in each stage.
import trl  # noqa: F401
from datasets import Dataset  # noqa: F401
from transformers import set_seed

from prefzoo.data import splits
from prefzoo.data.row_views import views_of
from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.judges import constitution as constitutions
from prefzoo.ledger import Ledger
from prefzoo.models import shared_base
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import resolve
from prefzoo.models.policy_kinds import load_policy
from prefzoo.rewards.judge_reward import JudgeReward, start_replies
from prefzoo.rewards.load_reward import Ensemble, RandomReward, WeightedSum, load_reward
from prefzoo.rewards.reward_accuracy import reward_report
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.rewards.reward_settings import RewardPart
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.run import distributed
from prefzoo.run.evaluation_records import DETAILS
from prefzoo.run.integrity import SEALED, seal
from prefzoo.run.stage_graph import INCOMPLETE, START, Plan, Stage
from prefzoo.run.stages.audit_stage import audit
from prefzoo.run.stages.data_stage import prepare
from prefzoo.run.stages.evaluate import Measure, measure_on_the_way
from prefzoo.run.stages.gold_metric import measure_of
from prefzoo.run.stages.judge_for_stage import assistant_of, judge_of, judge_report, labeller
from prefzoo.run.stages.label_stage import label
from prefzoo.run.stages.recipe_inputs import gold_function, loading
from prefzoo.run.stages.shared_work import KEPT, KeptWork
from prefzoo.run.stages.start_policy import MODEL, know_the_copy, note_start, start_path, start_policy
from prefzoo.run.stages.time_and_memory import forget_peak, metered
from prefzoo.run.stages.trainer_trackers import reporting
from prefzoo.run.trial_identity import IDENTITY, identity
from prefzoo.scoring_function import FunctionReward
from prefzoo.types import Progress, Prompt, Reward


def run_stage(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Do the work of one stage into `folder`."""
    if stage.kind == "data":
        prepare(plan, folder, progress)
    else:
        know_the_copy(plan)
        {"start": start, "label": labels, "reward": reward, "train": train, "evaluate": evaluation, "audit": audit}[
            stage.kind
        ](plan, stage, folder, progress)
    if stage.kind in SEALED and not distributed.makes_room():
        seal(folder)


def start(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Make the start policy: a plain model folder, adapter merged in full precision, and `start.json`."""
    recipe = plan.recipe
    algorithm = recipe.start_algorithm()
    ledger = Ledger()
    base = resolve(recipe.model.path, recipe.model.revision)
    if algorithm is not None:
        bench = _bench(plan, stage, folder, base, recipe.seeds[0], progress, ledger=ledger, rows="data")
        with metered(ledger):
            policy = algorithm.train(bench)
        (folder / DETAILS).write_text(json.dumps(bench.report, indent=1), encoding="utf-8")
        assert isinstance(policy, LanguageModelPolicy)
        policy.export(folder / MODEL)
    note_start(recipe, folder, None if algorithm else base)
    (folder / "ledger.json").write_text(json.dumps(asdict(ledger)), encoding="utf-8")


def labels(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Make preferences of the start's own replies to the training and test prompts."""
    recipe = plan.recipe
    ledger = Ledger()
    judge = judge_of(plan, labeller(recipe), progress=progress)
    policy = start_policy(recipe, start_path(plan))
    parts = {name: splits.load_split(plan.stages["data"].folder, name) for name in splits.SPLITS}
    report: dict[str, Any] = {"with": recipe.data.label_with, "splits": {}}
    for i, name in enumerate(("train", "test")):
        before = parts[name]
        seed = 20_000 + 2 * recipe.seeds[0] + i
        with metered(ledger):
            parts[name], dropped = label(before, policy, judge, recipe.generation, seed, ledger, progress)
        pairs = parts[name][len(before) :]
        report["splits"][name] = {"pairs": len(pairs), "sha256": splits.sha256_of(pairs), "dropped": dropped.counts()}
        if not pairs:
            raise PrefzooError(
                f"data.label_with: of two replies to each of the {name} prompts not one pair could be made: "
                f"{dropped.counts()}. Longer replies: generation.max_new_tokens; others: start, gold."
            )
    splits.save_splits(parts, folder)
    report["judge"] = judge_report(recipe, judge, [row for split in parts.values() for row in split])
    (folder / "labels.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (folder / "ledger.json").write_text(json.dumps(asdict(ledger)), encoding="utf-8")


def reward(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Train or find the reward, and say how good it is, and each of its parts, on test pairs."""
    recipe = plan.recipe
    settings = recipe.reward
    ledger = Ledger()
    seed = recipe.seeds[0] if stage.seed is None else stage.seed
    bench = _bench(plan, stage, folder, start_path(plan), seed, progress, ledger=ledger, shuffle_seed=stage.seed)
    test = splits.load_split(plan.stages[plan.rows_name].folder, "test")
    prompts = [*bench.data.prompts, *views_of(test).prompts]
    parts: list[Reward] = []
    with metered(ledger):
        for i, part in enumerate(settings.parts):
            out = folder / f"part-{i}" if settings.of else folder
            parts.append(_built(plan, part, bench.replace(out=out), prompts))
    built = WeightedSum(parts, [part.weight for part in settings.of]) if settings.of else parts[0]
    (folder / "spec.json").write_text(json.dumps(built.spec(folder)), encoding="utf-8")
    gold = gold_function(recipe)
    report = {"type": settings.type, **reward_report(built, test, gold), **bench.report, "ledger": asdict(ledger)}
    single = built.parts if isinstance(built, Ensemble) else parts
    if len(single) > 1:
        report["parts"] = [reward_report(each, test, gold) for each in single]
    (folder / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


def _built(plan: Plan, part: RewardPart, bench: Bench, prompts: list[Prompt]) -> Reward:
    """One part of the reward, which will score replies to `prompts`; members of an ensemble differ in their seed
    alone."""
    recipe = plan.recipe
    if part.type == "path":
        return RewardModel.load(str(Path(str(part.path)).expanduser()), loading(recipe, recipe.adapter))
    if part.type == "function":
        return FunctionReward(str(part.path))
    if part.type == "random":
        return RandomReward(recipe.seeds[0])
    if part.type == "judge":
        references = start_replies(bench, prompts) if part.by == "comparison" else {}
        return JudgeReward(judge_of(plan, recipe.judge, bench.seed, bench.progress), part.by, references)
    adapter = part.adapter or recipe.adapter
    bench = bench.replace(adapter=adapter, loading=loading(recipe, adapter))
    if part.members == 1:
        return train_reward_model(bench, part.trainer, part.loss)
    members = [
        train_reward_model(
            bench.replace(out=bench.out / f"member-{i}", seed=bench.seed + 1000 * i), part.trainer, part.loss
        )
        for i in range(part.members)
    ]
    return Ensemble(members, part.combine, part.std_weight)


def train(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Train one algorithm with one seed."""
    assert stage.label is not None and stage.seed is not None
    recipe = plan.recipe
    algorithm = recipe.algorithm(stage.label)
    seed = recipe.seed_of(stage.label, stage.seed)
    ledger = Ledger()
    bench = _bench(plan, stage, folder, start_path(plan), seed, progress, ledger=ledger, shuffle_seed=stage.seed)
    bench = bench.replace(milestones=recipe.evaluation.milestones)
    draws_on = algorithm.required
    if "reward" in draws_on:
        bench = bench.replace(reward=_reward(plan, stage.seed))
    if "judge" in draws_on:
        bench = bench.replace(judge=judge_of(plan, recipe.judge, seed, progress))
    if "constitution" in draws_on:
        constitution = constitutions.load(recipe.constitution_name)
        bench = bench.replace(constitution=constitution, assistant=assistant_of(plan, progress))
    with metered(ledger):
        algorithm.train(bench.replace(began=time.perf_counter()))
    if distributed.makes_room():  # what follows is for the first process to keep
        return
    start_path(plan)  # still what it was
    if not (folder / "policy").is_dir():
        raise RuntimeError(f"{stage.label} saved no policy: `train` must call `policy.save(bench.out / 'policy')`")
    (folder / "ledger.json").write_text(json.dumps(asdict(ledger)), encoding="utf-8")
    (folder / DETAILS).write_text(json.dumps(bench.report, indent=1), encoding="utf-8")


@shared_base.shared()
def evaluation(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Measure one policy on the test prompts, in a process that may have measured others: on the same weights, and
    with nothing else of theirs."""
    assert stage.label is not None and stage.seed is not None
    forget_peak()
    set_seed(stage.seed)
    recipe = plan.recipe
    ledger = Ledger()
    if stage.label == START:
        policy: Any = start_policy(recipe, start_path(plan))
    else:
        policy = load_policy(plan.stages[f"train {stage.label} seed {stage.seed}"].folder / "policy")
    against = f"evaluate {START} seed {stage.seed}"
    has_reward = plan.stages[plan.reward_name(stage.seed)].done
    test = splits.load_split(plan.stages["data"].folder, "test")
    measure = Measure(
        prompts=views_of(test).prompts[: recipe.evaluation.prompts],
        slices={json.dumps(row.prompt): row.slice for row in test},
        generation=recipe.generation,
        seed=stage.seed,
        gold=measure_of(plan, None if stage.label == START else plan.stages[against].folder),
        proxy=_reward(plan, stage.seed) if has_reward else None,
        progress=progress,
    )
    measure(policy, ledger, folder)
    (folder / "ledger.json").write_text(json.dumps(asdict(ledger)), encoding="utf-8")
    (folder / IDENTITY).write_text(json.dumps(identity(plan, stage.label), indent=1), encoding="utf-8")
    if stage.label != START:
        trained = plan.stages[f"train {stage.label} seed {stage.seed}"].folder
        measure_on_the_way(measure, gold_function(recipe), trained, folder)
    if not has_reward:
        (folder / INCOMPLETE).write_text("measured without the proxy reward, whose stage failed", encoding="utf-8")


def _reward(plan: Plan, seed: int) -> Reward:
    folder = plan.stages[plan.reward_name(seed)].folder
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    if spec["type"] == "random":
        return RandomReward(seed)
    return load_reward(spec, folder)


def _bench(
    plan: Plan,
    stage: Stage,
    folder: Path,
    start: str,
    seed: int,
    progress: Progress,
    ledger: Ledger,
    shuffle_seed: int | None = None,
    rows: str | None = None,
) -> Bench:
    recipe = plan.recipe
    views = views_of(splits.load_split(plan.stages[rows or plan.rows_name].folder, "train"))
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
        ledger=ledger,
        progress=progress,
        loading=loading(recipe, recipe.adapter),
        reporting=reporting(plan, stage),
        shaping=recipe.reward.shaping,
        reuse=KeptWork(plan.out / KEPT),
    )
