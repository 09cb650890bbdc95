"""Which policy answered whom: conversations and replies of a server, in the file of its feedback; imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefzoo.types import Prompt

TABLES = """
CREATE TABLE IF NOT EXISTS conversations(
    conversation_id TEXT PRIMARY KEY, policy TEXT NOT NULL, probability REAL NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS canaries(
    main TEXT NOT NULL, canary TEXT NOT NULL, share REAL NOT NULL, since REAL NOT NULL);
CREATE TABLE IF NOT EXISTS served_replies(
    reply_id TEXT PRIMARY KEY, conversation_id TEXT, policy TEXT NOT NULL, prompt_json TEXT NOT NULL,
    text TEXT NOT NULL, at REAL NOT NULL);
"""
SOURCE = "serve:"
"""What the source of an item begins with that a server's user gave; the conversation's name follows."""
LONGEST_NAME = 200
"""Letters of a client's name for a conversation that are kept; of a longer one a digest is."""
_POLICY_OF = "SELECT policy FROM conversations WHERE conversation_id = ?"


@dataclass(frozen=True)
class Canary:
    """A second policy that answers a share of the conversations, from 0 to 1."""

    policy: str
    share: float


@dataclass(frozen=True)
class ServedReply:
    """A reply that a user was shown."""

    reply_id: str
    conversation: str | None
    policy: str
    prompt: Prompt
    text: str


class Traffic:
    """The record of one server. Methods may be called from any thread.

    Args:
        path: the SQLite file, which `FeedbackStore` has made.
        main: the policy that answers.
        canary: answers some conversations instead.
    """

    def __init__(self, path: Path, main: str, canary: Canary | None) -> None:
        self.main, self.canary = main, canary
        self._lock = threading.Lock()
        self._draw = random.SystemRandom()
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(TABLES)
        if canary is not None:
            row = (main, canary.policy, canary.share, time.time())
            self._db.execute("INSERT INTO canaries VALUES (?, ?, ?, ?)", row)

    def policy_of(self, conversation: str) -> str:
        """The policy that answers a conversation, the same one from its first reply to its last."""
        with self._lock:
            kept = self._db.execute(_POLICY_OF, (conversation,)).fetchone()
            if kept is None:
                share = self.canary.share if self.canary is not None else 0.0
                drawn = self.canary is not None and self._draw.random() < share
                policy = self.canary.policy if drawn and self.canary is not None else self.main
                self._db.execute(
                    "INSERT OR IGNORE INTO conversations VALUES (?, ?, ?, ?)",
                    (conversation, policy, share if drawn else 1 - share, time.time()),
                )
                kept = self._db.execute(_POLICY_OF, (conversation,)).fetchone()  # another server may have been first
        served = (self.main, *([self.canary.policy] if self.canary is not None else []))
        return str(kept[0]) if kept[0] in served else self.main

    def keep(self, replies: Sequence[ServedReply]) -> None:
        """Record replies, so that feedback can name them."""
        rows = [
            (r.reply_id, r.conversation, r.policy, json.dumps(list(r.prompt), ensure_ascii=False), r.text, time.time())
            for r in replies
        ]
        with self._lock:
            self._db.executemany("INSERT OR REPLACE INTO served_replies VALUES (?, ?, ?, ?, ?, ?)", rows)

    def reply(self, reply_id: str) -> ServedReply | None:
        """A recorded reply; None where there is none of that name."""
        with self._lock:
            row = self._db.execute(
                "SELECT reply_id, conversation_id, policy, prompt_json, text FROM served_replies WHERE reply_id = ?",
                (reply_id,),
            ).fetchone()
        return ServedReply(row[0], row[1], row[2], json.loads(row[3]), row[4]) if row is not None else None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def split_conversations(path: Path) -> dict[tuple[str, str], dict[str, tuple[str, float]]]:
    """(main policy, canary) -> name of each conversation that was divided between them, its policy and the probability
    with which it got it; empty where no server with a canary has run."""
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'canaries'").fetchone():
            return {}
        tests = db.execute("SELECT DISTINCT main, canary FROM canaries ORDER BY since").fetchall()
        rows = db.execute(
            "SELECT conversation_id, policy, probability FROM conversations WHERE probability < 1"
        ).fetchall()
    return {
        (main, canary): {name: (policy, p) for name, policy, p in rows if policy in (main, canary)}
        for main, canary in tests
    }


def conversation_named(messages: Prompt, named: str | None) -> str:
    """The name of a conversation: as the client says, else after what it begins with, up to the first question."""
    if named:
        return f"client:{named}" if len(named) <= LONGEST_NAME else f"client:{_digest(named)}"
    first = next((i for i, turn in enumerate(messages) if turn["role"] == "user"), len(messages) - 1)
    return f"begins:{_digest(json.dumps(list(messages[: first + 1])))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
