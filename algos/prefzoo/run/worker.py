"""The life of the processes in which stages run."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle

from prefzoo import plugins, registry
from prefzoo.errors import PrefzooError
from prefzoo.interface import CHECKPOINTS
from prefzoo.run import distributed
from prefzoo.run.quiet_libraries import without_bars
from prefzoo.run.stage_graph import SECONDS, Plan, Stage

PRELOAD = "prefzoo.run.preload"
"""What every stage needs, imported by the server that stages are forked from, or else by each of them."""

SEVERAL = ("evaluate",)
"""Kinds of stages of which one process may do several, one after another."""


def _enter(sources: dict[str, str], payload: bytes, environment: dict[str, str]) -> tuple[Any, ...]:
    """What every process of a stage begins with: `(job, plan, stage, threads)`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    distributed.enter(environment)
    importlib.import_module(PRELOAD)  # not sooner: CUDA may read the environment now
    plugins.run_again(sources)  # the payload refers to what they define
    job, plan, stage, threads, share, algorithms, policies = cloudpickle.loads(payload)
    share.take()
    registry.adopt(algorithms, policies)
    return job, plan, stage, threads


def follow(sources: dict[str, str], payload: bytes, environment: dict[str, str]) -> None:
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


def work(sources: dict[str, str], payload: bytes, connection: Connection, environment: dict[str, str]) -> None:
    """The life of a stage's process, or of one that does several."""
    job, plan, stage, threads = _enter(sources, payload, environment)
    while _done(job, plan, stage, threads, connection) and stage.kind in SEVERAL:
        try:
            stage, environment = connection.recv()
        except EOFError:  # nothing more to do
            break
        distributed.enter(environment)
    connection.close()


def _done(job: Callable[..., None], plan: Plan, stage: Stage, threads: int, connection: Connection) -> bool:
    """Do one stage and say how it ended; whether it ended well."""
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
    return message[0] == "ok"


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
