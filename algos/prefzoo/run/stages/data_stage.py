"""The data stage: read, clean, shorten, split, examine and hash the rows."""

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
        dropped: records of which no row was made, with reasons.
        unpaired: pairs that were not made, because neither reply is better.
        by_kind: for each kind of data, further facts that `preflight.json` holds.
    """

    rows: list[Row]
    splits: dict[str, set[str]] | None = None
    read: int = 0
    used: int = 0
    dropped: Dropped = field(default_factory=Dropped)
    unpaired: Dropped = field(default_factory=Dropped)
    by_kind: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"unread_columns": {}, "rated": {}, "annotators": {}}
    )


def prepare(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Write the rows of each split, `manifest.json`, `preflight.json` and `dropped.jsonl` into `folder`.

    Raises:
        PrefzooError: when the data cannot be used, or too little of it is left.
    """
    recipe = plan.recipe
    dropped = Dropped()
    progress("reading", 0, 3)
    gathered = gather(recipe)
    progress("fitting lengths", 1, 3)
    base = resolve(recipe.model.path, recipe.model.revision)
    rendering = Tokens(base, recipe.model.trust_remote_code)
    limits = (recipe.data.max_prompt_tokens, recipe.data.max_completion_tokens)
    cleaned = splits.clean(gathered.rows, dropped)
    rows, shortened = splits.fit_lengths(
        cleaned, dropped, lambda prompt: len(rendering.prompt(prompt)), rendering.reply_length, *limits
    )
    if gathered.splits is not None:
        parts = {name: [row for row in rows if row.id in ids] for name, ids in gathered.splits.items()}
    else:
        parts = splits.split_by_prompt(rows, recipe.data.splits.model_dump(), recipe.data.seed)
    available = len(parts["train"])
    parts["train"] = splits.limit_prompts(parts["train"], recipe.budget.prompts)
    progress("examining", 2, 3)
    facts: dict[str, Any] = {
        "read": gathered.read,
        "used": gathered.used,
        "made": len(gathered.rows),
        "kept": len(rows),
        "dropped_records": gathered.dropped.counts(),
        "dropped_after": dropped.counts(),
        "unpaired": gathered.unpaired.counts(),
        "pairs_by": {kind: recipe.data.pairs for kind in ("rankings", "ratings") if kind in recipe.data.files()},
        "unread_columns": gathered.by_kind["unread_columns"],
        "rated": gathered.by_kind["rated"],
        "label_with": recipe.data.label_with,
        "beyond_budget": available - len(parts["train"]),
        "annotators": gathered.by_kind["annotators"],
        "repeated": splits.repeated(cleaned),
        "shortened_prompts": shortened[:20],
        "shortened_prompt_count": len(shortened),
    }
    dropped.merge(gathered.dropped)
    dropped.merge(gathered.unpaired)
    sealed = splits.seal(parts, facts, dropped)
    _check_kinds(recipe, parts["train"], dropped)
    check_positions(recipe, base, [row for rows in parts.values() for row in rows], rendering)
    _try_functions(recipe, parts["train"])
    examined = preflight.examine(parts, shortened, rendering)
    replace(sealed, preflight={**sealed.preflight, **examined}).save(folder)


def _try_functions(recipe: Recipe, rows: list[Row]) -> None:
    """Have the recipe's scoring functions score two replies, so that a wrong one fails before anything is trained.

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
        rows = sources.load(name).rows(wanted)
        if isinstance(rows, Mapping):
            return _already_split(name, rows)
        return Gathered(list(rows), read=len(rows), used=len(rows))
    gathered = Gathered([])
    files = recipe.data.files()
    data = recipe.data
    options = Options(data.columns, data.split, data.revision, data.data_dir, data.annotators)
    names = Counter(map(_display_name, files.values()))
    for kind, file in files.items():
        # Ids name lines; they must say of which file, and two folders may have a file of one name.
        where = f"{_display_name(file)} " if names[_display_name(file)] == 1 else f"{kind} {_display_name(file)} "
        dropped = Dropped()
        part = read_rows(kind, file, dropped, options, recipe.data.pairs)
        gathered.rows += [replace(row, id=where + row.id) for row in part.rows]
        gathered.read += part.read
        gathered.used += part.used
        gathered.dropped.merge(dropped, where)
        gathered.unpaired.merge(part.unpaired, where)
        for name, fact in (("unread_columns", part.unread), ("rated", part.rated), ("annotators", part.annotators)):
            if fact:
                gathered.by_kind[name][kind] = fact
    return gathered


def _display_name(source: str) -> str:
    """The name of a file, or of a hub data set, in a report."""
    path = Path(source).expanduser()
    return path.name if path.is_file() else source


def _check_kinds(recipe: Recipe, train: Sequence[Row], dropped: Dropped) -> None:
    """Refuse data in which the recipe's algorithms find nothing to learn from, before a model is loaded.

    Raises:
        DataError: when the train split has no pairs, or no demonstrations, and something needs them.
    """
    learners = [recipe.start_algorithm(), *map(recipe.algorithm, recipe.algorithms)]
    imitated = {getattr(learner, "on", None) for learner in learners}
    by_pairs = recipe.reward.type == "trained" and recipe.reward.loss == "bradley_terry"
    by_pairs |= "chosen" in imitated or any("preferences" in algo.needs for algo in learners if algo is not None)
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


def _already_split(name: str, by_split: Mapping[str, Sequence[Row]]) -> Gathered:
    if stray := sorted(set(by_split) - set(splits.SPLITS)):
        raise DataError(f"data.source: {name!r} gives a split {stray[0]!r}; allowed: {', '.join(splits.SPLITS)}")
    rows = [row for split in splits.SPLITS for row in by_split.get(split, ())]
    if len({row.id for row in rows}) < len(rows):
        raise DataError(f"data.source: {name!r} gives two rows of one id")
    ids = {split: {row.id for row in by_split.get(split, ())} for split in splits.SPLITS}
    return Gathered(rows, ids, read=len(rows), used=len(rows))
