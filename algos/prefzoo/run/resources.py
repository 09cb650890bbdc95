"""How many stages run at a time, which cores and GPU each may use, and how much time and memory each took."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from prefzoo.ledger import Ledger
from prefzoo.machine import VISIBLE, cores, gpus
from prefzoo.recipe.recipe_schema import Recipe, weight_bytes
from prefzoo.run import distributed

if TYPE_CHECKING:
    from rich.console import Console

THREADS = "OMP_NUM_THREADS"

SMALL_MODEL_BYTES = 100_000_000
WORKER_BYTES = 750_000_000
"""What a stage with a small model takes at most, of which a third is shared with the others."""


def default_workers(recipe: Recipe) -> int:
    """Stages at a time: one for each GPU; without any, one for each core where all models are small and memory
    suffices, else one. Where several processes train together they have all GPUs."""
    together = distributed.processes()
    if devices := gpus():
        return len(devices) if together == 1 else 1
    judges = [judge.path for judge in recipe.audited.values() if judge.path and judge.endpoint is None]
    rewards = [part.path for part in recipe.reward.parts if part.type == "path" and part.path]
    if not all(0 < (weight_bytes(path) or 0) < SMALL_MODEL_BYTES for path in (recipe.model.path, *judges, *rewards)):
        return 1
    return max(1, min(cores(), psutil.virtual_memory().available // WORKER_BYTES) // together)


@dataclass(frozen=True)
class Share:
    """The cores and the GPU of one stage at a time.

    Attributes:
        cores: their numbers; empty where the system cannot hold a process to some.
        gpu: as `CUDA_VISIBLE_DEVICES` names it; None leaves a process all that there are.
    """

    cores: frozenset[int]
    gpu: str | None

    @property
    def environment(self) -> dict[str, str]:
        """The variable that holds CUDA to this GPU; CUDA reads it when it is first used."""
        return {} if self.gpu is None else {VISIBLE: self.gpu}

    def take(self) -> None:
        """Hold this process, and all threads that it starts from now on, to the cores."""
        if self.cores:
            with contextlib.suppress(OSError):  # some sandboxes forbid it; threads are limited all the same
                os.sched_setaffinity(0, self.cores)


def shares(workers: int, together: int = 1) -> list[Share]:
    """A share for each of `workers`: as many cores as for any other, and a GPU, where there are several of either.

    More workers than cores or GPUs take turns on them. What `accelerate launch` started `together` for one training
    divides all GPUs among itself.
    """
    numbers = sorted(os.sched_getaffinity(0)) if workers > 1 and hasattr(os, "sched_setaffinity") else []
    devices = gpus() if together == 1 and len(gpus()) > 1 else []
    return [
        Share(frozenset(_part(numbers, i, workers)), devices[i % len(devices)] if devices else None)
        for i in range(workers)
    ]


def _part(numbers: list[int], i: int, workers: int) -> list[int]:
    if not numbers or workers > len(numbers):
        return numbers and [numbers[i % len(numbers)]]
    return numbers[i * len(numbers) // workers : (i + 1) * len(numbers) // workers]


def threads_asked(console: Console) -> int | None:
    """The number in `OMP_NUM_THREADS`, the first of a list; None where it is not set.

    Anything else is reported and removed from the environment, so that no library of a stage fails on it.
    """
    requested = os.environ.get(THREADS, "")
    first = requested.partition(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return int(first)
    if requested:
        console.print(
            f"{THREADS}={requested!r} is ignored; allowed: a number above 0, or several with commas between them",
            markup=False,
            highlight=False,
        )
        del os.environ[THREADS]
    return None


@contextlib.contextmanager
def metered(ledger: Ledger) -> Iterator[None]:
    """Add the seconds that the block takes to a ledger, and the process's peak memory at its end."""
    began = time.perf_counter()
    try:
        yield
    finally:
        ledger.seconds += time.perf_counter() - began
        ledger.peak_memory_bytes = max(ledger.peak_memory_bytes, peak_memory())


def peak_memory() -> int:
    """The largest memory so far, in bytes: of the GPU where there is one, else of this process."""
    import resource

    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Set the peak to what this process holds now, after giving back what it no longer uses.

    On Linux and on a GPU only. Elsewhere the peak stays that of all stages of the process so far.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
