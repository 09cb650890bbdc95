"""Answers of a server are kept: nothing is asked twice, whoever dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from asking import number, questions, wait_until
from chat_server import ChatServer, Reply, said
from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import Response

pytestmark = pytest.mark.usefixtures("short_pauses_and_no_key")


def test_the_same_question_is_asked_once_and_another_parameter_makes_another_question(client_of) -> None:
    with ChatServer() as server:
        client = client_of(server)
        assert client([questions(1)[0]] * 4, 5) == [Response("yes")] * 4
        assert len(server.seen) == 1 and client.report()["cache_hits"] == 3
        client(questions(1), 6)
        client_of(server, model="other")(questions(1), 5)
        client_of(server, temperature=0.5)(questions(1), 5)
        assert len(server.seen) == 4
        client_of(server, timeout=2.0, retries=0, key_env="OTHER")(questions(1), 5)
        assert len(server.seen) == 4


def test_a_server_that_is_gone_is_asked_no_more_and_the_run_goes_on_where_it_was(client_of) -> None:
    """It dies after 12 answers; another one takes its place, and only what is missing is asked there."""
    with ChatServer() as first:
        client = client_of(first, lambda what, done, total: first.__exit__() if done == 12 else None, concurrency=1)
        with pytest.raises(PrefzooError, match=r"judge.endpoint.base_url: .* 10 times in a row \(no connection: \w+\)"):
            client(questions(40), 5)
        kept = len(client.cache)
        assert kept == 12
        assert client.report()["failures"] == {"no connection": 10} and client.report()["retries"] == {
            "no connection": 30
        }
        with pytest.raises(
            PrefzooError, match=rf"{kept} answers are kept in .*answers.sqlite; the same command goes on"
        ):
            client(questions(40), 5)
    with ChatServer(port=first.port) as second:
        again = client_of(second)
        assert again(questions(40), 5) == [Response("yes")] * 40
        assert again.report()["cache_hits"] == kept and again.report()["requests"] == 40 - kept
        assert first.answered + second.answered == {f"question {i}": 1 for i in range(40)}


CHILD = """
import sys
from pathlib import Path
from prefzoo.judges.endpoint import EndpointClient
from prefzoo.judges.judge_settings import EndpointSettings
client = EndpointClient(EndpointSettings(base_url=sys.argv[1], model="m", concurrency=3), Path(sys.argv[2]))
client([[{"role": "user", "content": f"question {i}"}] for i in range(60)], 5)
print("done")
"""


def test_after_sigkill_nothing_that_was_answered_is_asked_again(client_of, tmp_path) -> None:
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
        client = client_of(server)
        assert client(questions(60), 5) == [Response(f"answer {i}") for i in range(60)]
        twice = [question for question in before if server.answered[question] > 1]
        assert len(twice) <= 3, "only what was under way when the process died"
        assert client.report()["cache_hits"] == len(before) - len(twice)


WRITER = """
import sys
from pathlib import Path
from prefzoo.judges.answer_cache import AnswerCache
from prefzoo.judges.chat import Response
cache = AnswerCache(Path(sys.argv[1]))
sys.stdin.readline()
for i in range(100):
    with cache.opened() as kept:
        cache.keep(kept, f"shared {i}", Response(sys.argv[2]))
        cache.keep(kept, f"{sys.argv[2]} {i}", Response(sys.argv[2]))
        assert len(cache.find(kept, [f"shared {i}", f"{sys.argv[2]} {i}"])) == 2
"""


def test_several_processes_write_at_once(tmp_path) -> None:
    from prefzoo.judges.answer_cache import AnswerCache

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


def test_answers_of_older_runs_are_found(client_of) -> None:
    record = {"text": "B", "first": {"B": -0.1}, "failure": None, "prompt_tokens": 7, "completion_tokens": 2}
    with ChatServer() as server:
        client = client_of(server)
        client(questions(1), 5)
        with client.cache.opened() as connection:
            connection.execute("UPDATE answers SET answer = ?", (json.dumps({**record, "finished": True}),))
        assert client_of(server)(questions(1), 5) == [Response("B", {"B": -0.1})] and len(server.seen) == 1


def test_a_cache_that_cannot_be_used_is_told(client_of, tmp_path) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "answers.sqlite").write_bytes(b"something else altogether, and long enough" * 9)
    with (
        ChatServer() as server,
        pytest.raises(PrefzooError, match=r"answers.sqlite: the judge's answers cannot be kept"),
    ):
        client_of(server)(questions(1), 5)
