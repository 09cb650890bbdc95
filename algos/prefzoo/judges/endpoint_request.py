"""Requests to a server: openai's client sends and repeats them; here attempts are limited and counted, replies read."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from prefzoo.judges.chat import Response, Usage

if TYPE_CHECKING:
    pass

Kind = Literal["unavailable", "refused", "unusable"]
"""The server is not there or not able; it will not answer this; or it replied, but with nothing that can be used."""


class RequestFailure(Exception):
    """A request without an answer.

    Attributes:
        cause: why, in a few words that are the same for all of a kind.
        kind: see `Kind`; only what is refused is not asked again.
        status: HTTP status; None where there was none.
        detail: what the server says about it; it may hold anything, the key included.
    """

    def __init__(self, cause: str, kind: Kind, status: int | None = None, detail: str = "") -> None:
        super().__init__(cause)
        self.cause, self.kind, self.status, self.detail = cause, kind, status, detail


def counting_http_client(usage: Usage, timeout: float) -> Any:
    """An HTTP client for openai's, which repeats what failed, with growing pauses or those that the server asks for.

    It counts every attempt in `usage` and ends it after `timeout` seconds: openai's own limit is on each piece of a
    reply, which a server that drips them never meets. A reply with HTTP 200 in which there is no answer is made an
    error, so that it is asked for again, too.
    """
    from openai import DefaultAsyncHttpxClient

    # openai 3 has moved from httpx to httpx2; it repeats a request after the errors of the one it uses.
    httpx = sys.modules[DefaultAsyncHttpxClient.__base__.__module__.partition(".")[0]]

    class CountingClient(DefaultAsyncHttpxClient):  # type: ignore[misc, unused-ignore]
        async def send(self, request: Any, **options: Any) -> Any:
            if request.method != "POST":  # the list of models
                return await super().send(request, **options)
            usage.requests += 1
            try:
                response = await asyncio.wait_for(super().send(request, **options), timeout)
            except (asyncio.TimeoutError, httpx.TimeoutException):
                failure = RequestFailure("timeout", "unavailable")
            except Exception as error:  # of the network, of TLS, of the protocol
                failure = RequestFailure("no connection", "unavailable", detail=type(error).__name__)
            else:
                if response.status_code >= 400:
                    usage.failed_attempts[f"HTTP {response.status_code}"] += _kind(response.status_code) != "refused"
                    return response
                try:
                    body = _json(response.content)
                    usage.add_reply(*_tokens(body))
                    read_reply(body)
                except RequestFailure as error:
                    failure = error
                else:
                    return response
            usage.failed_attempts[failure.cause] += 1
            raise httpx.RequestError(failure.cause, request=request) from failure

    return CountingClient(timeout=timeout)


def failure_of(error: BaseException) -> RequestFailure:
    """What an exception of openai's client means, after its last attempt."""
    import openai

    if isinstance(error, UnicodeError):
        return RequestFailure("a question that is no Unicode", "unusable")
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        return RequestFailure(f"HTTP {status}", _kind(status), status, _message(error.body) or error.response.text)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, RequestFailure):
        cause = cause.__cause__
    return cause or RequestFailure("no connection", "unavailable", detail=type(error).__name__)


def _kind(status: int) -> Kind:
    return "unavailable" if status in (408, 409, 429) or status >= 500 else "refused"


def _message(body: object) -> str:
    """The sentence in an error body; where servers put it differs."""
    while isinstance(body, Mapping):
        body = next((body[key] for key in ("message", "detail", "error") if body.get(key)), None)
    return "" if body is None else str(body)


def response_of(content: bytes) -> Response:
    """The answer in a reply's body, and its tokens; raises `RequestFailure` where there is none."""
    body = _json(content)
    text, first_token, finished = read_reply(body)
    return Response(text, first_token or None, None, *_tokens(body), finished)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # text in another encoding is among them
        raise RequestFailure("broken JSON", "unusable") from None


def _tokens(body: Any) -> tuple[int | None, int | None]:
    """Tokens of question and answer as a reply counts them."""
    usage = _at(body, "usage")
    question, answer = (_at(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    return (question if type(question) is int else None, answer if type(answer) is int else None)


def read_reply(body: Any) -> tuple[str, dict[str, float], bool]:
    """The answer in a reply, log-probabilities of alternatives for its first token, where there are any, and whether it
    came to its end.

    Raises:
        RequestFailure: where there is no answer.
    """
    choices = _at(body, "choices")
    if not isinstance(choices, list):
        raise RequestFailure("a reply without choices", "unusable")
    # Servers that answer several times number their choices, and need not send them in order.
    choice = min(choices, key=lambda item: _at(item, "index") if type(_at(item, "index")) is int else 0, default=None)
    if choice is None:
        raise RequestFailure("empty choices", "unusable")
    text = _at(_at(choice, "message"), "content")
    if text is None:
        raise RequestFailure("null content", "unusable")
    if not isinstance(text, str) or not text.strip():
        raise RequestFailure("empty text", "unusable")
    # Halves of surrogate pairs are legal in JSON, and in no file.
    return text.encode("utf-8", "replace").decode(), _first_token(choice), _at(choice, "finish_reason") != "length"


def _first_token(choice: Any) -> dict[str, float]:
    """Log-probabilities for the first token by text; alternatives of the same text are added up."""
    tokens = _at(_at(choice, "logprobs"), "content")
    alternatives = _at(tokens[0], "top_logprobs") if isinstance(tokens, list) and tokens else None
    totals: dict[str, float] = {}
    for alternative in alternatives if isinstance(alternatives, list) else []:
        text, value = _at(alternative, "token"), _at(alternative, "logprob")
        if isinstance(text, str) and type(value) in (int, float) and math.isfinite(value):
            low, high = sorted((totals.get(text, -math.inf), float(value)))
            totals[text] = high + math.log1p(math.exp(low - high))
    return totals


def _at(body: Any, key: str) -> Any:
    return body.get(key) if isinstance(body, Mapping) else None
