"""Run stages in processes of their own, several at a time, whatever becomes of any one of them."""

from __future__ import annotations

import copyreg
import dataclasses
import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, NamedTuple

import cloudpickle

from prefzoo import plugins, registry
from prefzoo.machine import cores, may_have_gpu
from prefzoo.run import distributed
from prefzoo.run.progress_display import Watcher
from prefzoo.run.resources import Share, shares, threads_asked
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.subprocesses import interrupt_blocked, main_hidden
from prefzoo.run.worker import PRELOAD, SEVERAL, follow, work

# A dataclass that was typed in a script travels by value, and its fields ask whether a default *is* this very object.
copyreg.pickle(type(dataclasses.MISSING), lambda missing: "MISSING")


OUTCOMES = "outcomes.json"
"""What became of the stages, in the folder of a comparison."""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: `ok`, `failed` (it raised or died), or `skipped` (what it needs failed)."""

    status: Literal["ok", "failed", "skipped"]
    error: str | None = None
    seconds: float = 0.0


class _Place(NamedTuple):
    """A process that stages run in, the pipe to it, and what it may use."""

    process: Any
    connection: Connection
    share: Share


class _Running(NamedTuple):
    """A stage that runs, where, and since when."""

    stage: Stage
    place: _Place
    began: float


class Runner:
    """Runs the stages of a plan.

    Each stage gets a fresh process: its memory goes back when it ends, its peak can be measured, and when it is
    killed the others go on. The processes are forked from a server that, where there is no GPU, has imported torch and
    TRL once. One that has finished an evaluation takes the next, if that is what comes next, and else ends; a stage
    that fails ends it.

    Args:
        plan: what to run.
        job: `job(plan, stage, folder, progress)` does the work of a stage; runs in the stage's process.
        workers: how many stages run at a time.
        watcher: is told what happens.
    """

    def __init__(self, plan: Plan, job: Callable[..., None], workers: int, watcher: Watcher) -> None:
        self.plan, self.job, self.workers, self.watcher = plan, job, workers, watcher
        self.together = distributed.processes()
        allowed = threads_asked(watcher.console) or cores()
        self.threads = max(1, min(allowed, cores() // (workers * self.together)))
        self.free = shares(workers, self.together)
        self.outcomes: dict[str, Outcome] = {}
        self.followers: dict[str, list[Any]] = {}
        self.resting: list[_Place] = []
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            # bitsandbytes asks CUDA for its GPUs when it is imported, and what was forked after that can use none.
            self.context.set_forkserver_preload([] if may_have_gpu() else [PRELOAD])

    def run(self) -> dict[str, Outcome]:
        """Run what is not done yet, in plan order as far as needs allow, and say how each stage ended."""
        waiting = dict(self.plan.stages)
        running: dict[Connection, _Running] = {}
        try:
            while waiting or running:
                self._settle(waiting)
                ready = [s for s in waiting.values() if self._ready(s)][: self.workers - len(running)]
                self._dismiss(all_but=sum(stage.kind in SEVERAL for stage in ready))
                for stage in ready:
                    del waiting[stage.name]
                    place = self._hand_over(stage) or self._start(stage)
                    running[place.connection] = _Running(stage, place, time.monotonic())
                for heard in wait(list(running), timeout=1.0):
                    self._hear(heard, running)
                for each in running.values():
                    if any(follower.exitcode for follower in self.followers[each.stage.name]):
                        each.place.process.terminate()  # it would wait for the other for ever
                self.watcher.tick()
            self._dismiss()
        finally:
            started = [each.place.process for each in running.values()]
            started += [place.process for place in self.resting]
            started += [process for each in self.followers.values() for process in each]
            for process in started:
                process.terminate()
            for process in started:
                process.join(10)
        return self.outcomes

    def _ready(self, stage: Stage) -> bool:
        return all(name in self.outcomes for name in (*stage.needs, *stage.after))

    def _settle(self, waiting: dict[str, Stage]) -> None:
        """Take out what is done already and what cannot run any more."""
        for stage in list(waiting.values()):
            failed = [n for n in stage.needs if n in self.outcomes and self.outcomes[n].status != "ok"]
            if stage.done:
                self._end(stage, Outcome("ok"), reused=True)
            elif failed:
                self._end(stage, Outcome("skipped", f"{failed[0]}: {self.outcomes[failed[0]].error}"))
            else:
                continue
            del waiting[stage.name]

    def _hand_over(self, stage: Stage) -> _Place | None:
        """Give a stage to a process that has done one like it, where there is one."""
        while stage.kind in SEVERAL and self.resting:
            place = self.resting.pop()
            try:
                place.connection.send((stage, {**distributed.environments(1)[0], **place.share.environment}))
            except OSError:  # it died meanwhile
                self._close(place)
                continue
            self.followers[stage.name] = []
            self.watcher.started(stage)
            return place
        return None

    def _dismiss(self, all_but: int = 0) -> None:
        """End processes that have nothing to do."""
        while len(self.resting) > all_but:
            self._close(self.resting.pop())

    def _close(self, place: _Place) -> None:
        place.connection.close()
        place.process.join()
        self.free.append(place.share)

    def _start(self, stage: Stage) -> _Place:
        share = self.free.pop(0)
        ours, theirs = self.context.Pipe()
        registered = (registry.registered(), registry.registered_policies())
        payload = cloudpickle.dumps((self.job, self.plan, stage, self.threads, share, *registered))
        environments = distributed.environments(self.together if stage.kind == "train" else 1)
        lead, *others = [{**each, **share.environment} for each in environments]
        loaded = plugins.loaded()
        process = self.context.Process(target=work, args=(loaded, payload, theirs, lead), name=stage.name, daemon=True)
        self.followers[stage.name] = [
            self.context.Process(target=follow, args=(loaded, payload, each), name=stage.name, daemon=True)
            for each in others
        ]
        if self.context.get_start_method() == "forkserver":
            with interrupt_blocked(), main_hidden():
                forkserver.ensure_running()
        with main_hidden():  # here Ctrl-C is heard, because the server answers only when it has imported everything
            for each in (process, *self.followers[stage.name]):
                each.start()
        theirs.close()
        self.watcher.started(stage)
        return _Place(process, ours, share)

    def _hear(self, connection: Any, running: dict[Connection, _Running]) -> None:
        stage, place, began = running[connection]
        try:
            what, content = connection.recv()
        except (EOFError, ConnectionResetError):  # the process is gone without a word
            place.process.join()
            lost = [each.exitcode for each in self.followers[stage.name] if each.exitcode]
            what, content = "failed", _death(place.process.exitcode)
            if lost:
                content = f"one of the {self.together} processes that train together: {_death(lost[0])}"
        if what == "progress":
            self.watcher.progressed(stage, *content)
            return
        if what == "ok" and stage.kind in SEVERAL:
            self.resting.append(place)
        else:
            self._close(place)
        for follower in self.followers.pop(stage.name):
            follower.terminate()  # it has nothing left to do that counts
            follower.join()
        del running[connection]
        self._end(stage, Outcome(what, content, time.monotonic() - began))

    def _end(self, stage: Stage, outcome: Outcome, reused: bool = False) -> None:
        self.outcomes[stage.name] = outcome
        self.watcher.ended(stage, outcome.status, outcome.error, outcome.seconds, reused)


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    return f"the process ended with exit code {exitcode} and said nothing"
