"""What the stages of a comparison do: which run where and for how long, what waits, and what failed."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from prefzoo.atomic_files import partial_folder
from prefzoo.errors import PrefzooError, unknown
from prefzoo.run.engines import SLURM, log_of, squeue
from prefzoo.run.executor import read_outcomes
from prefzoo.run.host_lock import EXPIRES_SECONDS, holder_file, read_holder
from prefzoo.run.stage_graph import Plan, Stage, load_plan
from prefzoo.run.stage_job import JOBS, LOCK, JobFolder

LINES = 40


@dataclass(frozen=True)
class StageStatus:
    """What one stage does.

    Attributes:
        state: done, running, queued, waiting, failed, lost or interrupted.
        seconds: that it took, runs or is queued; None where that is not known.
    """

    stage: str
    state: str
    where: str = ""
    seconds: float | None = None
    what: str = ""


def status(out: Path) -> list[StageStatus]:
    """What each stage of the comparison in a folder does; nothing is written.

    Raises:
        PrefzooError: when the folder holds no run.
    """
    plan = with_trials(load_plan(out))
    queued = {f.attempt.batch for s in plan.stages.values() if (f := JobFolder.of(out, s)).attempt and not f.ended}
    slurm = (squeue(queued) if queued else None) or {}
    return [_status(plan, stage, slurm) for stage in plan.stages.values()]


def with_trials(plan: Plan) -> Plan:
    """A plan with the trials of tuning that were given to an engine, which no file of the plan names."""
    known = {stage.folder.name for stage in plan.stages.values()}
    stages = dict(plan.stages)
    for path in sorted((plan.out / JOBS).glob("tune-*")):
        if path.name not in known and (attempt := JobFolder(path).attempt):
            stages[attempt.stage] = Stage(attempt.stage, "tune", plan.out / "trials" / path.name)
    return Plan(plan.recipe, plan.out, stages, plan.versions)


def _status(plan: Plan, stage: Stage, slurm: dict[tuple[str, int], str]) -> StageStatus:
    folder = JobFolder.of(plan.out, stage)
    attempt, ended, now = folder.attempt, folder.ended, time.time()
    if stage.done:
        return StageStatus(stage.name, "done", seconds=stage.seconds)
    if attempt is not None and ended is None:
        engine = f"{attempt.engine} {attempt.job or attempt.batch}"
        holder = read_holder(sign := holder_file(folder.path / LOCK))
        if holder.get("attempt") != attempt.id:
            told = slurm.get((attempt.batch, attempt.index), "")
            return StageStatus(stage.name, "queued", engine, now - attempt.submitted, told)
        progress, silent = folder.read("progress"), now - sign.stat().st_mtime
        what = "{activity} {done}/{total}".format(**progress) if progress else ""
        what = f"no sign for {silent:.0f} s" if silent > EXPIRES_SECONDS else what
        return StageStatus(stage.name, "running", f"{holder['host']} ({engine})", now - holder["since"], what)
    if ended is not None and ended.status != "ok":
        return StageStatus(
            stage.name, "lost" if ended.lost else ended.status, seconds=ended.seconds or None, what=str(ended.error)
        )
    if partial_folder(stage.folder).is_dir():
        holder = read_holder(holder_file(plan.out / ".lock"))
        return StageStatus(stage.name, "running" if holder else "interrupted", str(holder.get("host", "")))
    if (outcome := read_outcomes(plan.out).get(stage.name)) is not None and outcome.status != "ok":
        return StageStatus(stage.name, outcome.status, what=str(outcome.error))
    needs = [name for name in (*stage.needs, *stage.after) if not plan.stages[name].done]
    return StageStatus(stage.name, "waiting", what=f"for {', '.join(needs)}" if needs else "for a free place")


def status_table(found: list[StageStatus]) -> Table:
    """A row for each stage."""
    counts = {
        state: sum(each.state == state for each in found) for state in dict.fromkeys(each.state for each in found)
    }
    shown = Table("stage", "state", "where", "time", "", box=None, title_justify="left")
    shown.title = ", ".join(f"{count} {state}" for state, count in counts.items())
    for each in found:
        minutes, seconds = divmod(round(each.seconds or 0), 60)
        took = f"{minutes}:{seconds:02d}" if each.seconds is not None else ""
        style = "red" if each.state in ("failed", "lost") else ""
        cells = (each.stage, each.state, each.where, took, each.what)
        shown.add_row(*(Text(cell, style=style) for cell in cells))
    return shown


def log_lines(out: Path, name: str) -> Iterator[str]:
    """The path of a stage's log, and its last lines.

    Raises:
        PrefzooError: when there is no such stage, or it has no log yet.
    """
    plan = with_trials(load_plan(out))
    if name not in plan.stages:
        raise PrefzooError(f"--log: {unknown('stage', name, plan.stages)}")
    stage, attempt = plan.stages[name], JobFolder.of(out, plan.stages[name]).attempt
    places = [stage.folder.with_name(f"{stage.folder.name}.log")]
    if attempt is not None and attempt.job is not None:
        places.append(log_of(out / JOBS / SLURM, attempt.job))
    there = [place for place in places if place.is_file()]
    if not there:
        raise PrefzooError(f"--log {name}: it has no log yet, {places[0]}")
    newest = max(there, key=os.path.getmtime)
    yield str(newest)
    with newest.open(encoding="utf-8", errors="backslashreplace") as file:
        yield from (line.rstrip("\n") for line in deque(file, LINES))
