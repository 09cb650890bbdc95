"""Policies served: the engine answers as the evaluation does, and the server as OpenAI's does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import time
import uuid
from types import SimpleNamespace

import httpx
import openai
import pytest
import torch
from tests.serving import drawn_adapter, running

from prefzoo import lab
from prefzoo.commands.serve_policies import PLAIN_LENGTH, _engine, find_policies, read_canary
from prefzoo.data.read_rows import read_rows
from prefzoo.errors import PrefzooError
from prefzoo.feedback.store import FeedbackStore
from prefzoo.lab import MODEL_DIR
from prefzoo.models import shared_base
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.policy_kinds import load_policy
from prefzoo.serving.generation_request import GenerationRequest, RequestError
from prefzoo.serving.local_engine import LocalEngine
from prefzoo.serving.reply_text import ReplyText
from prefzoo.serving.running_batch import Row, draw
from prefzoo.settings import Generation

ASKED = [{"role": "user", "content": "What does the mug cost?"}]
PROMPTS = [[{"role": "user", "content": pair["prompt"]}] for pair in lab.preferences("test", 24, 5)]


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """The lab model and two adapters on it, on one copy of its weights."""
    folder = tmp_path_factory.mktemp("policies")
    torch.set_num_threads(1)
    with shared_base.shared():
        return {
            "dpo": load_policy(drawn_adapter(folder / "dpo", 1)),
            "ppo": load_policy(drawn_adapter(folder / "ppo", 2)),
            "start": LanguageModelPolicy.from_start(str(MODEL_DIR)),
        }


@pytest.fixture(scope="module")
def engine(policies):
    engine = LocalEngine(policies, {name: Generation(max_new_tokens=30) for name in policies})
    yield engine
    engine.stop(0.0)


@pytest.fixture(scope="module")
def server(engine, tmp_path_factory):
    """A server of these policies, `dpo` first and `ppo` as a canary."""
    from prefzoo.serving.openai_routes import serving_app
    from prefzoo.serving.page_routes import add_page
    from prefzoo.serving.traffic import Canary, Traffic

    path = tmp_path_factory.mktemp("served") / "feedback.sqlite"
    store = FeedbackStore(path)
    traffic = Traffic(path, "dpo", Canary("ppo", 0.5))
    app = serving_app(engine, traffic)
    add_page(app, engine, traffic, store, "Chat")
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as http:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        yield SimpleNamespace(url=url, http=http, client=client, store=store, traffic=traffic, path=path)
        client.close()


async def whole(engine, policy: str, messages, **how):
    """The text, the last piece and the scores of the first reply."""
    pieces = [piece async for piece in engine.generate(GenerationRequest(policy, messages, **how))]
    first = [piece for piece in pieces if piece.index == 0]
    return "".join(p.text for p in first), first[-1], [score for p in first for score in p.scores]


def test_greedy_replies_are_those_of_the_evaluation_and_scores_are_our_own(engine, policies) -> None:
    async def ask():
        asked = [(name, prompt) for prompt in PROMPTS for name in policies]  # all three at once, side by side
        got = await asyncio.gather(*(whole(engine, *each, temperature=0.0, top_logprobs=2) for each in asked))
        return {(name, json.dumps(prompt)): reply for (name, prompt), reply in zip(asked, got, strict=True)}

    got = asyncio.run(ask())
    for name, policy in policies.items():
        measured = [s[0] for s in policy.sample(PROMPTS, Generation(max_new_tokens=30, temperature=0.0), seed=3)]
        scored = policy.log_probabilities(PROMPTS, measured)
        for prompt, reply, ours in zip(PROMPTS, measured, scored, strict=True):
            text, last, scores = got[name, json.dumps(prompt)]
            assert text == last.whole == reply.text and last.tokens == len(reply.token_ids)
            assert last.finish == ("stop" if reply.finished else "length")
            assert [score.logprob for score in scores] == pytest.approx(ours, abs=1e-4)
            assert all(score.top[0][1] == pytest.approx(score.logprob) for score in scores)  # it is greedy
    texts = [{reply[0] for (name, _), reply in got.items() if name == each} for each in policies]
    assert texts[0] != texts[1] != texts[2]


def test_a_seed_gives_the_same_reply_beside_others_and_other_seeds_other_ones(engine) -> None:
    async def ask():
        alone = await whole(engine, "dpo", PROMPTS[0], seed=5)
        beside = await asyncio.gather(*(whole(engine, "dpo", prompt, seed=5) for prompt in PROMPTS))
        other = await whole(engine, "dpo", PROMPTS[0], seed=6)
        return alone[0], beside[0][0], other[0]

    alone, beside, other = asyncio.run(ask())
    assert alone == beside != other


def test_tokens_are_drawn_from_the_distribution_that_was_asked_for() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    draws = 4_000

    def shares(temperature: float, top_p: float) -> list[float]:
        random = torch.Generator().manual_seed(1)
        rows = [Row([], 1, temperature, top_p, random, None, lambda *_: True) for _ in range(draws)]
        tokens = draw(logits.expand(draws, 4).clone(), rows)
        return [float((tokens == i).double().mean()) for i in range(4)]

    assert shares(0.0, 1.0) == [1, 0, 0, 0]
    assert shares(0.7, 1.0) == pytest.approx((logits / 0.7).softmax(-1).tolist(), abs=0.03)
    two = logits[:2].softmax(-1).tolist()  # 0.64 + 0.24 first reach 0.7
    assert shares(1.0, 0.7) == pytest.approx([*two, 0, 0], abs=0.03)
    assert shares(1.0, 0.6) == [1, 0, 0, 0]
    with pytest.raises(PrefzooError, match="no probabilities"):
        draw(torch.full((1, 4), float("nan")), [Row([], 1, 1.0, 1.0, torch.Generator(), None, lambda *_: True)])


@pytest.mark.parametrize("stop", [["Y"], ["is the", "nothing of it"], ["."]])
def test_a_stop_text_ends_the_reply_before_it_and_is_never_sent(engine, stop) -> None:
    async def ask():
        free = await whole(engine, "start", PROMPTS[0], temperature=0.0)
        cut = await whole(engine, "start", PROMPTS[0], temperature=0.0, stop=tuple(stop))
        return free[0], cut[0], cut[1]

    free, cut, last = asyncio.run(ask())
    places = [free.find(text) for text in stop if text in free]
    assert cut == last.whole == (free[: min(places)] if places else free)


def test_half_letters_wait_for_their_other_half() -> None:
    encoded = "h\u00e9 \U0001f600!".encode()
    text = ReplyText(lambda ids: bytes(ids).decode(errors="replace"))
    pieces = [text.add(byte) for byte in encoded]
    assert "".join(pieces) + text.end(encoded.decode())[0] == "h\u00e9 \U0001f600!" and "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize("architecture", ["mamba", "sliding"])
def test_models_that_cannot_be_batched_are_answered_one_by_one_as_they_are_evaluated(architecture) -> None:
    from transformers import AutoTokenizer, MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

    from prefzoo.models.chat_rendering import with_rendering

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    small = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": 1}
    torch.manual_seed(0)
    if architecture == "mamba":
        model = MambaForCausalLM(MambaConfig(**small, state_size=4))
    else:
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32, "sliding_window": 8}
        model = MistralForCausalLM(MistralConfig(**small, **heads))
    policy = LanguageModelPolicy(model.eval(), with_rendering(tokenizer), str(MODEL_DIR))
    engine = LocalEngine({"p": policy}, {"p": Generation(max_new_tokens=12)})

    async def ask():
        return await asyncio.gather(*(whole(engine, "p", prompt, temperature=0.0) for prompt in PROMPTS[:3]))

    try:
        got = asyncio.run(ask())
    finally:
        engine.stop(0.0)
    measured = [s[0] for s in policy.sample(PROMPTS[:3], Generation(max_new_tokens=12, temperature=0.0), seed=3)]
    assert [reply[0] for reply in got] == [reply.text for reply in measured]
    assert [reply[1].tokens for reply in got] == [len(reply.token_ids) for reply in measured]


def test_an_error_in_a_batch_is_told_and_the_next_request_is_answered(engine, policies, monkeypatch) -> None:
    """Also for those beside it whose prompts were read before."""
    model = policies["ppo"].model

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    async def ask():
        with monkeypatch.context() as patch:
            patch.setattr(type(model), "forward", fail)
            with pytest.raises(RequestError, match="generating failed: RuntimeError") as refused:
                await whole(engine, "ppo", PROMPTS[0])
        assert refused.value.status == 500 and "memory" not in str(refused.value)
        return await whole(engine, "ppo", PROMPTS[0])

    assert asyncio.run(ask())[1].finish


def test_one_base_holds_all_adapters(policies) -> None:
    places = [
        {
            name.rpartition("model.")[2].replace("base_layer.", ""): weight.data_ptr()
            for name, weight in p.model.named_parameters()
        }
        for p in policies.values()
    ]
    base = {place for name, place in places[2].items()}
    assert all(base <= set(each.values()) for each in places)


def test_openais_client_lists_streams_and_reads_scores(server, policies) -> None:
    assert [model.id for model in server.client.models.list()] == ["live", "dpo", "ppo", "start"]
    assert server.client.models.retrieve("ppo").id == "ppo"
    how = {"model": "dpo", "messages": ASKED, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    once = server.client.chat.completions.create(**how)
    choice = once.choices[0]
    reply = policies["dpo"].sample([ASKED], Generation(max_new_tokens=30, temperature=0.0), seed=0)[0][0]
    assert choice.message.content == reply.text and once.usage.completion_tokens == len(reply.token_ids)
    assert once.usage.prompt_tokens == len(policies["dpo"].render(ASKED))
    total = sum(policies["dpo"].log_probabilities([ASKED], [reply])[0])
    assert sum(token.logprob for token in choice.logprobs.content) == pytest.approx(total, abs=1e-3)
    assert all(len(token.top_logprobs) == 3 for token in choice.logprobs.content)
    chunks = list(
        server.client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}, n=2)
    )
    for index in (0, 1):
        mine = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert mine[0].delta.role == "assistant" and mine[-1].finish_reason == choice.finish_reason
        assert "".join(c.delta.content or "" for c in mine) == reply.text
        scores = [token.logprob for c in mine if c.logprobs for token in c.logprobs.content]
        assert sum(scores) == pytest.approx(total, abs=1e-3)
    assert len(mine) > 5 and chunks[-1].usage.completion_tokens == 2 * len(reply.token_ids)


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "dpp"}, 404, "unknown model 'dpp'. Did you mean 'dpo'?"),
        ({"messages": [{"role": "user", "content": "price " * 3000}]}, 400, "room for 2048"),
        ({"max_tokens": 5000}, 400, "lower max_tokens"),
        ({"temprature": 1}, 400, "Did you mean 'temperature'?"),
        ({"presence_penalty": 0.5, "n": 99, "seed": "x"}, 400, "presence_penalty: is not done here"),
        ({"messages": []}, 400, "messages: "),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "half a surrogate pair"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, 400, "image_url"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"temperature": float("nan")}, 400, "temperature"),
        ({"top_logprobs": 2}, 400, "set logprobs to true"),
        ({"stop": ""}, 400, "stop: "),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(server, change, status, said) -> None:
    body = json.dumps({"model": "dpo", "messages": ASKED, **change}).encode()
    for stream in (body, body[:-1] + b', "stream": true}'):
        answer = server.http.post("/v1/chat/completions", content=stream, headers={"content-type": "application/json"})
        error = answer.json()["error"]
        assert answer.status_code == status and said in error["message"], error
        assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"


def test_all_mistakes_are_told_at_once(server) -> None:
    answer = server.http.post("/v1/chat/completions", json={"messages": ASKED, "n": 99, "seed": "x", "lgprobs": True})
    assert all(word in answer.json()["error"]["message"] for word in ("model: is missing", "n:", "seed:", "'logprobs'"))


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{", {}, 400, "no JSON"),
        (b"[" * 100_000, {}, 400, "no JSON"),
        (b"\xff\xfe", {}, 400, "no JSON"),
        (b"[]", {}, 400, "send an object"),
        (b" " * 2**21, {}, 413, "larger than 1,048,576 bytes"),
        (b"{}", {"content-type": "text/plain"}, 415, "application/json"),
        (b"{}", {"origin": "http://evil.example"}, 403, "other sites"),
        (b"{}", {"host": "evil.example"}, 403, "loopback"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/feedback", "/chat"])
def test_broken_and_foreign_bodies_are_refused(server, path, body, headers, status, said) -> None:
    answer = server.http.post(path, content=body, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status and said in answer.json()["error"]["message"]

    def endless():
        for _ in range(200):
            yield b" " * 2**16

    if status == 413:  # of a length that nobody stated
        # The server may answer before the body is sent, or close the connection on it.
        with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
            answer = server.http.post(path, content=endless(), headers={"content-type": "application/json"})
            assert answer.status_code == 413


def test_a_client_that_dies_leaves_nothing_behind(server, engine) -> None:
    content = {
        "model": "dpo",
        "messages": ASKED,
        "stream": True,
        "max_tokens": 1900,
        "stop": [],
        "n": 4,
        "temperature": 50,
    }
    body = json.dumps(content).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "content-type: application/json"]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
    port = int(server.url.rpartition(":")[2])
    for streamed in (True, False):
        sent = body if streamed else body.replace(b'"stream": true', b'"stream":false')
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head.encode() + sent)
            if streamed:
                assert client.recv(10)
            else:
                time.sleep(0.3)
            assert engine._running
    deadline = time.monotonic() + 20
    while (engine._running or engine._waiting) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not engine._running and not engine._waiting
    assert server.http.get("/health").json() == {"status": "ok"}


def test_conversations_stay_with_their_policy_and_the_canary_has_its_share(server) -> None:
    traffic = server.traffic
    names = [uuid.uuid4().hex for _ in range(200)]
    first = [traffic.policy_of(name) for name in names]
    assert [traffic.policy_of(name) for name in names] == first and 60 < first.count("ppo") < 140
    greedy = {"model": "live", "temperature": 0}
    asked = [{"role": "user", "content": PROMPTS[1][0]["content"]}]
    replies = {}
    for name in ("a", "b", "c", "d"):
        for _ in range(2):
            answer = server.client.chat.completions.create(**greedy, messages=asked, metadata={"conversation": name})
            assert answer.model == "live"
            replies.setdefault(name, set()).add(answer.choices[0].message.content)
    assert all(len(texts) == 1 for texts in replies.values())


def events_of(answer) -> list[dict]:
    return [json.loads(event[6:]) for event in answer.text.split("\n\n") if event and event != "data: [DONE]"]


def test_the_page_names_no_policy_and_its_feedback_comes_back_as_preferences(server, tmp_path) -> None:
    page = server.http.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    seen = [page.text, server.http.get("/chat.js").text, server.http.get("/chat.css").text]
    turns = [{"role": "user", "content": "Is the scarf <b>blue</b>?"}]
    answer = server.http.post("/chat", json={"messages": turns})
    head, *pieces = events_of(answer)
    assert pieces[-1]["finish"] and "".join(piece["text"] for piece in pieces)
    thumb = {"reply": head["replies"][0], "thumb": "up", "user": "u1", "answer_id": str(uuid.uuid4())}
    told = [server.http.post("/feedback", json=thumb).json() for _ in range(2)]
    assert told == [{"recorded": True, "new": True}, {"recorded": True, "new": False}]
    both = server.http.post("/chat", json={"messages": turns, "conversation": head["conversation"], "two": True})
    pair, *_ = events_of(both)
    choice = {"first": pair["replies"][0], "second": pair["replies"][1], "choice": "second", "user": "u1"}
    said = server.http.post("/feedback", json={**choice, "answer_id": str(uuid.uuid4()), "seconds": 2.5})
    again = server.http.post("/feedback", json={**choice, "answer_id": str(uuid.uuid4()), "choice": "first"})
    assert said.json()["new"] and again.status_code == 409
    seen += [answer.text, both.text, said.text]
    undo = {"answer_id": thumb["answer_id"], "user": "u1", "undo": True}
    strange = [{**undo, "user": "u2"}, {**undo, "answer_id": str(uuid.uuid4())}, {**undo, "thumb": "up"}]
    assert [server.http.post("/feedback", json=body).status_code for body in strange] == [400] * 3
    assert [server.http.post("/feedback", json=undo).json()["new"] for _ in range(2)] == [True, False]
    assert server.store.answers("thumb") == []
    assert not server.http.post("/feedback", json=thumb).json()["new"], "the answer that was taken back stays so"
    assert server.store.answers("thumb") == []
    for answer_id, status in (
        (str(uuid.uuid4()), 200),
        (str(uuid.uuid4()), 409),
    ):  # one that counts, for a reply and user
        assert server.http.post("/feedback", json={**thumb, "answer_id": answer_id}).status_code == status
    assert len(server.store.answers("thumb")) == 1
    assert not any(name in text for text in seen for name in ("dpo", "ppo"))
    item = server.store.items("compare")[0]
    assert {reply["policy"] for reply in item.replies} == {"dpo", "ppo"}
    assert item.source.startswith("serve:page:") and item.prompt == turns
    assert server.store.export(tmp_path / "pairs.jsonl", "compare")["written"] == 1
    (row,) = read_rows("preferences", str(tmp_path / "pairs.jsonl")).rows
    assert (row.prompt, row.rejected, row.chosen) == (turns, *(reply["text"] for reply in item.replies))
    server.store.export(tmp_path / "thumb.jsonl", "thumb")
    (liked,) = [json.loads(line) for line in (tmp_path / "thumb.jsonl").read_text().splitlines()]
    assert (liked["prompt"], liked["label"]) == (turns, True)
    assert liked["completion"] == "".join(piece["text"] for piece in pieces)


def test_the_apis_users_say_which_reply_is_better(server, monkeypatch) -> None:
    answer = server.client.chat.completions.create(model="start", messages=ASKED, n=2, temperature=1)
    other = server.client.chat.completions.create(model="start", messages=PROMPTS[0])
    choice = {"first": answer.id, "second": f"{answer.id}:1", "choice": "first", "strength": "slightly"}
    assert server.http.post("/feedback", json={**choice, "answer_id": str(uuid.uuid4())}).json()["new"]
    item = server.store.items("compare")[-1]
    assert [reply["text"] for reply in item.replies] == [c.message.content for c in answer.choices]
    assert server.store.answers("compare")[-1].value == {"choice": "first", "strength": "slightly"}
    for change, status, said in (
        ({"second": other.id}, 400, "the same messages"),
        ({"second": "chatcmpl-none"}, 404, "no such reply"),
        ({"choice": None}, 400, "either reply and thumb"),
        ({"chioce": "first"}, 400, "Did you mean 'choice'?"),
        ({"answer_id": "1"}, 400, "answer_id"),
    ):
        refused = server.http.post("/feedback", json={**choice, "answer_id": str(uuid.uuid4()), **change})
        assert refused.status_code == status and said in refused.json()["error"]["message"], refused.text
    assert server.http.get("/feedback").status_code == 405
    with monkeypatch.context() as patch:
        patch.setattr(type(server.store), "record", _full)
        refused = server.http.post("/feedback", json={**choice, "answer_id": str(uuid.uuid4())})
    assert refused.status_code == 503 and "nothing was written" in refused.json()["error"]["message"]


def _full(*_):
    raise PrefzooError("disk full; nothing was written")


def test_off_loopback_a_token_is_asked_for(engine, server) -> None:
    from fastapi.testclient import TestClient

    from prefzoo.serving.openai_routes import serving_app

    client = TestClient(
        serving_app(engine, server.traffic, "secret"), base_url="http://example.org", follow_redirects=False
    )
    assert client.get("/v1/models").status_code == 401
    assert (
        client.get("/v1/models", headers={"authorization": "Bearer wrong"}).json()["error"]["code"] == "invalid_api_key"
    )
    assert client.get("/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200
    assert client.get("/v1/models?token=secret").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    brought = client.get("/?token=secret")
    assert brought.status_code == 303 and "HttpOnly; SameSite=Strict" in brought.headers["set-cookie"]
    assert client.get("/v1/models").status_code == 200  # by the cookie
    assert client.get("/v1/models", headers={"origin": "http://evil.example"}).status_code == 403


def test_a_canary_is_read_as_an_ab_test_in_the_report(tmp_path) -> None:
    from prefzoo.feedback.feedback_types import Answer, Item
    from prefzoo.report.canary_section import FEEDBACK, canary_sections
    from prefzoo.report.sections import tables
    from prefzoo.serving.canary_test import canary_tests
    from prefzoo.serving.traffic import Canary, Traffic

    assert canary_sections(tmp_path) == []
    path = tmp_path / FEEDBACK
    store = FeedbackStore(path)
    store.add_annotator("user:u")
    early = Traffic(path, "dpo", None)  # nothing was divided yet: no part of the test
    early.policy_of("page:before")
    assert canary_tests(path) == []
    traffic = Traffic(path, "dpo", Canary("ppo", 0.4))
    given = {f"page:{i}": traffic.policy_of(f"page:{i}") for i in range(150)}
    counts = {"dpo": 0, "ppo": 0}
    liked: dict[str, list[float]] = {"dpo": [], "ppo": []}
    prompt = [{"role": "user", "content": "?"}]

    def tell(kind: str, name: str, policies: list[str], value: dict) -> None:
        item = Item(uuid.uuid4().hex, kind, prompt, [{"text": "x", "policy": p} for p in policies], f"serve:{name}")
        store.add_items([item])
        store.record(Answer(str(uuid.uuid4()), item.item_id, "user:u", kind, value))

    for name, policy in [("page:before", "dpo"), *given.items()]:
        counts[policy] += 1
        up = counts[policy] % 10 < (2 if policy == "dpo" else 9)
        if name != "page:before":
            liked[policy].append(float(up))
        for later in (False, True):  # only the first thumb of a conversation counts
            tell("thumb", name, [policy], {"liked": up if not later else not up})
    for i in range(20):
        tell("compare", "page:1", ["ppo", "dpo"][:: 1 if i % 2 else -1], {"choice": "first" if i % 2 else "second"})
    tell("compare", "page:1", ["ppo", "start"], {"choice": "second"})
    (test,) = canary_tests(path)
    assert (test.main.liked, test.canary.liked) == (liked["dpo"], liked["ppo"])
    means = {policy: sum(values) / len(values) for policy, values in liked.items()}
    assert test.difference == pytest.approx(means["ppo"] - means["dpo"])
    assert 0 < test.interval[0] < test.difference < test.interval[1] and test.verdict == "better"
    assert test.won == [1.0] * 20 and 0.5 < test.won_interval[0] < test.won_interval[1] == 1
    number = len(liked["ppo"])
    assert test.imbalance == pytest.approx((number - 60) / (150 * 0.4 * 0.6) ** 0.5)
    (section,) = canary_sections(tmp_path)
    (table,) = tables(section.parts)
    assert table.cells[1][1][:3] == ["ppo", str(number), str(number)]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / FEEDBACK).write_bytes(b"garbage" * 1000)
    assert "cannot be read" in canary_sections(tmp_path / "damaged")[0].parts[0].text
    assert f"{test.difference:+.1%}" in section.parts[0].text and "liked more than" in section.parts[0].text


def test_the_page_works_from_the_keyboard_alone_and_shows_replies_as_text(server) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    before = len(server.store.answers())
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(server.url)
        page.keyboard.type("<img src=x onerror='document.title=1'> what does the mug cost?")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Good").wait_for()
        for key in ("Shift+Tab", "Enter"):  # back from the message to the last thumb
            page.keyboard.press(key)
        page.wait_for_selector('button[aria-pressed="true"]:has-text("Bad")')
        page.get_by_role("button", name="Bad").click()  # once more takes it back
        page.wait_for_selector('button[aria-pressed="false"]:enabled:has-text("Bad")')
        assert server.store.answers()[before:] == []
        page.get_by_role("button", name="Good").click()
        page.wait_for_selector('button[aria-pressed="true"]:enabled:has-text("Good")')
        page.get_by_role("button", name="Bad").click()  # the other one takes its place
        page.wait_for_selector('button[aria-pressed="true"]:enabled:has-text("Bad")')
        for key in ("Tab", "Space", "Shift+Tab"):  # the choice of two replies, and back
            page.keyboard.press(key)
        page.keyboard.type("And the lamp?")
        page.keyboard.press("Enter")
        page.wait_for_selector("button[value=tie]:focus, button[value=first]:focus")
        page.keyboard.press("2")
        page.wait_for_selector('button[value=second][aria-pressed="true"]')
        page.wait_for_function("document.querySelector('#status').textContent.includes('kept')")
        assert page.title() == "Chat" and page.locator("#turns img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        with contextlib.suppress(ImportError):
            from axe_playwright_python.sync_playwright import Axe

            assert Axe().run(page).response["violations"] == []
        browser.close()
    assert said == []
    thumb, choice = server.store.answers()[before:]
    assert thumb.value == {"liked": False} and choice.value["choice"] == "second"


def test_one_policy_is_merged_and_says_the_same(tmp_path) -> None:
    folder = drawn_adapter(tmp_path / "dpo", 1)
    (servable,) = find_policies(folder, [], None, None, False)
    assert (servable.name, servable.generation.max_new_tokens) == ("dpo", PLAIN_LENGTH)
    engine = _engine("transformers", [servable])
    assert not engine._batches["dpo"].policy.adapted

    async def ask():
        how = {"temperature": 0.0, "max_tokens": 30}
        return await asyncio.gather(*(whole(engine, "dpo", prompt, **how) for prompt in PROMPTS))

    got = asyncio.run(ask())
    engine.stop(0.0)
    measured = load_policy(folder).sample(PROMPTS, Generation(max_new_tokens=30, temperature=0.0), seed=0)
    assert [reply[0] for reply in got] == [samples[0].text for samples in measured]


@pytest.mark.parametrize(
    ("kind", "labels", "canary", "said"),
    [
        ("adapter", ["dpp"], None, "Did you mean 'dpo'?"),
        ("adapter", [], "ppo=0.1", "is one model"),
        ("best_of_n", [], None, "is not one model but a way of sampling"),
        ("adapter", [], "ppo", "LABEL=SHARE"),
        ("adapter", [], "ppo=1", "LABEL=SHARE"),
        ("adapter", [], "ppo=ten", "LABEL=SHARE"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_loaded(tmp_path, kind, labels, canary, said) -> None:
    folder = tmp_path / "dpo"
    folder.mkdir()
    (folder / "policy.json").write_text(json.dumps({"kind": kind, "start": "s", "start_is_relative": False}))
    with pytest.raises(PrefzooError, match=said):
        find_policies(folder, labels, read_canary(canary), None, False)


def test_a_model_folder_samples_as_its_generation_config_says(tmp_path) -> None:
    said = {"do_sample": True, "temperature": 0.7, "max_new_tokens": 12}
    for name, content in (("config.json", {}), ("generation_config.json", said)):
        (tmp_path / name).write_text(json.dumps(content))
    (servable,) = find_policies(tmp_path, [tmp_path.name], None, None, False)
    assert (servable.generation.temperature, servable.generation.max_new_tokens) == (0.7, 12)
