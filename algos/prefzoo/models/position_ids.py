"""Positions of tokens in rows that are padded on the left."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from prefzoo.models.score_head import backbone


def from_first_token(model: nn.Module) -> nn.Module:
    """Have `model` count the positions of each row from its first attended token on, unless it is given positions.

    `generate` does so; a plain forward pass counts the padding too. With absolute positions, as in GPT-2, a padded row
    would get other log-probabilities than those it was sampled with. A model whose forward takes no positions, as with
    ALiBi, makes them from the attention mask.

    Args:
        model: a transformers model, adapted or not; its transformer without the head is changed in place.

    Returns:
        The same model.
    """
    inner = backbone(model)
    if "position_ids" in inspect.signature(inner.forward).parameters:
        inner.register_forward_pre_hook(_add_position_ids, with_kwargs=True)
    return model


def _add_position_ids(
    module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, dict[str, Any]] | None:
    attention: Any = named.get("attention_mask")
    already_right = named.get("position_ids") is not None or not isinstance(attention, Tensor) or attention.dim() != 2
    if already_right or attention[:, 0].all():  # no padding on the left
        return None
    input_ids = args[0] if args else named["input_ids"]
    positions = (attention.long().cumsum(-1) - 1).clamp(min=0)
    return args, {**named, "position_ids": positions[:, -input_ids.shape[1] :]}
