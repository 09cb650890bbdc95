"""The page for feedback as a program meets it: who may post, what is written, and that nothing tells the policies."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prefzoo.commands.label_server import explanations_of
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_rows import read_rows
from prefzoo.errors import PrefzooError
from prefzoo.feedback.feedback_types import Answer, Item
from prefzoo.feedback.label_app import Labelling, make_app
from prefzoo.feedback.read_items import items_of_file
from prefzoo.feedback.side_mapping import letter_places
from prefzoo.feedback.store import FeedbackStore
from prefzoo.report.annotators import annotator_facts

testclient = pytest.importorskip("fastapi.testclient", reason="fastapi is not installed")
HOSTILE = "</div><script>document.title = 1</script><img src=x onerror=alert(1)>\"'{{ 7 * 7 }}"
BASE = "http://127.0.0.1:8642"
NUMBERS = itertools.count()


def opened(tmp_path: Path, items: list[Item] | None = None, seed: int = 0, **more: Any) -> Labelling:
    store = FeedbackStore(tmp_path / f"{next(NUMBERS)}.sqlite", random.Random(seed))
    store.setting("overlap", "1")
    store.add_items(pairs(store, 6) if items is None else items)
    return Labelling(store, **more)


def pairs(
    store: FeedbackStore, count: int, kind: str = "compare", texts: tuple[str, str] = ("one", "two")
) -> list[Item]:
    made = []
    for n in range(count):
        prompt = [{"role": "user", "content": f"question {n}"}]
        replies = [{"text": f"{text} {n}", "policy": name} for text, name in zip(texts, ("start", "dpo"), strict=True)]
        made.append(Item(store.item_id(kind, prompt, replies), kind, prompt, replies))
    return made


class Browser:
    """A client with a session, which answers what is before it."""

    def __init__(self, labelling: Labelling, **entry: str) -> None:
        self.client = testclient.TestClient(make_app(labelling), base_url=BASE)
        self.traffic: list[str] = []
        self.read(self.client.post("/enter", json=entry))
        self.load()

    def read(self, response: Any) -> Any:
        self.traffic.append(f"{response.status_code} {response.headers} {response.text}")
        return response

    def load(self) -> None:
        self.html = self.read(self.client.get("/")).text
        self.csrf = (re.findall(r'name="csrf" content="(\w+)"', self.html) or [""])[0]

    @property
    def item(self) -> str:
        return (re.findall(r'data-item="(\w+)"', self.html) or [""])[0]

    def post(self, path: str, content: Any, **more: Any) -> Any:
        headers = {"X-CSRF-Token": self.csrf, **more.pop("headers", {})}
        response = self.read(self.client.post(path, json=content, headers=headers, **more))
        with contextlib.suppress(ValueError, KeyError):
            self.html = response.json()["html"]
        return response

    def answer(self, value: Any, **more: Any) -> Any:
        content = {"answer_id": f"answer {next(NUMBERS)}", "item_id": self.item, "seconds": 1.5, "value": value}
        return self.post("/answer", {**content, **more})


FIRST = {"choice": "first", "strength": "better"}


def test_an_answer_is_written_before_the_next_is_shown_and_once_however_often_it_is_sent(tmp_path: Path) -> None:
    labelling = opened(tmp_path)
    anna = Browser(labelling, name=" anna ")
    item = anna.item
    for _ in range(2):
        assert anna.answer(FIRST, answer_id="same", item_id=item).json()["answered"] == 1
    assert anna.item and anna.item != item
    assert anna.answer(FIRST, item_id=item).status_code == 409  # another answer to it
    kept = labelling.store.answers()
    assert [(a.answer_id, a.item_id, a.annotator, a.seconds) for a in kept] == [("same", item, "anna", 1.5)]
    order = labelling.store.drawn("anna", item)
    assert order is not None and kept[0].value["choice"] == ("first", "second")[order.order[0]]
    assert anna.post("/undo", {}).json()["undone"] and anna.item == item
    assert labelling.store.answers() == []
    assert Browser(labelling, name="anna").item == item  # in another browser, or after a crash of this one
    for _ in range(6):
        assert anna.answer({"choice": "tie"}).status_code == 200
    assert "All done" in anna.html and anna.post("/undo", {}).json()["left"] == 1


def test_a_get_changes_nothing(tmp_path: Path) -> None:
    labelling = opened(tmp_path)
    anna = Browser(labelling, name="anna")
    anna.answer(FIRST)
    before = dump(labelling.store)
    for path in (
        "/",
        "/?name=ben&token=x",
        "/enter",
        "/answer",
        "/undo",
        "/next",
        "/why",
        "/leave",
        "/static/label.js",
    ):
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
            anna.client.request(method, path)
    assert dump(labelling.store) == before


def dump(store: FeedbackStore) -> list[str]:
    return list(store._connection().iterdump())


def test_nobody_posts_from_another_site_or_without_the_pages_token(tmp_path: Path) -> None:
    labelling = opened(tmp_path)
    anna = Browser(labelling, name="anna")
    ben = Browser(labelling, name="ben")
    before = dump(labelling.store)
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {"X-CSRF-Token": ben.csrf},
        {"X-CSRF-Token": "é".encode()},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8642"},
        {"Host": "192.168.1.7:8642"},
        {"Host": ""},
    ):
        for path in ("/answer", "/undo", "/next", "/why", "/leave"):
            assert anna.post(path, {}, headers=headers).status_code == 403, (headers, path)  # type: ignore[arg-type]
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Content-Type": "text/plain"}):
        assert anna.client.post("/enter", json={"name": "x"}, headers=headers).status_code == 403
        assert "Host" not in headers or anna.client.get("/", headers=headers).status_code == 403
    assert dump(labelling.store) == before
    assert anna.answer(FIRST).status_code == 200  # while the page itself may
    assert anna.answer(FIRST, headers={"Origin": BASE}).status_code == 200


def test_beyond_loopback_only_links_let_in_and_forged_tokens_do_not(tmp_path: Path) -> None:
    labelling = opened(tmp_path, host="0.0.0.0")
    token = labelling.store.add_annotator("anna")
    app = make_app(labelling)
    cookie = labelling.cookie
    for entry in ({"name": "anna"}, {"token": ""}, {"token": token[:-1]}, {"token": token + "x"}, {"token": [token]},
                  {"token": "' OR 1=1 --"}, {"name": "anna", "token": "\ud800"}, {}):  # fmt: skip
        client = testclient.TestClient(app, base_url="http://192.168.1.7:8642")
        body = json.dumps(entry)
        assert client.post("/enter", content=body, headers={"Content-Type": "application/json"}).status_code == 403
        assert "data-item" not in client.get("/").text and "Open the link" in client.get("/").text
    for forged in (token[::-1], "x" * 5000, "anna"):
        client = testclient.TestClient(app, base_url=BASE, cookies={cookie: forged})
        assert client.post("/next", json={}).status_code == 401
    assert testclient.TestClient(app, base_url="http://evil.example").get("/").status_code == 403  # another's name
    anna = Browser(labelling, token=token)
    assert anna.item and anna.answer(FIRST).status_code == 200
    header = anna.client.post("/enter", json={"token": token}).headers["set-cookie"]
    assert "HttpOnly" in header and "SameSite=strict" in header and token not in header
    anna.load()
    assert anna.post("/leave", {}).status_code == 200 and anna.post("/next", {}).status_code == 401
    behind_a_proxy = opened(tmp_path, hostname="label.example.org")
    client = testclient.TestClient(make_app(behind_a_proxy), base_url="https://label.example.org")
    assert client.get("/").status_code == 200 and client.post("/enter", json={"name": "anna"}).status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{" + b" " * (1 << 21), 413),
        (b"[" * 300_000, 400),
        (b"\xff\xfe", 400),
        (b"", 400),
        (b"[]", 400),
        (b'{"answer_id": "a"}', 422),
        (b'{"answer_id": "a", "item_id": "x", "seconds": NaN}', 422),
        (b'{"answer_id": "a", "item_id": "x", "seconds": 1}', 422),
        (b'{"answer_id": "a", "item_id": "ITEM", "seconds": 1}', 422),
        (b'{"answer_id": "a", "item_id": "ITEM", "seconds": 1, "value": {"choice": {}}}', 422),
        (b'{"answer_id": "a", "item_id": "ITEM", "seconds": 1, "value": {"choice": "third"}}', 422),
        (b'{"answer_id": "", "item_id": "ITEM", "seconds": 1, "value": {"choice": "tie"}}', 422),
        (b'{"answer_id": "\\ud800", "item_id": "ITEM", "seconds": 1, "value": {"choice": "tie"}}', 422),
    ],
)
def test_bodies_that_are_huge_or_broken_are_refused_and_the_server_goes_on(
    tmp_path: Path, body: bytes, status: int
) -> None:
    labelling = opened(tmp_path)
    anna = Browser(labelling, name="anna")
    headers = {"X-CSRF-Token": anna.csrf, "Content-Type": "application/json"}
    response = anna.client.post("/answer", content=body.replace(b"ITEM", anna.item.encode()), headers=headers)
    assert response.status_code == status and response.json()["error"]
    assert labelling.store.answers(live=False) == [] and anna.answer(FIRST).status_code == 200


def test_nobody_answers_what_was_not_shown_to_them(tmp_path: Path) -> None:
    labelling = opened(tmp_path)
    anna = Browser(labelling, name="anna")
    other = next(item.item_id for item in labelling.store.items() if item.item_id != anna.item)
    assert anna.answer(FIRST, item_id=other).status_code == 422 and labelling.store.answers() == []


@pytest.mark.parametrize("kind", ["compare", "rank", "rate", "span", "rewrite"])
def test_replies_are_text_and_never_part_of_the_page(tmp_path: Path, kind: str) -> None:
    store = FeedbackStore(tmp_path / "labels.sqlite")
    replies = [{"text": HOSTILE, "policy": HOSTILE}, {"text": "\n two\r\n", "policy": None}]
    prompt = [{"role": "system", "content": HOSTILE}, {"role": "user", "content": HOSTILE}]
    count = 2 if kind in ("compare", "rank") else 1
    store.add_items([Item("i", kind, prompt, replies[:count])])
    labelling = Labelling(store, dimensions=("safety", HOSTILE))
    anna = Browser(labelling, name="anna" + HOSTILE[:60])
    assert "<img" not in anna.html and "<script>" not in anna.html and "49" not in anna.html.split("<main")[1]
    assert anna.html.count("&lt;img src=x onerror=alert(1)&gt;") >= 3
    policy = anna.client.get("/").headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "default-src 'none'" in policy


def test_the_page_asks_for_nothing_elsewhere(tmp_path: Path) -> None:
    anna = Browser(opened(tmp_path), name="anna")
    static = [anna.client.get(f"/static/{name}").text for name in ("label.js", "label.css")]
    everything = "".join([anna.html, *static, *anna.traffic])
    assert set(re.findall(r"https?://[\w.:]+", everything)) <= {"http://www.w3.org"}
    assert anna.client.get("/static/../label_app.py").status_code == 404


class Spy:
    """A program that guesses the trained policy's side from all that it saw of page and traffic but the replies' words.

    It learns, for every feature of the traffic of earlier items, on which side the trained policy then was, and votes.
    """

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()

    def features(self, traffic: str, number: int) -> list[str]:
        item = (re.findall(r'data-item="(\w+)"', traffic) or re.findall(r'data-item=\\"(\w+)\\"', traffic) or [""])[0]
        order = (re.findall(r"(one|two) \d+", traffic) or [""])[0]  # means nothing: words are dealt at random
        return [f"{i} {letter}" for i, letter in enumerate(item)] + [
            f"number {number % 2}", f"length {len(traffic) % 4}", f"order {order}",
            f"parity {int(item or '0', 16) % 2}",
            *(f"{name} {value}" for name, value in re.findall(r"'(content-length|etag|date)': '(\w+)'", traffic)),
        ]  # fmt: skip

    def guess(self, features: list[str]) -> int:
        votes = [self.seen[each, 1] - self.seen[each, 0] for each in features]
        return int(sum(max(-1, min(1, vote)) for vote in votes) > 0)

    def learn(self, features: list[str], side: int) -> None:
        self.seen.update((each, side) for each in features)


class Unshuffled(random.Random):
    """Randomness that leaves every order as it is."""

    def sample(self, population: Any, k: int, **more: Any) -> list[Any]:
        return list(population)[:k]


def guessed(store: FeedbackStore, names: tuple[str, ...], rng: random.Random) -> tuple[int, list[str]]:
    """How many sides a spy guesses right while these annotators answer everything, and the traffic."""
    spy, right, traffic = Spy(), 0, []
    for name in names:
        browser = Browser(Labelling(store), name=name)
        said, number = browser.html, 0
        while (shown := store.current_item(name)) is not None:
            side = [shown.item.replies[i]["policy"] for i in shown.order].index("dpo")
            features = spy.features(said, number)
            right += spy.guess(features) == side
            spy.learn(features, side)
            response = browser.answer(
                rng.choice([FIRST, {"choice": "tie"}, {"choice": "second", "strength": "slightly"}])
            )
            said, number = f"{response.headers} {response.text}", number + 1
        traffic += browser.traffic
    return right, traffic


def test_a_program_that_sees_all_traffic_cannot_tell_the_policies_apart(tmp_path: Path) -> None:
    rng = random.Random(7)

    def ab_store(count: int, orders: random.Random) -> FeedbackStore:
        store = FeedbackStore(tmp_path / f"{count}.sqlite", orders)
        store.setting("overlap", "1")
        for n in range(count):
            texts = rng.sample(["one", "two"], 2)
            store.add_items(pairs(store, 1, "ab", (f"{texts[0]} {n}", f"{texts[1]} {n}")))
        return store

    assert guessed(ab_store(30, Unshuffled(0)), ("anna",), rng)[0] >= 28  # it would see a side that is always the same
    store = ab_store(120, random.Random(1))
    right, traffic = guessed(store, ("anna", "ben"), rng)
    assert abs(right - 120) < 32  # four standard deviations about chance
    ours = re.sub(r"[\w-]+-policy", "", "\n".join(traffic))  # names of headers
    assert "question" in ours and not re.search(r"dpo|\bstart\b|policy", ours)
    sides = {
        name: {a.item_id: a.shown_order[0] for a in store.answers() if a.annotator == name} for name in ("anna", "ben")
    }
    assert all(38 < sum(own.values()) < 82 for own in sides.values())
    same = sum(sides["anna"][item] == sides["ben"][item] for item in sides["anna"])
    assert len(sides["anna"]) == 120 and 38 < same < 82  # each annotator has a draw of their own


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


ODD = [
    "  with spaces\n\n",
    "\n\nHuman: a transcript\n\nAssistant: yes",
    '[{"role": "user", "content": "x"}]',
    "ünï 🎈\r\nline",
]


def test_comparisons_are_read_back_with_annotators_votes_ties_and_times(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "labels.sqlite")
    replies = [
        [{"text": f"{odd} {n}", "policy": None}, {"text": f"plain {n}", "policy": None}] for n, odd in enumerate(ODD)
    ]
    store.add_items(Item(f"i{n}", "compare", [{"role": "user", "content": f"q {n}"}], r) for n, r in enumerate(replies))
    said = {"anna": ["first", "first", "second", "tie"], "ben": ["first", "first", "second", "first"],
            "carl": ["second", "both_bad", "second", "tie"]}  # fmt: skip
    for name, choices in said.items():
        store.add_annotator(name)
        for n, choice in enumerate(choices):
            strength = "slightly" if choice in ("first", "second") else None
            value = {"choice": choice, "strength": strength}
            store.record(Answer(f"{name}{n}", f"i{n}", name, "compare", value, seconds=2.25, at=1e9 + n))
    out = tmp_path / "compare.jsonl"
    assert store.export(out, "compare") == {"written": 12, "gold": 0, "all_tied": 0}
    first = json.loads(out.read_text().splitlines()[0])
    assert (first["annotator"], first["seconds"], first["at"]) == ("anna", 2.25, "2001-09-09T01:46:40.000+00:00")
    assert (first["preference"], first["strength"], first["item"]) == ("a", "slightly", "i0")
    found = read_rows("preferences", str(out))
    assert found.dropped.total() == 0 and found.read == found.used == 12
    chosen = {row.prompt[0]["content"]: (row.chosen, row.rejected) for row in found.rows}
    texts = [[reply["text"] for reply in pair] for pair in replies]
    assert chosen == {
        "q 0": tuple(texts[0]),
        "q 1": tuple(texts[1]),
        "q 2": tuple(texts[2][::-1]),
        "q 3": tuple(texts[3]),
    }
    assert found.annotators["ties"] == 3 and found.annotators["judgements"] == 12
    assert set(found.annotators["annotators"]) == set(said) and found.annotators["median_seconds"] == 2.25
    facts = " ".join(annotator_facts({"preferences": found.annotators}))
    assert (
        "half of the judgements took 2.2 s or less" in facts and "carl 50% of 2" in facts and "; 2.2 s each)" in facts
    )
    assert not {"seconds", "annotator"} & set(found.unread)
    reliability = read_rows("preferences", str(out), ReadOptions(annotators="soft"))
    assert len(reliability.rows) == 9


def test_rankings_ratings_and_rewritten_replies_are_read_back(tmp_path: Path) -> None:
    prompts = [
        {"prompt": f"q {n}", "responses": [[{"role": "assistant", "content": f"{odd} {n}"}], f"b {n}", f"c {n}"]}
        for n, odd in enumerate(ODD)
    ]
    source = write(tmp_path / "three.jsonl", prompts)
    values: dict[str, Any] = {
        "rank": {"ranks": [2, 1, 2]},
        "rate": {"ratings": {"safety": 8, "style": 3.5}},
        "rewrite": {"text": ODD[1]},
        "span": {"spans": [{"start": 0, "end": 1, "reason": "why"}]},
    }
    for kind, value in values.items():
        store = FeedbackStore(tmp_path / f"{kind}.sqlite")
        items, dropped = items_of_file(source, kind, store.item_id)
        assert dropped.total() == 0 and len(items) == (4 if kind == "rank" else 12)
        store.add_items(items)
        store.add_annotator("anna")
        for item in items:
            store.record(Answer(item.item_id, item.item_id, "anna", kind, value))
        assert store.export(tmp_path / f"{kind}.jsonl", kind)["written"] == len(items)
    found = read_rows("rankings", str(tmp_path / "rank.jsonl"))
    assert found.dropped.total() == 0 and {(row.chosen, row.rejected) for row in found.rows} == {
        (f"b {n}", worse) for n, odd in enumerate(ODD) for worse in (f"{odd} {n}", f"c {n}")
    }
    found = read_rows("ratings", str(tmp_path / "rate.jsonl"), ReadOptions(attributes=("safety", "style")))
    assert found.dropped.total() == 0 and len(found.rows) == 12
    assert {(row.rating, *(row.attributes or {}).values()) for row in found.rows} == {(5.75, 8.0, 3.5)}
    found = read_rows("demonstrations", str(tmp_path / "rewrite.jsonl"))
    assert found.dropped.total() == 0 and {row.demonstration for row in found.rows} == {ODD[1]}
    spans = [json.loads(line) for line in (tmp_path / "span.jsonl").read_text().splitlines()]
    assert spans[0]["response"] == f"{ODD[0]} 0" and spans[0]["spans"] == values["span"]["spans"]


def test_the_page_takes_every_kind_of_answer_in_the_items_own_order(tmp_path: Path) -> None:
    for kind, said in {
        "rank": {"ranks": [1, 3, 2]},
        "rate": {"ratings": {"safety": 0, "style": 10}},
        "span": {"spans": [{"start": 2, "end": 4, "reason": "why"}]},
        "rewrite": {"text": "better"},
    }.items():
        texts = ["a\r\nbcd", "two", "three"][: 3 if kind == "rank" else 1]
        item = Item("i", kind, [{"role": "user", "content": "?"}], [{"text": text, "policy": None} for text in texts])
        labelling = opened(tmp_path, [item], seed=3, dimensions=("safety", "style"))
        anna = Browser(labelling, name="anna")
        assert anna.answer(said, item_id="i").status_code == 200
        value = labelling.store.answers()[0].value
        if kind == "rank":
            shown = labelling.store.drawn("anna", "i")
            assert shown is not None and [value["ranks"][i] for i in shown.order] == [1, 3, 2]
        elif kind == "span":  # a text field has one letter for \r\n
            assert texts[0][value["spans"][0]["start"] : value["spans"][0]["end"]] == "bc"
        else:
            assert value == said
    assert letter_places("a\r\n\n\rb") == [0, 1, 3, 4, 5, 6]
    labelling = opened(tmp_path, [Item("i", "rate", item.prompt, item.replies)], dimensions=("safety",))
    assert Browser(labelling, name="anna").answer({"ratings": {"other": 3}}, item_id="i").status_code == 422


def test_records_that_cannot_be_shown_are_counted_by_reason(tmp_path: Path) -> None:
    good = {"prompt": "q", "response_a": "x", "response_b": "y", "uncertainty": 0.25}
    transcript = "\n\nHuman: hi\n\nAssistant: "
    records = [
        good,
        good,
        {"prompt": "q"},
        {"prompt": "", "responses": ["x", "y"]},
        {"prompt": "q", "responses": ["x", "x"]},
        {**good, "uncertainty": 2},
        {"chosen": transcript + "a", "rejected": transcript + "b"},
        {"prompt": "q", "response_a": "\ud800", "response_b": "y"},
    ]
    source = write(tmp_path / "mixed.jsonl", records)
    with (tmp_path / "mixed.jsonl").open("a") as file:
        file.write("no json\n[]\n")
    items, dropped = items_of_file(source, "compare", lambda *content: json.dumps(content))
    assert [(item.prompt[0]["content"], item.uncertainty) for item in items] == [("q", 0.25), ("hi", None)]
    assert sorted(dropped.counts().values()) == [1] * 8
    with pytest.raises(PrefzooError, match="nothing in it can be shown for 'rank'"):
        items_of_file(write(tmp_path / "none.jsonl", [{"prompt": "q"}]), "rank", str)


def test_what_made_the_rewards_is_told_on_demand_once_no_answer_can_follow_it(tmp_path: Path) -> None:
    line = {"label": "dpo", "prompt": [{"role": "user", "content": "question 1"}], "reply": "two 1",
            "pieces": [[0, 3, 0.75], [4, 5, -0.25]]}  # fmt: skip
    assert explanations_of(tmp_path) is None and explanations_of(None) is None
    (tmp_path / "explanations.jsonl").write_text(json.dumps(line) + "\n")
    labelling = opened(tmp_path, explain=explanations_of(tmp_path))
    anna = Browser(labelling, name="anna")
    while anna.item:
        assert 'id="why"' not in anna.html and anna.post("/why", {}).status_code == 422
        anna.answer(FIRST)
    assert 'id="why"' in anna.html and "two 1" not in anna.html
    assert anna.post("/undo", {}).json()["undone"] and anna.answer(FIRST).status_code == 200
    shown = anna.post("/why", {}).json()["html"]
    assert '<span class="for heat-3" title="+0.750">two</span> <span class="against heat-1" title="-0.250">1' in shown
    assert "question 1" in shown and "question 2" not in shown and "dpo" not in shown
    assert anna.post("/undo", {}).status_code == 422 and len(labelling.store.answers()) == 6

    store = FeedbackStore(tmp_path / "ab.sqlite", random.Random(0))
    store.add_items(pairs(store, 6, "ab"))
    ben = Browser(Labelling(store, explain=explanations_of(tmp_path)), name="ben")
    while ben.item:
        ben.answer(FIRST)
    assert "All done" in ben.html and 'id="why"' not in ben.html and ben.post("/why", {}).status_code == 422
