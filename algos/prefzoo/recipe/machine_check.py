"""What a recipe asks of a machine that this one does not have; found without torch."""

from __future__ import annotations

from typing import Any

from prefzoo import validation_messages
from prefzoo.machine import may_have_gpu
from prefzoo.recipe.recipe_schema import Recipe


def machine_problems(recipe: Recipe) -> list[str]:
    """Optimizers, precisions and implementations of attention that need a GPU, where there is none."""
    if may_have_gpu():
        return []
    optimizers: dict[str, Any] = {"training.optim": recipe.training.optim}
    precisions: dict[str, Any] = {"training.fp16": recipe.training.fp16}
    for key, block in trainer_blocks(recipe).items():
        optimizers[f"{key}.optim"], precisions[f"{key}.fp16"] = block.get("optim"), block.get("fp16")
    said = validation_messages.attention(recipe.model.attn_implementation)
    return [
        *(validation_messages.paged(key, name) for key, name in optimizers.items() if str(name).startswith("paged")),
        *(validation_messages.half_precision(key) for key, value in precisions.items() if value is True),
        *([said] if said else []),
    ]


def trainer_blocks(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The `trainer:` blocks that a recipe gives, by key."""
    blocks = {
        "start.trainer": recipe.start.parameters.get("trainer"),
        **{f"{key}.trainer": part.trainer for key, part in recipe.reward.places.items()},
        **{f"algorithms.{label}.trainer": given.get("trainer") for label, given in recipe.algorithms.items()},
    }
    return {key: block for key, block in blocks.items() if isinstance(block, dict)}
