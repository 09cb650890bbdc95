"""A judge and an assistant behind a server, and what a recipe may say about the server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from openai import _base_client

from chat_server import ChatServer, Reply, said
from prefzoo import lab
from prefzoo.errors import RecipeError
from prefzoo.judges import endpoint
from prefzoo.judges.assistant import EndpointAssistant, ModelAssistant
from prefzoo.judges.chat import ChatClient
from prefzoo.judges.endpoint import EndpointClient
from prefzoo.judges.judge import Judge
from prefzoo.judges.judge_settings import EndpointSettings, JudgeSettings
from prefzoo.judges.prompt_templates import judge_templates
from prefzoo.judges.text_judge import TextJudge
from prefzoo.lab import MODEL_DIR
from prefzoo.ledger import Ledger
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.recipe import check_recipe as recipes
from prefzoo.settings import Generation

LOADING = {"dtype": "float32", "trust_remote_code": False, "quantization": None}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of transformers' own server with the lab model, which it calls by its folder."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(MODEL_DIR), "--device", "cpu"]
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        end = time.monotonic() + 120
        while True:
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def test_the_lab_model_behind_a_server_judges_as_it_does_here(served, tmp_path, monkeypatch) -> None:
    """The server ignores that log-probabilities are wanted, and says so by nothing; the verdicts are its words then."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    client = EndpointClient(EndpointSettings(base_url=served, model=str(MODEL_DIR), concurrency=4), tmp_path)
    asked, heard = [], []

    def noted(conversations, max_new_tokens):
        answers = client(conversations, max_new_tokens)
        asked.extend(conversations)
        heard.extend(answer.text for answer in answers)
        return answers

    prompts, first, second, better = pairs(40)
    judge = parsed(noted)
    preferred = judge(prompts, first, second)
    decided = [(p > 0.5) == truly for p, truly in zip(preferred, better, strict=True) if p != 0.5]
    assert len(decided) > 20 and sum(decided) / len(decided) > 0.8

    greedy = Generation(max_new_tokens=2, temperature=0.0, batch_size=1)
    here = LanguageModelPolicy.from_start(str(MODEL_DIR), **LOADING).sample(asked, greedy, 0)
    assert heard == [reply.text for (reply,) in here] and {"A", "B"} == set(heard)

    report = client.report()
    assert report["logprobs"] == "no" and report["without_logprobs"] == report["asked"] == 2 * len(prompts)
    assert report["failures"] == report["retries"] == {} and report["left_out"] == []
    assert report["requests"] == 2 * len(prompts) and report["prompt_tokens"] > 20 * report["completion_tokens"] > 0
    judge(prompts, first, second)
    assert client.report()["requests"] == report["requests"]


def parsed(client: ChatClient) -> Judge:
    """A judge that asks the lab's question."""
    return TextJudge(client, judge_templates(JudgeSettings(), lab=True))


def pairs(count: int):
    """Prompts, the replies shown first and second, and whether the first is better: in every other pair."""
    rows = lab.preferences("test", count, 11)
    kept = [row for row in rows if lab.gold(row["prompt"], row["chosen"]) != lab.gold(row["prompt"], row["rejected"])]
    sides = [[row["chosen"], row["rejected"]][:: 1 if i % 2 else -1] for i, row in enumerate(kept)]
    better = [lab.gold(row["prompt"], a) > lab.gold(row["prompt"], b) for row, (a, b) in zip(kept, sides, strict=True)]
    return [[{"role": "user", "content": row["prompt"]}] for row in kept], *zip(*sides, strict=True), better


@pytest.mark.parametrize("faulty", [False, True])
def test_an_oracle_behind_a_server_agrees_with_gold_in_every_pair(tmp_path, monkeypatch, faulty: bool) -> None:
    """Answers come in another order; where the server is faulty, every third question fails at first."""
    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.01)

    def act(seen, nth):
        prompt, _, rest = seen.question.removesuffix("\nBetter?").partition("\nA: ")
        a, _, b = rest.partition("\nB: ")
        if faulty and nth == 0 and len(a) % 3 == 0:
            return Reply(said("")) if len(b) % 2 else Reply({}, 500)
        return Reply(said("A" if lab.gold(prompt, a) > lab.gold(prompt, b) else "B"), delay=0.001 * (len(a) % 20))

    prompts, first, second, better = pairs(60)
    assert 10 < sum(better) < len(better) - 10
    with ChatServer(act) as server:
        client = EndpointClient(EndpointSettings(base_url=server.url, model="m", concurrency=16), tmp_path)
        judge = parsed(client)
        assert judge(prompts, first, second) == [float(each) for each in better]
        assert judge(prompts, second, first) == [float(not each) for each in better]
    assert judge.report()["inconsistent"] == judge.report()["failures"] == 0
    assert bool(client.report()["retries"]) == faulty and client.report()["cache_hits"] >= 2 * len(better)


def test_a_server_that_always_says_a_gives_only_ties(tmp_path) -> None:
    prompts, first, second, _ = pairs(20)
    with ChatServer(lambda seen, nth: Reply(said("A"))) as server:
        judge = parsed(EndpointClient(EndpointSettings(base_url=server.url, model="m"), tmp_path))
        assert set(judge(prompts, first, second)) == {0.5}
    asked = judge.report()
    assert asked["first_preferred"] == asked["questions"] == 2 * len(prompts)


def test_the_assistant_behind_a_server_writes_as_the_one_here(served, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    requests = [row["prompt"] for row in lab.preferences("test", 6, 5)]
    generation = Generation(max_new_tokens=24, temperature=0.0)
    settings = EndpointSettings(base_url=served, model=str(MODEL_DIR))
    there, here = (
        EndpointAssistant(EndpointClient(settings, tmp_path), 24),
        ModelAssistant(LanguageModelPolicy.from_start(str(MODEL_DIR), **LOADING), generation),
    )
    charged = Ledger(), Ledger()
    assert there(requests, 0, charged[0]) == here(requests, 0, charged[1])
    assert charged[0].generated_tokens == charged[1].generated_tokens > 0
    assert charged[1].flops > 0 and there.client.report()["logprobs"] is None


def test_the_assistants_seed_makes_the_text(tmp_path) -> None:
    model = LanguageModelPolicy.from_start(str(MODEL_DIR), **LOADING)
    drawn = ModelAssistant(model, Generation(max_new_tokens=16))
    requests = [row["prompt"] for row in lab.preferences("test", 8, 5)]
    assert drawn(requests, 1) == drawn(requests, 1) != drawn(requests, 2)
    assert drawn([], 1) == []

    with ChatServer(lambda seen, nth: Reply(said(f"draw {seen.body.get('seed')}"))) as server:
        settings = EndpointSettings(base_url=server.url, model="m", temperature=1.0)
        there = EndpointAssistant(EndpointClient(settings, tmp_path), 16)
        ledger = Ledger()
        assert [there(["a", "b"], seed, ledger) for seed in (1, 2, 1)] == [
            ["draw 1"] * 2,
            ["draw 2"] * 2,
            ["draw 1"] * 2,
        ]
        assert ledger.generated_tokens == 3 * 2 * 2 and len(server.seen) == 4
        assert "logprobs" not in server.seen[0].body
        greedy = EndpointClient(settings.model_copy(update={"temperature": 0.0}), tmp_path)
        assert EndpointAssistant(greedy, 16)(["a"], 1) == ["draw None"]


def test_a_request_that_is_not_answered_gives_an_empty_text_and_is_counted(tmp_path) -> None:
    def act(seen, nth):
        return Reply(said("" if seen.question == "b" else "text"))

    with ChatServer(act) as server:
        client = EndpointClient(EndpointSettings(base_url=server.url, model="m", retries=1), tmp_path)
        assert EndpointAssistant(client, 16)(["a", "b", "c"], 0) == ["text", "", "text"]
        assert client.report()["failures"] == {"empty text": 1} and client.report()["left_out"] == []


ENDPOINT = {"base_url": "http://localhost:8000/v1", "model": "m"}


def checked(judge) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipes.check({"algorithms": {"dpo": {}}, "judge": judge})
    return caught.value.problems


def test_a_recipe_names_a_server() -> None:
    judge = recipes.check({"algorithms": {"dpo": {}}, "judge": {"type": "openai", "endpoint": ENDPOINT}}).judge
    assert judge.endpoint == EndpointSettings(**ENDPOINT) and judge.endpoint.key_env == "OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"type": "openai"}, "judge.endpoint: is missing; judge.type 'openai' needs a block with base_url and model"),
        ({"endpoint": ENDPOINT}, "judge.endpoint: has no meaning with judge.type 'local'; it must be 'openai'"),
        ({"type": "openai", "endpoint": {"model": "m"}}, "judge.endpoint.base_url: is missing"),
        (
            {"type": "openai", "endpoint": {**ENDPOINT, "retires": 3}},
            "judge.endpoint.retires: unknown key 'retires'",
        ),
        ({"type": "openai", "endpoint": {**ENDPOINT, "timeout": 0}}, "judge.endpoint.timeout: must be above 0 (got 0)"),
        (
            {"type": "openai", "path": "x", "endpoint": ENDPOINT},
            "judge.path: 'x' has no meaning with judge.type 'openai'",
        ),
        (
            {"type": "openai", "endpoint": {**ENDPOINT, "base_url": "localhost:8000"}},
            "base_url must begin with http://",
        ),
    ],
)
def test_mistakes_about_the_server_are_told(judge, said: str) -> None:
    problems = checked(judge)
    assert len(problems) == 1 and said in problems[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"key_env": "gsk_AbCdEf123456"},
        {"key_env": "AbCdEf123456-x"},
        {"base_url": "https://me:AbCdEf123456@host/v1"},
        {"base_url": "https://host/v1?key=AbCdEf123456"},
        {"api_key": "AbCdEf123456"},
    ],
)
def test_a_secret_in_a_recipe_is_refused_without_being_shown(wrong) -> None:
    problems = checked({"type": "openai", "endpoint": {**ENDPOINT, **wrong}})
    assert len(problems) == 1 and problems[0].startswith("judge.endpoint") and "AbCdEf" not in problems[0]
    with pytest.raises(RecipeError) as caught:
        recipes.load("quickstart", [f"judge.endpoint.{key}={value}" for key, value in wrong.items()])
    assert "AbCdEf" not in str(caught.value)


def test_a_missing_package_is_told_before_anything_is_done(tmp_path, monkeypatch) -> None:
    from prefzoo.errors import PrefzooError
    from prefzoo.recipe import cross_check

    monkeypatch.setattr(cross_check, "find_spec", lambda name: None)
    monkeypatch.setattr(endpoint, "find_spec", lambda name: None)
    assert checked({"type": "openai", "endpoint": ENDPOINT}) == [
        "judge.type: 'openai' needs the package openai: pip install 'prefzoo[judge]'"
    ]
    with pytest.raises(PrefzooError, match=r"pip install 'prefzoo\[judge\]'"):
        EndpointClient(EndpointSettings(**ENDPOINT), tmp_path)
