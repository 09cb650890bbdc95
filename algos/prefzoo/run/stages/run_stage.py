"""Which module does the work of which kind of stage."""

from __future__ import annotations

from pathlib import Path

from prefzoo.models.vllm_server import SERVERS, hosting
from prefzoo.run import distributed
from prefzoo.run.integrity import RECORDED, SEALED, seal
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.stored_code import allowing, code_in
from prefzoo.types import Progress


def run_stage(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Do the work of one stage into `folder`, in that stage's process.

    The modules that do it import torch and TRL, which the process that starts the stages does not need.
    """
    from prefzoo.run.stages import (
        audit_stage,
        data_stage,
        evaluate_stage,
        label_stage,
        reward_stage,
        start_stage,
        train_stage,
        tune_stage,
    )

    work = {
        "data": data_stage.prepare,
        "start": start_stage.make_start,
        "label": label_stage.label,
        "reward": reward_stage.make_reward,
        "train": train_stage.train,
        "evaluate": evaluate_stage.evaluate,
        "audit": audit_stage.audit,
        "tune": tune_stage.tune,
    }
    plan = plan if stage.kind == "data" else plan.with_lengths()
    start_stage.use_quantized_copy(plan)
    hosting.folder, hosting.rank = plan.out.resolve() / SERVERS, plan.recipe.adapter.r
    hosting.whole = plan.recipe.adapter.type == "full"
    with allowing(code_in(plan.recipe.model_dump(mode="json"))):
        work[stage.kind](plan, stage, folder, progress)
    if stage.kind in SEALED and not distributed.is_follower():
        seal(folder, records=stage.kind in RECORDED)
