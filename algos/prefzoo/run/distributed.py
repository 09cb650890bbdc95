"""Under `accelerate launch` or `torchrun`: the first process runs the comparison, the others make room.

Whenever the comparison trains, it starts as many processes as were launched, together one trainer. Everything else it
does as always. That way stages stay processes of their own, which may fail, be killed and be started again.
"""

from __future__ import annotations

import os
import socket

from prefzoo.errors import PrefzooError

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def processes() -> int:
    """How many were launched; 1 without a launcher.

    Raises:
        PrefzooError: when they are on several machines.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count != int(os.environ.get("LOCAL_WORLD_SIZE", count)):
        raise PrefzooError(f"{count} processes on several machines: a comparison runs on one; launch it there")
    return count


def makes_room() -> bool:
    """Whether this process has nothing to do, because it is not the first of those launched."""
    return int(os.environ.get("RANK", 0)) > 0


def environments(count: int) -> list[dict[str, str]]:
    """What each of `count` processes that train together has in its environment; the first leads.

    It is this process's own as it is now: the server that stages are forked from was started with an older one, perhaps
    before a notebook set the key of a judge.
    """
    own = {key: value for key, value in os.environ.items() if not _of_launcher(key)}
    if count == 1:
        return [own]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    each = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in range(count)]
    return [{**own, **{key: str(value) for key, value in values.items()}} for values in each]


def enter(environment: dict[str, str]) -> None:
    """Make this process one of those."""
    for key in filter(_of_launcher, list(os.environ)):
        del os.environ[key]
    os.environ.update(environment)


def _of_launcher(key: str) -> bool:
    return key in LAUNCHER or key.startswith("TORCHELASTIC_")
