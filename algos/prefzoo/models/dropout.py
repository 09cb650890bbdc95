"""A model's own dropout: off while it is in memory, and as its maker had it in what is saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch.nn.modules.dropout import _DropoutNd
from transformers import PretrainedConfig, PreTrainedModel

TURNED_OFF_RATES = "own_dropout"
"""Attribute of a model without dropout: the rates in its configs that were set to 0, as (config, name, rate)."""


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Turn off the model's own dropout, and return the model: its dropout layers, and the rates that its layers and
    configs hold as numbers. TRL turns off the layers in some trainers and the numbers in none; here both are off in all
    trainers, and a recipe sets `adapter.dropout`."""
    setattr(model, TURNED_OFF_RATES, [(config, *rate) for config in _configs(model.config) for rate in _rates(config)])
    for config, name, _ in getattr(model, TURNED_OFF_RATES):
        setattr(config, name, 0.0)
    for module in model.modules():
        for name, _ in _rates(module):
            setattr(module, name, 0.0)
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    return model


@contextlib.contextmanager
def own_dropout(model: Any) -> Iterator[None]:
    """Within this block the configs of a model hold their own dropout rates again, so that they are saved with them."""
    turned_off = getattr(model, TURNED_OFF_RATES, [])
    for config, name, rate in turned_off:
        setattr(config, name, rate)
    try:
        yield
    finally:
        for config, name, _ in turned_off:
            setattr(config, name, 0.0)


def _configs(config: PretrainedConfig) -> list[PretrainedConfig]:
    """Return a config and all configs inside it, such as those of a text model and a vision tower."""
    inner = [value for value in vars(config).values() if isinstance(value, PretrainedConfig)]
    return [config, *(config for value in inner for config in _configs(value))]


def _rates(owner: object) -> list[tuple[str, float]]:
    """Return the attributes that are dropout rates: by name (`attention_dropout`, `attn_pdrop`, `layerdrop`) and
    range."""
    return [(k, v) for k, v in vars(owner).items() if "drop" in k and isinstance(v, float) and 0 < v < 1]
