"""What a recipe gives to every stage: how model files are read, and the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prefzoo.comparison.recipe.blocks import Recipe
from prefzoo.data import sources
from prefzoo.feedback.rewards import FunctionReward
from prefzoo.settings import Adapter


def gold_function(recipe: Recipe) -> Callable[[list[Any], list[str]], list[Mapping[str, float]]] | None:
    """The recipe's truth: prompts and replies to `{"gold": .., attribute: ..}` each; None where there is none."""
    source = recipe.gold_source
    if source == "none":
        return None
    if isinstance(source, str):
        return sources.load(source).gold
    scored = FunctionReward(source.path, key="gold.path")
    return lambda prompts, completions: [{"gold": value} for value in scored(prompts, completions)]


def loading(recipe: Recipe, adapter: Adapter) -> dict[str, Any]:
    """How model files are read."""
    model = recipe.model
    return {
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "attn_implementation": model.attn_implementation,
        "quantization": adapter.quantization,
    }
