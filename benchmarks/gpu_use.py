"""How busy a GPU is, as its driver says it.

Imports nothing of this project, so that it serves another environment's Python too.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Sequence

COMMAND = ("nvidia-smi", "-i", "0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200")


class GpuUse:
    """Within this block, each fifth of a second, the share of time in which a kernel was running on the first GPU.

    Attributes:
        readings: when each was read (`time.perf_counter`, which all processes of a machine share), and the percentage.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self.readings: list[tuple[float, float]] = []
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> GpuUse:
        if shutil.which(self._command[0]):
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit():
                self.readings.append((time.perf_counter(), float(line)))

    def busy(self, begin: float, end: float) -> dict[str, float]:
        """The mean percentage between two times, as `gpu_busy`; nothing where nothing was read between them."""
        between = [percent for when, percent in self.readings if begin <= when <= end]
        return {"gpu_busy": sum(between) / len(between)} if between else {}
