"""Records out of files and hub data sets, whatever they hold."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

from prefzoo.data.read_result import Pairs
from prefzoo.data.rejects import UnreadableRecord, type_name
from prefzoo.data.vote_aggregation import VoteRule, voted_on
from prefzoo.errors import DataError, unknown

TABLE_ENDINGS = (".jsonl", ".json", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz", ".parquet")
TEXT_ENDINGS = (".txt", ".txt.gz")

_OF_PROMPTS = ("system", "group")
_PREFERENCES = "prompt chosen rejected completion label response_a response_b preference annotator"
COLUMNS: dict[str, tuple[str, ...]] = {
    "preferences": (*_PREFERENCES.split(), *_OF_PROMPTS),
    "rankings": ("prompt", "responses", "ranks", "ranking", "annotator", *_OF_PROMPTS),
    "ratings": ("prompt", "response", "rating", "responses", "ratings", "annotator", *_OF_PROMPTS),
    "demonstrations": ("prompt", "completion", "messages", *_OF_PROMPTS),
    "prompts": ("prompt", *_OF_PROMPTS),
}
"""What a recipe may give under `data:`, and the columns that are read of each."""

ALIASES = {"question": "prompt", "completions": "responses", "scores": "ratings"}
"""Other names that data sets use for these columns; a column of the first name is only read where the second is not."""

Records = Iterator[tuple[str, Any]]
"""Pairs of where a record stands (`"line 17"`), and the record."""


@dataclass(frozen=True)
class ReadOptions:
    """How a file or hub data set is read.

    Attributes:
        columns: our name of a column -> the name that it has in the data.
        split, revision, data_dir: of a hub data set.
        annotators: the rule by which votes become preferences.
        pairs: which pairs are made of rankings and ratings; replies of equal rank are never paired.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    revision: str | None = None
    data_dir: str | None = None
    annotators: VoteRule = "majority"
    pairs: Pairs = "all"


def source_problem(source: str, kind: str = "preferences") -> str | None:
    """A sentence if `source` is neither a file that can be read nor a hub id; None if it may be one."""
    path = Path(source).expanduser()
    endings = (*TEXT_ENDINGS, *TABLE_ENDINGS)
    allowed = endings if kind == "prompts" else TABLE_ENDINGS
    listed = ", ".join(allowed)
    if path.is_file():
        return None if source.endswith(allowed) else f"{source!r} does not end in one of {listed}"
    if path.is_dir():
        return f"{source!r} is a folder; name a file in it ({listed})"
    if path.exists() or source.endswith(endings) or source.startswith((".", "/", "~")) or source.count("/") != 1:
        return f"{source!r} is neither a file ({listed}) nor a hub id (owner/name)"
    return None


def read_records(kind: str, source: str, options: ReadOptions | None = None) -> Records:
    """`("line 17", record)` for everything in `source`, with columns under the names of `COLUMNS[kind]`.

    A record is a dictionary; `UnreadableRecord` for a line or row that holds none, a blank one included; or whatever
    else stands there, which no format will be able to read. A line is the file's own (of CSV, where the row begins, the
    headings being line 1), a row one of a table that has no lines, an item one of a JSON list; all count from 1.

    Raises:
        DataError: when the source does not exist or is no such file, or a column of `options.columns` is not there.
    """
    options = options or ReadOptions()
    if problem := source_problem(source, kind):
        raise DataError(f"data.{kind}: {problem}.")
    path = Path(source).expanduser()
    names = {ours: theirs for ours, theirs in options.columns.items() if ours in COLUMNS[kind]}
    checked = False
    for row_id, record in _file(kind, path) if path.is_file() else _hub(kind, source, options):
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
        raise DataError("\n".join(problems))


def _renamed(record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    renamed = {**record, **{ours: record[theirs] for ours, theirs in names.items() if theirs in record}}
    for theirs, ours in ALIASES.items():
        if theirs in renamed and ours not in renamed:
            renamed[ours] = renamed[theirs]
    return renamed


def _file(kind: str, path: Path) -> Records:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet(kind, path)
        return
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        try:
            # Some editors and spreadsheets begin a file with a byte order mark, which `utf-8-sig` leaves out.
            with opener(path, "rt", encoding="utf-8-sig", newline="" if name.endswith(".csv") else None) as file:
                yield from _text(kind, name, cast(TextIO, file))
        except UnicodeDecodeError as error:
            raise DataError(f"data.{kind}: {str(path)!r} cannot be read: {_not_utf8(path, opener)}") from error
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"data.{kind}: {str(path)!r} cannot be read: {error}") from error


def _not_utf8(path: Path, opener: Callable[..., Any]) -> str:
    with opener(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02x} in line {number} is not UTF-8"
                return f"{byte}. Save the file as UTF-8 (iconv -f WINDOWS-1252 -t UTF-8, if it is from Windows)."
    raise AssertionError("a file that is not UTF-8 has a line that is not")


def _text(kind: str, name: str, file: TextIO) -> Records:
    if name.endswith(".json"):
        yield from ((f"item {number}", record) for number, record in enumerate(_json(kind, name, file), 1))
    elif name.endswith(".csv"):
        yield from _csv(kind, name, file)
    else:
        read_line = _json_line if not name.endswith(".txt") else lambda line: {"prompt": line.strip()}
        for number, line in enumerate(file, 1):
            yield f"line {number}", read_line(line) if line.strip() else UnreadableRecord("blank", "")


def _json(kind: str, name: str, file: TextIO) -> list[Any]:
    try:
        content = json.load(file, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        hint = " A file with a record in each line ends in .jsonl." if "Extra data" in str(error) else ""
        raise DataError(f"data.{kind}: {name!r} is not JSON: {error}.{hint}") from error
    if not isinstance(content, list):
        raise DataError(f"data.{kind}: {name!r} holds {type_name(content)}, not a list of records")
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
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return record


def _csv(kind: str, name: str, file: TextIO) -> Records:
    """Rows by the line on which they begin: a quoted cell may go over several, and the headings are line 1."""
    _check_commas(kind, name, file)
    csv.field_size_limit(2**31 - 1)  # a transcript may be longer than the default of 128 KiB
    reader = csv.reader(file, strict=True)  # else a quote that is never closed swallows the rest of the file
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
                    f"data.{kind}: {name!r} is not CSV: the quotes of the row that begins in line {begin} do not end "
                    f"where its cell does ({error}). A quote within a quoted cell is written twice."
                ) from error
            yield f"line {begin}", UnreadableRecord("broken_quotes", str(error))
            continue
        if not any(cell.strip() for cell in cells):
            yield f"line {begin}", UnreadableRecord("blank", "")
        elif not headings:
            headings = cells
            if twice := sorted({cell for cell in headings if cell and headings.count(cell) > 1}):
                raise DataError(f"data.{kind}: {name!r} has two columns of one name: {', '.join(map(repr, twice))}")
        elif len(cells) != len(headings):
            code = "surplus_cells" if len(cells) > len(headings) else "missing_cells"
            yield f"line {begin}", UnreadableRecord(code, ",".join(cells))
        else:
            yield f"line {begin}", {key: cell or None for key, cell in zip(headings, cells, strict=True)}


def _check_commas(kind: str, name: str, file: TextIO) -> None:
    """Refuse a table whose headings are separated by something else, as spreadsheets write it in some countries."""
    headings = next((line for line in file if line.strip()), "")
    file.seek(0)
    for mark, marks in ((";", "semicolons"), ("\t", "tabs")):
        if mark in headings and "," not in headings:
            raise DataError(
                f"data.{kind}: {name!r} seems to be separated by {marks}: its headings are {headings.strip()!r}. "
                "A CSV file has commas between its cells; save it with those."
            )


def _parquet(kind: str, path: Path) -> Records:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        records = (record for batch in batches for record in batch.to_pylist())
        yield from ((f"row {number}", record) for number, record in enumerate(records, 1))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"data.{kind}: {str(path)!r} cannot be read: {error}") from error


def _hub(kind: str, source: str, options: ReadOptions) -> Records:
    from datasets import load_dataset

    try:
        dataset = load_dataset(source, split=options.split, revision=options.revision, data_dir=options.data_dir)
    except Exception as error:  # the hub client raises a dozen unrelated classes; the user needs one sentence
        raise DataError(
            f"data.{kind}: the hub dataset {source!r} (data.split: {options.split!r}) could not be loaded: {error}"
        ) from error
    yield from ((f"row {number}", record) for number, record in enumerate(dataset, 1))
