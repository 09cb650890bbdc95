"""Read what a recipe names as its data: files, hub data sets, stores of feedback, or a source by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from prefzoo.data import sources, splits
from prefzoo.data.formats import Row
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_result import ReadResult
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import writable
from prefzoo.errors import DataError
from prefzoo.feedback.stored_records import is_store, read_store
from prefzoo.recipe.recipe_schema import Recipe


def read_data(recipe: Recipe) -> tuple[dict[str, ReadResult], dict[str, set[str]] | None]:
    """What the recipe's files or hub data sets hold, by kind of data, or its source by the source's name; and the ids
    of the rows of each split where the source has split them already, else None.

    Raises:
        DataError: when a source gives no splits that can be used, or a file cannot be read.
    """
    data = recipe.data
    if (name := recipe.source) is not None:
        request = sources.RowRequest(recipe.budget.prompts or 1500, 0, recipe.evaluation.prompts, data.seed)
        rows, split_ids = sources.load(name).rows(request), None
        if isinstance(rows, Mapping):
            rows, split_ids = _already_split(name, rows)
        return {name: ReadResult(list(rows), read=len(rows), used=len(rows))}, split_ids
    options = ReadOptions(
        data.columns, data.attributes, data.split, data.revision, data.data_dir, data.annotators, data.pairs
    )
    places = data.places()
    names = Counter(source_name(file) for _, file in places.values())
    results = {}
    for key, (kind, file) in places.items():
        # Ids name lines; they must say of which file, and two folders may have a file of one name.
        prefix = f"{source_name(file)} " if names[source_name(file)] == 1 else f"{key} {source_name(file)} "
        results[key] = _read(key, kind, file, options).with_prefix(prefix)
    return results, None


def _read(key: str, kind: str, file: str, options: ReadOptions) -> ReadResult:
    """The rows of one source. A store of feedback that is added to another source may be empty yet.

    Raises:
        DataError: naming its place in a list of several.
    """
    try:
        if not is_store(file):
            return read_rows(kind, file, options)
        store = read_store(file, kind)
        result = read_rows(kind, file, replace(options, columns={}), store.records)
        if not result.rows and not _is_added(key):
            others = "".join(f"; {count} of another kind ({name})" for name, count in sorted(store.others.items()))
            raise DataError(
                f"data.{kind}: no row can be made of the {result.read} answers in {file!r}{others}; dropped: "
                f"{result.dropped.counts()}"
            )
        return result
    except DataError as error:
        raise DataError(str(error).replace(f"data.{kind}", f"data.{key}", 1)) from error


def source_name(source: str) -> str:
    """How a file is called in a report, or a hub data set."""
    path = Path(source).expanduser()
    return writable(path.name if path.is_file() else source)


def added_sources(recipe: Recipe) -> set[str]:
    """The keys of the sources whose rows are added to those of the first one of their kind."""
    return set(filter(_is_added, recipe.data.places()))


def _is_added(key: str) -> bool:
    return key.endswith("]") and not key.endswith("[0]")


def _already_split(name: str, rows_of: Mapping[str, Sequence[Row]]) -> tuple[list[Row], dict[str, set[str]]]:
    if stray := sorted(set(rows_of) - set(splits.SPLITS)):
        raise DataError(f"data.source: {name!r} gives a split {stray[0]!r}; allowed: {', '.join(splits.SPLITS)}")
    rows = [row for split in splits.SPLITS for row in rows_of.get(split, ())]
    if len({row.id for row in rows}) < len(rows):
        raise DataError(f"data.source: {name!r} gives two rows of one id")
    return rows, {split: {row.id for row in rows_of.get(split, ())} for split in splits.SPLITS}
