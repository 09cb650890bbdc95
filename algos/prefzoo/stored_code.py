"""Code that a description on disk would have run: that of a model, or a function from a file. It runs where the recipe
says so, or the caller; never because a folder says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from prefzoo.errors import PrefzooError

REMOTE = "trust_remote_code"
_allowed: ContextVar[frozenset[str] | None] = ContextVar("allowed", default=frozenset())


def code_in(content: Any) -> frozenset[str]:
    """What a description of a policy, a reward, a judge or a recipe would run: `trust_remote_code`, functions as
    FILE.py:NAME, and kernels for attention from the hub."""
    if isinstance(content, list | tuple):
        return frozenset(code for item in content for code in code_in(item))
    found: set[str] = set()
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if key == REMOTE and value:
            found.add(REMOTE)
        elif key in ("path", "gold") and isinstance(value, str) and ".py:" in value:
            found.add(value)
        elif key == "attn_implementation" and "/" in str(value):
            found.add(f"attn_implementation {value}")
        else:
            found |= code_in(value)
    return frozenset(found)


@contextlib.contextmanager
def allowing(code: Iterable[str] | None) -> Iterator[None]:
    """Within this block `check_code` lets this code pass; None is all code."""
    token = _allowed.set(None if code is None else frozenset(code))
    try:
        yield
    finally:
        _allowed.reset(token)


def check_code(content: Any, where: object) -> None:
    """Refuse a description that would run code which is not allowed here.

    Raises:
        PrefzooError: naming the code, and `where` it was asked for.
    """
    allowed = _allowed.get()
    if allowed is not None and (refused := sorted(code_in(content) - allowed)):
        raise PrefzooError(
            f"{where} would run code: {', '.join(refused)}. If you trust who made it, say --run-code on the command "
            "line, or run_code=True in Python."
        )
