"""Any server that speaks OpenAI's chat completions, as what a judge is asked through."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefzoo.errors import PrefzooError, unknown
from prefzoo.judges.answer_cache import Answer, AnswerCache, key_of
from prefzoo.judges.chat import Said
from prefzoo.judges.endpoint_reply import Trouble, answer_of, body_of, trouble_of, usage_of
from prefzoo.judges.endpoint_settings import EndpointSettings
from prefzoo.judges.usage import Spent
from prefzoo.types import Message, Progress

if TYPE_CHECKING:
    import sqlite3

    from openai import AsyncOpenAI

IN_A_ROW = 10
"""So many questions in a row without an answer, retries included, and the server is taken to be gone."""

BACKOFF = 0.5
"""Seconds before the first retry; each further pause is twice as long, up to `LONGEST_BACKOFF`."""

LONGEST_BACKOFF = 30.0

SHORTEST_KEY = 8
"""Characters. What is shorter, such as `none`, stands for no key, and is left alone where an answer has the word."""

_LOGPROBS = ("logprobs", "top_logprobs")
WAYS: tuple[tuple[str, ...], ...] = (
    (),
    _LOGPROBS,
    (*_LOGPROBS, "max_tokens"),
    (*_LOGPROBS, "max_tokens", "temperature"),
)
"""What is left out of a request for servers that refuse it; the first way that gets an answer is kept to. Where it is
`max_tokens`, its newer name `max_completion_tokens` stands instead."""


class EndpointAsker:
    """Asks a server, several questions at a time, each until it is answered or has failed for good.

    Answers are kept on disk as they come, so that a run that was killed asks nothing twice. Pauses between retries grow
    exponentially, with jitter, and are at least as long as the server asks for. Log-probabilities are asked for, and
    used where the server really sends them.

    Args:
        settings: the recipe's `judge.endpoint`.
        folder: where the answers are kept.
        progress: is told how many of a call's questions are settled.

    Raises:
        PrefzooError: where the package `openai` is missing.
    """

    def __init__(self, settings: EndpointSettings, folder: Path, progress: Progress | None = None) -> None:
        if find_spec("openai") is None:
            raise PrefzooError("judge.type: 'openai' needs the package openai: pip install 'prefzoo[judge]'")
        self.settings, self.progress = settings, progress
        self.cache, self.spent = AnswerCache(folder), Spent()
        self._ways: dict[bool, int] = {}  # whether log-probabilities are wanted -> the one of WAYS that works
        self._in_a_row = 0
        self._stopped: Trouble | None = None
        # Its own, so that a bad line does not change what the run draws from the common one.
        self._jitter = random.Random()

    def __call__(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Said]:
        """See `asking.Asker`.

        Raises:
            PrefzooError: when the server is gone or refuses everything; what was answered until then is kept.
        """
        answers = self.answers(conversations, max_new_tokens)
        return [Said(each.text, each.first, each.failure) for each in answers]

    def answers(
        self,
        conversations: Sequence[Sequence[Message]],
        max_new_tokens: int,
        seed: int | None = None,
        logprobs: bool = True,
    ) -> list[Answer]:
        """One answer to each conversation, in their order, with the tokens that it took; raises as a call does.

        Args:
            max_new_tokens: longer answers are cut by the server.
            seed: for answers drawn at random; the same conversation with another seed is another question.
            logprobs: whether log-probabilities are asked for; of long texts they are many.
        """
        began = time.monotonic()
        wishes = [self._wish(conversation, max_new_tokens, seed, logprobs) for conversation in conversations]
        keys = [key_of({"base_url": self.settings.base_url.rstrip("/"), **wish}) for wish in wishes]
        with self.cache.opened() as kept:
            found = self.cache.find(kept, dict.fromkeys(keys))
            missing = {key: wish for key, wish in zip(keys, wishes, strict=True) if key not in found}
            self.spent.asked += len(keys)
            self.spent.cache_hits += len(keys) - len(missing)
            self.spent.cached(found.values())
            if missing:
                from anyio.from_thread import start_blocking_portal

                with start_blocking_portal() as portal:  # a notebook has a loop running, and cannot run another
                    portal.call(self._ask, missing, found, kept)
        self.spent.seconds_waited += time.monotonic() - began
        answers = [found[key] for key in keys]
        if logprobs:
            self.spent.gave(answers)
        return answers

    def report(self) -> dict[str, Any]:
        """What asking took so far (`Spent.report`), and in `left_out` the parameters that the server refused."""
        spent = self.spent.report(self.settings.price_in, self.settings.price_out)
        unwanted = {False: _LOGPROBS, True: ()}
        left_out = {name for kind, way in self._ways.items() for name in WAYS[way] if name not in unwanted[kind]}
        return {**spent, "left_out": sorted(left_out)}

    def _wish(
        self, conversation: Sequence[Message], max_new_tokens: int, seed: int | None, logprobs: bool
    ) -> dict[str, Any]:
        """The request as it is sent unless the server refuses it; answers are kept by it."""
        wish: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [dict(message) for message in conversation],
            "max_tokens": max_new_tokens,
            "temperature": self.settings.temperature,
        }
        if seed is not None:
            wish["seed"] = seed
        return {**wish, "logprobs": True, "top_logprobs": 20} if logprobs else wish

    def _key(self) -> str:
        """The key, or an empty text; it is read anew each time, so that this object holds no secret."""
        key = os.environ.get(self.settings.key_env, "").strip()
        if not key.isascii() or not key.isprintable():
            raise PrefzooError(
                f"judge.endpoint.key_env: the environment variable {self.settings.key_env!r} holds characters that no "
                "key can have"
            )
        return key

    def _hidden(self, text: str) -> str:
        """`text` without the key, should a server send it back."""
        key = self._key()
        if len(key) >= SHORTEST_KEY:
            for form in (key, json.dumps(key)[1:-1], key.replace("/", "\\/")):
                text = text.replace(form, "[key]")
        return text

    def _client(self) -> AsyncOpenAI:
        import openai

        return openai.AsyncOpenAI(
            api_key=self._key() or "none",  # the client wants one, sent or not
            base_url=self.settings.base_url,
            timeout=self.settings.timeout,
            max_retries=0,  # retried here, where causes are counted and useless replies retried, too
        )

    def _headers(self) -> dict[str, Any]:
        """What differs from the client's own headers."""
        import openai

        return {} if self._key() else {"Authorization": openai.Omit()}

    async def _ask(
        self, wishes: Mapping[str, dict[str, Any]], found: dict[str, Answer], kept: sqlite3.Connection
    ) -> None:
        """Answer each of `wishes` into `found`."""
        self._stopped = None
        refused: Trouble | None = None
        total = len(found) + len(wishes)
        limit = asyncio.Semaphore(self.settings.concurrency)

        async def one(client: AsyncOpenAI, key: str, wish: dict[str, Any]) -> None:
            nonlocal refused
            async with limit:
                outcome = await self._insist(client, wish)
            if isinstance(outcome, Answer):
                self._in_a_row = 0
                self.cache.keep(kept, key, outcome)
                found[key] = outcome
            elif outcome is not None:
                self.spent.failures[outcome.cause] += 1
                found[key] = Answer(failure=outcome.cause)
                self._in_a_row = 0 if outcome.kind == "unusable" else self._in_a_row + 1
                refused = outcome if outcome.kind == "refused" else refused
                if self._in_a_row >= IN_A_ROW or outcome.status in (401, 404):
                    self._stopped = outcome
            if self.progress is not None:
                self.progress("asking", len(found), total)

        async with self._client() as client:
            first, *rest = wishes.items()
            await one(client, *first)  # alone: what a server refuses is then found out once
            # Those under way when it stops are waited for: their answers are paid for.
            await asyncio.gather(*(one(client, *each) for each in rest))
            if not self._ways and refused is not None and all(each.failure for each in found.values()):
                self._stopped = self._stopped or refused
            if self._stopped is not None:
                self._in_a_row = 0
                raise PrefzooError(await self._farewell(client, self._stopped))

    async def _insist(self, client: AsyncOpenAI, wish: dict[str, Any]) -> Answer | Trouble | None:
        """Ask until there is an answer or no use in asking; None when asking was stopped before that."""
        attempt = 0
        while self._stopped is None:
            try:
                return await self._any_way(client, wish)
            except Trouble as trouble:
                if not trouble.again or attempt == self.settings.retries:
                    return trouble
                self.spent.retries[trouble.cause] += 1
                # A useless reply is no sign of overload.
                pause = 0.0 if trouble.kind == "unusable" else min(LONGEST_BACKOFF, BACKOFF * 2**attempt)
                await asyncio.sleep(trouble.pause + pause * self._jitter.uniform(0.5, 1.0))
                attempt += 1
        return None

    async def _any_way(self, client: AsyncOpenAI, wish: dict[str, Any]) -> Answer:
        """Ask in the way that is known to work; until one is, in each that the server does not refuse."""
        kind = "logprobs" in wish
        # Without log-probabilities there is none to leave out.
        ways = [self._ways[kind]] if kind in self._ways else range(0 if kind else 1, len(WAYS))
        for way in ways:
            body = {name: value for name, value in wish.items() if name not in WAYS[way]}
            if "max_tokens" not in body:
                body["max_completion_tokens"] = wish["max_tokens"]
            try:
                answer = await self._once(client, body)
            except Trouble as trouble:
                if trouble.status not in (400, 422) or way == ways[-1]:
                    raise
            else:
                self._ways.setdefault(kind, way)
                return answer
        raise AssertionError("the last way returns or raises")

    async def _once(self, client: AsyncOpenAI, body: dict[str, Any]) -> Answer:
        import openai

        self.spent.requests += 1
        try:
            # The client's own limit is on each piece of a reply; a server that drips them would never meet it.
            sent = client.chat.completions.with_raw_response.create(**body, extra_headers=self._headers())
            raw = await asyncio.wait_for(sent, self.settings.timeout)
        except (openai.APIError, asyncio.TimeoutError, UnicodeError) as error:
            raise trouble_of(error) from None
        reply = body_of(raw.content)
        tokens = usage_of(reply)
        self.spent.replied(*tokens)
        text, alternatives, finished = answer_of(reply)
        first = {self._hidden(token): value for token, value in alternatives.items()}
        return Answer(self._hidden(text), first or None, None, *tokens, finished)

    async def _farewell(self, client: AsyncOpenAI, trouble: Trouble) -> str:
        """Why no more is asked, which key of the recipe that is about, and what is kept."""
        named, says = self.settings, " ".join(self._hidden(trouble.detail).split())[:200]
        said = f"{trouble.cause}: {says}" if says else trouble.cause
        if trouble.status == 401:
            held = "refuses the key in" if self._key() else "wants a key, and none is in"
            why = (
                f"judge.endpoint.key_env: {named.base_url!r} {held} the environment variable {named.key_env!r} ({said})"
            )
        elif trouble.kind == "refused" and (models := await self._models(client)) and named.model not in models:
            why = f"judge.endpoint.model: {unknown('model', named.model, models)} ({said})"
        elif trouble.kind == "refused":
            why = (
                f"judge.endpoint: {named.base_url!r} does not answer as {named.model!r} ({said}); check "
                "judge.endpoint.base_url, which most often ends in /v1, judge.endpoint.model and judge.endpoint.key_env"
            )
        else:
            why = f"judge.endpoint.base_url: no answer from {named.base_url!r} {IN_A_ROW} times in a row ({said})"
        return f"{why}. {len(self.cache)} answers are kept in {self.cache.path}; the same command goes on from there."

    async def _models(self, client: AsyncOpenAI) -> list[str]:
        """What the server says it has; nothing where it does not say."""
        import openai

        try:
            listed = await asyncio.wait_for(client.models.list(extra_headers=self._headers()), self.settings.timeout)
            return [self._hidden(str(model.id)) for model in listed.data]
        except (openai.OpenAIError, asyncio.TimeoutError, ValueError, AttributeError, TypeError):
            return []
