"""What no single key of a recipe is wrong about, but several together, or a key and this machine."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefzoo import registry, validation_messages
from prefzoo.atomic_files import read_text
from prefzoo.bounded_template import chat_template_problem
from prefzoo.data.read_files import COLUMNS
from prefzoo.errors import PrefzooError, unknown
from prefzoo.lab import MODELS
from prefzoo.machine import may_have_gpu
from prefzoo.models.chat_templates import template_text
from prefzoo.recipe import data_check as data
from prefzoo.recipe import division_check as division
from prefzoo.recipe import engine_check as engines
from prefzoo.recipe import judge_check as judges
from prefzoo.recipe import knowledge_check as knowledge
from prefzoo.recipe import model_check as models
from prefzoo.recipe import tuning_check as tuning
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.rewards.reward_files import given_problem
from prefzoo.scoring_function import function_problem

Check = Callable[[Recipe], list[str]]


def cross_problems(recipe: Recipe, broken: Iterable[str]) -> list[str]:
    """Every such problem, a sentence each.

    Args:
        recipe: with defaults in the place of what was wrong.
        broken: the keys that were wrong. A check that reads one of them is left out: it would judge a default that
            the recipe does not mean.
    """
    unreadable = set(broken)
    problems = []
    for check, reads in CHECKS:
        if not any(f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.") for a in unreadable for b in reads):
            new = check(recipe)
            problems += new
            if check is data.source_problems and new:  # what the source has is then unknown
                unreadable.add("data.source")
    return problems


def start_problems(recipe: Recipe) -> list[str]:
    """The start is `none` or `sft`, with settings that mean something."""
    if recipe.start.algorithm not in ("none", "sft"):
        return [f"start.algorithm: {unknown('start', recipe.start.algorithm, ['none', 'sft'])}"]
    if recipe.start.algorithm == "sft":
        return registry.build(registry.load("sft"), recipe.start.parameters, prefix="start.")[1]
    return [f"start.{key}: has no meaning when the start is 'none'" for key in recipe.start.parameters]


def training_problems(recipe: Recipe) -> list[str]:
    """Accumulation must divide the batch."""
    training = recipe.training
    if training.batch_size % training.accumulation == 0:
        return []
    return [f"training.accumulation: {training.accumulation} does not divide training.batch_size {training.batch_size}"]


def rollout_problems(recipe: Recipe) -> list[str]:
    """A rollout of several batches takes no more prompts than the budget has."""
    budget, batch = recipe.budget.prompts, recipe.training.batch_size
    problems = []
    for label, algorithm in recipe.sound_algorithms.items():
        if "temperature" not in algorithm.owned or budget is None or "per_device_train_batch_size" in algorithm.trainer:
            continue
        names = ("minibatches", "batch_scale")
        settings = {name: value for name in names if (value := getattr(algorithm, name, 1)) != 1}
        if settings and (size := batch * math.prod(settings.values())) > budget:
            given = "".join(f" x {name} {value}" for name, value in settings.items())
            problems.append(
                f"algorithms.{label}: a rollout takes {size} prompts (training.batch_size {batch}{given}), more than "
                f"budget.prompts {budget}; lower one of the former"
            )
    return problems


def precision_problems(recipe: Recipe) -> list[str]:
    """Weights that are trained whole must be in float32: a step of less than about 1/256 of a weight changes nothing
    in bfloat16 (1/2048 in float16). fp16 scales gradients, for which weights must be in float32 too."""
    dtype = recipe.model.dtype
    if dtype == "float32":
        return []
    problems = []
    if recipe.training.fp16:
        problems.append(
            f"training.fp16: true scales the gradients of weights in float32, and model.dtype is {dtype!r}; "
            "allowed: float32 (of a quantized base, adapter.compute_dtype may be float16)"
        )
    trained = {f"{key}.adapter": part.adapter for key, part in recipe.reward.places.items() if part.type == "trained"}
    for key, adapter in {"adapter": recipe.adapter, **trained}.items():
        if adapter is None or (adapter.type != "full" and not adapter.modules_to_save):
            continue
        whole = f"{key}.type 'full'" if adapter.type == "full" else f"{key}.modules_to_save"
        compute = "training.fp16" if dtype == "float16" else "training.bf16"
        narrow = f"`{key}.compute_dtype: {dtype}`" if adapter.type == "qlora" else f"`{compute}: true`"
        problems.append(
            f"model.dtype: {dtype!r} would round away most steps of weights that are trained whole ({whole}). Say "
            f"`model.dtype: float32` and {narrow}, which computes in {dtype} and keeps the weights in float32."
        )
    return problems


def machine_problems(recipe: Recipe) -> list[str]:
    """Optimizers, precisions and implementations of attention that need a GPU, where there is none."""
    if may_have_gpu():
        return []
    optimizers: dict[str, Any] = {"training.optim": recipe.training.optim}
    precisions: dict[str, Any] = {"training.fp16": recipe.training.fp16}
    for key, block in models.trainer_blocks(recipe).items():
        optimizers[f"{key}.optim"], precisions[f"{key}.fp16"] = block.get("optim"), block.get("fp16")
    attention = validation_messages.attention_without_gpu(recipe.model.attn_implementation)
    return [
        *(
            validation_messages.paged_without_gpu(key, name)
            for key, name in optimizers.items()
            if str(name).startswith("paged")
        ),
        *(validation_messages.fp16_without_gpu(key) for key, value in precisions.items() if value is True),
        *([attention] if attention else []),
    ]


def package_problems(recipe: Recipe) -> list[str]:
    """Packages that the recipe needs and that are not installed."""
    parts = {f"{key}.adapter": part.adapter for key, part in recipe.reward.places.items()}
    quantized = [key for key, a in {"adapter": recipe.adapter, **parts}.items() if a is not None and a.type == "qlora"]
    bitsandbytes = "needs the package bitsandbytes: pip install 'prefzoo[qlora]'"
    needed = [("bitsandbytes", f"{key}.type: 'qlora' {bitsandbytes}") for key in quantized]
    if (optimizer := recipe.training.optim) != "adamw_torch_fused":
        needed.append(("bitsandbytes", f"training.optim: {optimizer!r} {bitsandbytes}"))
    if (attention := recipe.model.attn_implementation) == "flash_attention_2":
        needed.append(("flash_attn", f"model.attn_implementation: {attention!r} needs the package flash-attn."))
    needed += [
        ("openai", f"{key}.type: 'openai' needs the package openai: pip install 'prefzoo[judge]'")
        for key, judge in models.judge_blocks(recipe).items()
        if judge.type == "openai"
    ]
    needed += [
        ("liger_kernel", f"{key}.use_liger_kernel: true needs the package liger-kernel, which is not installed here.")
        for key, block in models.trainer_blocks(recipe).items()
        if block.get("use_liger_kernel") is True
    ]
    needed += [
        (name, f"tracking.report_to: {name!r} is not installed here; pip install {name}.")
        for name in recipe.tracking.report_to
    ]
    needed += [
        ("bm25s", f"{key}: documents need the package bm25s: pip install 'prefzoo[knowledge]'")
        for key in knowledge.document_files(recipe)
    ]
    return [problem for package, problem in needed if find_spec(package) is None]


def endless_template_problems(recipe: Recipe) -> list[str]:
    """Chat templates on this disk must end when they are filled in."""
    named = {"model.path": recipe.model.path, "model.chat_template": getattr(recipe.model, "chat_template", None)}
    named |= {f"{key}.path": judge.path for key, judge in models.judge_blocks(recipe).items()}
    named |= {f"{key}.path": part.path for key, part in recipe.reward.places.items() if part.type == "path"}
    found = {
        f"{key}: {path!r}: its chat template": chat_template_problem(text)
        for key, path in named.items()
        if path is not None and path not in MODELS
        for text in _chat_templates(Path(path).expanduser())
    }
    return [f"{where} {problem}" for where, problem in found.items() if problem]


def _chat_templates(place: Path) -> list[str]:
    """The texts of a model folder's chat templates, or of the one that is a file itself; what is no text is skipped,
    for loading will say so."""
    texts = []
    with contextlib.suppress(PrefzooError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        for file in [place] if place.is_file() else [*place.glob("*.jinja"), *place.glob("additional_*/*.jinja")]:
            texts.append(read_text(file))
        if (file := place / "tokenizer_config.json").is_file():
            templates = json.loads(read_text(file)).get("chat_template")
            templates = [templates] if isinstance(templates, str) else [each["template"] for each in templates or []]
            texts += templates
    return texts


def path_problems(recipe: Recipe) -> list[str]:
    """Rewards and scoring functions must be where the recipe says."""
    problems = []
    functions = {"gold.path": recipe.gold.path if isinstance(recipe.gold, GoldFunction) else None}
    for key, part in recipe.reward.places.items():
        path = part.path
        if part.type == "path" and path and not Path(path).expanduser().is_dir() and path.count("/") != 1:
            problems.append(f"{key}.path: {path!r} is neither a folder nor a hub id (owner/name).")
        elif part.type == "path" and path and (wrong := given_problem(Path(path).expanduser())):
            problems.append(f"{key}.path: {path!r} {wrong}.")
        functions[f"{key}.path"] = path if part.type == "function" else None
    return problems + [f"{key}: {p}" for key, path in functions.items() if path and (p := function_problem(path))]


def template_problems(recipe: Recipe) -> list[str]:
    """The chat template must be there, and write both sides of a conversation."""
    try:
        template_text(recipe.model.chat_template)
    except PrefzooError as error:
        return [str(error)]
    return []


def unfinished_problems(recipe: Recipe) -> list[str]:
    """Where cut replies are as good as any, nothing is taken off them."""
    if recipe.generation.unfinished == "drop":
        return []
    penalized = [
        f"algorithms.{label}{inner}.missing_eos_penalty"
        for label, settings in recipe.algorithms.items()
        for inner, block in (("", settings), (".learner_settings", settings.get("learner_settings") or {}))
        if isinstance(block, dict) and block.get("missing_eos_penalty")
    ]
    return [
        f"{key}: has no meaning with generation.unfinished: keep. Allowed: 0, or unfinished: drop." for key in penalized
    ]


def seed_problems(recipe: Recipe) -> list[str]:
    """No seed may be negative, and labels that train again with other seeds must have no seed of the first."""
    first: dict[str, tuple[str, int]] = {}
    negative, repeated = [], []
    lowest, highest = min(recipe.seeds), max(recipe.seeds)
    for label, settings in recipe.algorithms.items():
        offset, key = settings.get("seed_offset", 0), f"algorithms.{label}.seed_offset"
        if type(offset) is not int:
            continue
        if lowest + offset < 0:
            negative.append(f"{key}: {offset} makes a seed negative; the lowest of `seeds` is {lowest}")
        training = {
            "algorithm": label,
            **{key: value for key, value in settings.items() if key not in ("seed_offset", "tune")},
        }
        earlier, other = first.setdefault(json.dumps(training, sort_keys=True, default=str), (label, offset))
        if offset == other:
            continue
        if seeds := {seed + other for seed in recipe.seeds} & {seed + offset for seed in recipe.seeds}:
            repeated.append(
                f"{key}: with {offset}, {len(seeds)} of {len(recipe.seeds)} trainings are "
                f"those of {earlier} (seed {', '.join(map(str, sorted(seeds)))}), and so no others to compare with; "
                f"from {other + highest - lowest + 1} on all differ"
            )
    return negative + repeated


_ROWS = ("data.source", *(f"data.{kind}" for kind in COLUMNS))
_HAS = (*_ROWS, "data.label_with")
CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (data.source_problems, ()),
    (data.file_problems, ()),
    (data.column_problems, ("data.columns", *_ROWS)),
    (data.annotator_problems, ("data.annotators", *_ROWS)),
    (data.gold_problems, ("gold", *_ROWS)),
    (judges.final_judge_problems, ("gold", "judge", "evaluation", "algorithms", "reward", "data.label_with")),
    (data.label_problems, ("gold", "judge.type", "generation.temperature", "start", *_HAS)),
    (data.start_needs, ("start", *_HAS)),
    (data.reward_needs, ("reward.type", "reward.loss", "reward.of", *_HAS)),
    (data.algorithm_needs, _HAS),
    (start_problems, ("start",)),
    (training_problems, ("training.batch_size", "training.accumulation")),
    (rollout_problems, ("budget", "training.batch_size")),
    (precision_problems, ("training.fp16", "model.dtype", "adapter", "reward")),
    (judges.sampling_problems, ()),
    (judges.question_problems, ("judge.type", "judge.prompt", "reward.of", "model.path")),
    (package_problems, ()),
    (machine_problems, ()),
    (engines.vllm_problems, ("generation.engine", "generation.vllm", "adapter", "start", "model")),
    (engines.trl_vllm_problems, ()),
    (division.division_problems, ()),
    (models.adapter_problems, ("adapter", "model.path", "reward")),
    (models.model_problems, ()),
    (models.token_problems, ("model.path", "start", "reward")),
    (endless_template_problems, ()),
    (path_problems, ("reward.type", "reward.of")),
    (models.critic_problems, ("reward",)),
    (models.critic_token_problems, ("model.path", "reward")),
    (judges.feedback_problems, ("judge", "gold", "reward.type", "reward.of", *_ROWS)),
    (judges.people_problems, ("judge", "gold", "reward.type", "reward.of", "evaluation", "tuning", *_ROWS)),
    (judges.constitution_problems, ("constitution", "model.path")),
    (judges.dimension_problems, ("evaluation", "judge", "gold", "model.path")),
    (knowledge.document_problems, ("reward.of", "reward.type", "reward.documents", "evaluation", "context")),
    (knowledge.checker_problems, ("reward", "evaluation", "judge", "gold", *_ROWS)),
    (knowledge.context_problems, ("context", "gold", *_ROWS)),
    (judges.judge_template_problems, ("judge", "model.path")),
    (judges.final_judge_template_problems, ("evaluation.judge", "model.path")),
    (template_problems, ("model.chat_template",)),
    (unfinished_problems, ("generation.unfinished", "algorithms")),
    (seed_problems, ("seeds",)),
    (data.human_problems, ("evaluation.human",)),
    (tuning.tuning_problems, ("tuning", "data.splits", "gold", "reward.type", "seeds", *_ROWS)),
)
"""Each check with the keys whose defaults would mislead it."""
