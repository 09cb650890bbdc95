"""Questions for a client of a server, and waiting for what it does."""

from __future__ import annotations

import time


def questions(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"question {i}"}] for i in range(count)]


def number(seen) -> int:
    return int(seen.question.split()[1])


def wait_until(true, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
