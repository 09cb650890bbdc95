"""Errors that a user can mend, and the nearest right spelling of a name."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache

LONGEST = 60
"""Letters of a word that is looked up; longer ones are no misspelt names."""
MOST_SHOWN = 100
"""Mistakes of one recipe that are told one by one."""


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
        shown = self.problems[:MOST_SHOWN]
        more = [f"and {len(self.problems) - MOST_SHOWN} more"] if len(self.problems) > MOST_SHOWN else []
        super().__init__(f"{where}: {count}\n" + "\n".join(f"  - {problem}" for problem in [*shown, *more]))


class WaitsForPeople(PrefzooError):
    """Work that goes on when people have answered; its message says what it waits for, and what to do."""


class DataError(PrefzooError):
    """Data that cannot be read, or of which nothing usable is left."""


_OS_ADVICE = {
    errno.ENOSPC: "make room on that disk and run the same command again",
    errno.EDQUOT: "your share of that disk is used up; make room and run the same command again",
    errno.EFBIG: "a file may not grow that large here (ulimit -f); raise the limit and run the same command again",
    errno.EROFS: "choose a folder that can be written (--out)",
    errno.EACCES: "choose a folder that you may use (--out), or change its permissions",
    errno.EPERM: "choose a folder that you may use (--out), or change its permissions",
    errno.ENAMETOOLONG: "choose a shorter name (--out)",
    errno.ELOOP: "its symbolic links go in a circle; choose another folder (--out)",
    errno.ENOTDIR: "a file, or a link that leads nowhere, stands where a folder is needed; choose another (--out)",
    errno.EEXIST: "a file, or a link that leads nowhere, stands where a folder is needed; choose another (--out)",
    errno.EISDIR: "a folder stands where a file is needed; move it away",
    errno.ENOENT: "was it removed or moved meanwhile? Run the same command again",
    errno.EMFILE: "too many files are open (ulimit -n); raise the limit and run the same command again",
    errno.ENOMEM: "free memory and run the same command again",
}
_OS_ADVICE[errno.ENOTEMPTY] = _OS_ADVICE[errno.ESTALE] = _OS_ADVICE[errno.ENOENT]


def os_error_text(error: OSError, doing: str) -> str:
    """A sentence for an error of the system: the path, what was being done, and what to do."""
    if error.errno is None:  # a library's, in its own words
        return f"while {doing}: {' '.join(str(error).split()) or type(error).__name__}"
    reason = error.strerror or os.strerror(error.errno)
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    path = path if len(path) <= 300 else f"{path[:150]}...{path[-50:]}"
    place = f"{path}: " if path and path not in doing else ""
    advice = _OS_ADVICE.get(error.errno, "check the disk and the folder, and run the same command again")
    return f"{place}{reason} (while {doing}); {advice}"


@contextlib.contextmanager
def os_errors_told(doing: str) -> Iterator[None]:
    """Turn the system's errors (a full disk, a folder that is gone) into a `PrefzooError` that says what to do.

    Args:
        doing: what is being done meanwhile, such as `"comparing"`.
    """
    try:
        yield
    except OSError as error:
        raise PrefzooError(os_error_text(error, doing)) from error


def with_full_stop(text: str) -> str:
    """Return a text with one full stop at its end, whether or not it had one."""
    return f"{text.rstrip().rstrip('.')}."


def nearest(word: object, allowed: Iterable[str]) -> str | None:
    """The one of `allowed` that was probably meant: at most a third of the longer one's letters away, one letter in
    names of up to five. Among equally close ones, one that begins with the same letter."""
    meant = str(word).strip("[]'\" ")  # of a list with one name, the name
    away = {name: _distance(meant, name) for name in map(str, allowed)}
    close = [name for name, distance in away.items() if distance <= _tolerated(meant, name)]
    return min(close, key=lambda name: (away[name], name[:1] != meant[:1]), default=None)


def _tolerated(one: str, other: str) -> int:
    longest = max(len(one), len(other))
    return min(max(1, longest // 3), longest - 1)


def _distance(one: str, other: str) -> int:
    """How many letters must be added, left out, changed or swapped with their neighbour to make one word the other
    (optimal string alignment); of words that are certainly too far from each other, or longer than `LONGEST`, infinite.
    """
    one, other = one.lower(), other.lower()
    most = _tolerated(one, other)
    if max(len(one), len(other)) > LONGEST or abs(len(one) - len(other)) > most:
        return sys.maxsize
    if (_letters(one) - _letters(other)).total() > most:
        return sys.maxsize
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, theirs in enumerate(other, 1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != theirs)))
            if i > 1 and j > 1 and (letter, one[i - 2]) == (other[j - 2], theirs):
                row[j] = min(row[j], before[j - 2] + 1)
        before, last = last, row
    return last[-1]


@lru_cache(maxsize=1024)
def _letters(word: str) -> Counter[str]:
    return Counter(word)


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
    text = str(word)
    said = repr(word) if len(text) <= 80 else repr(f"{text[:20]}...{text[-57:]}")  # a path says at its end which it is
    return f"unknown {kind} {said}.{did_you_mean(word, names)} Allowed: {listed}."
