"""The SQLite file that feedback is in: its tables, its connections, and what makes a write last."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from prefzoo.errors import PrefzooError

VERSION = 1
APPLICATION = 0x50465A4F
"""`PRAGMA application_id` of our files."""
BUSY_SECONDS = 30.0
SCHEMA = """
CREATE TABLE items (item_id TEXT PRIMARY KEY, kind TEXT NOT NULL, prompt_json TEXT NOT NULL,
    replies_json TEXT NOT NULL, source TEXT NOT NULL, position INTEGER NOT NULL, probability REAL NOT NULL,
    gold_json TEXT, uncertainty REAL, created REAL NOT NULL);
CREATE TABLE annotators (name TEXT PRIMARY KEY, token_hash TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE sessions (token_hash TEXT PRIMARY KEY, annotator TEXT NOT NULL REFERENCES annotators (name),
    created REAL NOT NULL);
CREATE TABLE answers (answer_id TEXT PRIMARY KEY, item_id TEXT NOT NULL REFERENCES items (item_id),
    annotator TEXT NOT NULL REFERENCES annotators (name), kind TEXT NOT NULL, value_json TEXT NOT NULL,
    shown_order_json TEXT NOT NULL, seconds REAL NOT NULL, at REAL NOT NULL, undone_at REAL);
CREATE UNIQUE INDEX one_live_answer ON answers (item_id, annotator) WHERE undone_at IS NULL;
CREATE INDEX answers_of ON answers (annotator, at);
CREATE TABLE draws (item_id TEXT NOT NULL REFERENCES items (item_id),
    annotator TEXT NOT NULL REFERENCES annotators (name), shown_order_json TEXT NOT NULL, rule TEXT NOT NULL,
    probability REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (item_id, annotator));
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def check_version(path: Path, db: sqlite3.Connection) -> None:
    """Raise PrefzooError for a database that is not one of feedback, or of another version."""
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise PrefzooError(f"{path} is a database, but not one of feedback; choose another file")
    if (version := db.execute("PRAGMA user_version").fetchone()[0]) != VERSION:
        raise PrefzooError(
            f"{path} has feedback in version {version} of its form, and this prefzoo reads version {VERSION}; use the "
            "prefzoo that wrote it, or choose another file"
        )


class FeedbackFile:
    """A file with the tables of `SCHEMA`, made where there is none; each thread and process has its own connection.

    Raises:
        PrefzooError: when it is of another version, no file of ours, or cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._local = threading.local()
        self._writing = threading.Lock()  # threads take turns without asking the file time and again
        with self.together() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            application = db.execute("PRAGMA application_id").fetchone()[0]
            if version == application == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute("INSERT INTO settings VALUES ('secret', ?)", (secrets.token_hex(32),))
                db.execute(f"PRAGMA user_version = {VERSION}")
                db.execute(f"PRAGMA application_id = {APPLICATION}")
            else:
                check_version(self.path, db)

    def _connection(self) -> sqlite3.Connection:
        if getattr(self._local, "process", None) != os.getpid():  # a connection must not cross a fork, or threads
            db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            db.row_factory = sqlite3.Row
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                db.execute(f"PRAGMA {pragma}")
            self._local.db, self._local.process = db, os.getpid()
        db = self._local.db
        assert isinstance(db, sqlite3.Connection)
        return db

    @contextlib.contextmanager
    def together(self) -> Iterator[sqlite3.Connection]:
        """A transaction that has the write lock from its beginning. Behind the outermost block it is on the disk; where
        an error leaves it, nothing is."""
        if getattr(self._local, "within", False):
            yield self._connection()
            return
        with self._writing:
            try:
                db = self._connection()
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise PrefzooError(f"{self.path} cannot be used as a file of feedback: {error}") from error
            self._local.within = True
            try:
                yield db
                db.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise PrefzooError(f"{self.path}: {error}; nothing was written") from error
                raise
            finally:
                self._local.within = False

    def close(self) -> None:
        """Close this thread's connection."""
        if getattr(self._local, "process", None) == os.getpid():
            self._local.db.close()
            self._local.process = None

    def setting(self, key: str, value: str | None = None) -> str | None:
        """A setting of this file; a `value` is written first."""
        if value is not None:
            with self.together() as db:
                db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, value))
        row = self._connection().execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])
