"""Estimate what a comparison will take: two small probes, and the straight line through both; or one, where a second
would take longer than what it is to tell."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefzoo.commands.comparison import run_alone
from prefzoo.commands.cost_probe import Probe, Size, StageCost, StageGroup, probe, sizes, stage_group
from prefzoo.commands.run_folder import checked_recipe, locked_folder
from prefzoo.commands.tuning_estimate import TUNING_ROW, with_tuning
from prefzoo.errors import os_errors_told
from prefzoo.ledger import CHARGES
from prefzoo.report.cost import ESTIMATE_COLUMNS, ESTIMATE_NAMES, format_cost
from prefzoo.results.cost_record import Estimate
from prefzoo.run.progress_display import seconds_left
from prefzoo.run.resources import default_workers
from prefzoo.run.stage_graph import START, Plan, Stage, make_plan

FOLDER = "probe"
"""Folder of a comparison in which probes run; it stays, for its logs, where one of them failed."""
TRIAL = ("train", "evaluate")
ALONE = "too, but for the beginning of each stage; a second probe would have taken longer than what it tells of"


@os_errors_told("estimating")
def estimate(
    recipe: str | Mapping[str, Any],
    algorithms: Iterable[str] | None = None,
    seeds: int | list[int] | None = None,
    sets: Iterable[str] = (),
    out: str | Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
    add: Iterable[str] = (),
    tune: int | None = None,
) -> Estimate:
    """Estimate what `compare` with the same arguments will take on this machine, by running all its stages on a small
    part of the budget: twice, or once where twice would take longer than what is estimated.

    The data is prepared where `compare` will find it done, and the estimate is written to `estimate.json` in `out`, for
    the report to show beside what it really took. What is done already in `out` counts as nothing.

    Raises:
        RecipeError: for a recipe that cannot run, before anything is loaded.
        PrefzooError: when the data cannot be used.
    """
    checked = checked_recipe(recipe, algorithms, seeds, sets, list(add), out, tune)
    console = console or Console(stderr=True)
    with locked_folder(recipe, out) as folder:
        plan = make_plan(checked, folder)
        began, done_before = time.monotonic(), plan.stages["data"].done
        data = run_alone(plan, "data", console)
        # The server of stages is started once in this process; the comparison starts its own.
        starting = 0.0 if done_before else max(0.0, time.monotonic() - began - (data.seconds or 0.0))
        whole = Size.of(plan)
        plan = with_tuning(plan, whole.train, whole.validation).with_lengths()
        workers = workers or default_workers(checked)
        if all(stage.done for stage in plan.stages.values()):
            return Estimate(plan.recipe.model_dump(mode="json"), workers=workers)
        left = {s.label for s in plan.stages.values() if s.kind in TRIAL and not s.done}
        labels = [label for label in plan.recipe.algorithms if label in left]
        probes: list[Probe] = []
        for size in sizes(checked, whole):
            if probes and not worth_a_second(plan, whole, probes[0], size, workers):
                break
            place = folder / FOLDER / f"{size.train}-prompts"
            probes.append(probe(plan, size, labels, workers, place, console))
            broken = {label for _, label in probes[-1].failed}
            if broken and not any(kind == "train" for kind, _ in probes[-1].costs):
                break  # a larger probe would show nothing else
            labels = [label for label in labels if label not in broken]
        probes[0] = replace(probes[0], starting=max(starting, probes[0].starting))
        result = scaled(plan, whole, probes, workers)
        if not result.failed:
            shutil.rmtree(folder / FOLDER)
        result.save(folder)
    return result


def worth_a_second(plan: Plan, whole: Size, first: Probe, size: Size, workers: int) -> bool:
    """Whether two probes take less time than what they tell of, however much of that grows with the budget.

    Both have the constant part of each of their stages, and together not more of what grows than one seed has: so they
    take less where the stages that are left, at what they took in the first probe, take twice its time.
    """
    left = {n: s for n, s in plan.stages.items() if not s.done and stage_group(s) in first.costs}
    usual = {name: first.costs[stage_group(stage)].seconds for name, stage in left.items()}
    return first.size.train + size.train <= whole.train and seconds_left(left, usual, {}, workers) >= 2 * (
        first.seconds - first.starting
    )


def extrapolate_linear(points: Sequence[tuple[float, float]], x: float) -> float:
    """Return the value at `x` of the straight line through the first and the last of the points `(x, y)`. Its value
    at 0 is what a stage takes whatever its size.

    What did not grow is constant. What grew faster than in proportion, by chance of timing, is taken in proportion to
    the last point, and so is what is known at one size only.
    """
    (x1, y1), (x2, y2) = points[0], points[-1]
    if x2 <= x1 or y2 * x1 > y1 * x2:
        return y2 * x / x2
    slope = max(0.0, (y2 - y1) / (x2 - x1))
    return y1 + slope * (x - x1)


def in_proportion(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value at `x` in proportion to the last of the points `(x, y)`: counts have no beginning of their own. What is
    the same at two sizes is constant."""
    (_, y1), (x2, y2) = points[0], points[-1]
    return y2 if len(points) > 1 and y1 == y2 else y2 * x / x2


def scaled(plan: Plan, whole: Size, probes: Sequence[Probe], workers: int) -> Estimate:
    """The estimate for a plan.

    Args:
        plan: what is to be run; stages that are done count as nothing.
        whole: its size.
        probes: of two sizes, the smaller first; or one, of which the seconds until a stage first said how far it was
            are what does not grow.
        workers: stages at a time.
    """
    known = set.intersection(*(set(probe.costs) for probe in probes))

    def scale_stage_cost(stage: Stage, value: Callable[[StageCost], float], grows: Any = extrapolate_linear) -> float:
        points = [(_amount(plan, stage, probe.size), value(probe.costs[stage_group(stage)])) for probe in probes]
        return float(grows(points, stage.prompts or _amount(plan, stage, whole)))

    def scale_seconds(stage: Stage, value: Callable[[StageCost], float]) -> float:
        if len(probes) > 1:
            return scale_stage_cost(stage, value)
        cost = probes[0].costs[stage_group(stage)]
        points = [(0.0, min(cost.begun, value(cost))), (_amount(plan, stage, probes[0].size), value(cost))]
        return extrapolate_linear(points, stage.prompts or _amount(plan, stage, whole))

    def charged(stage: Stage, name: str) -> float:
        return scale_stage_cost(stage, lambda cost: cost.ledger.get(name, 0.0), in_proportion)

    def ledger(stages: Sequence[Stage]) -> dict[str, float]:
        counts = {name: sum(charged(stage, name) for stage in stages) for name in CHARGES}
        seconds = sum(scale_seconds(stage, lambda cost: cost.ledger.get("seconds", 0.0)) for stage in stages)
        costs = [probe.costs[stage_group(stage)] for stage in stages for probe in probes]
        peak = max((cost.ledger.get("peak_memory_bytes", 0.0) for cost in costs), default=0.0)
        return {**counts, "seconds": seconds, "peak_memory_bytes": peak}

    labels = {}
    for label in (START, *plan.recipe.algorithms):
        of_first_seed = (label, plan.recipe.seeds[0])
        trial = [s for s in plan.stages.values() if s.kind in TRIAL and (s.label, s.seed) == of_first_seed]
        if known.issuperset(map(stage_group, trial)):
            labels[label] = ledger(trial)
    shared: dict[StageGroup, Stage] = {}
    for stage in plan.stages.values():
        if stage.kind not in TRIAL and stage_group(stage) in known:
            shared.setdefault(stage_group(stage), stage)
    left = {name: stage for name, stage in plan.stages.items() if not stage.done}
    to_run = {name: stage for name, stage in left.items() if stage_group(stage) in known}

    searched: dict[str, list[Stage]] = {}
    for stage in to_run.values():
        if stage.prompts is not None:
            searched.setdefault(_row_name(stage), []).append(stage)

    def disk(stage: Stage) -> float:
        if stage.prompts is not None and stage.kind == "train":
            return 0.0  # the policies of trials are deleted
        if len(probes) == 1 and stage.kind != "evaluate":  # weights, whose size is the model's
            return probes[0].costs[stage_group(stage)].disk_bytes
        return scale_stage_cost(stage, lambda cost: cost.disk_bytes)

    usual = {name: scale_seconds(stage, lambda cost: cost.seconds) for name, stage in to_run.items()}
    shared_bytes = in_proportion([(probe.size.train, probe.shared_bytes) for probe in probes], whole.train)
    rows = [_row_name(stage) for stage in left.values()]
    return Estimate(
        recipe=plan.recipe.model_dump(mode="json"),
        labels=labels,
        shared={
            **{_row_name(stage): ledger([stage]) for stage in shared.values()},
            **{name: ledger(stages) for name, stages in searched.items()},
        },
        failed={" ".join(filter(None, which)): error for probe in probes for which, error in probe.failed.items()},
        left={name: rows.count(name) for name in rows},
        workers=workers,
        wall_seconds=probes[0].starting + seconds_left(to_run, usual, {}, workers) if to_run else 0.0,
        disk_bytes=sum(map(disk, to_run.values())) + len(plan.recipe.seeds) * shared_bytes,
        probe={
            "prompts": [probe.size.train for probe in probes],
            "evaluation_prompts": [probe.size.evaluated for probe in probes],
            "seconds": sum(probe.seconds for probe in probes),
        },
    )


def _amount(plan: Plan, stage: Stage, size: Size) -> float:
    """The number of prompts or pairs that the work of a stage grows with."""
    if stage.kind == "evaluate":
        return size.evaluated
    if stage.kind == "audit":
        return min(plan.recipe.audited[str(stage.label)].audit_pairs, size.test)
    return size.train


def _row_name(stage: Stage) -> str:
    """The row of the estimate's table that a stage belongs to."""
    if stage.prompts is not None:
        return TUNING_ROW.format(stage.label)
    return str(stage.label) if stage.kind in TRIAL else f"{stage.name}, made once"


def table(estimated: Estimate) -> Table:
    """A row for each label, with what a seed of it takes, and one for each shared stage."""
    rows = {**estimated.labels, **estimated.shared}
    names = [n for n in ESTIMATE_COLUMNS if any(ledger[n] for ledger in rows.values())]
    shown = Table("policy", *[ESTIMATE_NAMES[n] for n in names], "to be run", box=None, title_justify="left")
    shown.title = "What one seed of each takes, and what is made once"
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, ledger in rows.items():
        left = estimated.left.get(name, 0)
        cells = [format_cost(n, ledger[n]) for n in names]
        shown.add_row(Text(name), *cells, _count(left, "stage") if left else "done")
    return shown


def sentences(estimated: Estimate) -> list[str]:
    """Time, memory and disk of all that is to be run, and how they were estimated."""
    if not estimated.left:
        return ["All of it is done already."]
    minutes, seconds = divmod(round(estimated.wall_seconds), 60)
    peak = max((ledger["peak_memory_bytes"] for ledger in estimated.labels.values()), default=0.0)
    sizes_probed = estimated.probe["prompts"]
    times = "on the straight line through both" if len(sizes_probed) > 1 else ALONE
    return [
        f"Time: about {minutes}:{seconds:02d} (minutes:seconds) with {_count(estimated.workers, 'worker')}, for what "
        "is still to be run, without the report.",
        f"Memory: at most {estimated.workers} x {format_cost('peak_memory_bytes', peak)}. "
        f"Disk: {format_cost('peak_memory_bytes', estimated.disk_bytes)}.",
        f"By a probe of {estimated.probe['seconds']:.0f} s with {' and '.join(map(str, sizes_probed))} training "
        f"prompts and one seed; tokens and calls in proportion to prompts, times {times}.",
    ]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
