"""What every stage needs, imported once by the server that the stages' processes are forked from."""

import contextlib
import ctypes
import gc
import os

# Training must not report to anybody on its own; a user who wants it sets these to 0.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# glibc gives the memory of every large tensor back to the system and faults it in again for the next one, which costs
# a CPU run a quarter of its time. Other C libraries have no such knob.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
with contextlib.suppress(OSError, AttributeError):
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
    libc.mallopt(M_TRIM_THRESHOLD, 2**30)

import tempfile  # noqa: E402
import threading  # noqa: E402

from prefzoo.machine import may_have_gpu  # noqa: E402
from prefzoo.run.cuda_unasked import cuda_unasked  # noqa: E402
from prefzoo.run.subprocesses import output_to  # noqa: E402

with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as _said:
    with output_to(_said), cuda_unasked() if may_have_gpu() else contextlib.nullcontext():
        import tqdm
        from datasets import Dataset  # noqa: F401
        from trl import DPOTrainer, RewardTrainer, SFTTrainer  # noqa: F401

        from prefzoo.run.stages import (  # noqa: F401
            audit_stage,
            data_stage,
            evaluate_stage,
            label_stage,
            reward_stage,
            train_stage,
            tune_stage,
        )
    _said.seek(0)
    SAID = _said.read()
    """What libraries said while they were imported, with which each stage's log begins."""

# Each process's first bar would make tqdm a semaphore of the system's, to share the terminal with other processes; one
# that is ended early leaves it behind, which multiprocessing warns of. Each stage writes to a log of its own instead.
tqdm.tqdm.set_lock(threading.RLock())

gc.freeze()  # what was imported is never collected, and its pages stay shared with every fork
