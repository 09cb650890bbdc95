"""What a server on somebody's machine refuses: other hosts' names, other sites' posts, and bodies without end."""

from __future__ import annotations

import ipaddress
import json
import socket
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefzoo.machine import is_loopback

MOST_BYTES = 1 << 20
"""Of the body of one request."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is answered with an error and does nothing."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class RequestGuard:
    """Middleware that answers only requests to this host by a page of this host, and adds the headers of a closed page.

    A page elsewhere whose name is made to point here (DNS rebinding) sends its own name as `Host`, and a page elsewhere
    that posts here sends its own as `Origin`.

    Args:
        app: what is guarded.
        host: the address that is listened on. Beside it, `Host` may be a name of loopback; where it is not loopback,
            also an address in numbers, which no name can be made to point to, and this machine's name.
        hostname: another name under which people reach it, such as that of a proxy before it.
    """

    def __init__(self, app: ASGIApp, host: str, hostname: str | None = None) -> None:
        self.app = app
        self.names = {host.lower().strip("[]"), *LOOPBACK, *([hostname.lower()] if hostname else [])}
        self.open = not is_loopback(host)
        if self.open:
            self.names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if reason := self._problem(scope):
            await JSONResponse({"error": reason}, 403)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)

    def _problem(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return "this server does not answer under that host's name"
        if scope["method"] in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{hosts[0]}", f"https://{hosts[0]}"):
            return "this post comes from another page"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "this post comes from another site"
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return "a post is JSON, with the content type application/json"
        return None

    def _is_ours(self, host: str) -> bool:
        name = host.lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        return name in self.names or (self.open and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def read_json(request: Request, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object that a request brings.

    Raises:
        Refused: when it is larger than `most_bytes`, of which no more is read, or no such object.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most_bytes:
            raise Refused(413, f"a post may have {most_bytes} bytes")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the post is no JSON") from error
    if not isinstance(content, dict):
        raise Refused(400, "the post is no JSON object")
    return content
