"""Whether a recipe's data can be found, and whether it has what the start, the reward and the algorithms need."""

from __future__ import annotations

from prefzoo import registry
from prefzoo.comparison.recipe import GoldFunction, Recipe
from prefzoo.data import sources
from prefzoo.data.reading import COLUMNS, source_problem
from prefzoo.errors import unknown


def data_problems(recipe: Recipe) -> list[str]:
    """Every mistake in `data:` and in what builds on it, a sentence each."""
    data, files = recipe.data, recipe.data.files()
    if recipe.source is not None:
        try:
            sources.load(recipe.source)
        except ValueError as error:  # nothing else can be said before it is known what the source has
            return [f"data.source: {error}"]
    problems = [f"data.{kind}: {said}." for kind, path in files.items() if (said := source_problem(path, kind))]
    known = list(dict.fromkeys(column for kind in files or COLUMNS for column in COLUMNS[kind]))
    problems += [f"data.columns.{key}: {unknown('column', key, known)}" for key in data.columns if key not in known]
    if data.columns and not files:
        problems.append("data.columns: has no meaning without a file or hub id of one's own")
    return problems + _gold_problems(recipe) + _label_problems(recipe) + _need_problems(recipe)


def _gold_problems(recipe: Recipe) -> list[str]:
    gold = recipe.gold
    if gold is None or gold == "none" or isinstance(gold, GoldFunction):
        return []
    if gold not in sources.names():
        return [f"gold: {unknown('truth', gold, ['none', *sources.names()])} Or {{path: FILE.py:NAME}}."]
    if gold != recipe.source:
        own = (
            f"{next(iter(recipe.data.files()))} are not"
            if recipe.data.files()
            else f"those of {recipe.source!r} are not"
        )
        return [f"gold: {gold!r} scores only the prompts of its own source, and data.{own}. Allowed: none, path."]
    if not sources.load(gold).has_gold:
        return [f"gold: the source {gold!r} has no gold reward. Allowed: none, path."]
    return []


def _label_problems(recipe: Recipe) -> list[str]:
    with_ = recipe.data.label_with
    if with_ is None:
        return []
    problems = []
    if (with_ == "gold" or recipe.judge.type == "gold") and recipe.gold_source == "none":
        key = "data.label_with" if with_ == "gold" else "judge.type"
        problems.append(f"{key}: 'gold' needs a truth to label with: give gold: {{path: FILE.py:NAME}}.")
    has = sorted({"preferences", "rankings", "ratings"} & (set(recipe.data.files()) or recipe.provides))
    if has and (recipe.source is None or "preferences" in sources.load(recipe.source).provides):
        problems.append(f"data.label_with: {with_!r} makes preferences, and the data has {', '.join(has)} already.")
    if recipe.generation.temperature == 0:
        problems.append("data.label_with: needs two different replies, and generation.temperature is 0.")
    if recipe.start.algorithm == "sft" and recipe.start.parameters.get("on") == "chosen":
        problems.append("start.on: 'chosen' replies come from the start's own replies here. Allowed: demonstrations.")
    return problems


def _need_problems(recipe: Recipe) -> list[str]:
    has = recipe.provides
    hint = "Give data.preferences, or data.label_with to make them of the start's own replies."
    problems = []
    trained = {"start": {"algorithm": recipe.start.algorithm, **recipe.start.parameters}} if recipe.start else {}
    trained |= {f"algorithms.{label}": {"algorithm": label, **given} for label, given in recipe.algorithms.items()}
    known = registry.sound()
    for key, settings in trained.items():
        name = settings["algorithm"]
        if name == "sft":
            default = "demonstrations" if key == "start" and "demonstrations" in has else "chosen"
            on = settings.get("on", default)
            needed = "preferences" if on == "chosen" else "demonstrations"
            if needed not in has:
                allowed = "chosen" if needed == "demonstrations" else "demonstrations"
                also = (
                    f"Allowed: {allowed}." if allowed in {*has, *(["chosen"] if "preferences" in has else [])} else hint
                )
                if key == "start":
                    also += " Or start: none."
                problems.append(f"{key}.on: {on!r} is given, but the data has none. {also}")
        elif name in known and "preferences" in known[name].needs and "preferences" not in has:
            problems.append(f"{key}: {name!r} learns from preferences, and the data has none. {hint}")
    if recipe.reward.type == "trained" and "preferences" not in has:
        problems.append(f"reward.type: 'trained' learns from preferences, and the data has none. {hint}")
    asked = {"regression": "ratings", "plackett_luce": "rankings"}.get(recipe.reward.loss)
    if asked and asked not in has:
        problems.append(
            f"reward.loss: {recipe.reward.loss!r} learns from {asked}, and the data has none. Give data.{asked}. "
            "Allowed: bradley_terry."
        )
    return problems
