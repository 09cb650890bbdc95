"""Where trainings deviated from what the recipe gives to all algorithms alike; light, for reports too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from prefzoo.settings import Adapter, Budget, Generation, Training

SAMPLED_REPLIES = "sampled_replies"
"""In `Bench.report`: of each training on sampled replies, in how many of them other tokens than sampled are trained."""
TRAININGS, SAMPLING = "trainings", "sampling"
"""In `Bench.report`: facts of each training of a trial, in order; and of each way in which replies were drawn."""


def expected_facts(adapter: Adapter, budget: Budget, generation: Generation, training: Training) -> dict[str, Any]:
    """Return what `training_facts` finds where these blocks of a recipe are kept to."""
    facts: dict[str, Any] = {"adapter.type": adapter.type}
    if adapter.type != "full":
        scale = adapter.alpha / adapter.r ** (0.5 if adapter.use_rslora else 1.0)
        facts |= {"adapter.r": adapter.r, "adapter.scale": scale, "adapter.use_dora": adapter.use_dora}
    names = [name for name in Training.model_fields if name not in ("accumulation", "gradient_checkpointing")]
    return {
        **facts,
        "budget.epochs": budget.epochs,
        **{f"training.{name}": getattr(training, name) for name in names},
        "generation.temperature": generation.temperature,
        "generation.max_new_tokens": generation.max_new_tokens,
        "generation.engine": generation.engine,
    }


ARGUMENTS = {
    "num_train_epochs": "budget.epochs",
    "max_steps": "budget.epochs",
    "per_device_train_batch_size": "training.batch_size",
    "gradient_accumulation_steps": "training.batch_size",
    "warmup_steps": "training.warmup_ratio",
    **{name: f"training.{name}" for name in Training.model_fields},
}
"""Fields of a trainer's config -> what they are called in a recipe."""


def find_deviations(
    expected: Mapping[str, Any], facts: Iterable[Mapping[str, Any]], declared: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Return where trainings deviated from a recipe: its key -> the values that were used instead, each once.

    Args:
        expected: as `expected_facts` gives it.
        facts: of each training.
        declared: fields that the label's own `trainer:` sets, which a reader of the recipe sees; what they say is no
            deviation.
    """
    known: dict[str, Any] = {}
    for name, value in declared.items():
        if name in ARGUMENTS:
            known[ARGUMENTS[name]] = None if name in COUNTED else value
    deviations: dict[str, list[Any]] = {}
    for training in facts:
        for key, wanted in expected.items():
            used = training.get(key, wanted)
            if _equal(used, wanted) or (key in known and (known[key] is None or _equal(used, known[key]))):
                continue
            if used not in deviations.setdefault(key, []):
                deviations[key].append(used)
    return deviations


COUNTED = ("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps")
"""Arguments that a fact is computed from, and does not repeat."""


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)
    return bool(a == b)
