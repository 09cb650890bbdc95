"""Records out of files and hub data sets, whatever they hold."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

from prefzoo.errors import DataError, unknown

TABLE_ENDINGS = (".jsonl", ".json", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz", ".parquet")
TEXT_ENDINGS = (".txt", ".txt.gz")

COLUMNS: dict[str, tuple[str, ...]] = {
    "preferences": (
        "prompt",
        "chosen",
        "rejected",
        "completion",
        "label",
        "response_a",
        "response_b",
        "preference",
        "annotator",
    ),
    "rankings": ("prompt", "responses", "ranks", "ranking"),
    "ratings": ("prompt", "response", "rating", "responses", "ratings", "annotator"),
    "demonstrations": ("prompt", "completion", "messages"),
    "prompts": ("prompt",),
}
"""What a recipe may give under `data:`, and the columns that are read of each."""

ALIASES = {"question": "prompt", "completions": "responses", "scores": "ratings"}
"""Other names that data sets use for these columns; a column of the first name is only read where the second is not."""


@dataclass(frozen=True)
class Options:
    """How a file or hub data set is read.

    Attributes:
        columns: our name of a column -> the name that it has in the data.
        split, revision, data_dir: of a hub data set.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    revision: str | None = None
    data_dir: str | None = None


def endings(kind: str) -> tuple[str, ...]:
    """The file endings that may be given for one of `COLUMNS`."""
    return (*TEXT_ENDINGS, *TABLE_ENDINGS) if kind == "prompts" else TABLE_ENDINGS


def source_problem(source: str, kind: str = "preferences") -> str | None:
    """A sentence if `source` is neither a file that can be read nor a hub id; None if it may be one."""
    path = Path(source).expanduser()
    allowed = endings(kind)
    if path.is_file():
        if source.endswith(allowed):
            return None
        return f"{source!r} does not end in one of {', '.join(allowed)}"
    every = (*TEXT_ENDINGS, *TABLE_ENDINGS)
    meant_as_file = source.endswith(every) or source.startswith((".", "/", "~")) or source.count("/") != 1
    if path.exists() or meant_as_file:
        return f"{source!r} is neither a file ({', '.join(allowed)}) nor a hub id (owner/name)"
    return None


def read_records(kind: str, source: str, options: Options | None = None) -> Iterator[tuple[str, Any]]:
    """`("line 17", record)` for everything in `source`, with columns under the names of `COLUMNS[kind]`.

    A record is a dictionary, or whatever else stands there, which no format will be able to read.

    Raises:
        DataError: when the source does not exist or is no such file, or a column of `options.columns` is not there.
    """
    options = options or Options()
    if problem := source_problem(source, kind):
        raise DataError(f"data.{kind}: {problem}.")
    path = Path(source).expanduser()
    records = _file(kind, path) if path.is_file() else _hub(kind, source, options)
    wanted = {ours: theirs for ours, theirs in options.columns.items() if ours in COLUMNS[kind]}
    checked = False
    for row_id, record in records:
        if not isinstance(record, dict):
            yield row_id, record
            continue
        if not checked:
            _check_columns(kind, source, wanted, record)
            checked = True
        yield row_id, _renamed(record, wanted)


def _check_columns(kind: str, source: str, wanted: Mapping[str, str], record: Mapping[str, Any]) -> None:
    problems = [
        f"data.columns.{ours}: {unknown('column', theirs, record)} (in data.{kind} {source!r})"
        for ours, theirs in wanted.items()
        if theirs not in record
    ]
    if problems:
        raise DataError("\n".join(problems))


def _renamed(record: dict[str, Any], wanted: Mapping[str, str]) -> dict[str, Any]:
    renamed = {**record, **{ours: record[theirs] for ours, theirs in wanted.items() if theirs in record}}
    for theirs, ours in ALIASES.items():
        if theirs in renamed and ours not in renamed:
            renamed[ours] = renamed[theirs]
    return renamed


def _file(kind: str, path: Path) -> Iterator[tuple[str, Any]]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet(kind, path)
        return
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="" if name.endswith(".csv") else None) as file:
            yield from _text(kind, name, cast(TextIO, file))
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"data.{kind}: {str(path)!r} cannot be read: {error}") from error


def _text(kind: str, name: str, file: TextIO) -> Iterator[tuple[str, Any]]:
    if name.endswith(".json"):
        try:
            whole = json.load(file)
        except json.JSONDecodeError as error:
            raise DataError(f"data.{kind}: {name!r} is not JSON: {error}") from error
        if not isinstance(whole, list):
            raise DataError(f"data.{kind}: {name!r} holds {type(whole).__name__}, not a list of records")
        yield from ((f"item {number}", record) for number, record in enumerate(whole, 1))
    elif name.endswith(".csv"):
        csv.field_size_limit(2**31 - 1)  # a transcript may be longer than the default of 128 KiB
        for number, record in enumerate(csv.DictReader(file), 1):
            yield f"row {number}", {key: value or None for key, value in record.items() if key is not None}
    else:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", {"prompt": line.strip()} if name.endswith(".txt") else _json_or_text(line)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _parquet(kind: str, path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"row {number}", record
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"data.{kind}: {str(path)!r} cannot be read: {error}") from error


def _hub(kind: str, source: str, options: Options) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    try:
        dataset = load_dataset(source, split=options.split, revision=options.revision, data_dir=options.data_dir)
    except Exception as error:  # the hub client raises a dozen unrelated classes; the user needs one sentence
        raise DataError(
            f"data.{kind}: the hub dataset {source!r} (data.split: {options.split!r}) could not be loaded: {error}"
        ) from error
    yield from ((f"row {number}", record) for number, record in enumerate(dataset, 1))
