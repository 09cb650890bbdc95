"""The server as a process: a port that is held before any model is loaded, and an orderly end."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import uvicorn

from prefzoo.errors import PrefzooError
from prefzoo.serving.generation_request import Engine

GRACE = 20.0
"""Seconds in which replies may come to their end when the server is stopped."""


def listen(host: str, port: int) -> socket.socket:
    """A socket on which nobody else listens; port 0 is any free one.

    Raises:
        PrefzooError: when it cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        raise PrefzooError(f"--host {host} --port {port}: {error}; choose another, or --port 0 for any") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """The address of a listening socket, as a browser takes it."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Tells the engine when it is asked to end, so that nobody waits for a reply that will not come."""

    engine: Engine

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take no more requests; a second signal ends what still runs."""
        self.engine.stop(0.0 if self.should_exit else GRACE)
        super().handle_exit(sig, frame)


def run(app: Any, engine: Engine, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, which is raised again at the end."""
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=int(GRACE) + 10, server_header=False, access_log=False
    )
    server = _Server(config)
    server.engine = engine
    try:
        server.run(sockets=[listener])
    finally:
        engine.stop(0.0)
