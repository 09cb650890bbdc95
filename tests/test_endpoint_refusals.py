"""What a server refuses: parameters, everything, a name, a key, which is written nowhere."""

from __future__ import annotations

import json
import logging
import traceback
from collections import Counter

import pytest

from asking import number, questions
from chat_server import ChatServer, Reply, said
from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import Response

pytestmark = pytest.mark.usefixtures("short_pauses_and_no_key")


SECRET = "sk-never/written+0123456789abcdef"


@pytest.mark.parametrize(
    "refuses", [("logprobs",), ("logprobs", "max_tokens"), ("logprobs", "max_tokens", "temperature")]
)
def test_what_a_server_refuses_is_left_out_once_and_for_all(client_of, refuses: tuple[str, ...]) -> None:
    def act(seen, nth):
        wrong = [name for name in refuses if name in seen.body]
        return Reply({"error": {"message": f"Unsupported: {wrong[0]}", "param": wrong[0]}}, 400) if wrong else Reply()

    with ChatServer(act) as server:
        client = client_of(server)
        assert client(questions(6), 5) == [Response("yes")] * 6
        assert len(server.seen) == 6 + len(refuses)
        assert server.seen[-1].body.get("max_completion_tokens", server.seen[-1].body.get("max_tokens")) == 5
        report = client.report()
        assert report["left_out"] == sorted([*refuses, "top_logprobs"]) and report["logprobs"] == "no"
        client_of(server)(questions(6), 5)
        assert len(server.seen) == 6 + len(refuses)


REFUSALS = {
    400: "judge.endpoint: .*does not answer as 'm' .HTTP 400: no such thing",
    403: "judge.endpoint: .*HTTP 403: no such thing.*judge.endpoint.key_env",
    404: "judge.endpoint: .*HTTP 404: no such thing.*judge.endpoint.base_url, which most often ends in /v1",
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_server_that_refuses_everything_is_asked_no_more(client_of, status: int) -> None:
    with ChatServer(lambda seen, nth: Reply({"error": {"message": "no such\n thing"}}, status)) as server:
        with pytest.raises(PrefzooError, match=REFUSALS[status]):
            client_of(server, concurrency=2)(questions(100), 5)
        assert len(server.seen) <= {400: 48, 403: 12, 404: 1}[status]
        assert all(n <= {400: 4}.get(status, 1) for n in Counter(map(number, server.seen)).values())


def test_a_misspelt_model_is_told_with_those_there_are(client_of) -> None:
    with (
        ChatServer(lambda seen, nth: Reply({}, 404), models=("qwen-small", "qwen-large")) as server,
        pytest.raises(PrefzooError, match=r"judge.endpoint.model: unknown model 'qwen-smal'. Did you mean 'qwen-sm"),
    ):
        client_of(server, model="qwen-smal")(questions(1), 5)


def test_401_says_which_variable_was_read(client_of, monkeypatch) -> None:
    with ChatServer(lambda seen, nth: Reply({}, 401)) as server:
        with pytest.raises(
            PrefzooError, match=r"key_env: .*wants a key, and none is in the environment variable 'MY_KEY'"
        ):
            client_of(server, key_env="MY_KEY")(questions(3), 5)
        assert "authorization" not in server.seen[0].headers
        monkeypatch.setenv("MY_KEY", SECRET)
        with pytest.raises(PrefzooError, match="refuses the key in the environment variable 'MY_KEY'"):
            client_of(server, key_env="MY_KEY")(questions(3), 5)
        assert server.seen[-1].headers["authorization"] == f"Bearer {SECRET}" and len(server.seen) == 2


def test_the_key_is_written_nowhere(client_of, tmp_path, monkeypatch, caplog, capfd) -> None:
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
        client = client_of(server)
        answers = client(questions(5), 5)
        assert answers[0].text == "you sent Bearer [key]" and answers[3].failure == "HTTP 403"
        for status in (401, 403, 404, 500, 400):
            wrong[0] = status
            with pytest.raises(PrefzooError) as caught:
                client_of(server)(questions(40)[5:], 5)
            told.append("".join(traceback.format_exception(caught.value)))
        wrong[0] = 0
        unreadable = Reply(escaped.encode(), 404, {"Content-Type": "text/plain"})
        server.act = lambda seen, nth: unreadable
        with pytest.raises(PrefzooError) as caught:
            client_of(server)(questions(41)[40:], 5)
        told.append(str(caught.value))
    out, err = capfd.readouterr()
    texts = [*told, out, err, caplog.text, json.dumps(client.report()), repr(vars(client)), repr(answers)]
    assert caplog.records and any("[key]" in text for text in told)
    for form in (SECRET, escaped[1:-1]):
        assert not [text for text in texts if form in text]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert files and not [path for path in files if form.encode() in path.read_bytes()]


def test_a_key_that_no_header_can_hold_is_told_without_it(client_of, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-schlüssel")
    with ChatServer() as server, pytest.raises(PrefzooError, match="OPENAI_API_KEY' holds characters") as caught:
        client_of(server)(questions(1), 5)
    assert "schl" not in str(caught.value) and not server.seen
