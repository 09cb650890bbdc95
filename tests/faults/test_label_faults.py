"""Two people label in real browsers by keyboard, and twenty programs post, while browsers and servers are killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefzoo.data.read_rows import read_rows
from prefzoo.feedback.read_items import items_of_file
from prefzoo.feedback.store import FeedbackStore

pytestmark = pytest.mark.people
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SEED = int(os.environ.get("PREFZOO_TEST_SEED", "0"))
COMMAND = [sys.executable, "-c", "from prefzoo.cli import main; main()", "label"]
EACH = 40


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, f"exit code {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nothing listens on {port}")


class Server:
    """`prefzoo label` in a process of its own, which can be killed and started again."""

    def __init__(self, source: Path, *options: str) -> None:
        self.port = free_port()
        self.command = [*COMMAND, str(source), "--port", str(self.port), *options]
        self.base = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        wait_for(self.port, self.process)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """100 pairs, of which the longer reply is the better one."""
    file = tmp_path / "pairs.jsonl"
    prompts = ({"prompt": f"Question {n}?", "response_a": f"Answer {n}.", "response_b": f"A good answer {n}, and why."}
               for n in range(100))  # fmt: skip
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return file


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    started: list[Server] = []
    yield started
    for server in started:
        server.kill()


class Window:
    """Chromium in a process of its own, with a profile that outlives it."""

    def __init__(self, playwright: Any, profile: Path, base: str, name: str) -> None:
        self.playwright, self.profile, self.base, self.name = playwright, profile, base, name
        self.acknowledged: dict[str, str] = {}  # answer -> item
        self.problems: list[str] = []
        self.open()

    def open(self) -> None:
        port = free_port()
        path = next(filter(None, map(shutil.which, BROWSERS)))
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={self.profile}"]
        self.process = subprocess.Popen(
            [path, *flags, f"--remote-debugging-port={port}", "about:blank"], stderr=subprocess.DEVNULL
        )
        wait_for(port, self.process)
        browser = self.playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
        self.page = browser.contexts[0].pages[0]
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("response", self.heard)
        self.page.goto(self.base)
        if self.page.locator("#name").count():  # a killed browser may have lost its cookie
            self.page.keyboard.type(self.name)
            self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#task section[data-item]")

    def heard(self, response: Any) -> None:
        if response.url.endswith("/answer") and response.status == 200:
            sent = json.loads(response.request.post_data)
            self.acknowledged[sent["answer_id"]] = sent["item_id"]

    @property
    def done(self) -> int:
        return int(re.findall(r"(\d+) done", self.page.inner_text("#count"))[0])

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def wait(self, done: int) -> None:
        until = time.monotonic() + 30
        while self.done != done or self.page.locator("#task[aria-busy]").count():
            assert time.monotonic() < until, (self.done, done, self.page.inner_text("#alert"))
            self.page.wait_for_timeout(10)

    def better(self, rng: random.Random) -> str:
        """The key for the longer reply, mostly."""
        first, second = (len(text) for text in self.page.locator(".reply .text").all_inner_texts())
        longer = ("1", "2") if first > second else ("5", "4")
        return "3" if rng.random() < 0.1 else rng.choice(longer)


def test_what_was_acknowledged_is_in_the_export_once_whatever_is_killed(pairs, servers, tmp_path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip("no Chromium is installed")
    rng = random.Random(SEED)
    server = Server(pairs, "--overlap", "0.5")
    servers.append(server)
    killed = Counter[str]()
    with sync_api.sync_playwright() as playwright:
        anna, ben = (Window(playwright, tmp_path / name, server.base, name) for name in ("anna", "ben"))
        try:
            for number in range(1, EACH + 1):
                for window in (anna, ben):
                    window.press(window.better(rng))
                    if number == 20 and window is ben:  # with its answer on the way, or not yet
                        time.sleep(rng.uniform(0, 0.03))
                        os.kill(window.process.pid, signal.SIGKILL)
                        window.process.wait()
                        killed["browser"] += 1
                        window.open()
                        window.page.wait_for_timeout(500)  # what was not sent is sent now
                        if window.done < number:  # the browser died before it kept what was pressed
                            window.press(window.better(rng))
                    elif number in (12, 31) and window is anna:
                        time.sleep(rng.uniform(0, 0.02))
                        server.kill()
                        killed["server"] += 1
                        server.start()
                    window.wait(number)
            anna.press("u")
            anna.wait(EACH - 1)
            anna.press("1")
            anna.wait(EACH)
        finally:
            for window in (anna, ben):
                window.process.kill()
                window.process.wait()
    assert killed == {"browser": 1, "server": 2} and anna.problems == ben.problems == []
    out = tmp_path / "export"
    told = subprocess.run(
        [*COMMAND, str(pairs), "--export", str(out)], check=True, capture_output=True, text=True
    ).stdout
    assert "anna: 40 answers" in told and "ben: 40 answers" in told
    lines = [json.loads(line) for line in (out / "compare.jsonl").read_text().splitlines()]
    exported = Counter((line["annotator"], line["item"]) for line in lines)
    assert len(lines) == 2 * EACH and set(exported.values()) == {1}
    store = FeedbackStore(pairs.with_name("pairs.jsonl.labels.sqlite"))
    kept = Counter(answer.answer_id for answer in store.answers(live=False))
    for window in (anna, ben):
        assert (
            len(window.acknowledged) >= EACH - 3
        )  # an answer that was on the way when something died may lack its reply
        assert all(kept[answer] == 1 for answer in window.acknowledged)
        assert {(window.name, item) for item in window.acknowledged.values()} <= exported.keys()
    found = read_rows("preferences", str(out / "compare.jsonl"))
    assert found.annotators["judgements"] == 2 * EACH and found.annotators["items_with_several"] > 3
    right = [len(row.chosen or "") > len(row.rejected or "") for row in found.rows]
    assert sum(right) >= len(right) - 1  # sides were mapped back; one was undone and answered anew by its side
    _train(out / "compare.jsonl", tmp_path)


def _train(preferences: Path, folder: Path) -> None:
    """DPO on the export, and what the report says of the annotators."""
    from prefzoo.commands.comparison import compare

    recipe = {
        "extends": "base",
        "data": {"preferences": str(preferences), "annotators": "reliability"},
        "gold": "none",
        "start": "none",
        "seeds": [0],
        "budget": {"prompts": 16},
        "generation": {"max_new_tokens": 8},
        "evaluation": {"prompts": 8},
        "judge": {"type": "random"},
        "tracking": {"wandb": {"mode": "disabled"}},
        "algorithms": {"dpo": {}},
    }
    results = compare(recipe, out=folder / "run")
    assert results.algorithms["dpo"].status == "ok"
    report = (folder / "run" / "report.md").read_text()
    assert "Annotators (preferences): 80 judgements" in report
    assert "Krippendorff's alpha" in report and re.search(r"ben \d+% of \d+ .*right in \d+%", report)


@pytest.mark.parametrize("task", ["compare", "rank", "rate", "span", "rewrite"])
def test_axe_finds_no_serious_fault_and_every_task_works_by_keyboard(task, pairs, browser, tmp_path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    store = FeedbackStore(tmp_path / "labels.sqlite")
    store.add_items(items_of_file(str(pairs), task, store.item_id)[0])
    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light")):
        with served(store) as base:
            page = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme).new_page()
            problems: list[str] = []
            page.on("console", lambda said, to=problems: to.append(f"{said.type}: {said.text}"))
            page.on("pageerror", lambda error, to=problems: to.append(str(error)))
            page.on("request", lambda asked, to=problems: asked.url.startswith(base) or to.append(asked.url))
            page.goto(base)
            if task == "compare":  # the door is the same for all
                serious(axe, page)
            page.keyboard.type(f"{task} {width} {scheme}")
            page.keyboard.press("Enter")
            page.wait_for_selector("#task section[data-item]")
            serious(axe, page)
            for key in KEYS[task]:
                page.keyboard.press(key) if len(key) == 1 or key[0].isupper() else page.keyboard.type(key)
            page.get_by_text("1 done").wait_for()
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate("() => document.activeElement.tagName") == "H1"  # what a screen reader goes on from
            assert problems == []
    values = [answer.value for answer in store.answers()]
    assert len(values) == 3
    if task == "rank":
        order = [a.shown_order for a in store.answers()]
        assert [[v["ranks"][i] for i in o] for v, o in zip(values, order, strict=True)] == [[2, 1]] * 3
    elif task == "rate":
        from prefzoo.feedback.label_app import DIMENSIONS

        rated = dict(zip(DIMENSIONS, (7, 0, 10, 3, 9), strict=True))
        assert [value["ratings"] for value in values] == [rated] * 3
    elif task == "span":
        assert all(value["spans"] == [{"start": 0, "end": 2, "reason": "because"}] for value in values)
    elif task == "rewrite":
        assert all(value["text"].startswith("Better: ") and "nswer" in value["text"] for value in values)


KEYS = {
    "compare": ["5"],
    "rank": ["1", "Backspace", "2", "1", "Enter"],
    "rate": ["7", "0", "t", "3", "9", "Enter"],
    "span": ["Tab", "Shift+ArrowRight", "Shift+ArrowRight", "m", "because", "Enter", "Control+Enter"],
    "rewrite": ["Tab", "Control+Home", "B", "etter: ", "Control+Enter"],
}
"""What is pressed or typed for one answer."""


def serious(axe: Any, page: Any) -> None:
    found = axe.Axe().run(page).response["violations"]
    assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with (
        sync_api.sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as opened,
    ):
        yield opened


@contextlib.contextmanager
def served(store: FeedbackStore) -> Iterator[str]:
    """The page in a thread of this process."""
    import uvicorn

    from prefzoo.feedback.label_app import Labelling, make_app

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(Labelling(store)), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def test_twenty_clients_post_two_thousand_answers_and_none_is_lost(pairs, servers, capsys) -> None:
    server = Server(pairs, "--overlap", "1")
    servers.append(server)
    seconds: list[float] = []
    acknowledged: set[str] = set()
    failed: list[str] = []

    def post(path: str, content: dict[str, Any], headers: dict[str, str]) -> tuple[dict[str, Any], str]:
        request = urllib.request.Request(
            server.base + path, json.dumps(content).encode(), {"Content-Type": "application/json", **headers}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read()), response.headers.get("Set-Cookie", "").partition(";")[0]

    def client(number: int) -> None:
        try:
            _, cookie = post("/enter", {"name": f"client {number}"}, {})
            with urllib.request.urlopen(urllib.request.Request(server.base, headers={"Cookie": cookie})) as response:
                html = response.read().decode()
            headers = {"Cookie": cookie, "X-CSRF-Token": re.findall(r'csrf" content="(\w+)"', html)[0]}
            for n in range(100):
                item = re.findall(r'data-item="(\w+)"', html)[0]
                answer = {"answer_id": f"{number}-{n}", "item_id": item, "seconds": 1, "value": {"choice": "tie"}}
                began = time.perf_counter()
                said, _ = post("/answer", answer, headers)
                seconds.append(time.perf_counter() - began)
                acknowledged.add(answer["answer_id"])
                html = said["html"]
        except Exception as error:
            failed.append(f"{number}: {error!r}")

    began = time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    server.kill()
    assert failed == [] and len(acknowledged) == 2000
    answers = FeedbackStore(pairs.with_name("pairs.jsonl.labels.sqlite")).answers()
    assert {answer.answer_id for answer in answers} == acknowledged
    assert Counter((a.annotator, a.item_id) for a in answers).most_common(1)[0][1] == 1
    seconds.sort()
    with capsys.disabled():
        median, late, last = (f"{1000 * seconds[int(2000 * share) - 1]:.0f} ms" for share in (0.5, 0.99, 1))
        print(f"\n2,000 answers of 20 clients in {took:.1f} s: median {median}, 99% {late}, last {last}")
