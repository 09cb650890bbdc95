"""What a CUDA graph does, on a CPU: the operations of a step, recorded once and done again on the same memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from prefzoo.models import replayed_steps
from prefzoo.models.loading import device

aten = torch.ops.aten
ASK_THE_GPU = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten.unique_consecutive,
    aten._unique2,
    aten.repeat_interleave,
}
"""Operations that wait for what a GPU has computed, which no graph can record."""


class Recorded(TorchDispatchMode):
    """Records operations while it is entered; what Python computed meanwhile stays as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = func.overloadpacket in (aten.index, aten.index_put_) and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        if by_mask or func.overloadpacket in ASK_THE_GPU:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        output = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, output))
        return output

    def replay(self, wanted: torch.Tensor) -> torch.Tensor:
        """Do it all again, and return what `wanted` is now."""
        now: dict[int, torch.Tensor] = {}
        for func, args, kwargs, output in self.calls:
            given = tree_map_only(torch.Tensor, lambda tensor: now.get(id(tensor), tensor), (args, kwargs))
            found = func(*given[0], **given[1])
            for before, after in zip(tree_leaves(output), tree_leaves(found), strict=True):
                now[id(before)] = after
        return now[id(wanted)]


def record(step: replayed_steps.Step) -> replayed_steps.Step:
    """As `replayed_steps.record`, which computes nothing while it records."""
    state = (step.__self__.where, step.__self__.positions)
    before = [each.clone() for each in state]
    with Recorded() as recorded:
        output = step()
    for each, value in zip(state, before, strict=True):
        each.copy_(value)
    return lambda: recorded.replay(output)


def replay_here(monkeypatch: pytest.MonkeyPatch) -> list[replayed_steps.Step]:
    """Have sampling replay its steps on this machine, by a graph on a GPU and by a stand-in on a CPU; gives the steps
    that were recorded, as they are."""
    steps: list[replayed_steps.Step] = []
    way = record if device().type == "cpu" else replayed_steps.record
    monkeypatch.setattr(replayed_steps, "DEVICES", (device().type,))
    monkeypatch.setattr(replayed_steps, "record", lambda step: steps.append(step) or way(step))
    monkeypatch.setattr(replayed_steps, "_cannot", {})
    monkeypatch.setattr(replayed_steps, "_held_against", set())
    return steps
