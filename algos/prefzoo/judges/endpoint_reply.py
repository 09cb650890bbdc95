"""What a server's reply says: an answer, or why there is none and whether to ask again."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import openai

Kind = Literal["unavailable", "refused", "unusable"]
"""The server is not there or not able; it will not answer this; or it replied, but with nothing that can be used."""

LONGEST_PAUSE = 300.0
"""Seconds. A server that asks for a longer pause is taken to be unavailable."""


class Trouble(Exception):
    """No answer this time.

    Attributes:
        cause: why, in a few words that are the same for all of a kind.
        kind: see `Kind`.
        status: HTTP status; None where there was none.
        detail: what the server says about it; it may hold anything, the key included.
        pause: seconds that the server asks to be left alone.
        again: whether the same question may be answered if it is asked again.
    """

    def __init__(
        self,
        cause: str,
        kind: Kind,
        status: int | None = None,
        detail: str = "",
        pause: float = 0.0,
        again: bool = True,
    ) -> None:
        super().__init__(cause)
        self.cause, self.kind, self.status, self.detail, self.pause = cause, kind, status, detail, pause
        self.again = again and kind != "refused" and pause <= LONGEST_PAUSE


def trouble_of(error: openai.APIError | asyncio.TimeoutError | UnicodeError) -> Trouble:
    """What an exception of the client means."""
    import openai

    if isinstance(error, UnicodeError):
        return Trouble("a question that is no Unicode", "unusable", again=False)
    if isinstance(error, (openai.APITimeoutError, asyncio.TimeoutError)):
        return Trouble("timeout", "unavailable")
    if not isinstance(error, openai.APIStatusError):
        return Trouble("no connection", "unavailable", detail=type(error.__cause__ or error).__name__)
    status = error.status_code
    kind: Kind = "unavailable" if status in (408, 409, 429) or status >= 500 else "refused"
    pause = _retry_after(error.response.headers.get("retry-after", ""))
    return Trouble(f"HTTP {status}", kind, status, _message(error.body) or error.response.text, pause)


def _message(body: object) -> str:
    """The sentence in an error body; where servers put it differs."""
    while isinstance(body, Mapping):
        body = next((body[key] for key in ("message", "detail", "error") if body.get(key)), None)
    return "" if body is None else str(body)


def _retry_after(header: str) -> float:
    """Seconds to wait, of a header that gives seconds or a date; 0 where it says nothing that can be read."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if seconds > 0 else 0.0


def usage_of(body: Any) -> tuple[int | None, int | None]:
    """Tokens of question and answer as a reply counts them."""
    usage = _at(body, "usage")
    question, answer = (_at(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    return (question if type(question) is int else None, answer if type(answer) is int else None)


def body_of(content: bytes) -> Any:
    """A reply's JSON; raises `Trouble` where it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):  # text in another encoding is among them
        raise Trouble("broken JSON", "unusable") from None


def answer_of(body: Any) -> tuple[str, dict[str, float], bool]:
    """The answer in a reply, log-probabilities of alternatives for its first token, where there are any, and whether it
    came to its end.

    Raises:
        Trouble: where there is no answer.
    """
    choices = _at(body, "choices")
    if not isinstance(choices, list):
        raise Trouble("a reply without choices", "unusable")
    # Servers that answer several times number their choices, and need not send them in order.
    choice = min(choices, key=lambda each: _at(each, "index") if type(_at(each, "index")) is int else 0, default=None)
    if choice is None:
        raise Trouble("empty choices", "unusable")
    text = _at(_at(choice, "message"), "content")
    if text is None:
        raise Trouble("null content", "unusable")
    if not isinstance(text, str) or not text.strip():
        raise Trouble("empty text", "unusable")
    # Halves of surrogate pairs are legal in JSON, and in no file.
    return text.encode("utf-8", "replace").decode(), _first(choice), _at(choice, "finish_reason") != "length"


def _first(choice: Any) -> dict[str, float]:
    """Log-probabilities for the first token by text; alternatives of the same text are added up."""
    tokens = _at(_at(choice, "logprobs"), "content")
    alternatives = _at(tokens[0], "top_logprobs") if isinstance(tokens, list) and tokens else None
    found: dict[str, float] = {}
    for each in alternatives if isinstance(alternatives, list) else []:
        text, value = _at(each, "token"), _at(each, "logprob")
        if isinstance(text, str) and type(value) in (int, float) and math.isfinite(value):
            low, high = sorted((found.get(text, -math.inf), float(value)))
            found[text] = high + math.log1p(math.exp(low - high))
    return found


def _at(body: Any, key: str) -> Any:
    return body.get(key) if isinstance(body, Mapping) else None
