"""What of a recipe cannot be trained where the launch divides weights over processes (FSDP), and what to do instead."""

from __future__ import annotations

from prefzoo.machine import divides_weights
from prefzoo.recipe.model_check import trainer_blocks
from prefzoo.recipe.recipe_schema import Recipe

WHOLE = "Launch data parallel (recipes/accelerate/ddp.yaml), where adapter.type: qlora makes a large model fit"
NEEDS_WHOLE_WEIGHTS = {
    "precompute_ref_log_probs": "weights are divided when the training has begun, so that the reference's "
    "log-probabilities are taken in each step",
    "sync_ref_model": "the reference stays the start",
    "use_liger_kernel": "it is not tested",
    "torch_compile": "it is not tested",
    "auto_find_batch_size": "a training that has begun cannot begin anew",
    "activation_offloading": "it is not tested",
    "fp16": "it is not tested; allowed: bf16",
}
"""Fields of `trainer:` blocks that may not be true, and why."""


def division_problems(recipe: Recipe) -> list[str]:
    """A sentence for each thing that needs whole weights in every process; none where the launch leaves them whole."""
    if not divides_weights():
        return []
    return [*_label_problems(recipe), *_setting_problems(recipe), *_trainer_problems(recipe)]


def _label_problems(recipe: Recipe) -> list[str]:
    return [
        f"algorithms.{label}: FSDP divides weights over processes, and this label does not say that it is `divisible` "
        f"(docs/algorithms.md). {WHOLE}"
        for label, algorithm in recipe.sound_algorithms.items()
        if algorithm.trains and not algorithm.divisible
    ]


def _setting_problems(recipe: Recipe) -> list[str]:
    parts = {f"{key}.adapter": part.adapter for key, part in recipe.reward.places.items() if part.adapter is not None}
    problems = [
        f"{key}.type: 'qlora' has a base in 4 or 8 bits, which is not run under FSDP. {WHOLE}"
        for key, adapter in {"adapter": recipe.adapter, **parts}.items()
        if adapter.type == "qlora"
    ]
    if recipe.training.fp16:
        problems.append("training.fp16: true is not tested with weights that FSDP divides. Allowed: training.bf16")
    optim = recipe.training.optim
    return problems + [_optimizer("training.optim", optim)] * _indivisible(optim)


def _trainer_problems(recipe: Recipe) -> list[str]:
    problems = []
    for key, block in trainer_blocks(recipe).items():
        problems += [
            f"{key}.{field}: true cannot be had with weights that FSDP divides: {why}. Allowed: false"
            for field, why in NEEDS_WHOLE_WEIGHTS.items()
            if block.get(field)
        ]
        if _indivisible(optim := str(block.get("optim", ""))):
            problems.append(_optimizer(f"{key}.optim", optim))
    return problems


def _indivisible(optim: str) -> bool:
    return "8bit" in optim or "paged" in optim


def _optimizer(key: str, optim: str) -> str:
    return f"{key}: {optim!r} keeps states that FSDP does not divide. Allowed: adamw_torch_fused"
