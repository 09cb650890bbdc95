"""Checks of data: whether it can be found, and whether it has what the start, the reward and the algorithms need."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from prefzoo.data import sources
from prefzoo.data.read_files import COLUMNS, ReadOptions, is_database, read_records, source_problem
from prefzoo.data.vote_aggregation import PACKAGE, voted_on
from prefzoo.errors import DataError, PrefzooError, unknown
from prefzoo.feedback.store import FeedbackStore
from prefzoo.feedback.stored_records import is_store, read_store
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe


def source_problems(recipe: Recipe) -> list[str]:
    """The named source must exist and be sound."""
    if recipe.source is None:
        return []
    try:
        sources.load(recipe.source)
    except ValueError as error:
        return [f"data.source: {error}"]
    return []


def file_problems(recipe: Recipe) -> list[str]:
    """The files must be there, and the columns that the recipe names in them."""
    data = recipe.data
    options = ReadOptions(data.columns, data.attributes, annotators=data.annotators, pairs=data.pairs)
    problems = []
    for key, (kind, path) in data.places().items():
        if is_store(path):
            try:
                read_store(path, kind)
            except PrefzooError as error:
                problems.append(f"data.{key}: {error}.")
        elif problem := source_problem(path, kind):
            problems.append(f"data.{key}: {problem}.")
        elif Path(path).expanduser().is_file():
            try:
                next(read_records(kind, path, options), None)
            except DataError as error:
                problems += [line.replace(f"data.{kind}", f"data.{key}", 1) for line in str(error).split("\n")]
    return problems


def human_problems(recipe: Recipe) -> list[str]:
    """People's answers must be in a file that can be read; before anybody answered it need not be there."""
    path = Path(recipe.evaluation.human or ".")
    if recipe.evaluation.human is None or not path.exists():
        return [] if path.parent.is_dir() else [f"evaluation.human: the folder of {str(path)!r} is not there."]
    try:
        if path.is_file() and is_database(path):
            FeedbackStore(path).close()
            return []
        problem = source_problem(str(path))
    except PrefzooError as error:
        problem = str(error)
    return [f"evaluation.human: {problem}."] if problem else []


def column_problems(recipe: Recipe) -> list[str]:
    """`data.columns` may only name columns that are read, and `data.attributes` those of ratings."""
    data, files = recipe.data, recipe.data.files()
    if data.attributes and data.ratings is None:
        return [f"data.attributes: {data.attributes} are columns of ratings, and there are none. Give data.ratings."]
    known = list(dict.fromkeys(column for kind in files or COLUMNS for column in COLUMNS[kind]))
    problems = [f"data.columns.{key}: {unknown('column', key, known)}" for key in data.columns if key not in known]
    if data.columns and not files:
        problems.append("data.columns: has no meaning without a file or hub id of one's own")
    return problems


def annotator_problems(recipe: Recipe) -> list[str]:
    """The rule for votes needs votes, and for `reliability` a package."""
    rule = recipe.data.annotators
    problems = []
    if rule != "majority" and not any(voted_on(kind, recipe.data.pairs) for kind in recipe.data.files()):
        problems.append(
            f"data.annotators: {rule!r} decides votes in data.preferences, or in data.rankings with data.pairs: all or "
            "adjacent, and there is no such file."
        )
    if rule == "reliability" and find_spec(PACKAGE) is None:
        problems.append(f"data.annotators: {rule!r} needs the package crowd-kit: pip install 'prefzoo[annotators]'")
    return problems


def gold_problems(recipe: Recipe) -> list[str]:
    """The truth that is named must be able to score these prompts."""
    gold = recipe.gold
    if gold is None or gold in ("none", "judge") or isinstance(gold, GoldFunction):
        return []
    if gold not in sources.names():
        return [f"gold: {unknown('truth', gold, ['none', 'judge', *sources.names()])} Or {{path: FILE.py:NAME}}."]
    if gold != recipe.source:
        prompts = next(iter(recipe.data.files()), f"those of {recipe.source!r}")
        return [
            f"gold: {gold!r} scores only the prompts of its own source, and data.{prompts} are not. "
            "Allowed: none, judge, path."
        ]
    if not sources.load(gold).has_gold:
        return [f"gold: the source {gold!r} has no gold reward. Allowed: none, judge, path."]
    return []


def label_problems(recipe: Recipe) -> list[str]:
    """Labels can be made as `data.label_with` says, and of data that has none yet."""
    labeller = recipe.data.label_with
    if labeller is None:
        return []
    problems = []
    if (labeller == "gold" or recipe.judge.type == "gold") and recipe.gold_source in ("none", "judge"):
        key = "data.label_with" if labeller == "gold" else "judge.type"
        problems.append(f"{key}: 'gold' needs a truth to label with: give gold: {{path: FILE.py:NAME}}.")
    has = sorted({"preferences", "rankings", "ratings"} & (set(recipe.data.files()) or recipe.provides))
    if has and (recipe.source is None or "preferences" in sources.load(recipe.source).provides):
        problems.append(f"data.label_with: {labeller!r} makes preferences, and the data has {', '.join(has)} already.")
    if recipe.generation.temperature == 0:
        problems.append("data.label_with: needs two different replies, and generation.temperature is 0.")
    if recipe.start.algorithm == "sft" and recipe.start.parameters.get("on") == "chosen":
        problems.append("start.on: 'chosen' replies come from the start's own replies here. Allowed: demonstrations.")
    return problems


HINT = "Give data.preferences, or data.label_with to make them of the start's own replies."


def start_needs(recipe: Recipe) -> list[str]:
    """The data must have what the start is made of."""
    if recipe.start.algorithm != "sft":
        return []
    on = recipe.start.parameters.get("on", "demonstrations" if "demonstrations" in recipe.provides else "chosen")
    return [f"{problem} Or start: none." for problem in _imitation_problems("start", on, recipe)]


def algorithm_needs(recipe: Recipe) -> list[str]:
    """The data must have what each algorithm learns from."""
    problems = []
    draws_on = recipe.draws_on
    for label, settings in recipe.algorithms.items():
        key, name = f"algorithms.{label}", settings.get("algorithm", label)
        if name == "sft":
            problems += _imitation_problems(key, settings.get("on", "chosen"), recipe)
        elif "preferences" in draws_on.get(label, ()) and "preferences" not in recipe.provides:
            problems.append(f"{key}: {name!r} learns from preferences, and the data has none. {HINT}")
        elif "unpaired" in draws_on.get(label, ()) and "preferences" not in recipe.provides:
            problems.append(f"{key}: {name!r} learns from replies that are liked or not, and the data has none. {HINT}")
        elif "demonstrations" in draws_on.get(label, ()) and "demonstrations" not in recipe.provides:
            problems.append(
                f"{key}: {name!r} imitates demonstrations, and the data has none. Give data.demonstrations."
            )
    return problems


def _imitation_problems(key: str, on: object, recipe: Recipe) -> list[str]:
    """The data must have what supervised fine-tuning imitates; the schema refuses other values of `on`."""
    has = recipe.provides
    needed = {"chosen": "preferences", "demonstrations": "demonstrations"}.get(str(on))
    if needed is None or needed in has:
        return []
    other = "chosen" if needed == "demonstrations" else "demonstrations"
    can_be_other = other in has or (other == "chosen" and "preferences" in has)
    return [f"{key}.on: {on!r} is given, but the data has none. {f'Allowed: {other}.' if can_be_other else HINT}"]


def reward_needs(recipe: Recipe) -> list[str]:
    """The data must have what the reward model learns from."""
    has = recipe.provides
    problems = []
    for key, part in recipe.reward.places.items():
        if part.type == "trained" and "preferences" not in has:
            learned_from = any("reward" in needs for needs in recipe.draws_on.values())
            others = "judge" if learned_from else "judge, or random (nothing here learns from the reward)"
            problems.append(
                f"{key}.type: 'trained' learns from preferences, and the data has none. {HINT} "
                f"Allowed without: {others}."
            )
        if part.attribute is not None and part.attribute not in recipe.data.attributes:
            problems.append(f"{key}.attribute: {unknown('attribute', part.attribute, recipe.data.attributes)}")
        kind = {"regression": "ratings", "plackett_luce": "rankings"}.get(part.loss)
        if kind and kind not in has:
            problems.append(
                f"{key}.loss: {part.loss!r} learns from {kind}, and the data has none. Give data.{kind}. "
                "Allowed: bradley_terry."
            )
    return problems
