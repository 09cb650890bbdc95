"""Import what stages need without asking CUDA for its devices: what is forked after that could use none."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

ASKING = "bitsandbytes"
"""Asks for the devices when it is imported, which peft and TRL do wherever it is installed."""
BY_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Has `torch.cuda.is_available`, which many libraries call when they are imported, ask the driver's library instead."""


class _Later(ModuleType):
    """Stands for a module in what is imported now; imports it when it is first used, in a stage's process."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and sys.modules.get(self.__name__) is self:
            raise AttributeError(name)  # the import system's own, which use nothing
        put_off(self.__name__)
        return getattr(importlib.import_module(self.__name__), name)


def put_off(name: str) -> None:
    """Have the next import of this module find the module itself."""
    if isinstance(sys.modules.get(name), _Later):
        del sys.modules[name]


@contextlib.contextmanager
def cuda_unasked() -> Iterator[None]:
    """Within this block imports do not ask CUDA for its devices."""
    spec = None if ASKING in sys.modules else importlib.util.find_spec(ASKING)
    if spec is not None:
        later = _Later(ASKING)
        later.__spec__, later.__file__ = spec, spec.origin
        sys.modules[ASKING] = later
    try:
        with _by_nvml():
            yield
    finally:
        put_off(ASKING)


@contextlib.contextmanager
def _by_nvml() -> Iterator[None]:
    before = os.environ.get(BY_NVML)
    os.environ[BY_NVML] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[BY_NVML]
        else:
            os.environ[BY_NVML] = before


def check_forks() -> None:
    """In the server that stages are forked from: where what it forks cannot use the GPU all the same, begin it anew
    with nothing imported, so that each stage imports for itself."""
    import torch

    with _by_nvml():
        if not torch.cuda.is_available():
            return
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            torch.zeros(1, device="cuda")
            os._exit(0)
        except BaseException:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        print(
            "Each stage imports its libraries for itself: what is forked after they were cannot use the GPU.",
            file=sys.stderr,
            flush=True,
        )
        # As multiprocessing began it: `.. -c "from multiprocessing.forkserver import main; main(5, 6, ['module'], ..)"`
        command = [re.sub(r"(main\(\d+, \d+, )\[[^]]*\]", r"\1[]", part) for part in sys.orig_argv]
        os.execv(sys.executable, command)
