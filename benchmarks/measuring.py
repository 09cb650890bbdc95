"""What the benchmarks share: a process of its own for each run, what it used, and on which machine.

Imports nothing of this project, so that it serves another environment's Python too.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy")
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def measured(command: Sequence[str], out: Path) -> dict[str, float]:
    """Run a command in the new folder `out`, its output in `out/log`: seconds from its start to its end, processor
    time and peak resident memory of its process.

    Raises:
        SystemExit: with the end of its output, when it fails.
    """
    out.mkdir(parents=True)
    began = time.perf_counter()
    with (out / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **ENVIRONMENT})
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{(out / 'log').read_text()[-3000:]}")
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def resident_bytes() -> int:
    """What this process holds in memory now, or 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.is_file() else 0


def gpu_memory() -> dict[str, int]:
    """The most that this process's tensors have held of a GPU's memory so far, loading included; nothing without a
    GPU."""
    import torch

    return {"peak_gpu_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median over runs of each number that all of them have."""
    shared = [key for key in runs[0] if all(key in run for run in runs)]
    return {key: statistics.median(run[key] for run in runs) for key in shared}


def ratios(mine: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    """Mine over theirs, of all numbers that both have and theirs is not 0."""
    return {key: mine[key] / theirs[key] for key in mine if theirs.get(key)}


def versions() -> dict[str, str]:
    """Of the libraries in this environment."""
    return {name: version(name) for name in LIBRARIES}


def machine() -> dict[str, Any]:
    """Where and with what this is measured."""
    model = ""
    if (info := Path("/proc/cpuinfo")).is_file():
        model = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), "")
    return {
        "platform": platform.platform(),
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": versions(),
    }


def write(path: Path, found: Any) -> None:
    """As JSON that a person reads."""
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
