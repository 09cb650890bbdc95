"""What each annotator was shown, and what is shown next."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import sqlite3
import time
from pathlib import Path
from typing import Any, NamedTuple

from prefzoo.errors import PrefzooError, unknown
from prefzoo.feedback.choose_next import RULES, Candidate, Rule, choose, disagreement
from prefzoo.feedback.feedback_file import FeedbackFile
from prefzoo.feedback.feedback_types import KINDS, Item, Shown

GOLD_SHARE = 0.1
"""Of what an annotator is shown while gold questions are left."""
CLAIMED_SECONDS = 1800.0
"""For so long nobody else gets an item that is before somebody, unless it is one that everybody judges."""
OVERLAP = 0.2
LEFT = """
SELECT items.item_id, items.uncertainty, items.gold_json IS NOT NULL AS is_gold,
    count(answers.answer_id) AS answered,
    count(answers.answer_id) > 0 OR EXISTS (SELECT 1 FROM draws WHERE draws.item_id = items.item_id
        AND draws.at > :since) AS claimed
FROM items LEFT JOIN answers ON answers.item_id = items.item_id AND answers.undone_at IS NULL
WHERE items.kind IN (SELECT value FROM json_each(:kinds))
    AND NOT EXISTS (SELECT 1 FROM draws WHERE draws.item_id = items.item_id AND draws.annotator = :name)
    AND NOT EXISTS (SELECT 1 FROM answers AS own WHERE own.item_id = items.item_id AND own.annotator = :name
        AND own.undone_at IS NULL)
GROUP BY items.item_id ORDER BY items.position, items.item_id
"""
"""What an annotator was not shown yet. Claimed is what somebody else answered, or was shown a short while ago."""


DRAWN = """
SELECT items.*, draws.shown_order_json, draws.probability AS drawn FROM draws JOIN items USING (item_id)
WHERE draws.annotator = ? """


def token_hash(token: str) -> str:
    """What is kept of a token: its SHA-256."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class Left(NamedTuple):
    """Ids of what an annotator could be shown: gold questions, items for everybody, items for one annotator."""

    gold: list[str]
    shared: list[str]
    free: list[str]


class AnnotatorQueues(FeedbackFile):
    """The part of a `FeedbackStore` that says what is before whom.

    Args:
        path: of the file.
        rng: draws what is shown next and in which order; the system's randomness by default.
    """

    def __init__(self, path: Path | str, rng: random.Random | None = None) -> None:
        super().__init__(path)
        self._rng = rng or random.SystemRandom()
        self.secret = str(self.setting("secret"))
        self._places: dict[str, float] = {}

    def item_id(self, *content: Any) -> str:
        """An id for an item of this content: the same each time in this file, and nobody outside can guess from it what
        the content is."""
        said = json.dumps(content, sort_keys=True).encode()
        return hmac.new(bytes.fromhex(self.secret), said, hashlib.sha256).hexdigest()[:24]

    def current_item(self, annotator: str) -> Shown | None:
        """What is before an annotator now: drawn, and not yet answered; None where nothing is. Nothing is changed."""
        row = self._connection().execute(
            DRAWN + "AND NOT EXISTS (SELECT 1 FROM answers WHERE answers.item_id = draws.item_id "
            "AND answers.annotator = draws.annotator AND undone_at IS NULL) ORDER BY draws.at DESC LIMIT 1",
            (annotator,),
        )
        return _shown(row.fetchone())

    def drawn(self, annotator: str, item_id: str) -> Shown | None:
        """An item as it was shown to an annotator, answered or not; None where it never was."""
        row = self._connection().execute(DRAWN + "AND draws.item_id = ?", (annotator, item_id))
        return _shown(row.fetchone())

    def next_item(self, annotator: str) -> Shown | None:
        """What is before an annotator, or else a new draw, which is written down; None when nothing is left.

        The setting `rule` says which items come first (`choose_next.Rule`), `kinds` (a list in JSON) which are asked
        about, all but thumbs where it is not set, and `overlap` which share of items every annotator gets. The others
        get one annotator each. Those of all stand in one random order, from which a uniform draw takes this share, so
        that annotators meet on them.
        """
        rule, overlap = self._rule()
        with self.together() as db:
            if (current := self.current_item(annotator)) is not None:
                return current
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
            item = item_of(db.execute("SELECT * FROM items WHERE item_id = ?", (drawn,)).fetchone())
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
        kinds = self.setting("kinds") or json.dumps([kind for kind in KINDS if kind != "thumb"])
        since = time.time() - CLAIMED_SECONDS
        rows = db.execute(LEFT, {"name": annotator, "since": since, "kinds": kinds}).fetchall()
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
        if (place := self._places.get(item_id)) is None:
            place = self._places[item_id] = int(token_hash(self.secret + item_id)[:12], 16) / 16**12
        return place

    def progress(self, annotator: str) -> dict[str, int]:
        """`{"answered": .., "left": ..}`; left are the items that this annotator could still get."""
        db = self._connection()
        answered = "SELECT count(*) FROM answers WHERE annotator = ? AND undone_at IS NULL"
        before = self.current_item(annotator) is not None
        return {
            "answered": db.execute(answered, (annotator,)).fetchone()[0],
            "left": sum(map(len, self._left(db, annotator))) + before,
        }


def item_of(row: sqlite3.Row) -> Item:
    """The item in a row of the table `items`."""
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


def _shown(row: sqlite3.Row | None) -> Shown | None:
    return None if row is None else Shown(item_of(row), tuple(json.loads(row["shown_order_json"])), row["drawn"])
