"""What the processes of this package hear and print: Ctrl-C, the caller's script, progress bars."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker, util
from pathlib import Path
from typing import Any

import psutil

LONGEST_SOCKET_FOLDER = 64
"""Letters of a folder in which multiprocessing can name its sockets: a socket's whole path has about 100 at most."""
SHORT_FOLDER = Path("/tmp")


def shorten_socket_paths() -> None:
    """Have multiprocessing keep its sockets in a folder of a short name where TMPDIR has a long one, as on clusters."""
    if len(tempfile.gettempdir()) <= LONGEST_SOCKET_FOLDER or not os.access(SHORT_FOLDER, os.W_OK):
        return
    before, tempfile.tempdir = tempfile.tempdir, str(SHORT_FOLDER)
    try:
        util.get_temp_dir()  # which it remembers
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def interrupt_blocked() -> Iterator[None]:
    """Processes that are started here never get a Ctrl-C, nor do their children; the caller still gets it.

    A terminal sends Ctrl-C to the whole group, and the comparison decides which processes to end then. A process that
    is still importing could not yet ignore the signal, and would print a traceback.
    """
    resource_tracker.ensure_running()  # else the first start would run it, and that unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def main_hidden() -> Iterator[None]:
    """Keep multiprocessing from running the caller's script again in each child, where it would compare again.

    Whatever a child needs of the script is sent by cloudpickle.
    """
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


def descendants(*pids: int) -> list[psutil.Process]:
    """The processes that these have started, and those that they have started, and so on."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found += psutil.Process(pid).children(recursive=True)
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """End processes that may have ended already."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def output_to(file: Any) -> Iterator[None]:
    """Write what this process prints to a file, and the output of C code too."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    try:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, target)
            os.close(copy)


def print_anything() -> None:
    """Have standard output and error write escapes for what their encoding (ASCII, in a C locale) does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def quiet() -> None:
    """Hide bars, messages of transformers and bitsandbytes below errors, and deprecations that only developers can act
    on.

    For a command that loads models at a terminal.
    """
    from transformers.utils import logging as transformers_logging

    hide_bars()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


def hide_bars() -> None:
    """Turn off the progress bars of transformers, datasets and the hub's client in this process."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
