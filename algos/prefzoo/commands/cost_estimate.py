"""The whole way from a recipe to an estimate of what it will take."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from prefzoo.commands.comparison import in_use, run_alone
from prefzoo.commands.cost_probe import Probe, Size, probe, sizes
from prefzoo.commands.cost_scaling import TRIAL, scaled
from prefzoo.recipe.check_recipe import load
from prefzoo.results.cost_record import Estimate
from prefzoo.run import distributed
from prefzoo.run.resources import default_workers
from prefzoo.run.stage_graph import make_plan

FOLDER = "probe"
"""Folder of a comparison in which probes run; it stays, for its logs, where one of them failed."""


def estimate(
    recipe: str | Mapping[str, Any],
    algorithms: Iterable[str] | None = None,
    seeds: int | list[int] | None = None,
    sets: Iterable[str] = (),
    out: str | Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> Estimate:
    """What `compare` with the same arguments will take on this machine, by running all its stages on a small part of
    the budget, twice.

    The data is prepared where `compare` will find it done, and the estimate is kept in `out` as `estimate.json`, for
    the report to show beside what it really took. What is done already in `out` counts as nothing.

    Raises:
        RecipeError: for a recipe that cannot run, before anything is loaded.
        PrefzooError: when the data cannot be used.
    """
    if distributed.makes_room():
        raise SystemExit(0)
    seeded = [*sets, *([f"seeds={seeds}"] if seeds is not None else [])]
    name, checked = Path(recipe).stem if isinstance(recipe, str) else "recipe", load(recipe, seeded, algorithms)
    console = console or Console(stderr=True)
    with in_use(Path(out) if out is not None else Path("runs") / name) as folder:
        plan = make_plan(checked, folder)
        run_alone(plan, "data", console)
        whole = Size.of(plan)
        workers = workers or default_workers(checked)
        if all(stage.done for stage in plan.stages.values()):
            return Estimate(checked.model_dump(mode="json"), workers=workers)
        left = {s.label for s in plan.stages.values() if s.kind in TRIAL and not s.done}
        wanted = [label for label in checked.algorithms if label in left]
        probes: list[Probe] = []
        for size in sizes(checked, whole):
            place = folder / FOLDER / f"{size.train}-prompts"
            probes.append(probe(plan, size, wanted, workers, place, console))
            broken = {label for _, label in probes[-1].failed}
            if broken and not any(kind == "train" for kind, _ in probes[-1].took):
                break  # a larger probe would show nothing else
            wanted = [label for label in wanted if label not in broken]
        found = scaled(plan, whole, probes, workers)
        if not found.failed:
            shutil.rmtree(folder / FOLDER)
        found.save(folder)
    return found
