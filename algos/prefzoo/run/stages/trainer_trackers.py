"""The trackers that trainers log to by themselves: TensorBoard, Trackio, MLflow."""

from __future__ import annotations

import os
from typing import Any

from prefzoo.run.stage_graph import Plan, Stage


def reporting(plan: Plan, stage: Stage) -> dict[str, Any]:
    """The training arguments under which a stage's trainers report; empty where the recipe names no tracker.

    Trackio and MLflow keep their logs in the comparison's folder, unless the environment names another place; this
    sets the environment of the stage's own process.
    """
    names = plan.recipe.tracking.report_to
    if not names:
        return {}
    out = plan.out.resolve()
    os.environ.setdefault("TRACKIO_DIR", str(out / "trackio"))
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{out / 'mlflow.db'}")
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", plan.recipe.tracking.wandb.project)
    run = f"{stage.label} seed {stage.seed}" if stage.kind == "train" else stage.name
    return {"report_to": list(names), "run_name": run, "project": plan.recipe.tracking.wandb.project}
