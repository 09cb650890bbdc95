"""Records out of files and hub data sets, whatever they hold."""

from __future__ import annotations

import csv
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from prefzoo.data.bounded_text import MOST_LETTERS, lines, not_utf8, open_text
from prefzoo.data.read_parquet import parquet_records
from prefzoo.data.read_result import Pairs
from prefzoo.data.rejects import UnreadableRecord, type_name, writable
from prefzoo.data.vote_aggregation import VoteRule, voted_on
from prefzoo.errors import DataError, unknown

TABLE_ENDINGS = (".jsonl", ".json", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz", ".parquet")
TEXT_ENDINGS = (".txt", ".txt.gz")

_OF_PROMPTS = ("system", "group")
_PREFERENCES = "prompt chosen rejected completion label response_a response_b preference annotator seconds margin"
COLUMNS: dict[str, tuple[str, ...]] = {
    "preferences": (*_PREFERENCES.split(), *_OF_PROMPTS),
    "rankings": ("prompt", "responses", "ranks", "ranking", "annotator", "seconds", *_OF_PROMPTS),
    "ratings": ("prompt", "response", "rating", "responses", "ratings", "annotator", "seconds", *_OF_PROMPTS),
    "demonstrations": ("prompt", "completion", "messages", *_OF_PROMPTS),
    "prompts": ("prompt", *_OF_PROMPTS),
}
"""What a recipe may give under `data:`, and the columns that are read of each."""

ALIASES = {"question": "prompt", "completions": "responses", "scores": "ratings"}
"""Other names that data sets use for these columns; a column of the first name is only read where the second is not."""

MOST_RECORDS = 10_000_000
MOST_JSON = 1 << 30
"""Letters of a JSON file, which is read as a whole."""
BLANK = UnreadableRecord("blank", "")

Records = Iterator[tuple[str, Any]]
"""Pairs of where a record stands (`"line 17"`), and the record."""


@dataclass(frozen=True)
class ReadOptions:
    """How a file or hub data set is read.

    Attributes:
        columns: our name of a column -> the name that it has in the data.
        attributes: columns that rate a reply each in one respect.
        split, revision, data_dir: of a hub data set.
        annotators: the rule by which votes become preferences.
        pairs: which pairs are made of rankings and ratings; replies of equal rank are never paired.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    attributes: Sequence[str] = ()
    split: str = "train"
    revision: str | None = None
    data_dir: str | None = None
    annotators: VoteRule = "majority"
    pairs: Pairs = "all"


def source_problem(source: str, kind: str = "preferences") -> str | None:
    """A sentence if `source` is neither a file that can be read nor a hub id; None if it may be one."""
    endings = (*TEXT_ENDINGS, *TABLE_ENDINGS)
    allowed = endings if kind == "prompts" else TABLE_ENDINGS
    listed = ", ".join(allowed)
    try:
        path = Path(source).expanduser()
        if path.is_file():
            return None if source.endswith(allowed) else f"{source!r} does not end in one of {listed}"
        if path.is_dir():
            return f"{source!r} is a folder; name a file in it ({listed})"
        there = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a folder that is closed, an unknown user
        return f"{source!r} cannot be looked at: {error}"
    if there or source.endswith(endings) or source.startswith((".", "/", "~")) or source.count("/") != 1:
        return f"{source!r} is neither a file ({listed}) nor a hub id (owner/name)"
    return None


def read_records(kind: str, source: str, options: ReadOptions | None = None) -> Records:
    """`("line 17", record)` for everything in `source`, with columns under the names of `COLUMNS[kind]`.

    A record is a dictionary; `UnreadableRecord` for a line or row that holds none, a blank one included; or whatever
    else stands there, which no format will be able to read. A line is the file's own (of CSV, where the row begins, the
    headings being line 1), a row one of a table that has no lines, an item one of a JSON list; all count from 1.

    Raises:
        DataError: when the source does not exist or is no such file, or a column of `options.columns` is not there, or
            there are more than `MOST_RECORDS`.
    """
    options = options or ReadOptions()
    if problem := source_problem(source, kind):
        raise DataError(f"data.{kind}: {problem}.")
    path = Path(source).expanduser()
    names = {ours: theirs for ours, theirs in options.columns.items() if ours in COLUMNS[kind]}
    checked = False
    records = _file(kind, path, {*names.values()}) if path.is_file() else _hub(kind, source, options)
    for number, (row_id, record) in enumerate(records, 1):
        if number > MOST_RECORDS:
            raise DataError(f"data.{kind}: {source!r} has more than {MOST_RECORDS} records, blank lines included.")
        if isinstance(record, dict):
            renamed = _renamed(record, names)
            if not checked:
                named = options.annotators == "reliability" and voted_on(kind, options.pairs)
                _check_columns(record, renamed, names, f"data.{kind} {source!r}", named)
                checked = True
            record = renamed
        yield row_id, record


def _check_columns(
    record: Mapping[str, Any], renamed: Mapping[str, Any], names: Mapping[str, str], where: str, named: bool
) -> None:
    """Refuse a first record that lacks a column of `names`, or the annotator, where each must be `named`."""
    problems = [
        f"data.columns.{ours}: {unknown('column', theirs, record)} (in {where})"
        for ours, theirs in names.items()
        if theirs not in record
    ]
    if not problems and named and "annotator" not in renamed:
        problems = [
            f"data.annotators: 'reliability' needs to know who said what: {unknown('column', 'annotator', renamed)} "
            f"(in {where}; other names: data.columns.annotator)"
        ]
    if problems:
        raise DataError(writable("\n".join(problems)))


def _renamed(record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    renamed = {**record, **{ours: record[theirs] for ours, theirs in names.items() if theirs in record}}
    for theirs, ours in ALIASES.items():
        if theirs in renamed and ours not in renamed:
            renamed[ours] = renamed[theirs]
    return renamed


def _file(kind: str, path: Path, columns: set[str]) -> Records:
    name = path.name.removesuffix(".gz")
    try:
        try:
            if name.endswith(".parquet"):
                rows = parquet_records(path, {*COLUMNS[kind], *ALIASES, *columns})
                yield from ((f"row {number}", record) for number, record in enumerate(rows, 1))
                return
            with open_text(path, newline="" if name.endswith(".csv") else None) as file:
                yield from _text(name, file)
        except UnicodeDecodeError as error:
            raise DataError(f"{not_utf8(path)}.") from error
    except (EOFError, OSError, zlib.error, DataError) as error:
        raise DataError(f"data.{kind}: {str(path)!r} cannot be read: {error}") from error


def _text(name: str, file: TextIO) -> Records:
    if name.endswith(".json"):
        yield from ((f"item {number}", record) for number, record in enumerate(_json(file), 1))
    elif name.endswith(".csv"):
        yield from _csv(file)
    else:
        read_line = _json_line if not name.endswith(".txt") else lambda line: {"prompt": line.removesuffix("\n")}
        for number, line in enumerate(lines(file), 1):
            if line is None:
                yield f"line {number}", UnreadableRecord("line_too_long", "")
            else:
                yield f"line {number}", read_line(line) if line.strip() else BLANK


def _json(file: TextIO) -> list[Any]:
    text = file.read(MOST_JSON + 1)
    if len(text) > MOST_JSON:
        raise DataError(f"it has more than {MOST_JSON} letters; a file with a record in each line (.jsonl) may have.")
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        hint = " A file with a record in each line ends in .jsonl." if "Extra data" in str(error) else ""
        raise DataError(f"it is not JSON: {error}.{hint}") from error
    if not isinstance(content, list):
        raise DataError(f"it holds {type_name(content)}, not a list of records")
    return content


def _json_line(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _RepeatedKey as error:
        return UnreadableRecord(f"repeated_key: {error.key}", text)
    except (ValueError, RecursionError):
        return UnreadableRecord("not_json", text)


class _RepeatedKey(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(f"an object has the key {key!r} twice, and only one of its values could be read")
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _RepeatedKey(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return record


def _csv(file: TextIO) -> Records:
    """Rows by the line on which they begin: a quoted cell may go over several, and the headings are line 1."""
    csv.field_size_limit(MOST_LETTERS)  # a transcript may be longer than the default of 128 KiB
    text = _whole_lines(file)
    before = list(_blank_lines(text))
    _check_commas(before)
    reader = csv.reader(chain(before, text), strict=True)  # else a quote that is not closed swallows the rest
    headings: list[str] = []
    while True:
        begin = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if not headings or "unexpected end" in str(error):
                raise DataError(
                    f"it is not CSV: the quotes of the row that begins in line {begin} do not end "
                    f"where its cell does ({error}). A quote within a quoted cell is written twice."
                ) from error
            yield f"line {begin}", UnreadableRecord("broken_quotes", str(error))
            continue
        if not any(cell.strip() for cell in cells):
            yield f"line {begin}", BLANK
        elif not headings:
            headings = cells
            if twice := sorted(cell for cell, count in Counter(headings).items() if cell and count > 1):
                raise DataError(f"it has two columns of one name: {', '.join(map(repr, twice))}")
        elif len(cells) != len(headings):
            code = "surplus_cells" if len(cells) > len(headings) else "missing_cells"
            yield f"line {begin}", UnreadableRecord(code, ",".join(cells))
        else:
            yield f"line {begin}", {key: cell or None for key, cell in zip(headings, cells, strict=True)}


def _whole_lines(file: TextIO) -> Iterator[str]:
    for line in lines(file):
        if line is None:
            raise DataError(f"one of its lines has more than {MOST_LETTERS} letters")
        yield line


def _blank_lines(text: Iterator[str]) -> Iterator[str]:
    """The lines up to the first that is not blank."""
    for line in text:
        yield line
        if line.strip():
            return


def _check_commas(before: Iterable[str]) -> None:
    """Refuse a table whose headings are separated by something else, as spreadsheets write it in some countries."""
    headings = "".join(before).strip()
    for mark, marks in ((";", "semicolons"), ("\t", "tabs")):
        if mark in headings and "," not in headings:
            raise DataError(
                f"it seems to be separated by {marks}: its headings are {headings[:200]!r}. "
                "A CSV file has commas between its cells; save it with those."
            )


def _hub(kind: str, source: str, options: ReadOptions) -> Records:
    from datasets import load_dataset

    try:
        dataset = load_dataset(source, split=options.split, revision=options.revision, data_dir=options.data_dir)
        yield from ((f"row {number}", record) for number, record in enumerate(dataset, 1))
    except Exception as error:  # the hub client raises a dozen unrelated classes; the user needs one sentence
        raise DataError(
            f"data.{kind}: the hub dataset {source!r} (data.split: {options.split!r}) could not be loaded: {error}"
        ) from error
