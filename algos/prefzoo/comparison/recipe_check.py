"""From a recipe's text to a checked recipe: every mistake at once, before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from prefzoo import registry
from prefzoo.comparison import recipe_files
from prefzoo.comparison.recipe import LEARNING_RATES, GoldFunction, Recipe, Start
from prefzoo.comparison.recipe_data_check import data_problems
from prefzoo.config_fields import trainer_problems
from prefzoo.errors import PrefzooError, RecipeError, did_you_mean, unknown
from prefzoo.feedback.rewards import function_problem

REWARD_CONFIG = "trl.trainer.reward_config:RewardConfig"
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def load(recipe: str | Mapping[str, Any], sets: Iterable[str] = (), algorithms: Iterable[str] | None = None) -> Recipe:
    """A checked recipe.

    Args:
        recipe: a path, one of `recipe_files.shipped()`, or the content of a recipe.
        sets: `key.sub=value` assignments over it.
        algorithms: labels to keep, or names of algorithms to add with their defaults.

    Raises:
        RecipeError: listing every mistake, with the key, the value, what is allowed and the nearest right spelling.
    """
    where = recipe if isinstance(recipe, str) else "recipe"
    draft = recipe_files.read(recipe, sets)
    content = draft.content
    if algorithms is not None:
        given = content.get("algorithms")
        listed = given if isinstance(given, dict) else {}
        known = registry.names()
        strangers = [name for name in algorithms if name not in listed and name not in known]
        if strangers:
            raise RecipeError(where, [f"algorithms: {unknown('algorithm', s, [*listed, *known])}" for s in strangers])
        content["algorithms"] = {name: listed.get(name) or {} for name in algorithms}
    return check(content, where, draft.origins)


def check(content: dict[str, Any], where: str = "recipe", origins: Mapping[str, str] | None = None) -> Recipe:
    """`content` as a recipe; `origins` says where each key was written. Raises RecipeError like `load`."""
    problems: list[str] = []
    recipe = None
    try:
        recipe = Recipe.model_validate(content)
        # Labels are made of the start's own replies: without demonstrations there is nothing to make a start from.
        if recipe.data.label_with and "start" not in recipe.model_fields_set and not recipe.data.demonstrations:
            recipe = recipe.model_copy(update={"start": Start(algorithm="none")})
    except ValidationError as error:
        problems += [_sentence(item) for item in error.errors()]
    algorithms = content.get("algorithms")
    if isinstance(algorithms, dict):
        for label, settings in algorithms.items():
            problems += _algorithm_problems(str(label), settings)
    reward = content.get("reward")
    if isinstance(reward, dict) and isinstance(trainer := reward.get("trainer"), dict):
        problems += trainer_problems(REWARD_CONFIG, trainer, "reward.trainer.")
    if recipe is not None:
        problems += _cross_problems(recipe)
    if problems:
        raise RecipeError(where, [_located(problem, origins or {}) for problem in problems])
    assert recipe is not None
    if recipe.training.learning_rate is None:
        kind = "lab" if recipe.model.path == "lab" else "other"
        rate = {"learning_rate": LEARNING_RATES[kind][recipe.adapter.type]}
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=rate)})
    return recipe


def _located(problem: str, origins: Mapping[str, str]) -> str:
    """The sentence with the place where its key, or the nearest block around it, was written."""
    key = problem.partition(": ")[0]
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return f"{origins[key]}: {problem}" if key else problem


def _algorithm_problems(label: str, settings: Any) -> list[str]:
    prefix = f"algorithms.{label}"
    if not LABEL.fullmatch(label) or label == "start":
        return [f"{prefix}: a label is letters, digits, '_', '-' and '.', and is not 'start', which names the start"]
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        return []  # the schema has said so already
    settings = dict(settings)
    problems = []
    if not isinstance(offset := settings.pop("seed_offset", 0), int):
        problems.append(f"{prefix}.seed_offset: must be a whole number, not {offset!r}")
    name = settings.pop("algorithm", label)
    if name not in registry.names():
        at = prefix if name == label else f"{prefix}.algorithm"
        return [*problems, f"{at}: {unknown('algorithm', name, registry.names())}"]
    try:
        cls = registry.load(name)
    except PrefzooError as error:  # another package's, and broken
        return [*problems, f"{prefix}: {error}"]
    return problems + registry.parameter_problems(cls, settings, prefix=f"{prefix}.")


def _cross_problems(recipe: Recipe) -> list[str]:
    problems = []
    if recipe.start.algorithm not in ("none", "sft"):
        problems.append(f"start.algorithm: {unknown('start', recipe.start.algorithm, ['none', 'sft'])}")
    elif recipe.start.algorithm == "sft":
        problems += registry.parameter_problems(registry.load("sft"), recipe.start.parameters, prefix="start.")
    elif recipe.start.parameters:
        problems.append(f"start.{next(iter(recipe.start.parameters))}: has no meaning when the start is 'none'")
    problems += data_problems(recipe)
    if recipe.training.batch_size % recipe.training.accumulation:
        problems.append(
            f"training.accumulation: {recipe.training.accumulation} does not divide "
            f"training.batch_size {recipe.training.batch_size}"
        )
    adapters = {"adapter": recipe.adapter, "reward.adapter": recipe.reward.adapter}
    problems += [
        f"{key}.type: 'qlora' needs the package bitsandbytes: pip install 'prefzoo[qlora]'"
        for key, adapter in adapters.items()
        if adapter is not None and adapter.type == "qlora" and find_spec("bitsandbytes") is None
    ]
    base = recipe.model.path
    meant = did_you_mean(base, ["lab"]) if "/" not in base else ""
    if base != "lab" and not Path(base).expanduser().is_dir() and (meant or base.startswith((".", "/", "~"))):
        allowed = "Allowed: lab, a folder, a hub id (owner/name)."
        problems.append(f"model.path: {base!r} is no folder.{meant} {allowed}")
    path = recipe.reward.path
    if recipe.reward.type == "path" and path and not Path(path).expanduser().is_dir() and path.count("/") != 1:
        problems.append(f"reward.path: {path!r} is neither a folder nor a hub id (owner/name).")
    for label, settings in recipe.algorithms.items():
        if isinstance(settings.get("seed_offset", 0), int) and min(recipe.seeds) + settings.get("seed_offset", 0) < 0:
            problems.append(f"algorithms.{label}.seed_offset: {settings['seed_offset']} makes a seed negative")
    if min(recipe.seeds) < 0:
        problems.append(f"seeds: {min(recipe.seeds)} is negative; seeds are 0 or more")
    problems += [
        f"tracking.report_to: {name!r} is not installed here; pip install {name}."
        for name in recipe.tracking.report_to
        if find_spec(name) is None
    ]
    functions = {
        "reward.path": recipe.reward.path if recipe.reward.type == "function" else None,
        "gold.path": recipe.gold.path if isinstance(recipe.gold, GoldFunction) else None,
    }
    problems += [f"{key}: {p}" for key, path in functions.items() if path and (p := function_problem(path))]
    return problems


def _sentence(item: Any) -> str:
    """One pydantic error in our words: key, value, what is allowed, nearest spelling."""
    loc = [
        str(part) for part in item["loc"] if not str(part).startswith(("GoldFunction", "literal[")) and part != "str"
    ]
    key = ".".join(loc) or "recipe"
    if item["type"] == "extra_forbidden":
        return f"{key}: {unknown('key', loc[-1], _fields_at(loc[:-1]))}"
    if item["type"] == "missing":
        return f"{key}: is missing"
    said = f"{key}: {item['msg'].removeprefix('Value error, ')} (got {item['input']!r})"
    if item["type"] == "literal_error":
        said += "." + did_you_mean(item["input"], re.findall(r"'(.*?)'", item["ctx"]["expected"]))
    return said


def _fields_at(path: list[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for key in path:
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    fields = list(model.model_fields)
    return [*fields, "extends"] if model is Recipe else fields
