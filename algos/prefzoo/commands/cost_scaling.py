"""From what small probes took to what a whole comparison will take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prefzoo.commands.cost_probe import Part, Probe, Size, Took, part
from prefzoo.ledger import CHARGES
from prefzoo.results.cost_record import Estimate
from prefzoo.run.progress_display import seconds_left
from prefzoo.run.stage_graph import START, Plan, Stage

TRIAL = ("train", "evaluate")
ONCE = "{}, made once"


def on_the_line(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value at `x` of the straight line through points `(x, y)`, which begins with what a stage takes at all.

    What did not grow is constant. What grew faster than in proportion, which is chance in what is timed, is taken in
    proportion to the last, and so is what is known at one size only.
    """
    (x1, y1), (x2, y2) = points[0], points[-1]
    if x2 <= x1 or y2 * x1 > y1 * x2:
        return y2 * x / x2
    slope = max(0.0, (y2 - y1) / (x2 - x1))
    return y1 + slope * (x - x1)


def in_proportion(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value at `x` of what has no beginning of its own, as counts have none, by the last of the points `(x, y)`."""
    (_, y1), (x2, y2) = points[0], points[-1]
    return y2 if y1 == y2 else y2 * x / x2


def scaled(plan: Plan, whole: Size, probes: Sequence[Probe], workers: int) -> Estimate:
    """The estimate for a plan.

    Args:
        plan: what is to be run; stages that are done count as nothing.
        whole: its size.
        probes: of two sizes, the smaller first.
        workers: stages at a time.
    """
    known = set.intersection(*(set(each.took) for each in probes))
    failed = {" ".join(filter(None, which)): why for each in probes for which, why in each.failed.items()}

    def of(stage: Stage, value: Callable[[Took], float], grows: Any = on_the_line) -> float:
        points = [(_amount(plan, stage, each.size), value(each.took[part(stage)])) for each in probes]
        return float(grows(points, _amount(plan, stage, whole)))

    def charged(stage: Stage, name: str, grows: Any) -> float:
        return of(stage, lambda took: took.ledger.get(name, 0.0), grows)

    def ledger(stages: Sequence[Stage]) -> dict[str, float]:
        counts = {name: sum(charged(stage, name, in_proportion) for stage in stages) for name in CHARGES}
        seconds = sum(charged(stage, "seconds", on_the_line) for stage in stages)
        peaks = [each.took[part(stage)].ledger.get("peak_memory_bytes", 0.0) for stage in stages for each in probes]
        return {**counts, "seconds": seconds, "peak_memory_bytes": max(peaks, default=0.0)}

    first = plan.recipe.seeds[0]
    labels = {}
    for label in (START, *plan.recipe.algorithms):
        trial = [s for s in plan.stages.values() if s.kind in TRIAL and (s.label, s.seed) == (label, first)]
        if known.issuperset(map(part, trial)):
            labels[label] = ledger(trial)
    once: dict[Part, Stage] = {}
    for stage in plan.stages.values():
        if stage.kind not in TRIAL and part(stage) in known:
            once.setdefault(part(stage), stage)
    left = {name: stage for name, stage in plan.stages.items() if not stage.done}
    to_run = {name: stage for name, stage in left.items() if part(stage) in known}
    usual = {name: of(stage, lambda took: took.seconds) for name, stage in to_run.items()}
    shared_bytes = in_proportion([(each.size.train, each.shared_bytes) for each in probes], whole.train)
    return Estimate(
        recipe=plan.recipe.model_dump(mode="json"),
        labels=labels,
        shared={ONCE.format(stage.name): ledger([stage]) for stage in once.values()},
        failed=failed,
        left={name: sum(_belongs(stage) == name for stage in left.values()) for name in map(_belongs, left.values())},
        workers=workers,
        wall_seconds=probes[0].starting + seconds_left(to_run, usual, {}, workers) if to_run else 0.0,
        disk_bytes=sum(of(stage, lambda took: took.disk_bytes) for stage in to_run.values())
        + len(plan.recipe.seeds) * shared_bytes,
        probe={
            "prompts": [each.size.train for each in probes],
            "evaluation_prompts": [each.size.evaluated for each in probes],
            "seconds": sum(each.seconds for each in probes),
        },
    )


def _amount(plan: Plan, stage: Stage, size: Size) -> float:
    """What the work of a stage grows with."""
    if stage.kind == "evaluate":
        return size.evaluated
    if stage.kind == "audit":
        judge = plan.recipe.audited[str(stage.label)]
        return min(judge.audit_pairs, size.test)
    return size.train


def _belongs(stage: Stage) -> str:
    return str(stage.label) if stage.kind in TRIAL else ONCE.format(stage.name)
