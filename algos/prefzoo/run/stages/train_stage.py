"""The train stage: one algorithm with one seed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from prefzoo.errors import PrefzooError
from prefzoo.judges import constitution as constitutions
from prefzoo.rewards.knowledge_reward import reports_of_facts
from prefzoo.run import distributed
from prefzoo.run.evaluation_records import DETAILS
from prefzoo.run.resources import metered
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.stages.recipe_inputs import assistant_of, bench_of, judge_of, reward_of
from prefzoo.run.stages.start_stage import start_path
from prefzoo.trainers.config_audit import noting_sampling
from prefzoo.types import Progress


def train(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Train one algorithm with one seed.

    Raises:
        PrefzooError: when the start was changed meanwhile.
        RuntimeError: when the algorithm saved no policy.
    """
    assert stage.label is not None and stage.seed is not None
    recipe = plan.recipe
    algorithm = recipe.algorithm(stage.label)
    seed = recipe.seed_of(stage.label, stage.seed)
    bench = bench_of(plan, stage, folder, start_path(plan), seed, progress, shuffle_seed=stage.seed)
    bench = bench.replace(milestones=recipe.evaluation.milestones)
    draws_on = algorithm.required
    if "reward" in draws_on:
        bench = bench.replace(reward=reward_of(plan, stage.seed))
    if "judge" in draws_on:
        if recipe.judge.type == "people" and distributed.processes() > 1:
            raise PrefzooError("judge.type 'people': people are asked by one process; train without a launcher")
        bench = bench.replace(judge=judge_of(plan, recipe.judge, seed, progress, f"{stage.label} seed {stage.seed}"))
    if "constitution" in draws_on:
        constitution = constitutions.load(recipe.constitution_name)
        bench = bench.replace(constitution=constitution, assistant=assistant_of(plan, progress))
    try:
        with metered(bench.ledger), noting_sampling(bench.report):
            algorithm.train(bench.replace(began=time.perf_counter()))
    finally:  # what a failed trial cost counts where trials of tuning are paid for
        if not distributed.is_follower():
            (folder / "ledger.json").write_text(json.dumps(asdict(bench.ledger)), encoding="utf-8")
    if facts := reports_of_facts(bench.reward):
        bench.report["knowledge"] = facts
    if distributed.is_follower():  # the first process writes the rest
        return
    start_path(plan)  # raises if training changed it
    if not (folder / "policy").is_dir():
        raise RuntimeError(f"{stage.label} saved no policy: `train` must call `policy.save(bench.out / 'policy')`")
    (folder / DETAILS).write_text(json.dumps(bench.report, indent=1), encoding="utf-8")
