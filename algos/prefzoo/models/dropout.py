"""A model's own dropout: off while it is in memory, and as its maker had it in what is saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch.nn.modules.dropout import _DropoutNd
from transformers import PretrainedConfig, PreTrainedModel

OWN = "own_dropout"
"""Attribute of a model without dropout: each rate in its configs that was turned off, as (config, name, rate)."""


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its own dropout off: its dropout layers, and the rates that its layers and its configs keep as
    numbers for functions of dropout. TRL turns off the layers in some trainers, and the numbers in none; here all are
    off in all, and `adapter.dropout` is what a recipe sets."""
    setattr(model, OWN, [(config, *rate) for config in _configs(model.config) for rate in _rates(config)])
    for config, name, _ in getattr(model, OWN):
        setattr(config, name, 0.0)
    for module in model.modules():
        for name, _ in _rates(module):
            setattr(module, name, 0.0)
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    return model


@contextlib.contextmanager
def own_dropout(model: Any) -> Iterator[None]:
    """Within this block the configs of a whole model say what they said when it was read, so that they can be saved."""
    turned_off = getattr(model, OWN, [])
    for config, name, rate in turned_off:
        setattr(config, name, rate)
    try:
        yield
    finally:
        for config, name, _ in turned_off:
            setattr(config, name, 0.0)


def _configs(config: PretrainedConfig) -> list[PretrainedConfig]:
    """A config and all inside it, such as that of a text model beside a vision tower."""
    inner = [value for value in vars(config).values() if isinstance(value, PretrainedConfig)]
    return [config, *(each for value in inner for each in _configs(value))]


def _rates(owner: object) -> list[tuple[str, float]]:
    """Attributes that are a rate of dropout, by name (`attention_dropout`, `attn_pdrop`, `layerdrop`) and range."""
    return [(k, v) for k, v in vars(owner).items() if "drop" in k and isinstance(v, float) and 0 < v < 1]
