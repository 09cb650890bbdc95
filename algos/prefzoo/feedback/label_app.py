"""The page on which people give feedback, as a FastAPI application."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, JSONResponse, Response

from prefzoo.errors import PrefzooError
from prefzoo.feedback.annotator_queues import token_hash
from prefzoo.feedback.feedback_types import HIGHEST, Answer, AnsweredAlready, Explain, FeedbackError, Item, Shown
from prefzoo.feedback.request_guard import Refused, RequestGuard, read_json
from prefzoo.feedback.side_mapping import own_value
from prefzoo.feedback.store import FeedbackStore
from prefzoo.machine import is_loopback

HERE = Path(__file__).parent
DIMENSIONS = ("instruction following", "factual accuracy", "safety", "helpfulness", "naturalness")
MOST_SECONDS = 86_400.0
SESSION_DAYS = 30
LOOKED = "looked at explanations: "
"""Begins the store's setting that says that somebody did."""
TITLES = {
    "compare": "Which reply is better?",
    "ab": "Which reply is better?",
    "rank": "Rank the replies",
    "rate": "Rate the reply",
    "span": "Mark what is good or bad",
    "rewrite": "Write a better reply",
}


@dataclass(frozen=True)
class Labelling:
    """What the page does.

    Attributes:
        store: where items and answers are.
        dimensions: in which a reply is rated.
        host: the address that is listened on; where it is not loopback, people need a token and a name is not enough.
        hostname: another name under which people reach the page; they need a token then, too.
        explain: what made the learned rewards of replies; None where nothing is known of them. It is shown to whoever
            asks for it and has no question left, and whoever saw it cannot take an answer back; so it steers none. Of
            an A/B test it is not shown: a higher reward would tell the trained policy.
    """

    store: FeedbackStore
    dimensions: Sequence[str] = DIMENSIONS
    host: str = "127.0.0.1"
    hostname: str | None = None
    explain: Explain | None = None

    @property
    def by_name(self) -> bool:
        """Whether people may come in by their name alone."""
        return is_loopback(self.host) and self.hostname is None

    @property
    def cookie(self) -> str:
        """The cookie's name, another one for each store, since a browser mixes the ports of a machine."""
        return f"prefzoo_{token_hash(self.store.secret)[:8]}"

    def csrf(self, session: str) -> str:
        """What a post of this session must bring in a header, which no other site's page can read."""
        key = bytes.fromhex(self.store.secret)
        return hmac.new(key, f"csrf {token_hash(session)}".encode(), hashlib.sha256).hexdigest()


def make_app(labelling: Labelling) -> FastAPI:
    """The application. It writes nothing on a GET; each answer is on the disk before the next item is sent."""
    app = FastAPI(title="prefzoo label", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(RequestGuard, host=labelling.host, hostname=labelling.hostname)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    views = _Views(labelling)
    app.add_api_route("/", views.page, methods=["GET"], response_model=None)
    for path, view in {
        "/enter": views.enter,
        "/answer": views.answer,
        "/undo": views.undo,
        "/why": views.why,
        "/next": views.next,
        "/leave": views.leave,
    }.items():
        app.add_api_route(path, view, methods=["POST"], response_model=None)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(PrefzooError, _failed)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": error.reason}, error.status)


async def _failed(request: Request, error: Exception) -> Response:
    """What a wrong answer, or a store that cannot be written, is told."""
    status = 409 if isinstance(error, AnsweredAlready) else 422 if isinstance(error, FeedbackError) else 503
    return JSONResponse({"error": str(error)}, status)


class _Views:
    def __init__(self, labelling: Labelling) -> None:
        self.labelling, self.store = labelling, labelling.store
        loader = jinja2.FileSystemLoader(HERE / "templates")
        self.templates = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )

    async def page(self, request: Request) -> Response:
        """The item that is before whoever asks, or the door."""
        session = request.cookies.get(self.labelling.cookie, "")
        name = await run_in_threadpool(self.store.annotator_of, session)
        if name is None:
            return self._html("enter.html.jinja", by_name=self.labelling.by_name)
        task = await run_in_threadpool(self._task, name)
        return self._html("label_page.html.jinja", name=name, csrf=self.labelling.csrf(session), task=task)

    async def enter(self, request: Request) -> Response:
        """Open a session by a link's token, or on loopback by a name."""
        said = await read_json(request)
        token, name = said.get("token"), said.get("name")
        if isinstance(token, str):
            known = await run_in_threadpool(self.store.annotator_of, token)
            if known is None:
                raise Refused(403, "this link is not valid; ask for a new one")
        elif isinstance(name, str) and self.labelling.by_name:
            known = " ".join(name.split())
            if known not in await run_in_threadpool(self.store.annotators):
                await run_in_threadpool(self.store.add_annotator, known)
        else:
            raise Refused(403, "come in by the link that you were given")

        def opened() -> str:
            with self.store.together():
                self.store.next_item(known)
                return self.store.open_session(known)

        response = JSONResponse({"entered": True})
        response.set_cookie(
            self.labelling.cookie,
            await run_in_threadpool(opened),
            max_age=SESSION_DAYS * 86_400,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def answer(self, request: Request) -> Response:
        """Write an answer, and send what is next."""
        name, said = await self._post(request)
        answer_id, item_id, seconds = (said.get(key) for key in ("answer_id", "item_id", "seconds"))
        if not (isinstance(answer_id, str) and isinstance(item_id, str) and f"{answer_id}{item_id}".isascii()):
            raise Refused(422, "an answer has answer_id and item_id")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not math.isfinite(seconds):
            raise Refused(422, "seconds is a number")

        def write() -> dict[str, Any]:
            shown = self.store.drawn(name, item_id)
            if shown is None:
                raise FeedbackError("this item was not shown to you")
            value = own_value(shown, said.get("value"))
            if shown.item.kind == "rate" and set(value.get("ratings") or ()) != set(self.labelling.dimensions):
                raise FeedbackError(f"a rating has {', '.join(self.labelling.dimensions)}")
            spent = min(max(float(seconds), 0.0), MOST_SECONDS)
            with self.store.together():
                self.store.record(Answer(answer_id, item_id, name, shown.item.kind, value, shown.order, spent))
                self.store.next_item(name)
            return self._task(name)

        return await self._told(write)

    async def undo(self, request: Request) -> Response:
        """Take the last answer back, and send its item."""
        name, _ = await self._post(request)

        def back() -> dict[str, Any]:
            if self.store.setting(LOOKED + name) is not None:
                raise FeedbackError("you have seen what made the rewards, so that no answer can be taken back")
            undone = self.store.undo(name)
            return {**self._task(name), "undone": undone is not None}

        return await self._told(back)

    async def why(self, request: Request) -> Response:
        """What made the rewards of the replies that somebody judged, once there is no question left."""
        name, _ = await self._post(request)

        def told() -> dict[str, Any]:
            found = self._explained(name)
            if not found:
                raise FeedbackError("there is nothing to show before every question has its answer")
            self.store.setting(LOOKED + name, "yes")
            html = self.templates.get_template("explained.html.jinja").render(items=found)
            return {"html": html, **self.store.progress(name)}

        return await self._told(told)

    async def next(self, request: Request) -> Response:
        """Draw an item for somebody who has none."""
        name, _ = await self._post(request)

        def drawn() -> dict[str, Any]:
            self.store.next_item(name)
            return self._task(name)

        return await self._told(drawn)

    async def leave(self, request: Request) -> Response:
        """Close the session."""
        await self._post(request)
        await run_in_threadpool(self.store.close_session, request.cookies[self.labelling.cookie])
        response = JSONResponse({"left": True})
        response.delete_cookie(self.labelling.cookie)
        return response

    async def _post(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Who posts, and what. Raises Refused without a session, or the token that its page holds."""
        session = request.cookies.get(self.labelling.cookie, "")
        name = await run_in_threadpool(self.store.annotator_of, session)
        if name is None:
            raise Refused(401, "you are not signed in; reload the page")
        brought = request.headers.get("x-csrf-token", "")
        if not hmac.compare_digest(brought.encode(), self.labelling.csrf(session).encode()):
            raise Refused(403, "this post does not come from the page; reload it")
        return name, await read_json(request)

    async def _told(self, work: Callable[[], dict[str, Any]]) -> Response:
        return JSONResponse(await run_in_threadpool(work))

    def _task(self, name: str) -> dict[str, Any]:
        """What is before somebody, as HTML; nothing in it says who wrote which reply."""
        shown = self.store.current_item(name)
        progress = self.store.progress(name)
        html = self.templates.get_template("task.html.jinja").render(
            shown=None if shown is None else self._visible(shown),
            progress=progress,
            explained=shown is None and bool(self._explained(name)),
        )
        return {"html": html, **progress}

    def _explained(self, name: str) -> list[tuple[Item, Sequence[Any]]]:
        """The items that somebody judged, with explanations of their replies; none while there is a question left."""
        explain, progress = self.labelling.explain, self.store.progress(name)
        if explain is None or progress["left"] or self.store.current_item(name) is not None:
            return []
        judged = {answer.item_id for answer in self.store.answers() if answer.annotator == name}
        items = [item for item in self.store.items() if item.item_id in judged and item.kind != "ab"]
        return [(item, found) for item in items if (found := explain(item))]

    def _visible(self, shown: Shown) -> dict[str, Any]:
        item = shown.item
        return {
            "item_id": item.item_id,
            "kind": "compare" if item.kind == "ab" else item.kind,
            "title": TITLES[item.kind],
            "prompt": item.prompt,
            "replies": [item.replies[i]["text"] for i in shown.order],
            "dimensions": self.labelling.dimensions,
            "highest": HIGHEST,
        }

    def _html(self, template: str, **values: Any) -> Response:
        return HTMLResponse(self.templates.get_template(template).render(**values))


def link(base: str, token: str) -> str:
    """The address that lets somebody in; what follows `#` is never sent over the network, nor logged."""
    return f"{base}/#token={token}"
