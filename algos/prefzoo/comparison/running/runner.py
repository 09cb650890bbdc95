"""Run stages in processes of their own, several at a time, whatever becomes of any one of them."""

from __future__ import annotations

import contextlib
import copyreg
import dataclasses
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cloudpickle

from prefzoo import plugins, registry
from prefzoo.comparison.plan import SECONDS, Plan, Stage
from prefzoo.comparison.running import launched
from prefzoo.comparison.running.processes import interrupt_blocked, main_hidden
from prefzoo.comparison.running.quiet import without_bars
from prefzoo.comparison.running.shares import Share, cores, shares, threads_asked
from prefzoo.comparison.running.watch import Watcher
from prefzoo.errors import PrefzooError
from prefzoo.interface import CHECKPOINTS

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


class _Running(NamedTuple):
    """A stage that runs: its process, when it began, and what it may use."""

    stage: Stage
    process: Any
    began: float
    share: Share


class Runner:
    """Runs the stages of a plan.

    Each stage gets a fresh process: its memory goes back when it ends, its peak can be measured, and when it is
    killed the others go on. The processes are forked from a server that has imported torch and TRL once.

    Args:
        plan: what to run.
        job: `job(plan, stage, folder, progress)` does the work of a stage; runs in the stage's process.
        workers: how many stages run at a time.
        watcher: is told what happens.
    """

    def __init__(self, plan: Plan, job: Callable[..., None], workers: int, watcher: Watcher) -> None:
        self.plan, self.job, self.workers, self.watcher = plan, job, workers, watcher
        self.together = launched.processes()
        allowed = threads_asked(watcher.console) or cores()
        self.threads = max(1, min(allowed, cores() // (workers * self.together)))
        self.free = shares(workers, self.together)
        self.outcomes: dict[str, Outcome] = {}
        self.followers: dict[str, list[Any]] = {}
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self.context.set_forkserver_preload(["prefzoo.comparison.stages.preload"])

    def run(self) -> dict[str, Outcome]:
        """Run what is not done yet, in plan order as far as needs allow, and say how each stage ended."""
        waiting = dict(self.plan.stages)
        running: dict[Connection, _Running] = {}
        try:
            while waiting or running:
                self._settle(waiting)
                for stage in [s for s in waiting.values() if self._ready(s)][: self.workers - len(running)]:
                    del waiting[stage.name]
                    share = self.free.pop(0)
                    process, connection = self._start(stage, share)
                    running[connection] = _Running(stage, process, time.monotonic(), share)
                for heard in wait(list(running), timeout=1.0):
                    self._hear(heard, running)
                for each in running.values():
                    if any(follower.exitcode for follower in self.followers[each.stage.name]):
                        each.process.terminate()  # it would wait for the other for ever
                self.watcher.tick()
        finally:
            started = [each.process for each in running.values()]
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

    def _start(self, stage: Stage, share: Share) -> tuple[Any, Connection]:
        ours, theirs = self.context.Pipe(duplex=False)
        payload = cloudpickle.dumps((self.job, self.plan, stage, self.threads, share, registry.registered()))
        environments = launched.environments(self.together if stage.kind == "train" else 1)
        lead, *others = [{**each, **share.environment} for each in environments]
        loaded = plugins.loaded()
        process = self.context.Process(target=_work, args=(loaded, payload, theirs, lead), name=stage.name, daemon=True)
        self.followers[stage.name] = [
            self.context.Process(target=_follow, args=(loaded, payload, each), name=stage.name, daemon=True)
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
        return process, ours

    def _hear(self, connection: Any, running: dict[Connection, _Running]) -> None:
        stage, process, began, share = running[connection]
        try:
            what, content = connection.recv()
        except EOFError:  # the process is gone without a word
            process.join()
            lost = [each.exitcode for each in self.followers[stage.name] if each.exitcode]
            what, content = "failed", _death(process.exitcode)
            if lost:
                content = f"one of the {self.together} processes that train together: {_death(lost[0])}"
        if what == "progress":
            self.watcher.progressed(stage, *content)
            return
        process.join()
        for follower in self.followers.pop(stage.name):
            follower.terminate()  # it has nothing left to do that counts
            follower.join()
        connection.close()
        del running[connection]
        self.free.append(share)
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


def _enter(sources: dict[str, str], payload: bytes, environment: dict[str, str]) -> tuple[Any, ...]:
    """What every process of a stage begins with: `(job, plan, stage, threads)`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    launched.enter(environment)
    plugins.run_again(sources)  # the payload refers to what they define
    job, plan, stage, threads, share, algorithms = cloudpickle.loads(payload)
    share.take()
    for name, cls in algorithms.items():
        if name not in registry.registered():
            registry.register(name)(cls)
    return job, plan, stage, threads


def _follow(sources: dict[str, str], payload: bytes, environment: dict[str, str]) -> None:
    """The life of a process that trains together with a stage's own; what is kept, the stage's own process keeps."""
    job, plan, stage, threads = _enter(sources, payload, environment)
    log = stage.folder.with_name(f"{stage.folder.name}.{environment['RANK']}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file, _redirected(file):
        _quiet(threads)
        try:
            job(plan, stage, stage.folder.with_name(stage.folder.name + ".partial"), lambda what, done, total: None)
        except BaseException:
            traceback.print_exc()
            raise


def _work(sources: dict[str, str], payload: bytes, connection: Connection, environment: dict[str, str]) -> None:
    """The life of a stage's process."""
    job, plan, stage, threads = _enter(sources, payload, environment)
    folder: Path = stage.folder
    partial = folder.with_name(folder.name + ".partial")
    log = folder.with_name(folder.name + ".log")
    began, last = time.monotonic(), 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > 0.2:
            last = time.monotonic()
            connection.send(("progress", (what, done, total)))

    try:
        clear(partial)
        with log.open("w", encoding="utf-8") as file, _redirected(file):
            try:
                _quiet(threads)
                job(plan, stage, partial, progress)
            except BaseException:
                traceback.print_exc()
                raise
        shutil.rmtree(partial / CHECKPOINTS, ignore_errors=True)
        (partial / SECONDS).write_text(f"{time.monotonic() - began:.2f}", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # an incomplete one
        partial.rename(folder)
        message: tuple[str, str | None] = ("ok", None)
    except PrefzooError as error:
        message = ("failed", str(error))
    except Exception as error:
        message = ("failed", f"{type(error).__name__}: {error} (details: {log})")
    connection.send(message)
    connection.close()


def clear(partial: Path) -> None:
    """What a killed process left goes, but for the checkpoints that its trainings can go on from."""
    partial.mkdir(parents=True, exist_ok=True)
    for left in partial.iterdir():
        if left.name != CHECKPOINTS:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _redirected(file: Any) -> Any:
    """Everything that libraries print goes to the stage's log, what C code prints too."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    try:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, target)
            os.close(copy)


def _quiet(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    without_bars()
