"""The fields of a trainer's config class, read from its source: a recipe is checked without importing any trainer.

Importing TRL takes seconds; a recipe is checked in a fraction of one.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import typing
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from prefzoo.errors import MOST_SHOWN, unknown
from prefzoo.validation_messages import validation_problems


class _Names(dict[str, Any]):
    """What annotations may mention; an enumeration of words stands for a text, and another class that only an import
    would bring for any value."""

    def __missing__(self, name: str) -> Any:
        return str if _options(name) else getattr(typing, name, Any)


ENUMERATIONS = ("transformers.trainer_utils", "transformers.training_args")
"""Where the words for optimizers, schedules and strategies are written."""

COMPARED: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "loss_type": (None, ()),
    "train_sampling_strategy": ("transformers.trainer", ("random",)),
}
"""Fields of words whose annotation says no more than `str`: the module that compares them with each (None: the
trainer's own), and what it takes when it is none of those."""

CHECKPOINTED = "trainings are checkpointed by the clock, and the last policy counts"
BATCHING = (
    "transformers' continuous batching samples with a seed of its own at each start, and under bf16 TRL casts the "
    "whole model for it: no run could be repeated; leave it out"
)
DIVIDED = "the launch says whether weights are divided, for all labels alike (FSDP; docs/scale.md)"
OWNED = {
    "output_dir": "a comparison's folder is given by --out",
    "seed": "say `seeds`, or the `seed_offset` of a label",
    "data_seed": "say `seeds`, or the `seed_offset` of a label",
    "report_to": "say `tracking.report_to`",
    "run_name": "runs are named after the recipe, the label and the seed",
    "project": "say `tracking.wandb.project`",
    "max_length": "rows are cut alike for all: say `data.max_prompt_tokens`, `data.max_completion_tokens`",
    "disable_dropout": "say `adapter.dropout`",
    "model_init_kwargs": "say `model`, `adapter`",
    "trust_remote_code": "say `model.trust_remote_code`",
    "eval_strategy": "policies are measured after training: say `evaluation`",
    "fsdp": DIVIDED,
    "fsdp_config": DIVIDED,
    "deepspeed": DIVIDED,
    "save_strategy": CHECKPOINTED,
    "save_steps": CHECKPOINTED,
    "save_total_limit": CHECKPOINTED,
    "save_only_model": CHECKPOINTED,
    "load_best_model_at_end": CHECKPOINTED,
    "push_to_hub": "a trial is not published; `prefzoo export` makes a folder that can be",
    "resume_from_checkpoint": "the same command again resumes",
    "logging_nan_inf_filter": "a loss that is not a number must be seen",
    "include_num_input_tokens_seen": "the ledger is charged by it",
    "use_transformers_continuous_batching": BATCHING,
    "use_transformers_paged": BATCHING,
    "transformers_continuous_batching_config": BATCHING,
}
"""Fields that no `trainer:` block may set, because the comparison does, and what to do instead."""

RANGES = {
    "learning_rate": Field(ge=0),
    "num_train_epochs": Field(gt=0),
    "max_steps": Field(ge=-1),
    "per_device_train_batch_size": Field(ge=1),
    "gradient_accumulation_steps": Field(ge=1),
    "warmup_steps": Field(ge=0),
    "weight_decay": Field(ge=0),
    "max_grad_norm": Field(ge=0),
    "adam_beta1": Field(ge=0, lt=1),
    "adam_beta2": Field(ge=0, lt=1),
    "adam_epsilon": Field(gt=0),
    "logging_steps": Field(gt=0),
    "label_smoothing_factor": Field(ge=0, lt=1),
}
"""Numbers that trainers take without a word although nothing can come of them."""

_KNOWN = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict, "Literal": Literal}


def trainer_problems(
    config: str, settings: Mapping[str, Any], prefix: str, owned: Mapping[str, str] | None = None
) -> list[str]:
    """A sentence for every setting that the config class `"module:Class"` does not have, that no `trainer:` block may
    set (`OWNED` and `owned`: field -> what to do instead), or whose value the field cannot take."""
    fields = config_fields(config)
    taken = {**OWNED, **(owned or {})}
    settable = [field for field in fields if field not in taken]
    problems: list[str] = []
    for key, value in settings.items():
        if key not in fields:
            # Looking for the nearest of 150 names takes a millisecond: not for those that are counted alone.
            told = unknown("key", key, settable) if len(problems) < MOST_SHOWN else "unknown key"
            problems.append(f"{prefix}{key}: {told}")
        elif key in taken:
            problems.append(f"{prefix}{key}: cannot be set here (got {value!r}); {taken[key]}.")
        elif problem := _value_problem(config, key, value, fields[key]):
            problems.append(f"{prefix}{key}: {problem}")
    return problems


def _value_problem(config: str, key: str, value: Any, annotation: str) -> str | None:
    options = _options(annotation) or _compared(config, key)
    if options and isinstance(value, str) and value not in options:
        return unknown("value", value, options)
    try:
        # Strict, because the trainer will be given the value as it was written.
        strict = ConfigDict(strict=True, arbitrary_types_allowed=True)
        TypeAdapter(annotated_type(annotation), config=strict).validate_python(value)
    except ValidationError:
        return unknown("value", value, options) if options else f"must be {annotation} (got {value!r})"
    try:
        TypeAdapter(Annotated[FiniteFloat, RANGES[key]] if key in RANGES else Any).validate_python(value)
    except ValidationError as error:
        return validation_problems(error, {})[0].message
    return None


@lru_cache
def config_fields(config: str) -> dict[str, str]:
    """Field name -> its annotation as written, of a config class `"module:Class"` and of those it inherits from."""
    module, _, name = config.partition(":")
    return {field: annotation for field, (annotation, _) in _fields_in_source(module, name).items()}


def config_help(config: str) -> dict[str, str]:
    """Field name -> the first sentence of what its class says of it; empty where it says nothing."""
    module, _, name = config.partition(":")
    fields = _fields_in_source(module, name)
    return {field: " ".join(text.split()).partition(". ")[0] for field, (_, text) in fields.items()}


def annotated_type(annotation: str) -> Any:
    """The type behind an annotation; `Any` for what only its own module could build."""
    try:
        return eval(annotation, {"__builtins__": {}}, _Names(_KNOWN))
    except TypeError:
        return Any


@lru_cache
def _options(annotation: str) -> list[str]:
    """The words that a field annotated with one of transformers' enumerations may hold; empty for other fields."""
    names = set(re.findall(r"\w+", annotation))
    classes = [
        node
        for module in ENUMERATIONS
        for node in _source(module).body
        if isinstance(node, ast.ClassDef) and node.name in names
    ]
    values = [line.value for enumeration in classes for line in enumeration.body if isinstance(line, ast.Assign)]
    return [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]


@lru_cache
def _compared(config: str, key: str) -> list[str]:
    """The words that a trainer compares one of the fields in `COMPARED` with, and its default; empty for other ones."""
    if key not in COMPARED:
        return []
    module, more = COMPARED[key]
    try:
        tree = _source(module or f"{config.partition(':')[0].removesuffix('_config')}_trainer")
    except (FileNotFoundError, ModuleNotFoundError):  # another package's, written elsewhere
        return []
    compared = [
        node for node in ast.walk(tree) if isinstance(node, ast.Compare) and getattr(node.left, "attr", None) == key
    ]
    sides = [node for compare in compared for side in compare.comparators for node in ast.walk(side)]
    values = {node.value for node in sides if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return sorted({*values, *more})


@lru_cache
def _fields_in_source(module: str, name: str) -> dict[str, tuple[str, str]]:
    """Field name -> its annotation as written, and its help."""
    tree = _source(module)
    definition = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if definition is None:  # a package's own name for a class that is written elsewhere
        cls = getattr(importlib.import_module(module), name)
        return {
            f.name: (f.type if isinstance(f.type, str) else "Any", f.metadata.get("help", ""))
            for f in dataclasses.fields(cls)
        }
    own = {
        node.target.id: (ast.unparse(node.annotation), _help(node.value))
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    origins = {
        alias.asname or alias.name: (node.module or "", node.level, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    inherited: dict[str, tuple[str, str]] = {}
    for base in definition.bases:
        if not (isinstance(base, ast.Name) and base.id in origins):
            continue
        source, level, original = origins[base.id]
        if level:
            source = ".".join([*module.split(".")[:-level], source])
        elif source == "transformers":
            source = "transformers.training_args"
        inherited |= _fields_in_source(source, original)
    return {**inherited, **own}


def _help(value: ast.expr | None) -> str:
    """What `field(metadata={"help": ..})` says."""
    pairs = [
        pair
        for keyword in (value.keywords if isinstance(value, ast.Call) else ())
        if keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict)
        for pair in zip(keyword.value.keys, keyword.value.values, strict=True)
    ]
    texts = [
        t.value
        for key, t in pairs
        if isinstance(key, ast.Constant) and key.value == "help" and isinstance(t, ast.Constant)
    ]
    return str(texts[0]) if texts else ""


@lru_cache
def _source(module: str) -> ast.Module:
    # find_spec imports the parent package: for `trl.trainer.x` that is trl itself, hence the walk by hand.
    package, *rest = module.split(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    path = Path(spec.origin).parent.joinpath(*rest)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))
