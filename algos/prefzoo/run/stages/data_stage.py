"""The data stage: read, clean, fit, split, examine and seal the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefzoo.data import preflight, sources, splits
from prefzoo.data.formats import Row
from prefzoo.data.read_files import Options
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Dropped
from prefzoo.errors import DataError, PrefzooError
from prefzoo.models.loading import resolve
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.stages.token_lengths import Tokens, check_positions
from prefzoo.scoring_function import FunctionReward
from prefzoo.types import Progress


@dataclass
class Gathered:
    """Everything that the recipe names, before cleaning.

    Attributes:
        rows: all of them, in order.
        splits: ids by split where the source has split them already; None where they are still to be split.
        read: records that were read, those that became no row included.
        used: records that rows were made of; the other ones are in `dropped`.
        dropped: records of which no row was made, and why.
        unpaired: pairs that were not made, because neither reply is better.
        unread: columns that are not read, by kind of data.
        rated, annotators: how it was judged, by kind of data (see `found.Found`).
    """

    rows: list[Row]
    splits: dict[str, set[str]] | None = None
    read: int = 0
    used: int = 0
    dropped: Dropped = field(default_factory=Dropped)
    unpaired: Dropped = field(default_factory=Dropped)
    unread: dict[str, list[str]] = field(default_factory=dict)
    rated: dict[str, dict[str, float]] = field(default_factory=dict)
    annotators: dict[str, dict[str, Any]] = field(default_factory=dict)


def prepare(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Do the work of the data stage into `folder`."""
    recipe = plan.recipe
    dropped = Dropped()
    progress("reading", 0, 3)
    gathered = gather(recipe)
    progress("fitting lengths", 1, 3)
    base = resolve(recipe.model.path, recipe.model.revision)
    rendering = Tokens(base, recipe.model.trust_remote_code)
    limits = (recipe.data.max_prompt_tokens, recipe.data.max_completion_tokens)
    sound = splits.clean(gathered.rows, dropped)
    kept, shortened = splits.fit_lengths(
        sound, dropped, lambda prompt: len(rendering.prompt(prompt)), rendering.reply_length, *limits
    )
    if gathered.splits is not None:
        parts = {name: [row for row in kept if row.id in ids] for name, ids in gathered.splits.items()}
    else:
        parts = splits.split_by_prompt(kept, recipe.data.splits.model_dump(), recipe.data.seed)
    available = len(parts["train"])
    parts["train"] = splits.limit_prompts(parts["train"], recipe.budget.prompts)
    progress("examining", 2, 3)
    found: dict[str, Any] = {
        "read": gathered.read,
        "used": gathered.used,
        "made": len(gathered.rows),
        "kept": len(kept),
        "dropped_records": gathered.dropped.counts(),
        "dropped_after": dropped.counts(),
        "unpaired": gathered.unpaired.counts(),
        "pairs_by": {kind: recipe.data.pairs for kind in ("rankings", "ratings") if kind in recipe.data.files()},
        "unread_columns": gathered.unread,
        "rated": gathered.rated,
        "label_with": recipe.data.label_with,
        "beyond_budget": available - len(parts["train"]),
        "annotators": gathered.annotators,
        "repeated": splits.repeated(sound),
        "shortened_prompts": shortened[:20],
        "shortened_prompt_count": len(shortened),
    }
    for lost in (gathered.dropped, gathered.unpaired):
        dropped.merge(lost)
    whole = splits.seal(parts, found, dropped)
    _check_kinds(recipe, parts["train"], dropped)
    check_positions(recipe, base, [row for rows in parts.values() for row in rows], rendering)
    _try_functions(recipe, parts["train"])
    replace(whole, preflight={**whole.preflight, **preflight.examine(parts, shortened, rendering)}).save(folder)


def _try_functions(recipe: Recipe, rows: list[Row]) -> None:
    """Have the recipe's scoring functions score two replies, so that a wrong one is told before anything is trained.

    Raises:
        PrefzooError: naming the key of one that raises, or gives anything but a finite number for each reply.
    """
    gold = {"gold.path": recipe.gold.path} if isinstance(recipe.gold, GoldFunction) else {}
    rewards = {f"{key}.path": part.path for key, part in recipe.reward.places.items() if part.type == "function"}
    prompts = [row.prompt for row in rows[:2]]
    replies = [row.chosen or row.demonstration or "A reply." for row in rows[:2]]
    for key, path in {**gold, **rewards}.items():
        score = FunctionReward(str(path), key=key)
        try:
            score(prompts, replies)
        except PrefzooError as error:
            raise PrefzooError(f"{key}: {error}") from error


def gather(recipe: Recipe) -> Gathered:
    """The rows of the recipe's source or files.

    Raises:
        DataError: when a source gives no splits that can be used, or a file cannot be read.
    """
    if (name := recipe.source) is not None:
        wanted = sources.Wanted(recipe.budget.prompts or 1500, 0, recipe.evaluation.prompts, recipe.data.seed)
        given = sources.load(name).rows(wanted)
        if not isinstance(given, Mapping):
            return Gathered(list(given), read=len(given), used=len(given))
        return _already_split(name, given)
    gathered = Gathered([])
    files = recipe.data.files()
    data = recipe.data
    options = Options(data.columns, data.split, data.revision, data.data_dir, data.annotators)
    names = Counter(map(_called, files.values()))
    for kind, file in files.items():
        # Ids name lines; they must say of which file, and two folders may have a file of one name.
        where = f"{_called(file)} " if names[_called(file)] == 1 else f"{kind} {_called(file)} "
        dropped = Dropped()
        found = read_rows(kind, file, dropped, options, recipe.data.pairs)
        gathered.rows += [replace(row, id=where + row.id) for row in found.rows]
        gathered.read += found.read
        gathered.used += found.used
        gathered.dropped.merge(dropped, where)
        gathered.unpaired.merge(found.unpaired, where)
        if found.unread:
            gathered.unread[kind] = found.unread
        if found.rated:
            gathered.rated[kind] = found.rated
        if found.annotators:
            gathered.annotators[kind] = found.annotators
    return gathered


def _called(source: str) -> str:
    """How a file is called in a report, or a hub data set."""
    path = Path(source).expanduser()
    return path.name if path.is_file() else source


def _check_kinds(recipe: Recipe, train: Sequence[Row], dropped: Dropped) -> None:
    """Refuse data of which nothing is left that the recipe learns from, before a model is loaded to learn from it.

    Raises:
        DataError: when the train split has no pairs, or no demonstrations, and something needs them.
    """
    learners = [recipe.start_algorithm(), *map(recipe.algorithm, recipe.algorithms)]
    imitated = {getattr(each, "on", None) for each in learners}
    by_pairs = recipe.reward.type == "trained" and recipe.reward.loss == "bradley_terry"
    by_pairs |= "chosen" in imitated or any("preferences" in each.needs for each in learners if each is not None)
    missing = []
    if by_pairs and recipe.data.label_with is None and not any(row.chosen for row in train):
        missing.append("pair of a better and a worse reply")
    if "demonstrations" in imitated and not any(row.demonstration for row in train):
        missing.append("demonstration")
    if missing:
        raise DataError(
            f"data: the train split has {len(train)} rows and among them not one "
            f"{' and not one '.join(missing)}, which this recipe learns from. "
            f"Dropped, or not paired: {dropped.counts()}."
        )


def _already_split(name: str, given: Mapping[str, Sequence[Row]]) -> Gathered:
    if stray := sorted(set(given) - set(splits.SPLITS)):
        raise DataError(f"data.source: {name!r} gives a split {stray[0]!r}; allowed: {', '.join(splits.SPLITS)}")
    rows = [row for split in splits.SPLITS for row in given.get(split, ())]
    if len({row.id for row in rows}) < len(rows):
        raise DataError(f"data.source: {name!r} gives two rows of one id")
    ids = {split: {row.id for row in given.get(split, ())} for split in splits.SPLITS}
    return Gathered(rows, ids, read=len(rows), used=len(rows))
