"""What tuning tries of each label of a recipe, and the recipe with what it found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from prefzoo import registry
from prefzoo.config_fields import annotated_type, config_fields
from prefzoo.errors import unknown
from prefzoo.interface import LEARNING_RATE, Algorithm
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.types import Range
from prefzoo.validation_messages import shown
from prefzoo.zoo.feedback_loop import WithLearner

UNTUNED = "{}-untuned"
"""The label of a tuned label's settings as they were written."""
FIRST_SEED = 1000
"""Seeds of tuning trials count from here, so that none of them decides twice."""
FORM = "allowed: [low, high], [low, high, log], a list of choices, or false to keep this setting as it is"
BLOCKS = ("trainer", "learner_settings")
"""Settings that hold settings."""


def tuning_seeds(recipe: Recipe) -> list[int]:
    """The seeds of each tuning trial, which a label's `seed_offset` moves as it moves the comparison's."""
    return list(range(FIRST_SEED, FIRST_SEED + recipe.tuning.seeds)) if recipe.tuning is not None else []


def own_settings(recipe: Recipe, label: str) -> dict[str, Any]:
    """A label's settings without those that are not the algorithm's own."""
    return {key: value for key, value in recipe.algorithms[label].items() if key not in registry.LABEL_KEYS}


def with_values(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with these in the place of what stands at their dotted keys."""
    changed = dict(settings)
    for key, value in values.items():
        name, _, rest = key.partition(".")
        changed[name] = with_values(changed.get(name) or {}, {rest: value}) if rest else value
    return changed


def written(recipe: Recipe, algorithm: Algorithm, key: str) -> Any:
    """The value of a dotted setting as the recipe has it; None where only the trainer behind it knows."""
    name, _, rest = key.partition(".")
    if name == "learner_settings":
        return written(recipe, _learner(algorithm), rest)
    if name == "trainer":
        return algorithm.trainer.get(rest, getattr(recipe.training, rest, None))
    return getattr(algorithm, name)


def space_of(recipe: Recipe, label: str) -> dict[str, Range]:
    """What is tried of a label's settings, in numbers; empty where it keeps them.

    What an algorithm declares is widened to hold the setting as written. A setting that the label puts at 0 and that
    is tried by its logarithm is switched off, and stays so.
    """
    algorithm, tune = recipe.algorithm(label), recipe.algorithms[label].get("tune", True)
    if tune is False:
        return {}
    asked = dict(_flat(tune)) if isinstance(tune, Mapping) else {}
    space = {}
    for key, declared in algorithm.tunable.items():
        now = written(recipe, algorithm, key)
        if key in asked or now is None or (declared.log and now <= 0):
            continue
        if declared.relative:
            declared = dataclasses.replace(declared, low=declared.low * now, high=declared.high * now, relative=False)
        elif not declared.choices:
            declared = dataclasses.replace(declared, low=min(declared.low, now), high=max(declared.high, now))
        space[key] = declared
    for key, spec in asked.items():
        if spec is not False and not _form_problem(spec):
            space[key] = _read(spec, _is_range(spec) and _is_whole(algorithm, key))
            if space[key].choices and (now := written(recipe, algorithm, key)) not in space[key].choices:
                space[key] = dataclasses.replace(space[key], choices=(now, *space[key].choices))
    return space


def not_tuned(recipe: Recipe, label: str) -> str | None:
    """Why a label's settings stay as they are; None where they are searched."""
    if recipe.algorithms[label].get("tune", True) is False:
        return "tune: false"
    return None if space_of(recipe, label) else "it has nothing to tune"


def tuned(recipe: Recipe, winners: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """The recipe whose labels have the settings that were found, beside each the label as it was written; none of them
    is to be tuned again.

    Args:
        winners: label -> dotted settings that differ from what was written.
    """
    algorithms: dict[str, dict[str, Any]] = {}
    for label, settings in recipe.algorithms.items():
        kept = {**settings, "tune": False} if not_tuned(recipe, label) is None else settings
        algorithms[label] = with_values(kept, winners.get(label, {}))
        if winners.get(label):
            algorithms[UNTUNED.format(label)] = {"algorithm": label, **kept}
    return recipe.model_copy(update={"algorithms": algorithms})


def tune_problems(recipe: Recipe, label: str) -> list[str]:
    """What is wrong with a label's `tune`, a sentence each; its algorithm is built."""
    tune, prefix = recipe.algorithms[label].get("tune", True), f"algorithms.{label}.tune"
    if isinstance(tune, bool):
        asked = {}
    elif isinstance(tune, Mapping):
        asked = dict(_flat(tune))
    else:
        return [f"{prefix}: must be false, or a block of settings with what to try of each (got {shown(tune)})"]
    algorithm = recipe.algorithm(label)
    if "tune" in recipe.algorithms[label] and tune is not False and not asked and not algorithm.tunable:
        name = recipe.algorithms[label].get("algorithm", label)
        return [f"{prefix}: {name!r} declares nothing to tune; say what to try, as `tune: {{SETTING: [low, high]}}`"]
    problems = []
    for key, spec in asked.items():
        problem = _key_problem(algorithm, key) or (None if spec is False else _form_problem(spec))
        if problem:
            problems.append(f"{prefix}.{key}: {problem}")
        elif spec is not False:
            tried = _read(spec, whole=False)
            cls, settings = type(algorithm), own_settings(recipe, label)
            for value in tried.choices or spec[:2]:
                beyond = registry.build(cls, with_values(settings, {key: value}))[1]
                problems += [f"{prefix}.{key}: {shown(value)} cannot be tried: {each}" for each in beyond]
    return problems


def _learner(algorithm: Algorithm) -> Algorithm:
    assert isinstance(algorithm, WithLearner)
    return algorithm.build_learner()


def _flat(tune: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted setting -> what to try; blocks of settings may be written as blocks."""
    for key, value in tune.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _form_problem(spec: Any) -> str | None:
    if not isinstance(spec, list) or not spec:
        return f"must say what to try (got {shown(spec)}); {FORM}"
    if not _is_range(spec):
        if any(isinstance(each, list | Mapping) for each in spec) or len(set(map(str, spec))) < 2:
            return f"must be two different choices or more (got {shown(spec)}); {FORM}"
        return None
    if spec[0] >= spec[1]:
        return f"{shown(spec)} is empty: the first number must be below the second"
    if len(spec) == 3 and spec[0] <= 0:
        return f"{shown(spec)}: the logarithm needs a first number above 0"
    return None


def _is_range(spec: list[Any]) -> bool:
    two = len(spec) in (2, 3) and all(isinstance(end, int | float) and type(end) is not bool for end in spec[:2])
    return two and (len(spec) == 2 or spec[2] == "log")


def _read(spec: list[Any], whole: bool) -> Range:
    if not _is_range(spec):
        return Range(choices=tuple(spec), source="the recipe")
    low, high = (int(end) if whole else float(end) for end in spec[:2])
    return Range(low, high, log=len(spec) == 3, source="the recipe")


def _key_problem(algorithm: Algorithm, key: str) -> str | None:
    """What is wrong with the name of a setting."""
    name, _, rest = key.partition(".")
    fields = [field.name for field in dataclasses.fields(algorithm)]
    if name not in fields:
        known = [*(field for field in fields if field not in BLOCKS), *algorithm.tunable]
        return unknown("setting", key, list(dict.fromkeys(known)))
    if name == "learner_settings" and rest:
        return _key_problem(_learner(algorithm), rest)
    if name == "trainer" and rest and algorithm.config is not None:
        return None  # whether the trainer has such a field is told with the values
    if name in BLOCKS:
        return f"is a block; say which setting of it, such as `{name}.{LEARNING_RATE.rpartition('.')[2]}`"
    return None


def _is_whole(algorithm: Algorithm, key: str) -> bool:
    """Whether a setting takes whole numbers alone."""
    name, _, rest = key.partition(".")
    if name == "learner_settings":
        return _is_whole(_learner(algorithm), rest)
    if name == "trainer":
        schema = TypeAdapter(annotated_type(config_fields(str(algorithm.config))[rest])).json_schema()
    else:
        schema = TypeAdapter(type(algorithm)).json_schema()["properties"][name]
    types = {each.get("type") for each in (schema, *schema.get("anyOf", ()))}
    return "integer" in types and "number" not in types
