"""A stage as a job of an engine on another host: what is handed over, and what it leaves in the comparison's folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import cloudpickle
from rich.console import Console

from prefzoo import plugins, registry
from prefzoo.atomic_files import read_json, write_whole
from prefzoo.errors import PrefzooError
from prefzoo.judges.answer_cache import ON_HOST
from prefzoo.run.cache import source_hash, versions
from prefzoo.run.executor import Outcome, Runner
from prefzoo.run.host_lock import HostLock
from prefzoo.run.progress_display import Watcher
from prefzoo.run.resources import THREADS
from prefzoo.run.stage_graph import Plan, Stage

JOBS = "jobs"
"""Folder of a comparison with a folder for each stage that was given to an engine."""
LOCK = "lock"
PROGRESS_SECONDS = 2.0
VISIBLE_SECONDS = 90.0
"""After which a file server shows on one host what was written on another, whatever it caches."""


@dataclass(frozen=True)
class Attempt:
    """One try at a stage by an engine, in `attempt.json`. Only the try that is named there may work on the stage.

    Attributes:
        id: its name, unique.
        stage: the stage's name.
        engine: `slurm` or `ray`.
        batch, index: what was submitted together, and its place in it.
        job: what the engine calls it; None where the controller was killed before it could write that down.
        submitted: seconds since the epoch.
        lost: why earlier tries were lost.
    """

    id: str
    stage: str
    engine: str
    batch: str
    index: int = 0
    job: str | None = None
    submitted: float = field(default_factory=time.time)
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a try ended, in `ended.json`; of one that was lost (killed, cancelled) nothing follows for the stage."""

    id: str
    status: Literal["ok", "failed", "skipped", "waiting"]
    error: str | None = None
    seconds: float = 0.0
    lost: bool = False


@dataclass(frozen=True)
class JobFolder:
    """The files of a stage that was given to an engine."""

    path: Path

    @classmethod
    def of(cls, out: Path, stage: Stage) -> JobFolder:
        return cls(out / JOBS / stage.folder.name)

    def save(self, name: str, content: Any) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / f"{name}.json", json.dumps(content))

    def read(self, name: str) -> dict[str, Any]:
        """Empty where there is none, or it is damaged."""
        with contextlib.suppress(PrefzooError):
            return dict(read_json(self.path / f"{name}.json"))
        return {}

    @property
    def attempt(self) -> Attempt | None:
        with contextlib.suppress(TypeError):
            content = self.read("attempt")
            return Attempt(**{**content, "lost": tuple(content.get("lost", ()))})
        return None

    @property
    def ended(self) -> Ended | None:
        """How the newest try ended; None while it has not."""
        attempt = self.attempt
        with contextlib.suppress(TypeError):
            ended = Ended(**self.read("ended"))
            return ended if attempt is None or ended.id == attempt.id else None
        return None


def unended(out: Path) -> list[Attempt]:
    """The tries in a comparison's folder that may still wait or run."""
    found = []
    for folder in map(JobFolder, sorted((out / JOBS).glob("*"))):
        done = any((out / place / folder.path.name).is_dir() for place in ("stages", "trials"))
        if (attempt := folder.attempt) is not None and folder.ended is None and not done:
            found.append(attempt)
    return found


def wait_until(seen: Callable[[], bool]) -> bool:
    """Wait a while for what another host has written, which a file server may show late; False where it does not."""
    end = time.monotonic() + VISIBLE_SECONDS
    while not (found := seen()) and time.monotonic() < end:
        time.sleep(1.0)
    return found


@dataclass(frozen=True)
class StageJob:
    """Does one stage. It is pickled by the engine, and called on one of its hosts.

    Attributes:
        work: the plan, the stage and what does it, pickled: they may be of a plug-in, which is run first.
        folder: of the comparison.
        done: names of the stages before it that are done; a file server may show this host so a little later.
    """

    attempt: Attempt
    work: bytes
    sources: dict[str, str]
    folder: JobFolder
    cwd: str
    cpus: int
    done: tuple[str, ...]
    made_with: tuple[dict[str, str], str]

    @classmethod
    def of(cls, attempt: Attempt, plan: Plan, stage: Stage, job: Callable[..., None], cpus: int) -> StageJob:
        return cls(
            attempt=attempt,
            work=cloudpickle.dumps((job, plan, stage.name, registry.registered(), registry.registered_policies())),
            sources=plugins.loaded(),
            folder=JobFolder.of(plan.out.resolve(), stage),
            cwd=os.getcwd(),
            cpus=cpus,
            done=tuple(name for name in (*stage.needs, *stage.after) if plan.stages[name].done),
            made_with=(versions(), source_hash()),
        )

    def __call__(self) -> None:
        """Do the stage, unless another try has taken its place; how it ended is written, not returned."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # which ends its processes
        if not wait_until(self._is_current):
            return
        with HostLock(self.folder.path / LOCK, {"attempt": self.attempt.id}, self._is_current).held(patient=True):
            if self._is_current() and self.folder.ended is None:
                try:
                    outcome, died = self._do()
                except (PrefzooError, OSError) as error:  # this host may have no room for a process, another one may
                    outcome, died = Outcome("failed", f"{type(error).__name__}: {error}"), True
                self.folder.save("ended", asdict(Ended(self.attempt.id, **asdict(outcome), lost=died)))

    def checkpoint(self) -> Any:
        """What submitit has Slurm run again when the time is up or the job is preempted; a training goes on from its
        last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _is_current(self) -> bool:
        current = self.folder.attempt
        return current is None or current.id == self.attempt.id

    def _do(self) -> tuple[Outcome, bool]:
        os.chdir(self.cwd)
        if (here := (versions(), source_hash())) != self.made_with:
            differ = {name: (theirs, here[0].get(name)) for name, theirs in self.made_with[0].items()}
            words = [f"{name} {one} and here {two}" for name, (one, two) in differ.items() if one != two]
            what = "; ".join(words) or "the source of prefzoo"
            return Outcome("failed", f"{socket.gethostname()} has other versions than where compare ran: {what}"), False
        os.environ.setdefault(THREADS, str(self.cpus))
        os.environ[ON_HOST] = socket.gethostname()
        plugins.run_again(self.sources)
        job, plan, name, *registered = cloudpickle.loads(self.work)
        registry.adopt(*registered)
        if plan.stages[name].done:
            return Outcome("ok"), False
        if not wait_until(lambda: all(plan.stages[other].done for other in self.done)):
            unseen = ", ".join(other for other in self.done if not plan.stages[other].done)
            return Outcome("failed", f"{socket.gethostname()} does not see the results of {unseen}"), True
        others = {other: Outcome("ok" if other in self.done else "skipped") for other in plan.stages if other != name}
        with _ProgressFile(self.folder) as watcher:
            watcher.expect([plan.stages[name]])
            runner = Runner(plan, job, 1, watcher)
            runner.outcomes.update(others)
            outcome = runner.run()[name]
        return outcome, name in runner.died


class _ProgressFile(Watcher):
    """Leaves how far the stage is where the controller reads it."""

    def __init__(self, folder: JobFolder) -> None:
        super().__init__(1, 1, Console(file=sys.stdout))
        self.folder, self.saved = folder, 0.0

    def progressed(self, stage: Stage, activity: str, done: int, total: int) -> None:
        super().progressed(stage, activity, done, total)
        if self.clock() - self.saved > PROGRESS_SECONDS:
            self.saved = self.clock()
            with contextlib.suppress(OSError):
                self.folder.save("progress", {"activity": activity, "done": done, "total": total})
