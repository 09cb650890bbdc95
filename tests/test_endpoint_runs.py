"""A whole comparison whose judge, critic and reviser is a server that fails, dies, and comes back."""

from __future__ import annotations

import re

import pytest

from chat_server import ChatServer, Reply, said
from prefzoo import compare, lab

pytestmark = pytest.mark.faults

SECRET = "sk-never/written+0123456789abcdef"
JUDGED = re.compile(r"(?P<prompt>.*)\nA: (?P<a>.*)\nB: (?P<b>.*)\nBetter\?", re.S)


def recipe(url: str) -> dict:
    return {
        "extends": "base",
        "start": "none",
        "tracking": {"wandb": {"mode": "disabled"}},
        "budget": {"prompts": 32},
        "evaluation": {"prompts": 16},
        "generation": {"max_new_tokens": 32},
        "reward": {"type": "random"},
        "constitution": "lab",
        "judge": {
            "type": "openai",
            "endpoint": {"base_url": url, "model": "m", "retries": 1, "price_in": 1.0},
            "prompt": "pairwise-lab",
            "audit_pairs": 20,
        },
        "algorithms": {"rlaif": {}, "constitutional_ai": {}, "sft": {}},
    }


def answer(question: str) -> str:
    """An oracle: it judges by gold, finds a flaw, and always revises to the same."""
    if found := JUDGED.fullmatch(question):
        a, b = (lab.gold(found["prompt"], found[side]) for side in "ab")
        return "A" if a > b else "B"
    return "Have a nice day." if question.endswith("Rewrite:") else "no answer"


@pytest.fixture
def port_kept(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


def test_a_server_that_dies_midway_loses_nothing(tmp_path, port_kept, capfd) -> None:
    out = tmp_path / "run"
    alive = 40

    def dying(seen, nth):
        if len(server.seen) > alive:
            return Reply({"error": {"message": f"gone, and your key was {SECRET}"}}, 503)
        return Reply(said(answer(seen.question)))

    with ChatServer(dying) as server:
        first = compare(recipe(server.url), seeds=1, out=out, workers=2)
        url = server.url
    states = {label: each.status for label, each in first.algorithms.items()}
    assert states["sft"] == "ok" and "failed" in (states["rlaif"], states["constitutional_ai"])
    errors = " ".join(each.error or "" for each in first.algorithms.values())
    assert "judge.endpoint.base_url: no answer from" in errors and "the same command goes on from there" in errors
    answered = {seen.question for seen in server.seen[:alive]}

    with ChatServer(
        lambda seen, nth: Reply(said(answer(seen.question))), port=int(url.split(":")[2].split("/")[0])
    ) as again:
        assert again.url == url
        second = compare(recipe(again.url), seeds=1, out=out, workers=2)
    assert {each.status for each in second.algorithms.values()} == {"ok"}
    twice = answered & {seen.question for seen in again.seen}
    assert len(twice) <= 8, "but for those under way, what was answered is not asked again"
    trial = second.algorithms["rlaif"].seeds["0"]
    asked = trial.details["judge"]["endpoint"]
    assert asked["asked"] == trial.ledger["judge_calls"] == 64 and asked["failures"] == {}
    assert second.judge["audits"]["judge"]["agreement"]["share"] == 1.0
    revised = second.algorithms["constitutional_ai"].seeds["0"].details["supervised"]["revised"]
    assert revised > 0

    said_aloud = capfd.readouterr()
    assert not [line for line in (said_aloud.out + said_aloud.err).splitlines() if SECRET in line]
    for file in out.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
