"""Under `accelerate launch` or `torchrun`: the first process runs the comparison, and the others end at once.

To train, the comparison starts as many processes as were launched, which together are one trainer. Thus stages stay
processes of their own, which may fail, be killed and be started again.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.machine import divides_weights, refuse_divided_weights

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def processes() -> int:
    """The number of processes that were launched; 1 without a launcher.

    Raises:
        PrefzooError: when they are on several machines, or are to divide weights in a way that does not work.
    """
    refuse_divided_weights()
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count != int(os.environ.get("LOCAL_WORLD_SIZE", count)):
        raise PrefzooError(f"{count} processes on several machines: a comparison runs on one; launch it there")
    return count


def shared_kinds() -> tuple[str, ...]:
    """The kinds of stages that all launched processes do together: those that train labels, and where weights are
    divided, so that one process may have no room for them, those that may train the start or the reward too."""
    return ("train", "tune", "start", "reward") if divides_weights() else ("train", "tune")


def arrangement() -> dict[str, Any]:
    """What the result of a training depends on beside its inputs: how many processes it is shared among, and whether
    they divide the weights; empty for one process."""
    together = processes()
    divided = {"weights": "divided"} if divides_weights() else {}
    return {"processes": together, **divided} if together > 1 else {}


def is_follower() -> bool:
    """True in all launched processes but the first."""
    return int(os.environ.get("RANK", 0)) > 0


def environments(count: int) -> list[dict[str, str]]:
    """The environment of each of `count` processes that train together, the leader's first.

    It is this process's own as it is now. The server that stages are forked from was started with an older one, perhaps
    before a notebook set the key of a judge.
    """
    own = {key: value for key, value in os.environ.items() if not _of_launcher(key)}
    if count == 1:
        return [own]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in range(count)]
    return [{**own, **{key: str(value) for key, value in variables.items()}} for variables in ranks]


def enter(environment: dict[str, str]) -> None:
    """Give this process such an environment."""
    for key in filter(_of_launcher, list(os.environ)):
        del os.environ[key]
    os.environ.update(environment)


def _of_launcher(key: str) -> bool:
    return key in LAUNCHER or key.startswith("TORCHELASTIC_")
