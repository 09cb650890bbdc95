"""What a recipe gives to every stage: how model files are read, and the truth."""

from __future__ import annotations

from typing import Any

from prefzoo.judges.build_judge import load_truth
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.settings import Adapter
from prefzoo.types import Truth


def described_gold(recipe: Recipe) -> str | None:
    """The recipe's truth as `build_judge.load_truth` reads it."""
    source = recipe.gold_source
    if source in ("none", "judge"):
        return None
    return source.path if isinstance(source, GoldFunction) else source


def gold_function(recipe: Recipe) -> Truth | None:
    """The recipe's truth; None where there is none."""
    return load_truth(described_gold(recipe))


def loading(recipe: Recipe, adapter: Adapter) -> dict[str, Any]:
    """How model files are read."""
    model = recipe.model
    return {
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "attn_implementation": model.attn_implementation,
        "quantization": adapter.quantization,
    }
