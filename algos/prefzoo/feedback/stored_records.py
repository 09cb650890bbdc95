"""What people said in a store of feedback, as records of `data:`, at one moment."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefzoo.data.read_files import is_database
from prefzoo.data.rejects import UnreadableRecord
from prefzoo.errors import DataError
from prefzoo.feedback.annotator_queues import item_of
from prefzoo.feedback.export_answers import DATA_KINDS, record
from prefzoo.feedback.feedback_file import BUSY_SECONDS, check_version
from prefzoo.feedback.store import answer_of


@dataclass(frozen=True)
class StoreRecords:
    """The live answers of a store that are of one kind of data.

    Attributes:
        records: `("answer 1", record)`, in the order in which they were given; an `UnreadableRecord` for an answer that
            is no data.
        others: kind of answer -> how many there are that this kind of data does not read.
    """

    records: list[tuple[str, Any]]
    others: dict[str, int]

    @property
    def sha256(self) -> str:
        """A hash of what was said, whatever else the file holds and however it is written."""
        said = [r.reason if isinstance(r, UnreadableRecord) else r for _, r in self.records]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def is_store(source: str) -> bool:
    """Whether a source of rows is an SQLite database, by its content."""
    try:
        path = Path(source).expanduser()
        return path.is_file() and is_database(path)
    except (OSError, RuntimeError, ValueError):
        return False


def read_store(source: str, kind: str) -> StoreRecords:
    """Read a store in one transaction, so that answers that are being written are there whole or not at all. Nothing
    is changed.

    Args:
        source: the file.
        kind: of data, as under `data:`.

    Raises:
        DataError: when it is no store of feedback, or cannot be read.
        PrefzooError: when it is of another version.
    """
    path = Path(source).expanduser()
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("BEGIN")
            check_version(path, db)
            items = {row["item_id"]: item_of(row) for row in db.execute("SELECT * FROM items")}
            rows = db.execute(
                "SELECT answers.*, draws.probability FROM answers LEFT JOIN draws USING (item_id, annotator) "
                "WHERE undone_at IS NULL ORDER BY answers.at, answers.rowid"
            ).fetchall()
    except sqlite3.Error as error:
        raise DataError(f"{str(path)!r} cannot be read as a store of feedback: {error}") from error
    records: list[tuple[str, Any]] = []
    others: dict[str, int] = {}
    for number, answer in enumerate(map(answer_of, rows), 1):
        item = items[answer.item_id]
        if DATA_KINDS.get(answer.kind) != kind:
            others[answer.kind] = others.get(answer.kind, 0) + 1
        elif item.gold is not None:
            records.append((f"answer {number}", UnreadableRecord("gold_question", item.prompt[-1]["content"])))
        elif answer.kind == "rank" and len(set(answer.value["ranks"])) == 1:
            records.append((f"answer {number}", UnreadableRecord("all_tied", item.prompt[-1]["content"])))
        else:
            records.append((f"answer {number}", record(item, answer)))
    return StoreRecords(records, others)
