"""Run a vLLM server as long as another process lives: `python -m prefzoo.models.vllm_watch PID BEGAN RECORD COMMAND..`.

The process that the server is for may be killed without a last word, and vLLM, of several processes, would stay. This
one asks twice a second whether it is there (`BEGAN` tells it from a later process with the same number), ends the
server's whole group when it is not, and deletes RECORD at the end in any case.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ASKED_EVERY, PATIENCE = 0.5, 10.0
"""Seconds between two looks, and which the server has to end by itself."""
CLOCK = 60.0
"""Seconds by which a clock that is set may move when a process seems to have begun."""
PR_SET_PDEATHSIG = 1


def is_alive(pid: int, began: float) -> bool:
    """Whether the process with this number that began then is still there, and no corpse."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return abs(process.create_time() - began) < CLOCK and process.status() != psutil.STATUS_ZOMBIE
    return False


def main(pid: str, began: str, record: str, *command: str) -> int:
    """Run the server; returns its exit code."""
    stop = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.append(True))
    child = subprocess.Popen(command, start_new_session=True, preexec_fn=_ended_with_this)
    try:
        while child.poll() is None and not stop and is_alive(int(pid), float(began)):
            time.sleep(ASKED_EVERY)
    finally:
        Path(record).unlink(missing_ok=True)  # first: nobody shall wait for what ends
        _end_group(child)
    return int(child.returncode)


def _ended_with_this() -> None:
    """Where this process itself is killed, Linux tells the server to end, which takes its workers along."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    group = child.pid  # it leads its session
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.killpg(group, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE)
    child.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
