"""A served policy under load, in its end, and with clients that do harm: a process of its own, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import httpx
import openai
import psutil
import pytest
from tests.serving import drawn_adapter

from prefzoo.feedback.store import FeedbackStore

pytestmark = pytest.mark.people
ASKED = [{"role": "user", "content": "What does the mug cost?"}]
COMMAND = [sys.executable, "-c", "from prefzoo.cli import main; main()", "serve"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return drawn_adapter(tmp_path_factory.mktemp("policies") / "dpo", 1)


@pytest.fixture
def serve(policy, tmp_path):
    """Starts servers; gives the process and the address of each, and what it has said."""
    started = []

    def start(*more: str, env=None) -> SimpleNamespace:
        whole = [*COMMAND, str(policy), "--port", "0", "--feedback", str(tmp_path / "feedback.sqlite"), *more]
        said = tmp_path / f"said{len(started)}.txt"
        with said.open("w") as file:
            process = subprocess.Popen(whole, stdout=file, stderr=file, env={**os.environ, **(env or {})})
        started.append(process)
        while process.poll() is None and "Feedback:" not in said.read_text():
            time.sleep(0.1)
        text = said.read_text()
        assert "Feedback:" in text, text
        return SimpleNamespace(
            process=process, url=re.search(r"Chat page: (http://\S+?)/", text)[1], said=said.read_text
        )

    yield start
    for process in started:
        process.kill()
        process.wait(20)


def client_of(url: str) -> openai.AsyncOpenAI:
    limits = {"max_connections": 300, "max_keepalive_connections": 0}
    return openai.AsyncOpenAI(
        base_url=f"{url}/v1",
        api_key="none",
        max_retries=0,
        timeout=120,
        http_client=openai.DefaultAsyncHttpxClient(limits=_limits(**limits), timeout=120),
    )


def _limits(**limits):
    import importlib

    module = importlib.import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])
    return module.Limits(**limits)


async def one(client, i: int, **how) -> str:
    """The reply to a request, every second of them streamed."""
    asked = {"model": "dpo", "messages": ASKED, "seed": i, "max_tokens": 24, **how}
    if i % 2:
        answer = await client.chat.completions.create(**asked)
        return answer.choices[0].message.content
    parts = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
    assert parts[-1].choices[0].finish_reason
    return "".join(part.choices[0].delta.content or "" for part in parts)


def test_200_at_a_time_among_harm_are_all_answered_and_memory_stays_flat(serve) -> None:
    server = serve()
    process, url = server.process, server.url
    port = int(url.rpartition(":")[2])

    async def harm(client, i: int) -> None:
        """A client that dies, one that never sends its body, a huge one, an overlong prompt, an unknown model."""
        if i % 3 == 0:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            body = json.dumps(
                {"model": "dpo", "messages": ASKED, "stream": True, "max_tokens": 1500, "temperature": 50}
            )
            head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(body) + 10 * (i % 2)}\r\n\r\n{body}".encode())
            await writer.drain()
            await asyncio.sleep(0.2)
            writer.transport.abort()
            return
        bad = {"messages": [{"role": "user", "content": "price " * (3000 if i % 3 == 1 else 300_000)}]}
        with pytest.raises(openai.APIStatusError) as refused:
            await one(client, i, **bad)
        assert refused.value.status_code in (400, 413)

    async def round_of(count: int) -> list[str]:
        client = client_of(url)
        replies, *_ = await asyncio.gather(
            asyncio.gather(*(one(client, i) for i in range(count))), *(harm(client, i) for i in range(30))
        )
        await client.close()
        return replies

    first = asyncio.run(round_of(200))
    assert len(first) == 200 and len(set(first)) > 20 and all(isinstance(text, str) for text in first)
    memory = psutil.Process(process.pid).memory_info().rss
    for _ in range(3):
        assert asyncio.run(round_of(200)) == first  # by their seeds, whatever else goes on
    grown = psutil.Process(process.pid).memory_info().rss - memory
    assert grown < 40 * 2**20, f"{grown / 2**20:.0f} MiB more"
    assert len(psutil.Process(process.pid).net_connections()) < 20
    assert httpx.get(f"{url}/health").status_code == 200 and process.poll() is None
    assert "Traceback" not in server.said()


def test_sigterm_lets_replies_end_and_refuses_those_that_wait(serve) -> None:
    server = serve()
    process, url = server.process, server.url

    async def work() -> list[object]:
        client = client_of(url)
        tasks = [asyncio.create_task(one(client, i, max_tokens=60)) for i in range(120)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        process.send_signal(signal.SIGTERM)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
        return results

    results = asyncio.run(work())
    answered = [each for each in results if isinstance(each, str)]
    told = [each for each in results if isinstance(each, openai.APIError) and "being stopped" in str(each)]
    refused = [each for each in results if isinstance(each, openai.APIConnectionError)]
    assert answered and len(answered) + len(told) + len(refused) == 120, [repr(each) for each in results][:3]
    assert process.wait(40) == 130 and "interrupted" in server.said()


def test_acknowledged_feedback_survives_sigkill(serve, tmp_path) -> None:
    server = serve()
    process, url = server.process, server.url
    acknowledged: list[str] = []
    with httpx.Client(base_url=url, timeout=30) as http:
        reply = http.post("/v1/chat/completions", json={"model": "live", "messages": ASKED}).json()["id"]

    async def post() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:

            async def say(i: int) -> None:
                for _ in range(200):
                    answer = str(uuid.uuid4())
                    user = f"user {i} {answer}"[:90]
                    body = {"reply": reply, "thumb": "up", "user": user, "answer_id": answer}
                    posted = await http.post("/feedback", json=body)
                    if posted.status_code == 200:
                        acknowledged.append(answer)

            tasks = [asyncio.create_task(say(i)) for i in range(8)]
            while len(acknowledged) < 60:
                await asyncio.sleep(0.02)
            process.kill()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(post())
    kept = [answer.answer_id for answer in FeedbackStore(tmp_path / "feedback.sqlite").answers("thumb")]
    assert len(kept) == len(set(kept)) and set(acknowledged) <= set(kept) and len(acknowledged) >= 60
    url = serve().url  # what was served before can still be judged
    body = {"reply": reply, "thumb": "down", "user": "after", "answer_id": str(uuid.uuid4())}
    assert httpx.post(f"{url}/feedback", json=body).json()["new"]


def test_a_taken_port_is_told_before_anything_is_loaded(serve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AssertionError, match="choose another, or --port 0"):
            serve("--port", str(taken.getsockname()[1]))


def test_off_loopback_the_page_is_reached_with_the_token_alone(serve) -> None:
    url = serve("--host", "0.0.0.0", env={"PREFZOO_SERVE_TOKEN": "from the environment"}).url
    local = f"http://127.0.0.1:{url.rpartition(':')[2]}"
    assert httpx.get(f"{local}/v1/models").status_code == 401
    assert httpx.get(f"{local}/v1/models", headers={"authorization": "Bearer from the environment"}).status_code == 200
