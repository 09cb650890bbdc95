"""Which module does the work of which kind of stage."""

from __future__ import annotations

from pathlib import Path

from prefzoo.run import distributed
from prefzoo.run.integrity import SEALED, seal
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.types import Progress


def run_stage(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Do the work of one stage into `folder`, in that stage's process.

    The modules that do it import torch and TRL, which the process that starts the stages does not need.
    """
    from prefzoo.run.stages import data_stage, evaluate_stage, train_stage
    from prefzoo.run.stages.audit_stage import audit
    from prefzoo.run.stages.label_stage import label
    from prefzoo.run.stages.reward_stage import make_reward
    from prefzoo.run.stages.start_stage import make_start, use_quantized_copy

    work = {
        "data": data_stage.prepare,
        "start": make_start,
        "label": label,
        "reward": make_reward,
        "train": train_stage.train,
        "evaluate": evaluate_stage.evaluate,
        "audit": audit,
    }
    use_quantized_copy(plan)
    work[stage.kind](plan, stage, folder, progress)
    if stage.kind in SEALED and not distributed.is_follower():
        seal(folder)
