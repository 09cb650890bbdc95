"""Who may talk to the server: this machine alone, or whoever has the token; imports no FastAPI."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from prefzoo.machine import is_loopback
from prefzoo.serving.generation_request import RequestError

COOKIE = "prefzoo_token"
POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""Of every answer."""
Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class AccessControl:
    """Middleware that lets through what may be answered.

    Without a token the server is bound to loopback, and the names by which it is addressed must be those of loopback:
    another site, whose name leads here (DNS rebinding), cannot read it. A token must be sent as `Authorization:
    Bearer`, or as the cookie that `/?token=` sets. What another site's page sends (`Origin`) is refused in any case.

    Args:
        app: answers the requests.
        token: None on loopback.
        refuse: answers with an error.
    """

    def __init__(self, app: Any, token: str | None, refuse: Callable[[RequestError], Any]) -> None:
        self._app, self._token, self._refuse = app, token, refuse

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_more(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._token is not None and scope["path"] == "/" and self._brings_token(scope):
            await self._set_cookie(send_more)
            return
        error = self._problem(headers)
        if error is not None:
            await self._refuse(error)(scope, receive, send_more)
            return
        await self._app(scope, receive, send_more)

    def _problem(self, headers: dict[str, str]) -> RequestError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return RequestError(
                f"Host {host[:100]!r}: this server answers on loopback alone, as localhost or 127.0.0.1", 403
            )
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return RequestError(f"Origin {origin[:100]!r}: pages of other sites may not use this server", 403)
        if self._token is None or self._has_token(headers):
            return None
        return RequestError(
            "the token is missing or wrong; send it as 'Authorization: Bearer TOKEN', or open /?token=TOKEN",
            401,
            "authentication_error",
            code="invalid_api_key",
        )

    def _has_token(self, headers: dict[str, str]) -> bool:
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_token(sent.strip())
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), str(self._token).encode())

    def _brings_token(self, scope: Scope) -> bool:
        sent = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return scope["method"] == "GET" and self._is_token(sent)

    async def _set_cookie(self, send: Send) -> None:
        cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
