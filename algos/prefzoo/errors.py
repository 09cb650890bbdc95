"""Errors that a user can mend, and the nearest right spelling of a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PrefzooError(Exception):
    """A problem with what the user asked for; its message is meant to be read without a traceback."""


class RecipeError(PrefzooError):
    """Everything that is wrong with a recipe, at once.

    Attributes:
        problems: a sentence each, naming the key, the value and what is allowed.
    """

    def __init__(self, where: str, problems: Iterable[str]) -> None:
        self.where = where
        self.problems = list(problems)
        count = f"{len(self.problems)} mistake{'s' if len(self.problems) != 1 else ''}"
        super().__init__(f"{where}: {count}\n" + "\n".join(f"  - {problem}" for problem in self.problems))


class DataError(PrefzooError):
    """Data that cannot be read, or of which nothing usable is left."""


def with_full_stop(text: str) -> str:
    """Return a text with one full stop at its end, whether or not it had one."""
    return f"{text.rstrip().rstrip('.')}."


def nearest(word: object, allowed: Iterable[str]) -> str | None:
    """The one of `allowed` that was probably meant; among equally close ones, one that begins with the same letter."""
    meant, names = str(word), [str(name) for name in allowed]
    close = difflib.get_close_matches(meant, names, n=max(1, len(names)), cutoff=0.6)
    return max(
        close,
        key=lambda name: (difflib.SequenceMatcher(None, name, meant).ratio(), name[:1] == meant[:1]),
        default=None,
    )


def did_you_mean(word: object, allowed: Iterable[str]) -> str:
    """`" Did you mean 'dpo'?"` when one of `allowed` is close to `word`, else the empty string."""
    meant = nearest(word, allowed)
    return f" Did you mean {meant!r}?" if meant else ""


def unknown(kind: str, word: object, allowed: Iterable[str]) -> str:
    """One sentence for a name that does not exist: what it was, what exists, what was probably meant."""
    names = sorted(set(allowed))
    if len(names) > 30:  # TRL's configs have well over a hundred fields
        near = difflib.get_close_matches(str(word), names, n=5, cutoff=0.5)
        listed = f"{len(names)} names, nearest: {', '.join(near) or 'none'}"
    else:
        listed = ", ".join(names) or "none"
    return f"unknown {kind} {word!r}.{did_you_mean(word, names)} Allowed: {listed}."
