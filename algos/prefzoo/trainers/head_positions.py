"""Which positions TRL's language-model head scores on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from trl.trainer import utils


@contextlib.contextmanager
def learned_positions_alone() -> Iterator[None]:
    """Within this block the head leaves out prompts and padding on a CPU too, as it does on a GPU.

    TRL scores them all elsewhere, for devices that compile a kernel for each shape, and then masks them out. Versions
    whose head is another one stay as they are.
    """
    on_gpu: Any = getattr(utils, "_use_triton", None)
    if on_gpu is None:
        yield
        return

    def compact(device: torch.device) -> bool:
        return device.type == "cpu" or bool(on_gpu(device))

    with mock.patch.object(utils, "_use_triton", compact):
        yield
