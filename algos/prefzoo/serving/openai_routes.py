"""The server: OpenAI's routes, over any engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from prefzoo.serving.access import AccessControl
from prefzoo.serving.chat_schema import Answer, ChatRequest, read_request, sse
from prefzoo.serving.generation_request import Engine, Piece, RequestError
from prefzoo.serving.prompt_reader import known_policy
from prefzoo.serving.traffic import ServedReply, Traffic, conversation_named

log = logging.getLogger(__name__)
LIVE = "live"
"""The model that answers as the chat page does: the main policy, or the canary in its share of the conversations."""
MOST_BYTES = 2**20
"""Of a body."""
BODY_SECONDS = 30.0
"""In which a body must have come."""


class Disconnected(Exception):
    """The client is gone; nobody reads an answer."""


def serving_app(engine: Engine, traffic: Traffic, token: str | None = None) -> FastAPI:
    """The server's routes.

    Args:
        engine: generates the replies.
        traffic: says which policy is `live` for a conversation, and keeps the replies.
        token: what clients must send; None for a server on loopback alone.
    """
    app = FastAPI(title="Prefzoo", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(AccessControl, token=token, refuse=error_response)
    started = int(time.time())
    names = (LIVE, *engine.policies)

    def card(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "prefzoo"}

    @app.exception_handler(RequestError)
    async def _refused(request: Request, error: RequestError) -> Response:
        return error_response(error)

    @app.exception_handler(Disconnected)
    async def _gone(request: Request, error: Disconnected) -> Response:
        return Response(status_code=499)

    @app.exception_handler(HTTPException)
    async def _unrouted(request: Request, error: HTTPException) -> Response:
        place = f"{request.method} {request.url.path[:200]}"
        said = {404: "there is no such address", 405: "this address does not take this method"}
        return error_response(RequestError(f"{place}: {said.get(error.status_code, error.detail)}", error.status_code))

    @app.exception_handler(Exception)
    async def _failed(request: Request, error: Exception) -> Response:
        return error_response(RequestError(f"the server failed: {type(error).__name__}", 500, "server_error"))

    @app.get("/health")
    async def _health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def _models() -> dict[str, Any]:
        return {"object": "list", "data": [card(name) for name in names]}

    @app.get("/v1/models/{name:path}")
    async def _model(name: str) -> dict[str, Any]:
        return card(known_policy(name, names))

    @app.post("/v1/chat/completions")
    async def _complete(request: Request) -> Response:
        body = read_request(await read_json(request), ChatRequest)
        known_policy(body.model, names)
        asked = body.request(body.model)
        conversation = None
        if body.model == LIVE:
            named = (body.metadata or {}).get("conversation") or body.user or body.safety_identifier
            conversation = conversation_named(asked.messages, named)
            asked = body.request(await asyncio.to_thread(traffic.policy_of, conversation))
        tokens = await engine.check(asked)
        answer = Answer(f"chatcmpl-{uuid.uuid4().hex}", body.model, tokens, bool(body.logprobs))

        async def keep() -> None:
            kept = [
                ServedReply(f"{answer.id}:{i}", conversation, asked.policy, asked.messages, piece.whole)
                for i, piece in answer.finished.items()
            ]
            await asyncio.to_thread(traffic.keep, kept)

        if not body.stream:
            await until_gone(request, _collect(engine.generate(asked), answer))
            await keep()
            return JSONResponse(answer.whole())
        usage = bool(body.stream_options and body.stream_options.include_usage)

        async def events() -> AsyncIterator[str]:
            async for piece in engine.generate(asked):
                text = answer.chunk(piece, usage)
                if len(answer.finished) == asked.n:
                    await keep()  # before the end is sent, so that feedback on it finds the reply
                yield text
            yield answer.end(usage)

        return await streamed(events())

    return app


async def read_json(request: Request) -> Any:
    """The body of a request.

    Raises:
        RequestError: when it is too large, too slow, or no JSON.
    """
    stated = request.headers.get("content-length", "")
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(f"Content-Type {kind[:80]!r}: send application/json", 415)
    too_large = RequestError(f"the body is larger than {MOST_BYTES:,} bytes", 413, code="body_too_large")
    if stated.isdecimal() and int(stated) > MOST_BYTES:
        raise too_large
    body = bytearray()

    async def read() -> None:
        async for part in request.stream():
            body.extend(part)
            if len(body) > MOST_BYTES:
                raise too_large

    try:
        await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise RequestError(f"the body did not come within {BODY_SECONDS:g} seconds", 408) from None
    except ClientDisconnect:
        raise Disconnected from None
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, json.JSONDecodeError) else "it is nested too deep, or not UTF-8"
        raise RequestError(f"the body is no JSON: {why}") from None


def error_response(error: RequestError) -> JSONResponse:
    """OpenAI's error object, with its status."""
    headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else None
    return JSONResponse(error.body(), error.status, headers)


async def streamed(events: AsyncIterator[str]) -> Response:
    """Server-sent events. An error before the first one is an ordinary answer; a later one is an event itself."""
    first = await anext(events)

    async def all_events() -> AsyncIterator[str]:
        try:
            yield first
            async for event in events:
                yield event
        except RequestError as error:
            yield sse(error.body())
        except Exception as error:
            log.exception("a stream failed")
            failed = RequestError(f"the server failed: {type(error).__name__}", 500, "server_error")
            yield sse(failed.body())
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(all_events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def until_gone(request: Request, work: Awaitable[None]) -> None:
    """Do some work as long as the client waits for it. Raises `Disconnected` where it goes away."""
    task = asyncio.ensure_future(work)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.ensure_future(gone())
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Disconnected
        task.result()
    finally:
        for each in (task, watch):
            each.cancel()
            with contextlib.suppress(BaseException):
                await each


async def _collect(pieces: AsyncIterator[Piece], answer: Answer) -> None:
    async for piece in pieces:
        answer.add(piece)
