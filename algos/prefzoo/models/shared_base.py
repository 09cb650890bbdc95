"""One base in a process that measures many policies: its weights are read once, and every model stands on them.

Each caller gets a model object of its own around the same weights. Adapters, hooks and settings are put on that object
and never on the stored one, so that nothing has to be taken off again and several models can use one base at a time.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from prefzoo.models.loading import load_model
from prefzoo.models.score_head import with_score_head

_base_cache: dict[str, tuple[Any, PreTrainedModel]] = {}
_depth = 0


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Within this block models share weights that are read once and stay until the process ends.

    For measuring only: shared weights must not be changed in place, as merging an adapter does.
    """
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def load_with_shared_weights(path: str, **loading: Any) -> PreTrainedModel:
    """The causal language model in a folder, as `load_model` reads it; within `shared`, on weights that are read once
    for each folder and way of reading it, and again where its files have changed."""
    if not _depth or not Path(path).is_dir():
        return load_model(path, **loading)
    return _clone_sharing_weights(_base(path, loading))


def load_score_model_with_shared_weights(path: str, **loading: Any) -> PreTrainedModel | None:
    """A scorer (`score_head.with_score_head`) on the same weights as the model that `load_with_shared_weights` gives;
    None outside of `shared`."""
    if not _depth or not Path(path).is_dir():
        return None
    return with_score_head(_clone_sharing_weights(_base(path, loading)))


def _base(path: str, loading: dict[str, Any]) -> PreTrainedModel:
    read = {"dtype": "float32", **{name: value for name, value in loading.items() if value}}
    key = json.dumps([str(Path(path).resolve()), read], sort_keys=True)
    files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in Path(path).iterdir() if f.is_file())
    if key not in _base_cache or _base_cache[key][0] != files:
        _base_cache.pop(key, None)
        _base_cache[key] = files, load_model(path, **loading)
    return _base_cache[key][1]


def _clone_sharing_weights(base: PreTrainedModel) -> PreTrainedModel:
    memo: dict[int, Any] = {id(weight): _alias(weight) for weight in base.parameters()}
    return copy.deepcopy(base, memo)


def _alias(weight: torch.nn.Parameter) -> torch.nn.Parameter:
    """Return a new parameter on the same numbers, with its own quantization state: bitsandbytes
    moves it from the weight to the layer at the first use (int8), or rewrites it for some processors (4 bits)."""
    alias: Any = torch.Tensor._make_subclass(type(weight), weight.data, weight.requires_grad)
    vars(alias).update(vars(weight))
    if hasattr(weight, "quant_state"):
        alias.quant_state = copy.copy(weight.quant_state)
    return alias
