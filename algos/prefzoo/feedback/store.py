"""One SQLite file with items, annotators and their answers.

Each answer is on the disk when `record` returns: the file is in write-ahead-log mode with full synchronisation. Several
threads and processes may use one file.
"""

from __future__ import annotations

import json
import math
import secrets
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from prefzoo.feedback.annotator_queues import AnnotatorQueues, item_of, token_hash
from prefzoo.feedback.export_answers import export_answers
from prefzoo.feedback.feedback_types import (
    Answer,
    AnsweredAlready,
    FeedbackError,
    Item,
    check_item,
    check_value,
)

LONGEST_NAME = 100


class FeedbackStore(AnnotatorQueues):
    """A file of feedback, made where there is none.

    Args:
        path: of the file.
        rng: draws what is shown next and in which order; the system's randomness by default.

    Raises:
        PrefzooError: when the file is of another version, no file of ours, or cannot be opened.
    """

    def add_items(self, items: Iterable[Item]) -> int:
        """Add those items whose id is not there yet; return how many. Raises FeedbackError for one that cannot be
        shown."""
        items = list(items)
        for item in items:
            check_item(item)
        added = 0
        with self.together() as db:
            position = db.execute("SELECT coalesce(max(position) + 1, 0) FROM items").fetchone()[0]
            for item in items:
                added += db.execute(
                    "INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        item.item_id,
                        item.kind,
                        json.dumps(item.prompt),
                        json.dumps(item.replies),
                        item.source,
                        position + added if item.position is None else item.position,
                        item.probability,
                        None if item.gold is None else json.dumps(item.gold),
                        item.uncertainty,
                        time.time() if item.created is None else item.created,
                    ),
                ).rowcount
        return added

    def items(self, kind: str | None = None) -> list[Item]:
        """The items by position."""
        rows = self._connection().execute(
            "SELECT * FROM items WHERE kind = coalesce(?, kind) ORDER BY position, item_id", (kind,)
        )
        return [item_of(row) for row in rows]

    def item(self, item_id: str) -> Item:
        """The item of this id. Raises FeedbackError where there is none."""
        row = self._connection().execute("SELECT * FROM items WHERE item_id = ?", (item_id,)).fetchone()
        if row is None:
            raise FeedbackError("there is no such item")
        return item_of(row)

    def add_annotator(self, name: str) -> str:
        """Add an annotator, or give one who is there another token; return the token, of which only a hash is kept."""
        if not _is_name(name):
            raise FeedbackError(f"a name has 1 to {LONGEST_NAME} letters that can be seen (got {name[:120]!r})")
        token = secrets.token_urlsafe(24)
        with self.together() as db:
            db.execute(
                "INSERT INTO annotators VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET token_hash = excluded.token_hash",
                (name, token_hash(token), time.time()),
            )
        return token

    def annotators(self) -> list[str]:
        """The names, in the order in which they came."""
        return [row[0] for row in self._connection().execute("SELECT name FROM annotators ORDER BY created, name")]

    def open_session(self, annotator: str) -> str:
        """A token for one browser of this annotator, who may use several."""
        token = secrets.token_urlsafe(24)
        with self.together() as db:
            db.execute("INSERT INTO sessions VALUES (?, ?, ?)", (token_hash(token), annotator, time.time()))
        return token

    def annotator_of(self, token: str) -> str | None:
        """Whose token this is, that of a link or of a session; None for any other text."""
        row = self._connection().execute(
            "SELECT name FROM annotators WHERE token_hash = :hash "
            "UNION SELECT annotator FROM sessions WHERE token_hash = :hash",
            {"hash": token_hash(token)},
        )
        found = row.fetchone()
        return None if found is None else str(found[0])

    def close_session(self, token: str) -> None:
        """Forget a session's token."""
        with self.together() as db:
            db.execute("DELETE FROM sessions WHERE token_hash = ?", (token_hash(token),))

    def record(self, answer: Answer) -> bool:
        """Write an answer, so that it is on the disk on return; False where it was there already.

        Raises:
            AnsweredAlready: when another live answer of this annotator to this item is there, or another of its id.
            FeedbackError: when there is no such item or annotator, or it is no answer to such an item.
        """
        item = self.item(answer.item_id)
        if answer.kind != item.kind:
            raise FeedbackError(f"the item asks for {item.kind!r}, not {answer.kind!r}")
        if answer.shown_order and sorted(answer.shown_order) != list(range(len(item.replies))):
            raise FeedbackError("shown_order is no order of the item's replies")
        if not (_is_name(answer.answer_id) and math.isfinite(answer.seconds)):
            raise FeedbackError(f"an answer has an id of 1 to {LONGEST_NAME} letters, and takes a finite time")
        check_value(item, answer.value)
        new = (answer.item_id, answer.annotator, answer.kind, json.dumps(answer.value, sort_keys=True))
        with self.together() as db:
            if not db.execute("SELECT 1 FROM annotators WHERE name = ?", (answer.annotator,)).fetchone():
                raise FeedbackError(f"there is no annotator {answer.annotator!r}")
            there = db.execute("SELECT * FROM answers WHERE answer_id = ?", (answer.answer_id,)).fetchone()
            if there is not None:
                if tuple(there[key] for key in ("item_id", "annotator", "kind", "value_json")) != new:
                    raise AnsweredAlready("an answer of this id is there, and says something else")
                return False
            try:
                db.execute(
                    "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        answer.answer_id,
                        *new,
                        json.dumps(list(answer.shown_order) or list(range(len(item.replies)))),
                        answer.seconds,
                        time.time() if answer.at is None else answer.at,
                        answer.undone_at,
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise AnsweredAlready("this item has an answer of yours already") from error
        return True

    def undo(self, annotator: str) -> Item | None:
        """Take an annotator's last live answer back; return its item, which is before the annotator again, or None
        where there was none."""
        with self.together() as db:
            last = db.execute(
                "SELECT rowid, item_id FROM answers WHERE annotator = ? AND undone_at IS NULL "
                "ORDER BY at DESC, rowid DESC LIMIT 1",
                (annotator,),
            ).fetchone()
            if last is None:
                return None
            now = time.time()
            db.execute("UPDATE answers SET undone_at = ? WHERE rowid = ?", (now, last["rowid"]))
            db.execute("UPDATE draws SET at = ? WHERE item_id = ? AND annotator = ?", (now, last["item_id"], annotator))
        return self.item(last["item_id"])

    def take_back(self, annotator: str, answer_id: str) -> bool:
        """Take one answer of an annotator back; False where that was done already.

        Raises:
            FeedbackError: when this annotator gave no such answer.
        """
        with self.together() as db:
            there = db.execute(
                "SELECT undone_at FROM answers WHERE answer_id = ? AND annotator = ?", (answer_id, annotator)
            ).fetchone()
            if there is None:
                raise FeedbackError("there is no such answer of yours")
            db.execute(
                "UPDATE answers SET undone_at = ? WHERE answer_id = ? AND undone_at IS NULL", (time.time(), answer_id)
            )
        return there["undone_at"] is None

    def answers(self, kind: str | None = None, live: bool = True) -> list[Answer]:
        """The answers by time; `live` leaves out those that were undone."""
        rows = self._connection().execute(
            "SELECT answers.*, draws.probability FROM answers LEFT JOIN draws USING (item_id, annotator) "
            "WHERE kind = coalesce(?, kind) AND (undone_at IS NULL OR NOT ?) ORDER BY answers.at, answers.rowid",
            (kind, live),
        )
        return [answer_of(row) for row in rows]

    def export(self, path: Path | str, kind: str) -> dict[str, int]:
        """Write the live answers of one kind as a JSONL file that `data:` reads; see `export_answers`."""
        return export_answers(self.items(kind), self.answers(kind), Path(path), kind)


def answer_of(row: sqlite3.Row) -> Answer:
    """The answer in a row of the table `answers`, joined with the probability of its draw."""
    return Answer(
        answer_id=row["answer_id"],
        item_id=row["item_id"],
        annotator=row["annotator"],
        kind=row["kind"],
        value=json.loads(row["value_json"]),
        shown_order=json.loads(row["shown_order_json"]),
        seconds=row["seconds"],
        at=row["at"],
        undone_at=row["undone_at"],
        probability=row["probability"],
    )


def _is_name(text: str) -> bool:
    return bool(text.strip()) and len(text) <= LONGEST_NAME and text.isprintable()
