"""Answers of a server, kept on disk, so that no question is paid for twice."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from prefzoo.atomic_files import text_sha256
from prefzoo.errors import PrefzooError


@dataclass(frozen=True)
class Answer:
    """What came of one question.

    Attributes:
        text, first, failure: as of `asking.Said`.
        prompt_tokens, completion_tokens: tokens of question and answer as the server counted them; None where it did
            not say.
        finished: False where the server says that it cut the answer.
    """

    text: str = ""
    first: Mapping[str, float] | None = None
    failure: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finished: bool = True


def key_of(request: Mapping[str, Any]) -> str:
    """The name under which the answer to a request is kept: a hash of all of it."""
    return text_sha256(json.dumps(request, sort_keys=True))


TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"


class AnswerCache:
    """Answers by request in an SQLite file, each written in a transaction of its own.

    Several processes may use it at once, and what was written before one of them is killed is there afterwards. Values
    are JSON, so that reading a file that somebody else made runs none of their code. SQLite's write-ahead log is what
    makes a transaction cheap: a rollback journal waits for the disk at every answer (15 ms here).

    Args:
        folder: where the file lies; made when it is first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "answers.sqlite"

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

    def find(self, connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Answer]:
        """Those of `keys` that were answered, with their answers."""
        rows = (connection.execute("SELECT key, answer FROM answers WHERE key = ?", (key,)).fetchone() for key in keys)
        return {row[0]: Answer(**json.loads(row[1])) for row in rows if row is not None}

    def keep(self, connection: sqlite3.Connection, key: str, answer: Answer) -> None:
        """Keep an answer. Where another process was faster, its answer stays."""
        connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, json.dumps(asdict(answer))))

    def __len__(self) -> int:
        with self.opened() as connection:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
