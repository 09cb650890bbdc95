"""The asker of a server that is slow, fails, lies, dies, and tells secrets."""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import math
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter

import pytest

from chat_server import ChatServer, Reply, said
from prefzoo.errors import PrefzooError
from prefzoo.feedback.judges import endpoint
from prefzoo.feedback.judges.asking import Said
from prefzoo.feedback.judges.endpoint import EndpointAsker
from prefzoo.feedback.judges.endpoint_settings import EndpointSettings

SECRET = "sk-never/written+0123456789abcdef"


@pytest.fixture(autouse=True)
def short_pauses_and_no_key(monkeypatch) -> None:
    monkeypatch.setattr(endpoint, "BACKOFF", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def asker(tmp_path):
    """Makes an asker of a server whose answers are kept in the test's folder."""

    def make(server: ChatServer, progress=None, **settings) -> EndpointAsker:
        whole = {"base_url": server.url, "model": "m", "timeout": 10.0, "retries": 3, **settings}
        return EndpointAsker(EndpointSettings(**whole), tmp_path / "answers", progress)

    return make


def questions(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"question {i}"}] for i in range(count)]


def number(seen) -> int:
    return int(seen.question.split()[1])


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


def test_every_fault_is_retried_and_told_and_nothing_is_lost(asker) -> None:
    """Each fault strikes twice. Answers come in another order than the questions went out."""
    count = 2 * len(FAULTS) + 10

    def act(seen, nth):
        i = number(seen)
        if nth == 0 and i < 2 * len(FAULTS):
            return FAULTS[i // 2][1]
        return Reply(said(f"answer {i}"), delay=0.01 * ((7 * i) % 5))

    told = []
    with ChatServer(act) as server:
        ask = asker(server, lambda *now: told.append(now), concurrency=8, timeout=3.0, price_in=2.0, price_out=10.0)
        answers = ask(questions(count), 5)
        assert answers == [Said(f"answer {i}") for i in range(count)]
    report = ask.report()
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
    again = asker(server, price_in=2.0)
    assert again(questions(count), 5) == answers, "the server is gone by now"
    report = again.report()
    assert len(server.seen) == sent and report["requests"] == 0 and report["cache_hits"] == report["asked"] == count
    assert report["cost"] == 0 and report["cached_cost"] == pytest.approx(count * 7 * 2 / 1e6)


def test_a_question_without_an_answer_is_told_and_asked_again_next_time(asker) -> None:
    broken = {3: Reply(said("")), 5: Reply({}, 503), 6: Reply({"detail": "your text is too long"}, 400)}
    with ChatServer(lambda seen, nth: broken.get(number(seen), Reply())) as server:
        ask = asker(server)
        failed = {3: "empty text", 5: "HTTP 503", 6: "HTTP 400"}
        assert ask(questions(8), 5) == [Said("", None, failed[i]) if i in failed else Said("yes") for i in range(8)]
        assert ask.report()["failures"] == {"empty text": 1, "HTTP 503": 1, "HTTP 400": 1}
        assert Counter(number(seen) for seen in server.seen) == {**dict.fromkeys(range(8), 1), 3: 4, 5: 4}
        broken.clear()
        assert ask(questions(8), 5) == [Said("yes")] * 8
        assert ask.report()["cache_hits"] == 5


def test_the_same_question_is_asked_once_and_another_parameter_makes_another_question(asker) -> None:
    with ChatServer() as server:
        ask = asker(server)
        assert ask([questions(1)[0]] * 4, 5) == [Said("yes")] * 4
        assert len(server.seen) == 1 and ask.report()["cache_hits"] == 3
        ask(questions(1), 6)
        asker(server, model="other")(questions(1), 5)
        asker(server, temperature=0.5)(questions(1), 5)
        assert len(server.seen) == 4
        asker(server, timeout=2.0, retries=0, key_env="OTHER")(questions(1), 5)
        assert len(server.seen) == 4


def test_as_many_are_under_way_as_is_said(asker) -> None:
    with ChatServer(lambda seen, nth: Reply(delay=0.02)) as server:
        asker(server, concurrency=3)(questions(20), 5)
        assert server.most_at_once == 3
        assert server.seen[1].time - server.seen[0].time > 0.02, "the first goes alone"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_is_left_alone_as_long_as_it_asks(asker, form: str) -> None:
    def act(seen, nth):
        after = "1" if form == "seconds" else email.utils.formatdate(time.time() + 2, usegmt=True)
        return Reply({}, 429, {"Retry-After": after}) if nth == 0 else Reply()

    with ChatServer(act) as server:
        assert asker(server)(questions(1), 5) == [Said("yes")]
    assert 1.0 <= server.seen[1].time - server.seen[0].time < 3.0


def test_a_pause_of_an_hour_is_not_waited_for(asker) -> None:
    with ChatServer(lambda seen, nth: Reply({}, 429, {"Retry-After": "3600"})) as server:
        assert asker(server)(questions(2), 5) == [Said("", None, "HTTP 429")] * 2
        assert len(server.seen) == 2


def test_log_probabilities_are_used_where_they_come(asker) -> None:
    top = [("A", -0.1), ("B", -2.5), ("A", -3.0), ("C", None), ("D", -math.inf), (None, -1.0)]
    first = {"token": "A", "logprob": -0.1, "top_logprobs": [{"token": t, "logprob": p} for t, p in top]}
    broken = {1: {"content": []}, 2: {"content": None}, 3: {"content": [{"top_logprobs": "none"}]}, 4: "none"}

    def act(seen, nth):
        assert seen.body["logprobs"] is True and seen.body["top_logprobs"] == 20 and seen.body["max_tokens"] == 5
        return Reply(said("A", logprobs=broken.get(number(seen), {"content": [first]})))

    with ChatServer(act) as server:
        ask = asker(server)
        whole, *others = ask(questions(5), 5)
        assert whole.first == {"A": pytest.approx(math.log(math.exp(-0.1) + math.exp(-3.0))), "B": -2.5}
        assert others == [Said("A")] * 4
        assert ask.report()["logprobs"] == "some" and ask.report()["with_logprobs"] == 1
        assert asker(server)(questions(5), 5) == [whole, *others], "log-probabilities are kept, too"


@pytest.mark.parametrize(
    "refuses", [("logprobs",), ("logprobs", "max_tokens"), ("logprobs", "max_tokens", "temperature")]
)
def test_what_a_server_refuses_is_left_out_once_and_for_all(asker, refuses: tuple[str, ...]) -> None:
    def act(seen, nth):
        wrong = [name for name in refuses if name in seen.body]
        return Reply({"error": {"message": f"Unsupported: {wrong[0]}", "param": wrong[0]}}, 400) if wrong else Reply()

    with ChatServer(act) as server:
        ask = asker(server)
        assert ask(questions(6), 5) == [Said("yes")] * 6
        assert len(server.seen) == 6 + len(refuses)
        assert server.seen[-1].body.get("max_completion_tokens", server.seen[-1].body.get("max_tokens")) == 5
        report = ask.report()
        assert report["left_out"] == sorted([*refuses, "top_logprobs"]) and report["logprobs"] == "no"
        asker(server)(questions(6), 5)
        assert len(server.seen) == 6 + len(refuses)


REFUSALS = {
    400: "judge.endpoint: .*does not answer as 'm' .HTTP 400: no such thing",
    403: "judge.endpoint: .*HTTP 403: no such thing.*judge.endpoint.key_env",
    404: "judge.endpoint: .*HTTP 404: no such thing.*judge.endpoint.base_url, which most often ends in /v1",
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_server_that_refuses_everything_is_asked_no_more(asker, status: int) -> None:
    with ChatServer(lambda seen, nth: Reply({"error": {"message": "no such\n thing"}}, status)) as server:
        with pytest.raises(PrefzooError, match=REFUSALS[status]):
            asker(server, concurrency=2)(questions(100), 5)
        assert len(server.seen) <= {400: 48, 403: 12, 404: 1}[status]
        assert all(n <= {400: 4}.get(status, 1) for n in Counter(map(number, server.seen)).values())


def test_a_misspelt_model_is_told_with_those_there_are(asker) -> None:
    with (
        ChatServer(lambda seen, nth: Reply({}, 404), models=("qwen-small", "qwen-large")) as server,
        pytest.raises(PrefzooError, match=r"judge.endpoint.model: unknown model 'qwen-smal'. Did you mean 'qwen-sm"),
    ):
        asker(server, model="qwen-smal")(questions(1), 5)


def test_401_says_which_variable_was_read(asker, monkeypatch) -> None:
    with ChatServer(lambda seen, nth: Reply({}, 401)) as server:
        with pytest.raises(
            PrefzooError, match=r"key_env: .*wants a key, and none is in the environment variable 'MY_KEY'"
        ):
            asker(server, key_env="MY_KEY")(questions(3), 5)
        assert "authorization" not in server.seen[0].headers
        monkeypatch.setenv("MY_KEY", SECRET)
        with pytest.raises(PrefzooError, match="refuses the key in the environment variable 'MY_KEY'"):
            asker(server, key_env="MY_KEY")(questions(3), 5)
        assert server.seen[-1].headers["authorization"] == f"Bearer {SECRET}" and len(server.seen) == 2


def test_a_server_that_is_gone_is_asked_no_more_and_the_run_goes_on_where_it_was(asker) -> None:
    """It dies after 12 answers; another one takes its place, and only what is missing is asked there."""
    with ChatServer() as first:
        ask = asker(first, lambda what, done, total: first.__exit__() if done == 12 else None, concurrency=1)
        with pytest.raises(PrefzooError, match=r"judge.endpoint.base_url: .* 10 times in a row \(no connection: \w+\)"):
            ask(questions(40), 5)
        kept = len(ask.cache)
        assert kept == 12
        assert ask.report()["failures"] == {"no connection": 10} and ask.report()["retries"] == {"no connection": 30}
        with pytest.raises(
            PrefzooError, match=rf"{kept} answers are kept in .*answers.sqlite; the same command goes on"
        ):
            ask(questions(40), 5)
    with ChatServer(port=first.port) as second:
        again = asker(second)
        assert again(questions(40), 5) == [Said("yes")] * 40
        assert again.report()["cache_hits"] == kept and again.report()["requests"] == 40 - kept
        assert first.answered + second.answered == {f"question {i}": 1 for i in range(40)}


CHILD = """
import sys
from pathlib import Path
from prefzoo.feedback.judges.endpoint import EndpointAsker
from prefzoo.feedback.judges.endpoint_settings import EndpointSettings
asker = EndpointAsker(EndpointSettings(base_url=sys.argv[1], model="m", concurrency=3), Path(sys.argv[2]))
asker([[{"role": "user", "content": f"question {i}"}] for i in range(60)], 5)
print("done")
"""


def test_after_sigkill_nothing_that_was_answered_is_asked_again(asker, tmp_path) -> None:
    """Two processes ask at once, one is killed: the other ends well, and a third finds all that was answered."""
    with ChatServer(lambda seen, nth: Reply(said(f"answer {number(seen)}"), delay=0.02)) as server:
        command = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "answers")]
        killed = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            wait_until(lambda: sum(server.answered.values()) >= 15)
        finally:
            killed.send_signal(signal.SIGKILL)
        out, _ = killed.communicate(timeout=10)
        assert not out
        time.sleep(0.1)  # for the server to notice
        before = dict(server.answered)
        assert 15 <= len(before) < 60
        ask = asker(server)
        assert ask(questions(60), 5) == [Said(f"answer {i}") for i in range(60)]
        twice = [question for question in before if server.answered[question] > 1]
        assert len(twice) <= 3, "only what was under way when the process died"
        assert ask.report()["cache_hits"] == len(before) - len(twice)


WRITER = """
import sys
from pathlib import Path
from prefzoo.feedback.judges.answer_cache import Answer, AnswerCache
cache = AnswerCache(Path(sys.argv[1]))
sys.stdin.readline()
for i in range(100):
    with cache.opened() as kept:
        cache.keep(kept, f"shared {i}", Answer(sys.argv[2]))
        cache.keep(kept, f"{sys.argv[2]} {i}", Answer(sys.argv[2]))
        assert len(cache.find(kept, [f"shared {i}", f"{sys.argv[2]} {i}"])) == 2
"""


def test_several_processes_write_at_once(tmp_path) -> None:
    from prefzoo.feedback.judges.answer_cache import AnswerCache

    names = ["a", "b", "c"]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "new"), name], stdin=subprocess.PIPE)
        for name in names
    ]
    time.sleep(1.0)
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(AnswerCache(tmp_path / "new")) == 400


def test_a_cache_that_cannot_be_used_is_told(asker, tmp_path) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "answers.sqlite").write_bytes(b"something else altogether, and long enough" * 9)
    with (
        ChatServer() as server,
        pytest.raises(PrefzooError, match=r"answers.sqlite: the judge's answers cannot be kept"),
    ):
        asker(server)(questions(1), 5)


def test_the_key_is_written_nowhere(asker, tmp_path, monkeypatch, caplog, capfd) -> None:
    """The server sends it back wherever it can, and everything that logs, logs all that it has."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    escaped = json.dumps(SECRET).replace("/", "\\/")
    assert SECRET not in escaped

    def act(seen, nth):
        echo = seen.headers["authorization"]
        assert echo == f"Bearer {SECRET}"
        i = number(seen)
        if i == 0:
            return Reply(
                said(f"you sent {echo}", logprobs={"content": [{"top_logprobs": [{"token": echo, "logprob": -1}]}]})
            )
        if i == 1 and nth == 0:
            return Reply(f'{{"echo": {escaped}'.encode(), 500)
        if i == 2 and nth == 0:
            return Reply(f'{{"choices": {escaped}'.encode())
        if i >= 3:
            return Reply({"error": {"message": f"wrong key: {echo}", "headers": seen.headers}}, wrong[0])
        return Reply()

    wrong = [403]
    told = []
    caplog.set_level(logging.DEBUG)
    with ChatServer(act, models=(SECRET,)) as server:
        ask = asker(server)
        answers = ask(questions(5), 5)
        assert answers[0].text == "you sent Bearer [key]" and answers[3].failure == "HTTP 403"
        for status in (401, 403, 404, 500, 400):
            wrong[0] = status
            with pytest.raises(PrefzooError) as caught:
                asker(server)(questions(40)[5:], 5)
            told.append("".join(traceback.format_exception(caught.value)))
        wrong[0] = 0
        unreadable = Reply(escaped.encode(), 404, {"Content-Type": "text/plain"})
        server.act = lambda seen, nth: unreadable
        with pytest.raises(PrefzooError) as caught:
            asker(server)(questions(41)[40:], 5)
        told.append(str(caught.value))
    out, err = capfd.readouterr()
    texts = [*told, out, err, caplog.text, json.dumps(ask.report()), repr(vars(ask)), repr(answers)]
    assert caplog.records and any("[key]" in text for text in told)
    for form in (SECRET, escaped[1:-1]):
        assert not [text for text in texts if form in text]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert files and not [path for path in files if form.encode() in path.read_bytes()]


def test_a_key_that_no_header_can_hold_is_told_without_it(asker, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-schlüssel")
    with ChatServer() as server, pytest.raises(PrefzooError, match="OPENAI_API_KEY' holds characters") as caught:
        asker(server)(questions(1), 5)
    assert "schl" not in str(caught.value) and not server.seen


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


def test_no_reply_and_no_question_ends_the_run(asker) -> None:
    """Choices in another order than that of their numbers; halves of surrogate pairs, which no file can hold."""
    with ChatServer(lambda seen, nth: Reply(ODD[number(seen)][0])) as server:
        ask = asker(server, retries=0)
        expected = [Said("y") if failure is None else Said("", None, failure) for _, failure in ODD]
        assert ask(questions(len(ODD)), 5) == expected
        assert ask.report()["unknown_usage"] == 4
        server.act = lambda seen, nth: Reply(said("x\ud800y"))
        halves = [[{"role": "user", "content": "half \ud800"}], [{"role": "user", "content": "whole"}]]
        assert ask(halves, 5) == [Said("", None, "a question that is no Unicode"), Said("x?y")]


def test_it_asks_from_within_a_running_loop(asker) -> None:
    async def notebook():
        return asker(server)(questions(3), 5)

    with ChatServer() as server:
        assert asyncio.run(notebook()) == [Said("yes")] * 3


def test_without_questions_nothing_is_asked(asker) -> None:
    with ChatServer() as server:
        ask = asker(server)
        assert ask([], 5) == [] and not server.seen and ask.report()["logprobs"] is None


def test_the_runs_own_randomness_is_left_alone(asker) -> None:
    import random

    random.seed(3)
    expected = random.Random(3).random()
    with ChatServer(lambda seen, nth: Reply({}, 500) if nth == 0 else Reply()) as server:
        asker(server)(questions(5), 5)
    assert random.random() == expected


def wait_until(true, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
