"""The chat page, and the feedback of those who use it or the API."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field

from prefzoo.errors import PrefzooError
from prefzoo.feedback.feedback_types import Answer, AnsweredAlready, FeedbackError, Item
from prefzoo.feedback.store import FeedbackStore
from prefzoo.serving.chat_schema import Text, Turn, read_request, sse
from prefzoo.serving.generation_request import Engine, GenerationRequest, Piece, RequestError
from prefzoo.serving.openai_routes import read_json, streamed
from prefzoo.serving.traffic import SOURCE, ServedReply, Traffic

Name = Annotated[Text, Field(min_length=1, max_length=90)]


class PageRequest(BaseModel):
    """What the chat page sends: the turns so far, and whether two replies are wanted."""

    model_config = ConfigDict(extra="forbid")
    conversation: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    messages: list[Turn] = Field(min_length=1)
    two: bool = False


class FeedbackRequest(BaseModel):
    """The body of `POST /feedback`: a thumb for one reply, which of two to the same messages is better, or `undo`,
    which takes the user's answer of this `answer_id` back, so that another one can be given.

    Replies are named by the `id` of their answer, with `:1` behind it for the second one of several. `answer_id` is a
    UUID of the client's: a repeated post is the same answer.
    """

    model_config = ConfigDict(extra="forbid")
    answer_id: uuid.UUID
    user: Name = "somebody"
    reply: Name | None = None
    thumb: Literal["up", "down"] | None = None
    first: Name | None = None
    second: Name | None = None
    choice: Literal["first", "second", "tie", "both_bad"] | None = None
    strength: Literal["slightly", "better"] | None = None
    seconds: float = Field(0.0, ge=0, le=1e7, allow_inf_nan=False)
    undo: bool = False


class ReplyFeedback:
    """What users say of replies of this server, as items and answers of a store.

    Args:
        store: where feedback is kept.
        traffic: knows the replies.
    """

    def __init__(self, store: FeedbackStore, traffic: Traffic) -> None:
        self.store, self.traffic = store, traffic
        self.users: set[str] = set()
        """Those that the store has for certain."""

    def record(self, body: FeedbackRequest) -> bool:
        """Keep what a user said, or take it back; False where that was done already.

        Raises:
            RequestError: when it says nothing, of no reply of this server, or cannot be kept.
        """
        annotator = f"user:{body.user}"
        try:
            if body.undo:
                if any((body.reply, body.thumb, body.first, body.second, body.choice)):
                    raise RequestError("undo: takes an answer_id and the user alone", param="undo")
                return self.store.take_back(annotator, str(body.answer_id))
            item, value = self._item_and_value(body)
            if annotator not in self.users:
                if annotator not in self.store.annotators():
                    self.store.add_annotator(annotator)
                self.users.add(annotator)
            self.store.add_items([item])
            return self.store.record(
                Answer(str(body.answer_id), item.item_id, annotator, item.kind, value, seconds=body.seconds)
            )
        except AnsweredAlready as error:
            raise RequestError(str(error), 409, code="answered_already") from None
        except FeedbackError as error:
            raise RequestError(str(error)) from None
        except PrefzooError as error:  # a full disk, a file that somebody holds: nothing was written
            raise RequestError(str(error), 503, "server_error", retry_after=5) from None

    def _item_and_value(self, body: FeedbackRequest) -> tuple[Item, dict[str, Any]]:
        value: dict[str, Any]
        thumb, pair = (body.reply, body.thumb), (body.first, body.second, body.choice)
        if all(thumb) and not any(pair):
            replies, kind, value = [self._served(body.reply, "reply")], "thumb", {"liked": body.thumb == "up"}
        elif all(pair) and not any(thumb):
            replies = [self._served(body.first, "first"), self._served(body.second, "second")]
            if replies[0].prompt != replies[1].prompt or replies[0].reply_id == replies[1].reply_id:
                raise RequestError("first and second: name two replies to the same messages", param="second")
            kind = "compare"
            preferred = body.choice in ("first", "second")
            value = {"choice": body.choice, "strength": (body.strength or "better") if preferred else None}
        else:
            raise RequestError("send either reply and thumb, or first, second and choice")
        item = Item(
            self.store.item_id(kind, *(reply.reply_id for reply in replies)),
            kind,
            [dict(turn) for turn in replies[0].prompt],
            [{"text": reply.text, "policy": reply.policy} for reply in replies],
            f"{SOURCE}{replies[0].conversation or ''}",
        )
        return item, value

    def _served(self, name: str | None, key: str) -> ServedReply:
        whole = str(name) if ":" in str(name) or str(name).startswith("page-") else f"{name}:0"
        reply = self.traffic.reply(whole)
        if reply is None:
            raise RequestError(f"{key} {name!r}: this server gave no such reply", 404, param=key, code="unknown_reply")
        return reply


def add_page(app: FastAPI, engine: Engine, traffic: Traffic, store: FeedbackStore, title: str) -> None:
    """Add the page at `/`, and `POST /feedback`.

    Args:
        app: as `serving_app` makes it.
        store: where feedback is kept.
        title: of the page; users read it, so that it should name no policy.
    """
    templates = Environment(loader=PackageLoader("prefzoo.serving"), autoescape=True, undefined=StrictUndefined)
    page = templates.get_template("chat.html.jinja").render(title=title)
    folder = files("prefzoo.serving").joinpath("templates")
    static = {name: folder.joinpath(name).read_text("utf-8") for name in ("chat.js", "chat.css")}
    sides, feedback = random.SystemRandom(), ReplyFeedback(store, traffic)

    @app.get("/")
    async def _page() -> Response:
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    @app.get("/chat.js")
    async def _script() -> Response:
        return Response(static["chat.js"], media_type="text/javascript")

    @app.get("/chat.css")
    async def _style() -> Response:
        return Response(static["chat.css"], media_type="text/css")

    @app.post("/chat")
    async def _chat(request: Request) -> Response:
        body: PageRequest = read_request(await read_json(request), PageRequest)
        conversation = body.conversation or uuid.uuid4().hex
        messages = [turn.message() for turn in body.messages]
        policies = [await asyncio.to_thread(traffic.policy_of, f"page:{conversation}")]
        if body.two:
            both = [traffic.main, traffic.canary.policy] if traffic.canary is not None else policies * 2
            policies = sides.sample(both, 2)
        # Two replies of one greedy policy would be the same one twice.
        heat = 1.0 if len(policies) > len(set(policies)) else None
        asked = [GenerationRequest(policy, messages, temperature=heat) for policy in policies]
        for each in asked:
            await engine.check(each)
        ids = [f"page-{uuid.uuid4().hex}" for _ in asked]

        async def events() -> AsyncIterator[str]:
            yield sse({"conversation": conversation, "replies": ids})
            finished: dict[int, Piece] = {}
            async for piece in _together([engine.generate(each) for each in asked]):
                if piece.finish is not None:
                    finished[piece.index] = piece
                    reply = ServedReply(
                        ids[piece.index], f"page:{conversation}", policies[piece.index], messages, piece.whole
                    )
                    await asyncio.to_thread(traffic.keep, [reply])
                yield sse({"index": piece.index, "text": piece.text, "finish": piece.finish})
            yield "data: [DONE]\n\n"

        return await streamed(events())

    @app.post("/feedback")
    async def _feedback(request: Request) -> Response:
        body: FeedbackRequest = read_request(await read_json(request), FeedbackRequest)
        new = await asyncio.to_thread(feedback.record, body)
        return JSONResponse({"recorded": True, "new": new})


async def _together(streams: list[AsyncIterator[Piece]]) -> AsyncIterator[Piece]:
    """The pieces of several streams as they come, each with the index of its stream."""
    waiting = {asyncio.ensure_future(_next(stream)): i for i, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                i = waiting.pop(task)
                piece = task.result()
                if piece is None:
                    continue
                waiting[asyncio.ensure_future(_next(streams[i]))] = i
                yield Piece(i, piece.text, piece.scores, piece.finish, piece.tokens, piece.whole)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]


async def _next(stream: AsyncIterator[Piece]) -> Piece | None:
    return await anext(stream, None)
