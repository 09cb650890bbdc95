"""Replies generated in this process: one thread batches what several policies are asked, on one copy of their base."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from prefzoo.errors import PrefzooError
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import positions
from prefzoo.serving.generation_request import GenerationRequest, Piece, RequestError, TokenScore, stopping
from prefzoo.serving.prompt_reader import PromptReader, known_policy
from prefzoo.serving.reply_text import ReplyText
from prefzoo.serving.running_batch import Row, RunningBatch
from prefzoo.settings import Generation

log = logging.getLogger(__name__)
MOST_WAITING = 1024
"""Replies that may wait; what comes then is told to come again later."""
ROWS = 32
"""How many replies of a policy are generated side by side at most."""
READ_TOKENS = 4096
"""How many tokens of prompts are read at a time, so that replies that run do not wait long for them."""


@dataclass(eq=False)
class _Job:
    """A request that is worked on, from the thread that generates to the one that answers."""

    request: GenerationRequest
    rows: list[Row]
    loop: asyncio.AbstractEventLoop
    pieces: asyncio.Queue[Piece | Exception] = field(default_factory=asyncio.Queue)
    cancelled: bool = False

    def tell(self, piece: Piece | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


class LocalEngine:
    """Policies of this process.

    Args:
        policies: by name. Those with adapters may share the weights of their base (`shared_base.shared`).
        generation: how they were measured, which holds where a request says nothing else.
    """

    def __init__(self, policies: Mapping[str, LanguageModelPolicy], generation: Mapping[str, Generation]) -> None:
        self._batches = {name: RunningBatch(policy, ROWS) for name, policy in policies.items()}
        self._readers = {n: PromptReader(p.tokenizer, positions(p.model.config)) for n, p in policies.items()}
        self._generation = dict(generation)
        self._waiting: deque[tuple[_Job, Row]] = deque()
        self._running: dict[Row, _Job] = {}
        self._changed = threading.Condition()
        self._stops_at: float | None = None
        self._seeds = torch.Generator()
        self._seeds.seed()
        self._thread = threading.Thread(target=self._work, name="generating", daemon=True)
        self._thread.start()

    @property
    def policies(self) -> Sequence[str]:
        """Their names, in the order they were given in."""
        return list(self._batches)

    async def check(self, request: GenerationRequest) -> int:
        """The number of tokens of the prompt; see `Engine`."""
        return len((await asyncio.to_thread(self._read, request))[0])

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        """The pieces of the replies; see `Engine`."""
        prompt, most = await asyncio.to_thread(self._read, request)
        job = _Job(request, [], asyncio.get_running_loop())
        job.rows = [self._row(job, i, prompt, most) for i in range(request.n)]
        with self._changed:
            if self._stops_at is not None:
                raise stopping()
            if len(self._waiting) + request.n > MOST_WAITING:
                message = f"{len(self._waiting)} replies are waiting already; ask again in a few seconds"
                raise RequestError(message, 503, "server_error", code="overloaded", retry_after=5)
            self._waiting.extend((job, row) for row in job.rows)
            self._changed.notify()
        try:
            open_replies = request.n
            while open_replies:
                piece = await job.pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                open_replies -= piece.finish is not None
                yield piece
        finally:
            job.cancelled = True

    def stop(self, within: float) -> None:
        """See `Engine`."""
        with self._changed:
            self._stops_at = min(time.monotonic() + within, self._stops_at or float("inf"))
            self._changed.notify()

    def _read(self, request: GenerationRequest) -> tuple[list[int], int]:
        """The tokens of a prompt, and how many its reply may have."""
        known = self._readers[known_policy(request.policy, self._readers)]
        return known.read(request, self._generation[request.policy].max_new_tokens)

    def _row(self, job: _Job, index: int, prompt: list[int], most: int) -> Row:
        request, policy = job.request, self._batches[job.request.policy].policy
        text = ReplyText(lambda ids: policy.reply_text(request.messages, ids), request.stop)
        random = torch.Generator()
        if request.seed is None:
            random.manual_seed(int(torch.randint(2**62, (), generator=self._seeds)))
        else:
            random.manual_seed((request.seed * 1_000_003 + index) % 2**63)
        temperature = request.temperature
        if temperature is None:
            temperature = self._generation[request.policy].temperature

        def tell(token: int, score: TokenScore | None) -> bool:
            if job.cancelled:
                return False
            piece = text.add(token)
            ended = token in policy.eos_ids or text.stopped
            scores = [score] if score is not None else []
            if not ended and len(row.ids) < most:
                if piece or scores:
                    job.tell(Piece(index, piece, scores))
                return True
            rest, whole = text.end(policy.reply_text(request.messages, row.ids))
            finish = "stop" if ended or text.stopped else "length"
            job.tell(Piece(index, piece + rest, scores, finish, len(row.ids), whole))
            return False

        row = Row(prompt, most, temperature, request.top_p, random, request.top_logprobs, tell)
        return row

    def _work(self) -> None:
        """Generate until told to stop; what fails is told to those who asked, and the rest goes on."""
        while True:
            with self._changed:
                while not (self._waiting or self._running or self._stops_at is not None):
                    self._changed.wait()
                if self._stops_at is not None:
                    self._refuse(list(self._waiting))
                    self._waiting.clear()
                    if not self._running or time.monotonic() > self._stops_at:
                        self._refuse([(job, row) for row, job in self._running.items()])
                        return
                admitted = self._admitted()
            for batch, rows in admitted:
                self._try(batch, rows)
            for batch in self._batches.values():
                if batch.rows:
                    self._try(batch, [])

    def _admitted(self) -> list[tuple[RunningBatch, list[Row]]]:
        """Rows that have waited longest, as many as there is room for, with the batch of each."""
        taken: dict[str, list[Row]] = {}
        tokens: dict[str, int] = {}
        left = deque[tuple[_Job, Row]]()
        for job, row in self._waiting:
            if job.cancelled:
                continue
            name = job.request.policy
            batch, some = self._batches[name], taken.setdefault(name, [])
            read = tokens.get(name, 0) + len(row.prompt)
            if len(batch.rows) + len(some) < batch.size and (not some or read <= READ_TOKENS):
                some.append(row)
                tokens[name], self._running[row] = read, job
            else:
                left.append((job, row))
                tokens[name] = READ_TOKENS + 1  # whoever comes later does not overtake
        self._waiting = left
        return [(self._batches[name], rows) for name, rows in taken.items() if rows]

    def _try(self, batch: RunningBatch, rows: list[Row]) -> None:
        """Let rows join a batch, or take a step of it where there are none; an error ends those that it concerns."""
        before = rows or list(batch.rows)
        try:
            if rows:
                batch.join(rows)
            else:
                batch.step()
        except Exception as error:
            log.exception("generating failed")
            why = str(error) if isinstance(error, PrefzooError) else f"generating failed: {type(error).__name__}"
            for row in before:
                self._running[row].tell(RequestError(why, 500, "server_error"))
            if not rows:
                batch.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        still = set(batch.rows)
        for row in before:
            if row not in still:
                self._running.pop(row, None)

    def _refuse(self, some: Sequence[tuple[_Job, Row]]) -> None:
        for job, _ in some:
            job.tell(stopping())
