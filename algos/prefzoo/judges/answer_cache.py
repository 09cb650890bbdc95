"""A cache of a server's responses on disk, so that no question is paid for twice."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from prefzoo.atomic_files import text_sha256
from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import Response


def cache_key(request: Mapping[str, Any]) -> str:
    """The SHA-256 of all of a request; its response is cached under it."""
    return text_sha256(json.dumps(request, sort_keys=True))


TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"


ON_HOST = "PREFZOO_JOB_HOST"
"""Names the host in the environment of stages that run as jobs of a cluster."""


class AnswerCache:
    """Responses by request in an SQLite file, each written in a transaction of its own.

    Several processes may use it at once, and what was written before one of them is killed is there afterwards. Values
    are JSON, so that reading a file that somebody else made runs none of their code. SQLite's write-ahead log is what
    makes a transaction cheap: a rollback journal waits for the disk at every answer (15 ms here). That log is memory
    which processes share, so that each host of a cluster (`ON_HOST`) has a file of its own.

    Args:
        folder: where the file lies; made when it is first needed.
    """

    def __init__(self, folder: Path) -> None:
        host = os.environ.get(ON_HOST)
        self.path = folder / (f"answers-{host}.sqlite" if host else "answers.sqlite")

    @contextlib.contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """A connection for a while; a process that is forked in between thus shares none.

        Raises:
            PrefzooError: when the file cannot be read or written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PrefzooError(f"{self.path.parent}: the judge's answers cannot be kept there: {error}") from error
        try:
            # Used by one thread at a time: the one that waits, or the one that asks.
            opening = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            with contextlib.closing(opening) as connection:
                # SQLite waits for other writers, but not for one who is changing the kind of its log.
                with FileLock(self.path.with_suffix(".lock")):
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute("PRAGMA synchronous=NORMAL")
                    connection.execute(TABLE)
                yield connection
        except sqlite3.Error as error:
            raise PrefzooError(f"{self.path}: the judge's answers cannot be kept there: {error}") from error

    def find(self, connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Response]:
        """The cached responses among those of `keys`."""
        rows = (connection.execute("SELECT key, answer FROM answers WHERE key = ?", (key,)).fetchone() for key in keys)
        records = {row[0]: json.loads(row[1]) for row in rows if row is not None}
        return {key: Response(first_token=record.pop("first"), **record) for key, record in records.items()}

    def keep(self, connection: sqlite3.Connection, key: str, response: Response) -> None:
        """Write a response. Where another process was faster, its response stays."""
        record = asdict(response)
        record["first"] = record.pop("first_token")  # as the files of older runs call it
        connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, json.dumps(record)))

    def __len__(self) -> int:
        with self.opened() as connection:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
