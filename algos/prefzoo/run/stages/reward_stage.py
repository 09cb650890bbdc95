"""The reward stage: train or find the reward that algorithms learn from, and measure how good it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from prefzoo.data import splits
from prefzoo.data.row_views import views_of
from prefzoo.interface import Bench
from prefzoo.rewards.judge_reward import JudgeReward, start_replies
from prefzoo.rewards.knowledge_reward import KnowledgeReward, build_fact_checker, reports_of_facts
from prefzoo.rewards.load_reward import Ensemble, RandomReward, WeightedSum
from prefzoo.rewards.reward_accuracy import reward_report
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.rewards.reward_settings import RewardPart
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.run import distributed
from prefzoo.run.resources import metered
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.stages.recipe_inputs import bench_of, checked_by_of, gold_function, judge_of, loading
from prefzoo.run.stages.start_stage import start_path
from prefzoo.scoring_function import FunctionReward
from prefzoo.types import Progress, Prompt, Reward


def make_reward(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Train or find the reward, and report its accuracy, and that of each of its parts, on test pairs."""
    recipe = plan.recipe
    settings = recipe.reward
    seed = recipe.seeds[0] if stage.seed is None else stage.seed
    bench = bench_of(plan, stage, folder, start_path(plan), seed, progress, shuffle_seed=stage.seed)
    test = splits.load_split(plan.stages[plan.rows_name].folder, "test")
    prompts = [*bench.data.prompts, *views_of(test).prompts]
    parts: list[Reward] = []
    with metered(bench.ledger):
        for i, part in enumerate(settings.parts):
            if part.type != "trained" and distributed.is_follower():
                continue  # others are made by the first process alone
            out = folder / f"part-{i}" if settings.of else folder
            parts.append(_make_part(plan, part, bench.replace(out=out), prompts))
    if distributed.is_follower():
        return
    weights = [part.weight for part in settings.of]
    reward = WeightedSum(parts, weights, settings.names) if settings.of else parts[0]
    (folder / "spec.json").write_text(json.dumps(reward.spec(folder)), encoding="utf-8")
    gold = gold_function(recipe)
    scores = {"type": settings.type, **reward_report(reward, test, gold, settings.attribute)}
    report = {**scores, **bench.report, "ledger": asdict(bench.ledger)}
    members = reward.parts if isinstance(reward, Ensemble) else parts
    if len(members) > 1:
        named = [part.attribute for part in settings.of] or [settings.attribute] * len(members)
        report["parts"] = [reward_report(m, test, gold, name) for m, name in zip(members, named, strict=True)]
    if facts := reports_of_facts(reward):
        report["knowledge"] = facts
    (folder / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


def _make_part(plan: Plan, part: RewardPart, bench: Bench, prompts: list[Prompt]) -> Reward:
    """One part of the reward, which will score replies to `prompts`. Members of an ensemble differ in their seed."""
    recipe = plan.recipe
    if part.type == "path":
        read = {key: value for key, value in loading(recipe, recipe.adapter).items() if key != "chat_template"}
        return RewardModel.load(str(Path(str(part.path)).expanduser()), read)
    if part.type == "function":
        return FunctionReward(str(part.path))
    if part.type == "random":
        return RandomReward(recipe.seeds[0])
    if part.type == "judge":
        references = start_replies(bench, prompts) if part.by == "comparison" else {}
        judge = judge_of(plan, recipe.judge, bench.seed, bench.progress)
        return JudgeReward(judge, part.by, references, part.question)
    if part.type == "knowledge":
        checked_by = checked_by_of(plan, part.path, recipe.judge, bench.seed)
        facts = build_fact_checker(
            str(part.documents), part.k, checked_by, loading(recipe, recipe.adapter), bench.progress
        )
        return KnowledgeReward(facts, part.scores.model_dump(), checked_by)
    adapter = part.adapter or recipe.adapter
    bench = bench.replace(adapter=adapter, loading=loading(recipe, adapter))
    learned = (part.trainer, part.loss, part.margins, part.label_smoothing, part.attribute)
    if part.members == 1:
        return train_reward_model(bench, *learned)
    members = [
        train_reward_model(bench.replace(out=bench.out / f"member-{i}", seed=bench.seed + 1000 * i), *learned)
        for i in range(part.members)
    ]
    return Ensemble(members, part.combine, part.std_weight)
