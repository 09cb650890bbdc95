"""A server of chat completions that misbehaves as a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def said(text: Any, **choice: Any) -> dict[str, Any]:
    """The body of a sound reply that took 7 tokens of question and 2 of answer."""
    whole = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [whole], "usage": usage}


@dataclass
class Reply:
    """What is sent back.

    Attributes:
        body: JSON, or bytes as they are.
        delay: seconds before anything is sent.
        drip: seconds between one byte and the next.
        cut: whether the connection is closed in the middle of the body.
    """

    body: Any = field(default_factory=lambda: said("yes"))
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    cut: bool = False


@dataclass
class Seen:
    """A request: its headers by their names in lower case, its body, and when it came (seconds)."""

    headers: dict[str, str]
    body: dict[str, Any]
    time: float

    @property
    def question(self) -> str:
        return self.body["messages"][-1]["content"]


class ChatServer:
    """Answers on loopback; use as a context.

    Args:
        act: `act(request, nth)` gives the reply to the nth request (from 0) with this question.
        port: 0 for one that is free.
        models: what it says it has.
    """

    def __init__(
        self, act: Callable[[Seen, int], Reply] = lambda seen, nth: Reply(), port: int = 0, models: tuple[str, ...] = ()
    ) -> None:
        self.act, self.models = act, models
        self.dead = False
        self.seen: list[Seen] = []
        self.answered: Counter[str] = Counter()
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send(Reply({"object": "list", "data": [{"id": name} for name in outer.models]}))

            def do_POST(self) -> None:
                if outer.dead:
                    self.close_connection = True
                    return
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    seen = Seen({name.lower(): value for name, value in self.headers.items()}, body, time.monotonic())
                    nth = sum(other.question == seen.question for other in outer.seen)
                    outer.seen.append(seen)
                    outer._now += 1
                    outer.most_at_once = max(outer.most_at_once, outer._now)
                try:
                    reply = outer.act(seen, nth)
                    time.sleep(reply.delay)
                    self.send(reply)
                    with outer._lock:
                        outer.answered[seen.question] += reply.status == 200 and not reply.cut
                except OSError:  # the client has gone
                    self.close_connection = True
                finally:
                    with outer._lock:
                        outer._now -= 1

            def send(self, reply: Reply) -> None:
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if reply.cut:
                    content, self.close_connection = content[: len(content) // 2], True
                if reply.drip:
                    for byte in content:
                        self.wfile.write(bytes([byte]))
                        time.sleep(reply.drip)
                else:
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # with the usual 5, a busy machine turns connections away
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        self._server.handle_error = lambda *_: None
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.dead = True  # connections that are open end, too
        self._server.shutdown()
        self._server.server_close()
