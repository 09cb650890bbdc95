"""What no single key of a recipe is wrong about, but several together, or a key and this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from prefzoo import registry
from prefzoo.data.read_files import COLUMNS
from prefzoo.errors import unknown
from prefzoo.recipe import data_check as data
from prefzoo.recipe.adapter_check import adapter_problems
from prefzoo.recipe.final_judge_check import final_judge_problems
from prefzoo.recipe.judge_check import constitution_problems, feedback_problems, final_judge_words, judge_words
from prefzoo.recipe.learner_check import question_problems, sampling_problems
from prefzoo.recipe.machine_check import machine_problems
from prefzoo.recipe.model_check import critic_problems, given_judges, model_problems, token_problems
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.scoring_function import function_problem

Check = Callable[[Recipe], list[str]]


def cross_problems(recipe: Recipe, broken: Iterable[str]) -> list[str]:
    """Every such mistake, a sentence each.

    Args:
        recipe: with defaults in the place of what was wrong.
        broken: the keys that were wrong. A check that reads one of them is left out: it would judge a default that
            the recipe does not mean.
    """
    stopped = set(broken)
    problems = []
    for check, reads in CHECKS:
        if not any(f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.") for a in stopped for b in reads):
            found = check(recipe)
            problems += found
            if check is data.source_problems and found:  # what the source has is then unknown
                stopped.add("data.source")
    return problems


def _start_problems(recipe: Recipe) -> list[str]:
    if recipe.start.algorithm not in ("none", "sft"):
        return [f"start.algorithm: {unknown('start', recipe.start.algorithm, ['none', 'sft'])}"]
    if recipe.start.algorithm == "sft":
        return registry.parameter_problems(registry.load("sft"), recipe.start.parameters, prefix="start.")
    return [f"start.{key}: has no meaning when the start is 'none'" for key in recipe.start.parameters]


def _accumulation_problems(recipe: Recipe) -> list[str]:
    if recipe.training.batch_size % recipe.training.accumulation == 0:
        return []
    return [
        f"training.accumulation: {recipe.training.accumulation} does not divide "
        f"training.batch_size {recipe.training.batch_size}"
    ]


def _precision_problems(recipe: Recipe) -> list[str]:
    if not recipe.training.fp16 or recipe.model.dtype == "float32":
        return []
    return [
        f"training.fp16: true scales the gradients of weights in float32, and model.dtype is {recipe.model.dtype!r}; "
        "allowed: float32 (of a quantized base, adapter.compute_dtype may be float16)"
    ]


def _missing_packages(recipe: Recipe) -> list[str]:
    parts = {f"{key}.adapter": part.adapter for key, part in recipe.reward.places.items()}
    adapters = {"adapter": recipe.adapter, **parts}
    problems = [
        f"{key}.type: 'qlora' needs the package bitsandbytes: pip install 'prefzoo[qlora]'"
        for key, adapter in adapters.items()
        if adapter is not None and adapter.type == "qlora" and find_spec("bitsandbytes") is None
    ]
    if recipe.training.optim != "adamw_torch_fused" and find_spec("bitsandbytes") is None:
        problems.append(
            f"training.optim: {recipe.training.optim!r} needs the package bitsandbytes: pip install 'prefzoo[qlora]'"
        )
    if recipe.model.attn_implementation == "flash_attention_2" and find_spec("flash_attn") is None:
        problems.append("model.attn_implementation: 'flash_attention_2' needs the package flash-attn.")
    problems += [
        f"{key}.type: 'openai' needs the package openai: pip install 'prefzoo[judge]'"
        for key, judge in given_judges(recipe).items()
        if judge.type == "openai" and find_spec("openai") is None
    ]
    return problems + [
        f"tracking.report_to: {name!r} is not installed here; pip install {name}."
        for name in recipe.tracking.report_to
        if find_spec(name) is None
    ]


def _path_problems(recipe: Recipe) -> list[str]:
    problems = []
    functions = {"gold.path": recipe.gold.path if isinstance(recipe.gold, GoldFunction) else None}
    for key, part in recipe.reward.places.items():
        path = part.path
        if part.type == "path" and path and not Path(path).expanduser().is_dir() and path.count("/") != 1:
            problems.append(f"{key}.path: {path!r} is neither a folder nor a hub id (owner/name).")
        functions[f"{key}.path"] = path if part.type == "function" else None
    return problems + [f"{key}: {p}" for key, path in functions.items() if path and (p := function_problem(path))]


def _seed_problems(recipe: Recipe) -> list[str]:
    offsets = {label: settings.get("seed_offset", 0) for label, settings in recipe.algorithms.items()}
    return [
        f"algorithms.{label}.seed_offset: {offset} makes a seed negative; the lowest of `seeds` is {min(recipe.seeds)}"
        for label, offset in offsets.items()
        if type(offset) is int and min(recipe.seeds) + offset < 0
    ]


def _same_trainings(recipe: Recipe) -> list[str]:
    """Labels that are to train again with other seeds, and whose seeds are partly those of the first."""
    first: dict[str, tuple[str, int]] = {}
    problems = []
    for label, settings in recipe.algorithms.items():
        offset = settings.get("seed_offset", 0)
        if type(offset) is not int:
            continue
        meant = {"algorithm": label, **{key: value for key, value in settings.items() if key != "seed_offset"}}
        known, other = first.setdefault(json.dumps(meant, sort_keys=True, default=str), (label, offset))
        seeds = {seed + other for seed in recipe.seeds} & {seed + offset for seed in recipe.seeds}
        if offset != other and seeds:
            enough = other + max(recipe.seeds) - min(recipe.seeds) + 1
            problems.append(
                f"algorithms.{label}.seed_offset: with {offset}, {len(seeds)} of {len(recipe.seeds)} trainings are "
                f"those of {known} (seed {', '.join(map(str, sorted(seeds)))}), and so no others to compare with; "
                f"from {enough} on all differ"
            )
    return problems


def _critic_problems(recipe: Recipe) -> list[str]:
    parts = recipe.reward.parts
    if len(parts) == 1 and parts[0].type in ("trained", "path") and parts[0].members == 1:
        return []
    return [
        f"algorithms.{label}.value_model: 'reward' begins as the reward model, and the reward is not one model. "
        "Allowed here: shared, separate."
        for label, settings in recipe.algorithms.items()
        if settings.get("value_model") == "reward"
    ]


_ROWS = ("data.source", *(f"data.{kind}" for kind in COLUMNS))
_HAS = (*_ROWS, "data.label_with")
CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (data.source_problems, ()),
    (data.file_problems, ()),
    (data.column_problems, ("data.columns", *_ROWS)),
    (data.annotator_problems, ("data.annotators", *_ROWS)),
    (data.gold_problems, ("gold", *_ROWS)),
    (final_judge_problems, ("gold", "judge", "evaluation", "algorithms", "reward", "data.label_with")),
    (data.label_problems, ("gold", "judge.type", "generation.temperature", "start", *_HAS)),
    (data.start_needs, ("start", *_HAS)),
    (data.reward_needs, ("reward.type", "reward.loss", "reward.of", *_HAS)),
    (data.algorithm_needs, _HAS),
    (_start_problems, ("start",)),
    (_accumulation_problems, ("training.batch_size", "training.accumulation")),
    (_precision_problems, ("training.fp16", "model.dtype")),
    (sampling_problems, ()),
    (question_problems, ("judge.type", "judge.prompt")),
    (_missing_packages, ()),
    (machine_problems, ()),
    (adapter_problems, ("adapter", "model.path", "reward")),
    (model_problems, ()),
    (token_problems, ("model.path", "start", "reward")),
    (_path_problems, ("reward.type", "reward.of")),
    (_critic_problems, ("reward",)),
    (critic_problems, ("model.path", "reward")),
    (feedback_problems, ("judge", "gold", "reward.type", "reward.of", *_ROWS)),
    (constitution_problems, ("constitution", "model.path")),
    (judge_words, ("judge", "model.path")),
    (final_judge_words, ("evaluation.judge", "model.path")),
    (_seed_problems, ("seeds",)),
    (_same_trainings, ("seeds",)),
)
"""Each check with the keys whose defaults would mislead it."""
