"""Run stages in processes of their own, several at a time, whatever becomes of any one of them."""

from __future__ import annotations

import copyreg
import dataclasses
import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cloudpickle

from prefzoo import plugins, registry
from prefzoo.atomic_files import read_json, write_whole
from prefzoo.errors import PrefzooError
from prefzoo.machine import cores, may_have_gpu
from prefzoo.models.vllm_server import SERVERS, stop_servers
from prefzoo.run import distributed
from prefzoo.run.host_lock import LOST
from prefzoo.run.memory_words import WHAT_TO_DO, limit, refuse_too_little
from prefzoo.run.progress_display import Watcher
from prefzoo.run.resources import Share, shares, threads_asked
from prefzoo.run.stage_graph import Plan, Stage, lost_need
from prefzoo.run.subprocesses import descendants, interrupt_blocked, kill, main_hidden, shorten_socket_paths
from prefzoo.run.worker import PRELOAD, PRELOAD_CHECKED, REUSABLE_STAGE_KINDS, follower_main, worker_main

# A dataclass that was typed in a script travels by value, and its fields ask whether a default *is* this very object.
copyreg.pickle(type(dataclasses.MISSING), lambda missing: "MISSING")

OUTCOMES = "outcomes.json"
"""How each stage ended, in the folder of a comparison."""
WORKER_COUNTS = "workers.json"
"""In the same folder: how many stages ran at a time, on which the seconds that they took depend; each number once."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: `ok`, `failed` (it raised or died), `skipped` (a stage that it needs failed), or `waiting`
    (it, or one that it needs, goes on when people have answered)."""

    status: Literal["ok", "failed", "skipped", "waiting"]
    error: str | None = None
    seconds: float = 0.0


class _Worker(NamedTuple):
    """A process that does stages, the pipe to it, and its cores and GPU."""

    process: Any
    connection: Connection
    share: Share


class _Running(NamedTuple):
    """A stage that runs, in which process, since when, and the other processes that train it together with that one."""

    stage: Stage
    worker: _Worker
    began: float
    followers: list[Any]


class Runner:
    """Runs the stages of a plan.

    Each stage gets a fresh process: its memory goes back when it ends, its peak can be measured, and when it is
    killed the others go on. The processes are forked from a server that has imported torch and TRL once. A process
    that has finished an evaluation takes the next one, if that is the next stage, and ends otherwise. A stage that
    fails ends its process.

    Args:
        plan: what to run.
        job: `job(plan, stage, folder, progress)` does the work of a stage; runs in the stage's process.
        workers: how many stages run at a time.
        watcher: is told what happens.
        more: is told how each stage ended, and returns stages to run beside those of the plan.

    Attributes:
        outcomes: how each stage ended. Those that are here before `run` are not run.
        died: names of the stages whose process was ended by a signal, or had lost a lock to another host.
    """

    def __init__(
        self,
        plan: Plan,
        job: Callable[..., None],
        workers: int,
        watcher: Watcher,
        more: Callable[[Stage, Outcome], Iterable[Stage]] = lambda stage, outcome: (),
    ) -> None:
        self.plan, self.job, self.workers, self.watcher, self.more = plan, job, workers, watcher, more
        self.together = distributed.processes()
        allowed = threads_asked(watcher.console) or cores()
        self.threads = max(1, min(allowed, cores() // (workers * self.together)))
        self.free = shares(workers, self.together)
        self.waiting: dict[str, Stage] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.died: set[str] = set()
        self.running: dict[Connection, _Running] = {}
        self.resting: list[_Worker] = []
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self.context.set_forkserver_preload([PRELOAD_CHECKED if may_have_gpu() else PRELOAD])

    def run(self) -> dict[str, Outcome]:
        """Run the stages that are not done, in plan order as far as needs allow, and return how each stage ended.

        Raises:
            PrefzooError: when no process can be started.
        """
        refuse_too_little()
        waiting = self.waiting = self._not_ended()
        try:
            while waiting or self.running:
                while self._settle(waiting):  # what is done already may bring more that is
                    pass
                ready = [s for s in waiting.values() if self._ready(s)][: self.workers - len(self.running)]
                self._end_resting(all_but=sum(stage.kind in REUSABLE_STAGE_KINDS for stage in ready))
                for stage in ready:
                    del waiting[stage.name]
                    running = self._hand_over(stage) or self._start(stage)
                    self.running[running.worker.connection] = running
                    self.watcher.started(stage)
                for connection in wait(list(self.running), timeout=1.0):
                    self._receive(connection)
                for running in self.running.values():
                    if any(follower.exitcode for follower in running.followers):
                        running.worker.process.terminate()  # it would wait for the other for ever
                self.watcher.tick()
            self._end_resting()
        finally:
            processes = [worker.process for worker in self.resting]
            for running in self.running.values():
                processes += [running.worker.process, *running.followers]
            started = descendants(*(process.pid for process in processes))  # by a reward's function, for example
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(10)
                if process.is_alive():
                    process.kill()
            kill(started)
            stop_servers(self.plan.out / SERVERS)
        return self.outcomes

    def _not_ended(self) -> dict[str, Stage]:
        return {name: stage for name, stage in self.plan.stages.items() if name not in self.outcomes}

    def _ready(self, stage: Stage) -> bool:
        return all(name in self.outcomes for name in (*stage.needs, *stage.after))

    def _settle(self, waiting: dict[str, Stage]) -> bool:
        """Take out the stages that are done already, and those that can never run; True where there were any."""
        before = list(waiting.values())
        for stage in before:
            failed = [n for n in stage.needs if n in self.outcomes and self.outcomes[n].status != "ok"]
            if stage.done:
                self._end(stage, Outcome("ok"), reused=True)
            elif failed:
                first = self.outcomes[failed[0]]
                waits = all(self.outcomes[name].status == "waiting" for name in failed)
                self._end(stage, Outcome("waiting" if waits else "skipped", f"{failed[0]}: {first.error}"))
            elif self._ready(stage) and (gone := lost_need(self.plan, stage)):
                self._end(stage, Outcome("skipped", gone))
            else:
                continue
            del waiting[stage.name]
        return any(stage.name not in waiting for stage in before)

    def _hand_over(self, stage: Stage) -> _Running | None:
        """Give an evaluation to a process that has just finished one; None where there is no such process."""
        while stage.kind in REUSABLE_STAGE_KINDS and self.resting:
            worker = self.resting.pop()
            try:
                worker.connection.send((stage, {**distributed.environments(1)[0], **worker.share.environment}))
            except OSError:  # it died meanwhile
                self._close(worker)
                continue
            return _Running(stage, worker, time.monotonic(), [])
        return None

    def _end_resting(self, all_but: int = 0) -> None:
        """End the processes that have nothing to do, but for as many as there are evaluations to give them."""
        while len(self.resting) > all_but:
            self._close(self.resting.pop())

    def _close(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join()
        self.free.append(worker.share)

    def _start(self, stage: Stage) -> _Running:
        """Start a process for a stage, and those that train together with it."""
        share = self.free.pop(0)
        ours, theirs = self.context.Pipe()
        registered = (registry.registered(), registry.registered_policies())
        payload = cloudpickle.dumps((self.job, self.plan, stage, self.threads, share, *registered))
        sources = plugins.loaded()

        def process(target: Callable[..., None], *arguments: Any) -> Any:
            return self.context.Process(
                target=target, args=(sources, payload, *arguments), name=stage.name, daemon=True
            )

        environments = distributed.environments(self.together if stage.kind in distributed.shared_kinds() else 1)
        lead, *others = [{**environment, **share.environment} for environment in environments]
        leader = process(worker_main, theirs, lead)
        followers = [process(follower_main, environment) for environment in others]
        if self.context.get_start_method() == "forkserver":
            shorten_socket_paths()
            with interrupt_blocked(), main_hidden():
                forkserver.ensure_running()
        with main_hidden():  # here Ctrl-C is heard, because the server answers only when it has imported everything
            try:
                for new in (leader, *followers):
                    new.start()
            except (EOFError, OSError) as error:
                raise PrefzooError(
                    f"{stage.name}: no process could be started for it ({type(error).__name__}: {error}). What stages "
                    f"are forked from may have found too little memory to begin.{limit()}"
                ) from error
        theirs.close()
        return _Running(stage, _Worker(leader, ours, share), time.monotonic(), followers)

    def _receive(self, connection: Any) -> None:
        """Read one message of a stage's process: its progress, or how the stage ended."""
        stage, worker, began, followers = self.running[connection]
        try:
            status, content = connection.recv()
        except (EOFError, ConnectionResetError):  # the process ended without a message
            worker.process.join()
            codes = [follower.exitcode for follower in followers if follower.exitcode]
            status, content = "failed", _death(worker.process.exitcode)
            if any(code == LOST or (code is not None and code < 0) for code in (worker.process.exitcode, *codes)):
                self.died.add(stage.name)
            if codes:
                content = f"one of the {self.together} processes that train together: {_death(codes[0])}"
        if status == "progress":
            self.watcher.progressed(stage, *content)
            return
        if status == "ok" and stage.kind in REUSABLE_STAGE_KINDS:
            self.resting.append(worker)
        else:
            self._close(worker)
        for follower in followers:
            follower.terminate()  # the result is complete, or lost
            follower.join()
        del self.running[connection]
        self._end(stage, Outcome(status, content, time.monotonic() - began))

    def _end(self, stage: Stage, outcome: Outcome, reused: bool = False) -> None:
        self.outcomes[stage.name] = outcome
        self.watcher.ended(stage, outcome.status, outcome.error, outcome.seconds, reused)
        self.waiting.update({new.name: new for new in self.more(stage, outcome)})


def add_worker_count(out: Path, workers: int) -> None:
    """Write down that stages run so many at a time now."""
    counts = dict.fromkeys([*read_worker_counts(out), workers])
    write_whole(out / WORKER_COUNTS, json.dumps(list(counts)))


def read_worker_counts(out: Path) -> list[int]:
    """How many stages ran at a time, in the order of the calls; empty where that was not written down, or damaged."""
    try:
        return [int(count) for count in read_json(out / WORKER_COUNTS, list)]
    except (PrefzooError, ValueError, TypeError):
        return []


def read_outcomes(out: Path) -> dict[str, Outcome]:
    """How each stage ended in the last call; empty where that was not written down, or damaged."""
    try:
        return {name: Outcome(**fields) for name, fields in read_json(out / OUTCOMES).items()}
    except (PrefzooError, TypeError):
        return {}


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = f" (out of memory? {WHAT_TO_DO}.{limit()})" if name in ("SIGKILL", "SIGBUS") else ""
        return f"the process was ended by {name}{hint}"
    return f"the process ended with exit code {exitcode} and said nothing"
