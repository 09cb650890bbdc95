"""From a recipe's text to a checked recipe: every problem at once, before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from prefzoo import registry
from prefzoo.config_fields import trainer_problems
from prefzoo.errors import MOST_SHOWN, PrefzooError, RecipeError, nearest
from prefzoo.lab import MODELS
from prefzoo.plugins import load_plugins
from prefzoo.recipe import recipe_files
from prefzoo.recipe.cross_check import cross_problems
from prefzoo.recipe.engine_check import with_engine
from prefzoo.recipe.recipe_files import Draft
from prefzoo.recipe.recipe_schema import LAB_LENGTHS, LONGEST_LABEL, Recipe, Start, weight_bytes
from prefzoo.recipe.tuning_space import tune_problems
from prefzoo.validation_messages import Problem, shown, unknown_algorithm, validation_problems

LEARNING_RATES = {
    "tiny": {"lora": 2e-3, "qlora": 2e-3, "full": 5e-4},
    "other": {"lora": 1e-4, "qlora": 1e-4, "full": 1e-5},
}
"""What `training.learning_rate` is when a recipe leaves it out: by size of the model (`TINY_BYTES`) and adapter."""
TINY_BYTES = 40_000_000
"""Models with less weight in files than this, as the lab's, learn nothing at the rates of large ones."""
REWARD_CONFIG = "trl.trainer.reward_config:RewardConfig"
HOW_TO_NAME = "name at least one, such as `algorithms: {dpo: {}, sft: {}}`. `prefzoo ls` lists them"
LABEL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def load(
    recipe: str | Mapping[str, Any],
    sets: Iterable[str] = (),
    algorithms: Iterable[str] | None = None,
    add: Iterable[str] = (),
    held: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recipe:
    """A checked recipe, with its algorithms built.

    Args:
        recipe: a path, one of `recipe_files.shipped()`, or the content of a recipe.
        sets: `key.sub=value` assignments over it.
        algorithms: labels to keep, or names of algorithms to add with their defaults.
        add: labels or names of algorithms to put beside those of `held`, or of the recipe where that is None.
        held: labels and their settings, which a recipe that names the same label overrides.

    Raises:
        RecipeError: listing every problem, with its place, the key, the value, what is allowed and the nearest right
            spelling.
    """
    draft = _with_plugins(recipe_files.read(recipe, sets))
    add = list(add)
    if algorithms is not None or add:
        block = draft.content.get("algorithms")
        settings = {**(held or {}), **(block if isinstance(block, dict) else {})}
        known = registry.names()
        chosen = list(algorithms) if algorithms is not None else [*(settings if held is None else held), *add]
        strangers = [name for name in chosen if name not in settings and name not in known]
        draft.problems += [
            f"--{'add' if add else 'algorithms'}: {unknown_algorithm(name, [*settings, *known])}" for name in strangers
        ]
        if not strangers:
            draft.content["algorithms"] = {name: settings.get(name) or {} for name in chosen}
    return _checked(draft, recipe if isinstance(recipe, str) else "recipe")


def check(content: Mapping[str, Any]) -> Recipe:
    """`content` as a recipe; nothing of it is read from files. Raises RecipeError like `load`."""
    return _checked(_with_plugins(recipe_files.drafted(content)), "recipe")


def _with_plugins(draft: Draft) -> Draft:
    """Load the plug-ins that a recipe names, before its algorithms are looked up; note the one that fails."""
    files = draft.content.get("plugins")
    if isinstance(files, list) and all(isinstance(file, str) for file in files):  # else the schema says what is wrong
        try:
            load_plugins(files, "plugins: ")
        except PrefzooError as error:
            draft.problems.append(_located(str(error), draft.origins))
    return draft


def _checked(draft: Draft, where: str) -> Recipe:
    content = draft.content
    recipe, schema_problems = _without_problems(content)
    first = schema_problems[:MOST_SHOWN]  # what is said of each beyond its sentence takes time
    known = registry.names()
    problems = [f"{problem.key}: {problem.message}{_hint(problem, content, known)}" for problem in first]
    problems += [f"{problem.key}: {problem.message}" for problem in schema_problems[MOST_SHOWN:]]
    if recipe.data.label_with and "start" not in recipe.model_fields_set and not recipe.data.demonstrations:
        # Labels are made of the start's own replies: without demonstrations there is nothing to make a start from.
        recipe = recipe.model_copy(update={"start": Start(algorithm="none")})
    if recipe.training.learning_rate is None:
        kind = "tiny" if 0 < (weight_bytes(recipe.model.path) or 0) < TINY_BYTES else "other"
        rate = {"learning_rate": LEARNING_RATES[kind][recipe.adapter.type]}
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=rate)})
    recipe = with_engine(recipe)
    if recipe.model.path in MODELS:
        recipe = recipe.with_lengths(LAB_LENGTHS)
    algorithms = content.get("algorithms")
    for label in algorithms if isinstance(algorithms, dict) else ():
        problems += _algorithm_problems(recipe, label, known)
    if draft.whole and not recipe.algorithms and "algorithms" not in [problem.key for problem in schema_problems]:
        what = "names none" if algorithms == {} else "is missing"
        problems.append(f"algorithms: {what}; {HOW_TO_NAME}")
    for key, part in recipe.reward.places.items():
        problems += trainer_problems(REWARD_CONFIG, part.trainer, f"{key}.trainer.")
    if draft.whole and len(problems) <= MOST_SHOWN:
        problems += cross_problems(recipe, [key for problem in schema_problems for key in _misread(problem)])
    if problems or draft.problems:
        located = [*draft.problems, *(_located(problem, draft.origins) for problem in problems[:MOST_SHOWN])]
        raise RecipeError(where, [*sorted(located, key=_place), *problems[MOST_SHOWN:]])
    return recipe


def _without_problems(content: Mapping[str, Any]) -> tuple[Recipe, list[Problem]]:
    """The recipe that is left when every wrong key gives way to its default, and what was wrong.

    What is only found wrong after that is not reported: it is measured by a default that was not meant.
    """
    sound = recipe_files.plain(content)
    first: list[Problem] | None = None
    while True:
        try:
            return Recipe.model_validate(sound), first or []
        except ValidationError as error:
            problems = validation_problems(error, sound, _fields_at)
        first = problems if first is None else first
        wrong = [_innermost(sound, problem.path) for problem in problems]
        if not any(key in block for block, key in wrong):
            raise AssertionError(f"a problem that is nowhere: {problems}")
        for block, key in wrong:
            block.pop(key, None)


def _innermost(content: dict[str, Any], path: tuple[Any, ...]) -> tuple[dict[str, Any], Any]:
    """The block and the key in it that hold what is at `path`: of a list and of what is missing, the whole."""
    innermost, here = (content, path[0]), content
    for part in path:
        if not isinstance(here, dict) or part not in here:
            break
        innermost, here = (here, part), here[part]
    return innermost


def _misread(problem: Problem) -> list[str]:
    """The keys whose meaning a problem hides: its own, and the one that was meant where it is misspelt."""
    meant = nearest(problem.path[-1], _fields_at(problem.path[:-1]))
    return [problem.key, *([".".join([*map(str, problem.path[:-1]), meant])] if meant else [])]


def _hint(problem: Problem, content: Mapping[str, Any], algorithms: Sequence[str]) -> str:
    """For a whole block that is wrong: how it is written, or that it may have lost its indentation."""
    key = problem.path[0]
    if len(problem.path) > 1:
        return ""
    if problem.message.startswith("unknown key"):
        blocks = [block for block in Recipe.model_fields if key in _fields_at((block,))]
        blocks += ["algorithms"] if key in algorithms else []
        return f" It is a key of {' and of '.join(blocks)}: is it indented as it should be?" if blocks else ""
    if key == "algorithms":
        return f"; {HOW_TO_NAME}"
    value, block = content.get(key), _block_at((key,))
    if block is None or not isinstance(value, str):
        return ""
    first = next(iter(block.model_fields))
    try:
        block.model_validate({first: value})
    except ValidationError:
        return ""
    return f"; say `{key}: {{{first}: {value}}}`"


def _located(problem: str, origins: Mapping[str, str]) -> str:
    """The sentence with the place where its key, or the nearest block around it, was written, and with what `--set`
    changed in it."""
    named = key = problem.partition(": ")[0]
    while key and key not in origins:
        key = key.rpartition(".")[0]
    sets = [origin for below, origin in origins.items() if below.startswith(f"{named}.") and origin.startswith("--set")]
    places = dict.fromkeys([origins[key]] if key in origins else []) | dict.fromkeys(sets)
    return f"{', '.join(places)}: {problem}" if places else problem


def _place(problem: str) -> tuple[str, int]:
    """File and line of a located problem; those without come first."""
    match = re.match(r"([^ :]+):(\d+)(?:: |, )", problem)
    return (match[1], int(match[2])) if match else ("", 0)


def _algorithm_problems(recipe: Recipe, label: str, known: Sequence[str]) -> list[str]:
    prefix = f"algorithms.{label}"
    if not LABEL_PATTERN.fullmatch(label) or label == "start":
        reason = "'start' names the start" if label == "start" else "a label is letters, digits, '_', '-' and '.'"
        return [f"{prefix}: {reason}; write for instance `my-dpo: {{algorithm: dpo}}`"]
    if len(label) > LONGEST_LABEL:
        return [f"{prefix}: a label names folders and has at most {LONGEST_LABEL} letters (this one has {len(label)})"]
    if (settings := recipe.algorithms.get(label)) is None:
        return []  # no block of keys, which the schema has said
    problems = []
    if type(offset := settings.get("seed_offset", 0)) is not int:
        problems.append(f"{prefix}.seed_offset: must be a whole number (got {shown(offset)})")
    name = settings.get("algorithm", label)
    if name not in known:
        key = prefix if name == label else f"{prefix}.algorithm"
        meant = next((n for n in known if re.match(rf"{n}[-_.]", str(name)) and name == label), None)
        hint = f" For a second {meant}: `{label}: {{algorithm: {meant}}}`." if meant else ""
        return [*problems, f"{key}: {unknown_algorithm(name, known)}{hint}"]
    try:
        return problems + (recipe.build(label)[1] or tune_problems(recipe, label))
    except PrefzooError as error:  # another package's, and broken
        return [*problems, f"{prefix}: {error}"]


def _fields_at(path: tuple[Any, ...]) -> list[str]:
    """The keys of the block at `path`; none where a recipe may have any."""
    block = _block_at(path)
    fields = list(block.model_fields) if block is not None else []
    return [*fields, "extends"] if block is Recipe else fields


def _block_at(path: tuple[Any, ...]) -> type[BaseModel] | None:
    block: type[BaseModel] | None = Recipe
    for key in (part for part in path if not isinstance(part, int)):
        annotation = block.model_fields[key].annotation if block and key in block.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        block = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return block
