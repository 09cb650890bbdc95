"""One SQLite file with items, annotators and their answers.

Each answer is on the disk when `record` returns: the file is in write-ahead-log mode with full synchronisation. Several
threads and processes may use one file.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import random
import secrets
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from prefzoo.errors import PrefzooError, unknown
from prefzoo.feedback.choose_next import RULES, Candidate, Rule, choose, disagreement
from prefzoo.feedback.export_answers import export_answers
from prefzoo.feedback.feedback_file import FeedbackFile
from prefzoo.feedback.feedback_types import (
    Answer,
    AnsweredAlready,
    FeedbackError,
    Item,
    Shown,
    check_item,
    check_value,
)

GOLD_SHARE = 0.1
"""Of what an annotator is shown while gold questions are left."""
CLAIMED_SECONDS = 1800.0
"""For so long nobody else gets an item that is before somebody, unless it is one that everybody judges."""
LONGEST_NAME = 100
OVERLAP = 0.2
LEFT = """
SELECT items.item_id, items.uncertainty, items.gold_json IS NOT NULL AS is_gold,
    count(answers.answer_id) AS answered,
    count(answers.answer_id) > 0 OR EXISTS (SELECT 1 FROM draws WHERE draws.item_id = items.item_id
        AND draws.at > :since) AS claimed
FROM items LEFT JOIN answers ON answers.item_id = items.item_id AND answers.undone_at IS NULL
WHERE items.kind != 'thumb'
    AND NOT EXISTS (SELECT 1 FROM draws WHERE draws.item_id = items.item_id AND draws.annotator = :name)
    AND NOT EXISTS (SELECT 1 FROM answers AS own WHERE own.item_id = items.item_id AND own.annotator = :name
        AND own.undone_at IS NULL)
GROUP BY items.item_id ORDER BY items.position, items.item_id
"""
"""What an annotator was not shown yet. Claimed is what somebody else answered, or was shown a short while ago."""


def token_hash(token: str) -> str:
    """What is kept of a token: its SHA-256."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class Left(NamedTuple):
    """Ids of what an annotator could be shown: gold questions, items for everybody, items for one annotator."""

    gold: list[str]
    shared: list[str]
    free: list[str]


class FeedbackStore(FeedbackFile):
    """A file of feedback, made where there is none.

    Args:
        path: of the file.
        rng: draws what is shown next and in which order; the system's randomness by default.

    Raises:
        PrefzooError: when the file is of another version, no file of ours, or cannot be opened.
    """

    def __init__(self, path: Path | str, rng: random.Random | None = None) -> None:
        super().__init__(path)
        self._rng = rng or random.SystemRandom()
        self.secret = str(self.setting("secret"))

    def item_id(self, *content: Any) -> str:
        """An id for an item of this content: the same each time in this file, and nobody outside can guess from it what
        the content is."""
        said = json.dumps(content, sort_keys=True).encode()
        return hmac.new(bytes.fromhex(self.secret), said, hashlib.sha256).hexdigest()[:24]

    def add_items(self, items: Iterable[Item]) -> int:
        """Add those items whose id is not there yet; return how many. Raises FeedbackError for one that cannot be
        shown."""
        items = list(items)
        for item in items:
            check_item(item)
        added = 0
        with self._transaction() as db:
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
        return [_item(row) for row in rows]

    def item(self, item_id: str) -> Item:
        """The item of this id. Raises FeedbackError where there is none."""
        row = self._connection().execute("SELECT * FROM items WHERE item_id = ?", (item_id,)).fetchone()
        if row is None:
            raise FeedbackError("there is no such item")
        return _item(row)

    def add_annotator(self, name: str) -> str:
        """Add an annotator, or give one who is there another token; return the token, of which only a hash is kept."""
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise FeedbackError(f"a name has 1 to {LONGEST_NAME} letters that can be seen (got {name[:120]!r})")
        token = secrets.token_urlsafe(24)
        with self._transaction() as db:
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
        with self._transaction() as db:
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

    def current_item(self, annotator: str) -> Shown | None:
        """What is before an annotator now: drawn, and not yet answered; None where nothing is. Nothing is changed."""
        row = self._connection().execute(
            "SELECT items.*, draws.shown_order_json, draws.probability AS drawn FROM draws JOIN items USING (item_id) "
            "WHERE draws.annotator = ? AND NOT EXISTS (SELECT 1 FROM answers WHERE answers.item_id = draws.item_id "
            "AND answers.annotator = draws.annotator AND undone_at IS NULL) ORDER BY draws.at DESC LIMIT 1",
            (annotator,),
        )
        found = row.fetchone()
        return (
            None if found is None else Shown(_item(found), tuple(json.loads(found["shown_order_json"])), found["drawn"])
        )

    def next_item(self, annotator: str) -> Shown | None:
        """What is before an annotator, or else a new draw, which is written down; None when nothing is left.

        The setting `rule` says which items come first (`choose_next.Rule`), `overlap` which share of them every
        annotator gets. The others get one annotator each. Those of all stand in one random order, from which a uniform
        draw takes this share, so that annotators meet on them.
        """
        if (current := self.current_item(annotator)) is not None:
            return current
        rule, overlap = self._rule()
        with self._transaction() as db:
            left = self._left(db, annotator)
            if not (left.gold or left.shared or left.free):
                return None
            probability = 1.0
            if left.gold and (self._rng.random() < GOLD_SHARE or not (left.shared or left.free)):
                drawn = self._rng.choice(left.gold)
            elif rule == "uniform":
                from_shared = left.shared and (not left.free or self._rng.random() < overlap)
                drawn = min(left.shared, key=self._common) if from_shared else self._rng.choice(left.free)
                probability = 1 / len([*left.shared, *left.free])
            else:
                candidates = [self._candidate(db, item_id) for item_id in (*left.shared, *left.free)]
                drawn, probability = choose(candidates, rule, self._rng)
            item = _item(db.execute("SELECT * FROM items WHERE item_id = ?", (drawn,)).fetchone())
            order = self._rng.sample(range(len(item.replies)), len(item.replies))
            if rule != "uniform" and item.gold is None:
                db.execute(
                    "UPDATE items SET probability = ? WHERE item_id = ? AND item_id NOT IN (SELECT item_id FROM draws)",
                    (probability, drawn),
                )
            db.execute(
                "INSERT INTO draws VALUES (?, ?, ?, ?, ?, ?)",
                (drawn, annotator, json.dumps(order), rule, probability, time.time()),
            )
        return Shown(item, tuple(order), probability)

    def _rule(self) -> tuple[Rule, float]:
        rule = self.setting("rule") or "uniform"
        if rule not in RULES:
            raise PrefzooError(unknown("rule", rule, RULES))
        return rule, float(self.setting("overlap") or OVERLAP)

    def _left(self, db: sqlite3.Connection, annotator: str) -> Left:
        rule, overlap = self._rule()
        rows = db.execute(LEFT, {"name": annotator, "since": time.time() - CLAIMED_SECONDS}).fetchall()
        left = Left([], [], [])
        for row in rows:
            shared = self._common(row["item_id"]) < overlap
            if rule == "disagreement" and row["answered"] > 1:  # one who was not asked yet may decide it
                shared = shared or disagreement(self._candidate(db, row["item_id"]).others) > 0
            if row["is_gold"] or shared or not row["claimed"]:
                (left.gold if row["is_gold"] else left.shared if shared else left.free).append(row["item_id"])
        return left

    @staticmethod
    def _candidate(db: sqlite3.Connection, item_id: str) -> Candidate:
        uncertainty = db.execute("SELECT uncertainty FROM items WHERE item_id = ?", (item_id,)).fetchone()[0]
        said = db.execute("SELECT value_json FROM answers WHERE item_id = ? AND undone_at IS NULL", (item_id,))
        return Candidate(item_id, uncertainty, [json.loads(row[0]) for row in said])

    def _common(self, item_id: str) -> float:
        """A number from 0 to 1 that is an item's own: which are shared, and in which order, is chance."""
        return int(token_hash(self.secret + item_id)[:12], 16) / 16**12

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
        if not (1 <= len(answer.answer_id) <= LONGEST_NAME and math.isfinite(answer.seconds)):
            raise FeedbackError(f"an answer has an id of 1 to {LONGEST_NAME} letters, and takes a finite time")
        check_value(item, answer.value)
        new = (answer.item_id, answer.annotator, answer.kind, json.dumps(answer.value, sort_keys=True))
        with self._transaction() as db:
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
        with self._transaction() as db:
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

    def answers(self, kind: str | None = None, live: bool = True) -> list[Answer]:
        """The answers by time; `live` leaves out those that were undone."""
        rows = self._connection().execute(
            "SELECT answers.*, draws.probability FROM answers LEFT JOIN draws USING (item_id, annotator) "
            "WHERE kind = coalesce(?, kind) AND (undone_at IS NULL OR NOT ?) ORDER BY answers.at, answers.rowid",
            (kind, live),
        )
        return [_answer(row) for row in rows]

    def progress(self, annotator: str) -> dict[str, int]:
        """`{"answered": .., "left": ..}`; left are the items that this annotator could still get."""
        db = self._connection()
        answered = "SELECT count(*) FROM answers WHERE annotator = ? AND undone_at IS NULL"
        before = self.current_item(annotator) is not None
        return {
            "answered": db.execute(answered, (annotator,)).fetchone()[0],
            "left": sum(map(len, self._left(db, annotator))) + before,
        }

    def export(self, path: Path | str, kind: str) -> dict[str, int]:
        """Write the live answers of one kind as a JSONL file that `data:` reads; see `export_answers`."""
        return export_answers(self.items(kind), self.answers(kind), Path(path), kind)


def _item(row: sqlite3.Row) -> Item:
    return Item(
        item_id=row["item_id"],
        kind=row["kind"],
        prompt=json.loads(row["prompt_json"]),
        replies=json.loads(row["replies_json"]),
        source=row["source"],
        position=row["position"],
        probability=row["probability"],
        gold=None if row["gold_json"] is None else json.loads(row["gold_json"]),
        uncertainty=row["uncertainty"],
        created=row["created"],
    )


def _answer(row: sqlite3.Row) -> Answer:
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
