"""Where the stages of a comparison run: in processes of this machine, or as jobs of a cluster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from prefzoo.errors import PrefzooError
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.results.cost_record import Estimate
from prefzoo.run.cluster_runner import ClusterRunner
from prefzoo.run.cluster_settings import FROM_PLAN, Cluster, Slurm, read_cluster
from prefzoo.run.engines import engine_of
from prefzoo.run.executor import Outcome, Runner
from prefzoo.run.progress_display import Watcher
from prefzoo.run.resources import default_workers
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.stages.run_stage import run_stage

MARGIN, LEAST_MINUTES = 3, 10
"""A job that is to take as long as was estimated may take so many times that, and so many minutes more."""


@dataclass(frozen=True)
class Place:
    """How many stages run at a time, and on what; None is this machine."""

    workers: int
    cluster: Cluster | None = None

    def runner(
        self,
        plan: Plan,
        watcher: Watcher,
        more: Callable[[Stage, Outcome], Iterable[Stage]] = lambda stage, outcome: (),
    ) -> Runner:
        """What runs a plan here."""
        if self.cluster is None:
            return Runner(plan, run_stage, self.workers, watcher, more)
        limit = time_limit(self.cluster, plan.out)
        return ClusterRunner(plan, run_stage, watcher, more, self.cluster, engine_of(self.cluster, plan.out), limit)


def cluster_of(on: str | Path | None, workers: int | None) -> Cluster | None:
    """The cluster that `on` names; None for this machine.

    Raises:
        PrefzooError: for settings that cannot be, before anything is loaded.
    """
    cluster = read_cluster(on) if on is not None else None
    if cluster is not None and workers is not None:
        raise PrefzooError(f"--workers {workers} and --on {on}: max_jobs, in that file, says how many jobs there are")
    return cluster


def place_of(cluster: Cluster | None, workers: int | None, recipe: Recipe, out: Path) -> Place:
    """Where the stages of a recipe run.

    Raises:
        PrefzooError: when the limits of jobs are to be those of an estimate, and there is none.
    """
    if cluster is None:
        return Place(workers or default_workers(recipe))
    time_limit(cluster, out)
    return Place(cluster.max_jobs, cluster)


def time_limit(cluster: Cluster, out: Path) -> Callable[[Stage], int | None]:
    """The minutes that a stage's job may take; None is no limit."""
    if not isinstance(cluster, Slurm):
        return lambda stage: None
    if isinstance(minutes := cluster.time, int):
        return lambda stage: minutes
    if (estimate := Estimate.load(out)) is None:
        raise PrefzooError(
            f"time: {FROM_PLAN} needs an estimate, and {out} has none; call `prefzoo plan` with the same recipe and "
            "--out first, or give minutes"
        )
    seconds = {label: ledger["seconds"] for label, ledger in {**estimate.shared, **estimate.labels}.items()}
    longest = max(seconds.values(), default=0.0)
    return lambda stage: LEAST_MINUTES + math.ceil(MARGIN * seconds.get(str(stage.label), longest) / 60)
