"""A lock that holds between hosts that share a folder, where the system's locks and process numbers mean nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

BEAT_SECONDS = 5.0
EXPIRES_SECONDS = 60.0
NO_LOCKS = (None, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system says that has no locks."""
LOST = 75
"""The exit code of a process whose lock another one has taken (`EX_TEMPFAIL`)."""


class Held(Exception):
    """Another process holds the lock; `holder` is what it wrote of itself."""

    def __init__(self, holder: Mapping[str, Any]) -> None:
        super().__init__()
        self.holder = holder

    def __str__(self) -> str:
        return f" (process {self.holder['pid']} on {self.holder['host']})" if {"pid", "host"} <= {*self.holder} else ""


def kernel() -> str:
    """What is the same for all processes among which the system's file locks hold: the running kernel."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()


class HostLock:
    """A lock on `path`.

    On one host the system's file lock decides, which ends with its process however that ended. Between hosts a file
    beside it names the holder, who touches it every `BEAT_SECONDS`. One who has not for `EXPIRES_SECONDS`, by the clock
    of the process that waits, is dead and is followed. A holder who finds another one named, because it was stopped
    for so long, ends its process at once: it may not write any more.

    Args:
        about: plain values that the file names too.
        still: asked at every beat; False ends this process as well.
    """

    def __init__(
        self, path: Path, about: Mapping[str, Any] | None = None, still: Callable[[], bool] = lambda: True
    ) -> None:
        self.file, self.about, self.still = holder_file(path), dict(about or {}), still
        self.id, self.kernel, self.released = uuid.uuid4().hex, kernel(), threading.Event()
        try:
            self.lock = FileLock(path, fallback_to_soft=False)  # a soft lock outlives its process
        except TypeError:  # older versions of filelock have none
            self.lock = FileLock(path)

    @contextlib.contextmanager
    def held(self, patient: bool, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock in a block.

        Args:
            patient: wait for a holder that lives, however long that takes.
            waits: is called once where the lock is not free at once.

        Raises:
            Held: when it is held, and this process is not patient.
        """
        here = self._acquire_here(patient, waits)
        try:
            self._follow(patient, waits, self.kernel if here else None)
            threading.Thread(target=self._beat, name="lock", daemon=True).start()
            try:
                yield
            finally:
                self.released.set()
                if read_holder(self.file).get("id") == self.id:
                    self.file.unlink(missing_ok=True)
        finally:
            self.lock.release()

    def _acquire_here(self, patient: bool, waits: Callable[[], None]) -> bool:
        """Take the system's lock; False where the file system has none."""
        try:
            try:
                self.lock.acquire(timeout=0)
            except Timeout:
                if not patient:
                    raise Held(read_holder(self.file)) from None
                waits()
                self.lock.acquire()
        except (NotImplementedError, OSError) as error:
            if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
                raise
            return False
        return True

    def _follow(self, patient: bool, waits: Callable[[], None], here: str | None) -> None:
        """Wait until no holder on another host lives, and take its place."""
        last, since = None, time.monotonic()
        while True:
            holder, sign = read_holder(self.file), _touched(self.file)
            mine = json.dumps({"id": self.id, "kernel": self.kernel, "host": socket.gethostname(), "pid": os.getpid(),
                               "since": time.time(), **self.about})  # fmt: skip
            if sign is None:
                try:
                    with self.file.open("x", encoding="utf-8") as file:  # of two at once, the system lets one make it
                        file.write(mine)
                    return
                except FileExistsError:
                    continue
                except OSError:  # a full disk
                    self.file.unlink(missing_ok=True)
                    raise
            elif (here is not None and holder.get("kernel") == here) or (  # its lock is ours: it has ended
                last == (holder.get("id"), sign) and time.monotonic() - since > EXPIRES_SECONDS
            ):
                new = self.file.with_name(f"{self.file.name}.{self.id}")
                new.write_text(mine, encoding="utf-8")
                os.replace(new, self.file)
                if last is not None:
                    time.sleep(2.0)  # of two that follow at once, the later one is named
                if read_holder(self.file).get("id") == self.id:
                    return
            elif last != (holder.get("id"), sign):
                if last is not None and not patient:
                    raise Held(holder)
                if last is None:
                    waits()
                last, since = (holder.get("id"), sign), time.monotonic()
            time.sleep(min(1.0, BEAT_SECONDS / 5))

    def _beat(self) -> None:
        while not self.released.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                if not (holder := read_holder(self.file)):
                    continue  # a file system that does not answer, or a folder that was deleted: nobody else is named
                mine = holder.get("id") == self.id
                if mine and self.still():
                    os.utime(self.file)
                elif not self.released.is_set():
                    if mine:
                        self.file.unlink(missing_ok=True)
                    print(f"{self.file}: another process has taken this over; this one ends", file=sys.stderr)
                    os._exit(LOST)


def holder_file(path: Path) -> Path:
    """The file that names the holder of the lock on `path`."""
    return path.with_name(f"{path.name}.holder")


def read_holder(file: Path) -> dict[str, Any]:
    """What a holder wrote of itself; empty where there is none, or it is just writing."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _touched(file: Path) -> int | None:
    """When a file was touched last, by the clock of the file system; None where there is none."""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as opened:  # opening it asks a file server anew
        return os.fstat(opened.fileno()).st_mtime_ns
    return None
