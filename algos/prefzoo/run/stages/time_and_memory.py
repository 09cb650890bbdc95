"""Charge time and memory to a ledger."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from prefzoo.ledger import Ledger


@contextlib.contextmanager
def metered(ledger: Ledger) -> Iterator[None]:
    """Adds the seconds that the block takes, and notes the process's peak memory at its end."""
    began = time.perf_counter()
    try:
        yield
    finally:
        ledger.seconds += time.perf_counter() - began
        ledger.peak_memory_bytes = max(ledger.peak_memory_bytes, peak_memory())


def peak_memory() -> int:
    """The largest memory so far, in bytes: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Let the peak begin at what this process holds now, after giving back what it no longer does.

    On Linux and on a GPU only: elsewhere the peak of a process never goes down, and stays that of all its stages so
    far.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
