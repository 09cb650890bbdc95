"""Say in words that memory ran out, and what to do about it."""

from __future__ import annotations

import sys

from prefzoo.errors import PrefzooError

LEAST_ADDRESSES = 2 * 2**30
"""Bytes of address space that a stage needs to import torch, TRL and what they import."""
SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "not enough memory",
         "failed to map segment")  # fmt: skip
"""In the messages of torch's allocators, of the system and of its loader of libraries."""
WHAT_TO_DO = (
    "Lower training.batch_size or raise training.accumulation, lower generation.batch_size, or let fewer stages run at "
    "a time (--workers)"
)


def out_of_memory(error: BaseException) -> str | None:
    """What an error says, if it is that memory ran out: in one sentence, and what to do; None for all others."""
    said = [str(each) for each in (error, error.__cause__) if each is not None]
    if not isinstance(error, MemoryError) and not any(sign in text.lower() for text in said for sign in SIGNS):
        return None
    first = " ".join(said[0].split()) or type(error).__name__
    return f"out of memory: {first[:300]}. {WHAT_TO_DO}.{limit()}"


def limit() -> str:
    """A sentence on the limit of this process's memory, with a space before it; empty where there is none."""
    most = _most_addresses()
    return "" if most is None else f" A process may take {most / 2**30:.1f} GiB of addresses here (ulimit -v)."


def refuse_too_little() -> None:
    """Refuse a limit under which libraries cannot be imported: some then hang, others end without a word.

    Raises:
        PrefzooError: when addresses are limited to less than `LEAST_ADDRESSES`.
    """
    most = _most_addresses()
    if most is not None and most < LEAST_ADDRESSES:
        raise PrefzooError(
            f"a process may take {most / 2**30:.1f} GiB of addresses here (ulimit -v), and the libraries of a stage "
            f"alone take {LEAST_ADDRESSES / 2**30:.0f}: raise the limit"
        )


def _most_addresses() -> int | None:
    """The limit of a process's address space in bytes; None where there is none."""
    if sys.platform == "win32":
        return None
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if most == resource.RLIM_INFINITY else most
