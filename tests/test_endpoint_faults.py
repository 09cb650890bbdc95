"""The client of a server that is slow, fails and lies."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import time
from collections import Counter

import pytest

from asking import number, questions
from chat_server import ChatServer, Reply, said
from prefzoo.judges.chat import Response

pytestmark = pytest.mark.usefixtures("short_pauses_and_no_key")

FAULTS = [
    ("timeout", Reply(delay=6)),
    ("timeout", Reply(drip=0.03)),
    ("HTTP 429", Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.2"})),
    ("HTTP 500", Reply(b"<html>oops</html>", 500, {"Content-Type": "text/html"})),
    ("HTTP 408", Reply({}, 408)),
    ("HTTP 409", Reply({}, 409)),
    ("broken JSON", Reply(b'{"choices": [{"message"')),
    ("broken JSON", Reply(b"\xff\xfe\x00")),
    ("empty text", Reply(said(" \n"))),
    ("null content", Reply(said(None))),
    ("empty choices", Reply({"choices": []})),
    ("a reply without choices", Reply({"error": "overloaded"})),
    ("a reply without choices", Reply([1, 2])),
    ("null content", Reply({"choices": ["text"]})),
    ("no connection", Reply(cut=True)),
]


def test_every_fault_is_retried_and_told_and_nothing_is_lost(client_of) -> None:
    """Each fault strikes twice. Answers come in another order than the questions went out."""
    count = 2 * len(FAULTS) + 10

    def act(seen, nth):
        i = number(seen)
        if nth == 0 and i < 2 * len(FAULTS):
            return FAULTS[i // 2][1]
        return Reply(said(f"answer {i}"), delay=0.01 * ((7 * i) % 5))

    told = []
    with ChatServer(act) as server:
        client = client_of(
            server, lambda *now: told.append(now), concurrency=8, timeout=3.0, price_in=2.0, price_out=10.0
        )
        answers = client(questions(count), 5)
        assert answers == [Response(f"answer {i}") for i in range(count)]
    report = client.report()
    assert report["retries"] == {cause: 2 * n for cause, n in Counter(cause for cause, _ in FAULTS).items()}
    assert report["failures"] == {}
    assert report["asked"] == count and report["cache_hits"] == 0
    assert report["requests"] == len(server.seen) == count + 2 * len(FAULTS)
    assert told[-1] == ("asking", count, count) and [done for _, done, _ in told] == list(range(1, count + 1))
    replies = count + 2 * 2  # empty text and null content were counted by the server, too
    assert report["prompt_tokens"] == 7 * replies and report["completion_tokens"] == 2 * replies
    assert report["unknown_usage"] == 2 * 4  # the other JSON without an answer
    assert report["cost"] == pytest.approx(replies * (7 * 2 + 2 * 10) / 1e6)
    assert report["logprobs"] == "no" and report["without_logprobs"] == count and report["left_out"] == []
    assert report["seconds_waited"] > 1

    sent = len(server.seen)
    again = client_of(server, price_in=2.0)
    assert again(questions(count), 5) == answers, "the server is gone by now"
    report = again.report()
    assert len(server.seen) == sent and report["requests"] == 0 and report["cache_hits"] == report["asked"] == count
    assert report["cost"] == 0 and report["cached_cost"] == pytest.approx(count * 7 * 2 / 1e6)


def test_a_question_without_an_answer_is_told_and_asked_again_next_time(client_of) -> None:
    broken = {3: Reply(said("")), 5: Reply({}, 503), 6: Reply({"detail": "your text is too long"}, 400)}
    with ChatServer(lambda seen, nth: broken.get(number(seen), Reply())) as server:
        client = client_of(server)
        failed = {3: "empty text", 5: "HTTP 503", 6: "HTTP 400"}
        assert client(questions(8), 5) == [
            Response("", None, failed[i]) if i in failed else Response("yes") for i in range(8)
        ]
        assert client.report()["failures"] == {"empty text": 1, "HTTP 503": 1, "HTTP 400": 1}
        assert Counter(number(seen) for seen in server.seen) == {**dict.fromkeys(range(8), 1), 3: 4, 5: 4}
        broken.clear()
        assert client(questions(8), 5) == [Response("yes")] * 8
        assert client.report()["cache_hits"] == 5


def test_as_many_are_under_way_as_is_said(client_of) -> None:
    with ChatServer(lambda seen, nth: Reply(delay=0.02)) as server:
        client_of(server, concurrency=3)(questions(20), 5)
        assert server.most_at_once == 3
        assert server.seen[1].time - server.seen[0].time > 0.02, "the first goes alone"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_is_left_alone_as_long_as_it_asks(client_of, form: str) -> None:
    def act(seen, nth):
        after = "1" if form == "seconds" else email.utils.formatdate(time.time() + 2, usegmt=True)
        return Reply({}, 429, {"Retry-After": after}) if nth == 0 else Reply()

    with ChatServer(act) as server:
        assert client_of(server)(questions(1), 5) == [Response("yes")]
    assert 1.0 <= server.seen[1].time - server.seen[0].time < 3.0


def test_a_pause_of_an_hour_is_not_waited_for(client_of) -> None:
    with ChatServer(lambda seen, nth: Reply({}, 429, {"Retry-After": "3600"})) as server:
        began = time.monotonic()
        assert client_of(server)(questions(2), 5) == [Response("", None, "HTTP 429")] * 2
        assert time.monotonic() - began < 60 and server.seen


def test_log_probabilities_are_used_where_they_come(client_of) -> None:
    top = [("A", -0.1), ("B", -2.5), ("A", -3.0), ("C", None), ("D", -math.inf), (None, -1.0)]
    first = {"token": "A", "logprob": -0.1, "top_logprobs": [{"token": t, "logprob": p} for t, p in top]}
    broken = {1: {"content": []}, 2: {"content": None}, 3: {"content": [{"top_logprobs": "none"}]}, 4: "none"}

    def act(seen, nth):
        assert seen.body["logprobs"] is True and seen.body["top_logprobs"] == 20 and seen.body["max_tokens"] == 5
        return Reply(said("A", logprobs=broken.get(number(seen), {"content": [first]})))

    with ChatServer(act) as server:
        client = client_of(server)
        whole, *others = client(questions(5), 5)
        assert whole.first_token == {"A": pytest.approx(math.log(math.exp(-0.1) + math.exp(-3.0))), "B": -2.5}
        assert others == [Response("A")] * 4
        assert client.report()["logprobs"] == "some" and client.report()["with_logprobs"] == 1
        assert client_of(server)(questions(5), 5) == [whole, *others], "log-probabilities are kept, too"


ODD = [
    (b"[" * 100_000, "broken JSON"),
    (b"", "broken JSON"),
    (b"null", "a reply without choices"),
    (json.dumps(said(["a"])).encode(), "empty text"),
    (json.dumps({**said("y"), "usage": [1]}).encode(), None),
    (json.dumps({**said("y"), "usage": {"prompt_tokens": "7"}}).encode(), None),
    (json.dumps(said("y", index="0")).encode(), None),
    (json.dumps({"choices": [said("no", index=1)["choices"][0], said("y")["choices"][0]]}).encode(), None),
]


def test_no_reply_and_no_question_ends_the_run(client_of) -> None:
    """Choices in another order than that of their numbers; halves of surrogate pairs, which no file can hold."""
    with ChatServer(lambda seen, nth: Reply(ODD[number(seen)][0])) as server:
        client = client_of(server, retries=0)
        expected = [Response("y") if failure is None else Response("", None, failure) for _, failure in ODD]
        assert client(questions(len(ODD)), 5) == expected
        assert client.report()["unknown_usage"] == 4
        server.act = lambda seen, nth: Reply(said("x\ud800y"))
        halves = [[{"role": "user", "content": "half \ud800"}], [{"role": "user", "content": "whole"}]]
        assert client(halves, 5) == [Response("", None, "a question that is no Unicode"), Response("x?y")]


def test_it_asks_from_within_a_running_loop(client_of) -> None:
    async def notebook():
        return client_of(server)(questions(3), 5)

    with ChatServer() as server:
        assert asyncio.run(notebook()) == [Response("yes")] * 3


def test_without_questions_nothing_is_asked(client_of) -> None:
    with ChatServer() as server:
        client = client_of(server)
        assert client([], 5) == [] and not server.seen and client.report()["logprobs"] is None


def test_the_runs_own_randomness_is_left_alone(client_of) -> None:
    import random

    random.seed(3)
    expected = random.Random(3).random()
    with ChatServer(lambda seen, nth: Reply({}, 500) if nth == 0 else Reply()) as server:
        client_of(server)(questions(5), 5)
    assert random.random() == expected
