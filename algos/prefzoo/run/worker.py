"""The processes in which stages run: each does one stage, or several evaluations one after another."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import operator
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
from prefzoo.atomic_files import move_into_place, partial_folder
from prefzoo.errors import PrefzooError, WaitsForPeople, os_error_text
from prefzoo.interface import CHECKPOINTS
from prefzoo.run import distributed
from prefzoo.run.memory_words import out_of_memory
from prefzoo.run.stage_graph import PROCESSOR_SECONDS_FILE, SECONDS_FILE, Plan, Stage, lost_need
from prefzoo.run.subprocesses import descendants, hide_bars, kill, output_to, print_anything

PRELOAD, PRELOAD_CHECKED = "prefzoo.run.preload", "prefzoo.run.preload_checked"
"""What every stage needs, imported by the server that stages are forked from, or else by each of them; checked where
there may be a GPU."""

PR_SET_PDEATHSIG = 1

REUSABLE_STAGE_KINDS = ("evaluate",)
"""Kinds of stages of which one process may do several, one after another."""


def worker_main(sources: dict[str, str], payload: bytes, connection: Connection, environment: dict[str, str]) -> None:
    """Do a stage, and further evaluations that the connection gives; what a stage's own process runs."""
    try:
        job, plan, stage, threads = _set_up(sources, payload, environment)
    except Exception as error:
        traceback.print_exc()
        what = out_of_memory(error) or f"{type(error).__name__}: {error}"
        connection.send(("failed", f"its process could not begin: {what}"))
        return
    while _do(job, plan, stage, threads, connection) and stage.kind in REUSABLE_STAGE_KINDS:
        try:
            stage, environment = connection.recv()
        except (EOFError, OSError):  # nothing more to do, or nobody to do it for
            break
        distributed.enter(environment)
    connection.close()


def follower_main(sources: dict[str, str], payload: bytes, environment: dict[str, str]) -> None:
    """Train together with a stage's own process, which writes the result."""
    job, plan, stage, threads = _set_up(sources, payload, environment)
    log = stage.folder.with_name(f"{stage.folder.name}.{environment['RANK']}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    _logged(log, threads, lambda: job(plan, stage, partial_folder(stage.folder), lambda what, done, total: None))


def _set_up(sources: dict[str, str], payload: bytes, environment: dict[str, str]) -> tuple[Any, ...]:
    """Prepare a new process of a stage, and return `(job, plan, stage, threads)`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    print_anything()
    _killed_with_parent()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    distributed.enter(environment)
    importlib.import_module(PRELOAD)  # not sooner: CUDA may read the environment now
    plugins.run_again(sources)  # the payload refers to what they define
    job, plan, stage, threads, share, algorithms, policies = cloudpickle.loads(payload)
    share.take()
    registry.adopt(algorithms, policies)
    return job, plan, stage, threads


def _do(job: Callable[..., None], plan: Plan, stage: Stage, threads: int, connection: Connection) -> bool:
    """Do one stage and send how it ended; True when it ended well."""
    folder: Path = stage.folder
    partial = partial_folder(folder)
    log = folder.with_name(folder.name + ".log")
    began, processor, last = time.monotonic(), time.process_time(), 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > 0.2:
            last = time.monotonic()
            connection.send(("progress", (what, done, total)))

    try:
        clear(partial)
        _logged(log, threads, lambda: job(plan, stage, partial, progress))
        shutil.rmtree(partial / CHECKPOINTS, ignore_errors=True)
        _remove_folders_of_wandb()
        (partial / SECONDS_FILE).write_text(f"{time.monotonic() - began:.2f}", encoding="utf-8")
        used = f"{time.process_time() - processor:.2f}"
        (partial / PROCESSOR_SECONDS_FILE).write_text(used, encoding="utf-8")
        move_into_place(folder)  # only an incomplete result can be there
        message: tuple[str, str | None] = ("ok", None)
    except WaitsForPeople as error:
        message = ("waiting", str(error))
    except PrefzooError as error:
        message = ("failed", str(error))
    except Exception as error:
        if gone := lost_need(plan, stage):  # while this stage ran
            message = ("failed", gone)
        else:
            words = os_error_text(error, "working on it") if isinstance(error, OSError) else None
            what = out_of_memory(error) or words or f"{type(error).__name__}: {error}"
            message = ("failed", f"{what} (details: {log})")
    with contextlib.suppress(OSError):  # the comparison is gone, and ends this process too
        connection.send(message)
    return message[0] == "ok"


def clear(partial: Path) -> None:
    """Delete what a killed process left in a stage's folder, but not the checkpoints that its training resumes from."""
    partial.mkdir(parents=True, exist_ok=True)
    for entry in partial.iterdir():
        if entry.name != CHECKPOINTS:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _logged(log: Path, threads: int, work: Callable[[], None]) -> None:
    """Do some work with all that it prints, and the traceback of its error, in a log."""
    import torch

    from prefzoo.run.preload import SAID

    with log.open("w", encoding="utf-8") as file, output_to(file):
        print(SAID, end="", flush=True)
        try:
            torch.set_num_threads(threads)
            hide_bars()
            work()
        except BaseException:
            traceback.print_exc()
            raise


def _remove_folders_of_wandb() -> None:
    """Remove the two temporary folders that wandb makes when a trainer imports it. They would stay: a stage's process
    ends without the way that removes them, and none logs to wandb."""
    for name, attribute in (("data_types._private", "MEDIA_TMP"), ("artifacts.artifact", "Artifact._TMP_DIR")):
        with contextlib.suppress(AttributeError, OSError):
            operator.attrgetter(f"{attribute}.cleanup")(sys.modules.get(f"wandb.sdk.{name}"))()


def _killed_with_parent() -> None:
    """Have Linux kill this process when the one that forked it ends: a thread cannot where C code holds Python's lock,
    as a regular expression of a reward function may for ever."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        kill(descendants(os.getpid()))
        os._exit(1)
