"""A chat client for any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefzoo.errors import PrefzooError, unknown
from prefzoo.judges.answer_cache import AnswerCache, cache_key
from prefzoo.judges.chat import Response, Usage
from prefzoo.judges.endpoint_request import RequestFailure, counting_http_client, failure_of, response_of
from prefzoo.judges.judge_settings import EndpointSettings
from prefzoo.types import Message, Progress

if TYPE_CHECKING:
    import sqlite3

    from openai import AsyncOpenAI

FAILURES_IN_A_ROW = 10
"""So many questions in a row without an answer, retries included, and the server is taken to be gone."""

SHORTEST_KEY = 8
"""Characters. What is shorter, such as `none`, stands for no key, and is left alone where an answer has the word."""

_LOGPROBS = ("logprobs", "top_logprobs")
OMISSIONS: tuple[tuple[str, ...], ...] = (
    (),
    _LOGPROBS,
    (*_LOGPROBS, "max_tokens"),
    (*_LOGPROBS, "max_tokens", "temperature"),
)
"""Parameters that are left out of a request for servers that refuse them; the first entry that gets an answer is kept
to. Where it has `max_tokens`, its newer name `max_completion_tokens` stands instead."""


class EndpointClient:
    """Asks a server, several questions at a time, each until it is answered or has failed for good.

    Answers are cached on disk as they come, so that a run that was killed asks nothing twice. openai's client repeats
    what failed, with growing pauses or those that the server asks for. Log-probabilities are asked for, and used where
    the server really sends them.

    Args:
        settings: the recipe's `judge.endpoint`.
        folder: where the answers are cached.
        progress: is told how many of a call's questions are settled.

    Raises:
        PrefzooError: where the package `openai` is missing.
    """

    def __init__(self, settings: EndpointSettings, folder: Path, progress: Progress | None = None) -> None:
        if find_spec("openai") is None:
            raise PrefzooError("judge.type: 'openai' needs the package openai: pip install 'prefzoo[judge]'")
        self.settings, self.progress = settings, progress
        self.cache, self.usage = AnswerCache(folder), Usage()
        self._omissions: dict[bool, int] = {}  # whether log-probabilities are wanted -> the one of OMISSIONS that works
        self._failed_in_a_row = 0
        self._stopped_by: RequestFailure | None = None

    def __call__(
        self,
        conversations: Sequence[Sequence[Message]],
        max_new_tokens: int,
        seed: int | None = None,
        logprobs: bool = True,
    ) -> list[Response]:
        """See `ChatClient`.

        Args:
            max_new_tokens: longer answers are cut by the server.
            seed: for answers drawn at random; the same conversation with another seed is another question.
            logprobs: whether log-probabilities are asked for; of long texts they are many.

        Raises:
            PrefzooError: when the server is gone or refuses everything; what was answered until then is cached.
        """
        began = time.monotonic()
        requests = [self._request(conversation, max_new_tokens, seed, logprobs) for conversation in conversations]
        keys = [cache_key({"base_url": self.settings.base_url.rstrip("/"), **request}) for request in requests]
        with self.cache.opened() as connection:
            responses = self.cache.find(connection, dict.fromkeys(keys))
            missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in responses}
            self.usage.asked += len(keys)
            self.usage.cache_hits += len(keys) - len(missing)
            self.usage.add_cached(responses.values())
            if missing:
                from anyio.from_thread import start_blocking_portal

                state = random.getstate()  # openai's client draws its pauses from the random numbers of the run
                try:
                    with start_blocking_portal() as portal:  # a notebook has a loop running, and cannot run another
                        portal.call(self._ask, missing, responses, connection)
                finally:
                    random.setstate(state)
        self.usage.seconds_waited += time.monotonic() - began
        answers = [responses[key] for key in keys]
        if logprobs:
            self.usage.add_answers(answers)
        return answers

    def report(self) -> dict[str, Any]:
        """What asking took so far (`Usage.report`), and in `left_out` the parameters that the server refused."""
        usage = self.usage.report(self.settings.price_in, self.settings.price_out)
        unwanted = {False: _LOGPROBS, True: ()}
        left_out = {name for kind, i in self._omissions.items() for name in OMISSIONS[i] if name not in unwanted[kind]}
        return {**usage, "left_out": sorted(left_out)}

    def _request(
        self, conversation: Sequence[Message], max_new_tokens: int, seed: int | None, logprobs: bool
    ) -> dict[str, Any]:
        """The request as it is sent unless the server refuses it; its response is cached by it."""
        request: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [dict(message) for message in conversation],
            "max_tokens": max_new_tokens,
            "temperature": self.settings.temperature,
        }
        if seed is not None:
            request["seed"] = seed
        return {**request, "logprobs": True, "top_logprobs": 20} if logprobs else request

    def _key(self) -> str:
        """The key, or an empty text; it is read anew each time, so that this object holds no secret."""
        key = os.environ.get(self.settings.key_env, "").strip()
        if not key.isascii() or not key.isprintable():
            raise PrefzooError(
                f"judge.endpoint.key_env: the environment variable {self.settings.key_env!r} holds characters that no "
                "key can have"
            )
        return key

    def _redacted(self, text: str) -> str:
        """`text` without the key, should a server send it back."""
        key = self._key()
        if len(key) >= SHORTEST_KEY:
            for spelling in (key, json.dumps(key)[1:-1], key.replace("/", "\\/")):
                text = text.replace(spelling, "[key]")
        return text

    def _openai(self) -> AsyncOpenAI:
        import openai

        return openai.AsyncOpenAI(
            api_key=self._key() or "none",  # the client wants one, sent or not
            base_url=self.settings.base_url,
            timeout=self.settings.timeout,
            max_retries=self.settings.retries,
            http_client=counting_http_client(self.usage, self.settings.timeout),
        )

    def _headers(self) -> dict[str, Any]:
        """What differs from the client's own headers."""
        import openai

        return {} if self._key() else {"Authorization": openai.Omit()}

    async def _ask(
        self, requests: Mapping[str, dict[str, Any]], responses: dict[str, Response], connection: sqlite3.Connection
    ) -> None:
        """Write the response to each of `requests` into `responses` and into the cache."""
        self._stopped_by = None
        refusal: RequestFailure | None = None
        total = len(responses) + len(requests)
        limit = asyncio.Semaphore(self.settings.concurrency)

        async def settle(client: AsyncOpenAI, key: str, request: dict[str, Any]) -> None:
            nonlocal refusal
            async with limit:
                if self._stopped_by is not None:
                    return
                try:
                    responses[key] = await self._send(client, request)
                except RequestFailure as failure:
                    self.usage.failures[failure.cause] += 1
                    responses[key] = Response(failure=failure.cause)
                    self._failed_in_a_row = 0 if failure.kind == "unusable" else self._failed_in_a_row + 1
                    refusal = failure if failure.kind == "refused" else refusal
                    if self._failed_in_a_row >= FAILURES_IN_A_ROW or failure.status in (401, 404):
                        self._stopped_by = failure
                else:
                    self._failed_in_a_row = 0
                    self.cache.keep(connection, key, responses[key])
            if self.progress is not None:
                self.progress("asking", len(responses), total)

        async with self._openai() as client:
            first, *rest = requests.items()
            await settle(client, *first)  # alone: what a server refuses is then found out once
            # Those under way when it stops are waited for: their answers are paid for.
            await asyncio.gather(*(settle(client, *item) for item in rest))
            if not self._omissions and refusal is not None and all(response.failure for response in responses.values()):
                self._stopped_by = self._stopped_by or refusal
            if self._stopped_by is not None:
                self._failed_in_a_row = 0
                raise PrefzooError(await self._stop_message(client, self._stopped_by))

    async def _send(self, client: AsyncOpenAI, request: dict[str, Any]) -> Response:
        """Send a request with the parameters that are known to work; until some are, without those that are refused.

        Raises:
            RequestFailure: when there is no answer in the end.
        """
        import openai

        kind = "logprobs" in request
        # Without log-probabilities there is none to leave out.
        choices = [self._omissions[kind]] if kind in self._omissions else range(0 if kind else 1, len(OMISSIONS))
        for i in choices:
            body = {name: value for name, value in request.items() if name not in OMISSIONS[i]}
            if "max_tokens" not in body:
                body["max_completion_tokens"] = request["max_tokens"]
            try:
                raw = await client.chat.completions.with_raw_response.create(**body, extra_headers=self._headers())
            except (openai.APIError, UnicodeError) as error:
                failure = failure_of(error)
                if failure.status not in (400, 422) or i == choices[-1]:
                    raise failure from None
            else:
                self._omissions.setdefault(kind, i)
                response = response_of(raw.content)
                tokens = {self._redacted(token): value for token, value in (response.first_token or {}).items()}
                return replace(response, text=self._redacted(response.text), first_token=tokens or None)
        raise AssertionError("the last choice returns or raises")

    async def _stop_message(self, client: AsyncOpenAI, failure: RequestFailure) -> str:
        """Why no more is asked, which key of the recipe that is about, and what is cached."""
        settings, detail = self.settings, " ".join(self._redacted(failure.detail).split())[:200]
        reason = f"{failure.cause}: {detail}" if detail else failure.cause
        if failure.status == 401:
            held = "refuses the key in" if self._key() else "wants a key, and none is in"
            why = (
                f"judge.endpoint.key_env: {settings.base_url!r} {held} the environment variable {settings.key_env!r} "
                f"({reason})"
            )
        elif failure.kind == "refused" and (models := await self._models(client)) and settings.model not in models:
            why = f"judge.endpoint.model: {unknown('model', settings.model, models)} ({reason})"
        elif failure.kind == "refused":
            why = (
                f"judge.endpoint: {settings.base_url!r} does not answer as {settings.model!r} ({reason}); check "
                "judge.endpoint.base_url, which most often ends in /v1, judge.endpoint.model and judge.endpoint.key_env"
            )
        else:
            why = (
                f"judge.endpoint.base_url: no answer from {settings.base_url!r} {FAILURES_IN_A_ROW} times in a row "
                f"({reason})"
            )
        return f"{why}. {len(self.cache)} answers are kept in {self.cache.path}; the same command goes on from there."

    async def _models(self, client: AsyncOpenAI) -> list[str]:
        """The models that the server says it has; none where it does not say."""
        import openai

        try:
            listed = await asyncio.wait_for(client.models.list(extra_headers=self._headers()), self.settings.timeout)
            return [self._redacted(str(model.id)) for model in listed.data]
        except (openai.OpenAIError, asyncio.TimeoutError, ValueError, AttributeError, TypeError):
            return []
