"""How this package starts processes of its own."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any


@contextlib.contextmanager
def interrupt_blocked() -> Iterator[None]:
    """What is started here never gets a Ctrl-C, nor does what it starts; the caller still gets it.

    A terminal sends Ctrl-C to the whole group. What to end then is for the comparison to decide; and a process that is
    still importing, so that it could not yet ask to be spared, would die of it with a traceback.
    """
    resource_tracker.ensure_running()  # else the first start would run it, and that unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def main_hidden() -> Iterator[None]:
    """multiprocessing runs the caller's script again in each child, which would compare again; what a child needs of
    the script, cloudpickle has sent it."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
