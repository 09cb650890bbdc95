"""A real vLLM on loopback: what it samples is what the policy in this process would, and a comparison survives it.

`PREFZOO_VLLM_PYTHON` names the interpreter of an environment with vllm (`make vllm-env` makes one); `PREFZOO_VLLM_URL`
names a server on the lab's model that runs already, and saves the start of one while tests are written.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from scipy.stats import chisquare
from tests.conftest import worded
from tests.serving import drawn_adapter

from prefzoo import compare, lab, registry
from prefzoo.lab import MODEL_DIR
from prefzoo.models import merged_layers, vllm_server
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.policy_kinds import load_policy
from prefzoo.models.vllm_client import Drawing
from prefzoo.models.vllm_sampling import VllmSampler
from prefzoo.settings import Generation, VllmServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]
PYTHON = os.environ.get("PREFZOO_VLLM_PYTHON", str(Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"))
PROMPTS = [[{"role": "user", "content": pair["prompt"]}] for pair in lab.preferences("train", 48, 5)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server on the lab's model, and its settings."""
    if url := os.environ.get("PREFZOO_VLLM_URL"):
        yield VllmServer(url=url)
        return
    before = vllm_server.hosting
    vllm_server.hosting = vllm_server.Hosting(tmp_path_factory.mktemp("servers"), rank=16)
    yield VllmServer(python=PYTHON)
    vllm_server.stop_servers(vllm_server.hosting.folder)
    vllm_server.hosting = before


@pytest.fixture(scope="module")
def policies(tmp_path_factory) -> list[LanguageModelPolicy]:
    """The start, and five policies with adapters: one more than vLLM samples from side by side."""
    folder = tmp_path_factory.mktemp("adapters")
    return [
        LanguageModelPolicy.from_start(str(MODEL_DIR)),
        *(load_policy(drawn_adapter(folder / str(i), i)) for i in range(vllm_server.ADAPTERS_AT_ONCE + 1)),
    ]


def of(server: VllmServer, **more: Any) -> Generation:
    return Generation(**{"max_new_tokens": 32, "engine": "vllm", "vllm": server, **more})


def plain(**more: Any) -> Generation:
    return Generation(**{"max_new_tokens": 32, **more})


def test_greedy_replies_of_merged_unmerged_and_vllm_are_the_same_tokens(
    policies, server, monkeypatch, tmp_path
) -> None:
    policy = policies[1]
    replies = {"vllm": policy.sample(PROMPTS, of(server, temperature=0), 0)}
    replies["merged for each batch"] = policy.sample(PROMPTS, plain(temperature=0), 0)
    with monkeypatch.context() as patch:
        patch.setattr(merged_layers, "MOST_BYTES", 0)
        replies["unmerged"] = policy.sample(PROMPTS, plain(temperature=0), 0)
    policy.save(tmp_path / "policy")
    merged = load_policy(tmp_path / "policy").merged()
    replies["merged"] = merged.sample(PROMPTS, plain(temperature=0), 0)
    tokens = {name: [reply.token_ids for (reply,) in rows] for name, rows in replies.items()}
    assert all(rows == tokens["unmerged"] for rows in tokens.values())
    start = [reply.token_ids for (reply,) in policies[0].sample(PROMPTS, plain(temperature=0), 0)]
    assert start != tokens["unmerged"], "the adapter changes replies"
    assert start == [reply.token_ids for (reply,) in policies[0].sample(PROMPTS, of(server, temperature=0), 0)]


@pytest.mark.parametrize("heat", [1.0, 0.7])
def test_log_probabilities_are_the_policys_at_the_temperature_of_the_request(heat, policies, server) -> None:
    policy = policies[2]
    rendered = [policy.render(prompt) for prompt in PROMPTS]
    drawn = VllmSampler(policy, server).draw(rendered, range(len(rendered)), of(server, temperature=heat))
    ours = policy.tokens_log_probabilities(rendered, [reply.token_ids for (reply,) in drawn], heat)
    away = [
        abs(a - b) for row, (reply,) in zip(ours, drawn, strict=True) for a, b in zip(row, reply.logprobs, strict=True)
    ]
    assert len(away) > 300 and max(away) < 1e-4
    assert all(reply.finished == (reply.token_ids[-1] in policy.eos_ids) for (reply,) in drawn)


def test_first_tokens_are_drawn_with_the_policys_probabilities(policies, server) -> None:
    policy, count = policies[3], 2000
    rendered = policy.render(PROMPTS[0])
    sampler = VllmSampler(policy, server)
    with sampler.weights() as name:
        drawing = Drawing(name, 1, 1.0, policy.eos_ids, n=100)
        drawn = sampler.server.client.draw([rendered] * (count // 100), range(0, 100 * count, 10_000), drawing)
    seen = Counter(reply.token_ids[0] for replies in drawn for reply in replies)
    with torch.inference_mode():
        expected = policy.model(torch.tensor([rendered])).logits[0, -1].softmax(-1) * count
    usual = [token for token, often in enumerate(expected.tolist()) if often >= 5]
    observed, wanted = [seen[token] for token in usual], [float(expected[token]) for token in usual]
    observed.append(count - sum(observed))
    wanted.append(count - sum(wanted))
    assert len(usual) > 3 and chisquare(observed, wanted).pvalue > 1e-3


def test_a_seed_gives_the_same_replies_alone_and_beside_others(policies, server) -> None:
    policy = policies[1]
    first, again = (policy.sample(PROMPTS, of(server), 7, n=2) for _ in range(2))
    alone = policy.sample(PROMPTS, of(server, batch_size=2), 7, n=2)
    same = (
        sum(a == b for a, b in zip(first, again, strict=True)),
        sum(a == b for a, b in zip(first, alone, strict=True)),
    )
    print(f"of {len(PROMPTS)} prompts the same two replies: again {same[0]}, one prompt at a time {same[1]}")
    assert min(same) >= 0.95 * len(PROMPTS)
    assert policy.sample(PROMPTS, of(server), 8, n=2) != first


def test_the_start_is_the_start_beside_as_many_adapters_as_there_is_room_for(policies, server) -> None:
    start, *adapted = policies
    rendered = [start.render(prompt) for prompt in PROMPTS]
    generation = of(server)
    threads = [
        threading.Thread(target=VllmSampler(policy, server).draw, args=(rendered * 2, range(96), generation))
        for policy in adapted
    ]
    for thread in threads:
        thread.start()
    sampler = VllmSampler(start, server)
    drawn = [reply for seed in (0, 100) for (reply,) in sampler.draw(rendered, range(seed, seed + 48), generation)]
    for thread in threads:
        thread.join()
    ours = start.tokens_log_probabilities(rendered * 2, [reply.token_ids for reply in drawn])
    away = [
        abs(a - b) for row, reply in zip(ours, drawn, strict=True) for a, b in zip(row, reply.logprobs, strict=True)
    ]
    assert max(away) < 1e-4


@pytest.mark.parametrize("name", ["grpo", "ppo", "rloo", "a2c", "reinforce", "distill"])
def test_the_first_rollout_is_the_starts_and_later_ones_are_the_learners(name, make_bench, server) -> None:
    settings: dict[str, Any] = {"teacher": str(MODEL_DIR)} if name == "distill" else {}
    bench = make_bench().replace(generation=of(server, max_new_tokens=16), reward=worded)
    registry.get(name, **settings).train(bench)
    if name == "distill":
        return
    found = bench.report["importance_sampling"]
    assert found["mean_ratio"] == pytest.approx(1, abs=1e-4) and found["truncated_share"] == 0
    assert found["largest_difference"] < 1e-3
    first = json.loads((bench.out / "curves.json").read_text())[0][0]
    assert abs(first["rollout/kl"] if "rollout/kl" in first else first["kl"]) < 1e-5, "it is the start still"


SMALL = [
    "budget.prompts=192",
    "evaluation.prompts=96",
    "algorithms={sft: {}, dpo: {}, grpo: {}, rejection_sampling: {n: 4}}",
]
VLLM = [*SMALL, "generation.engine=vllm", f"generation.vllm.python={PYTHON}"]


def test_a_comparison_gives_verdicts_like_those_of_transformers(tmp_path) -> None:
    ours = compare(
        "quickstart", seeds=2, sets=[*SMALL, "generation.engine=transformers"], out=tmp_path / "transformers"
    )
    theirs = compare("quickstart", seeds=2, sets=VLLM, out=tmp_path / "vllm")
    words: dict[str, list[str]] = {}
    for results in (ours, theirs):
        for verdict in results.verdicts:
            if verdict.metric == results.primary and verdict.b == "start":
                words.setdefault(verdict.a, []).append(verdict.verdict)
    print(words)
    assert all({"better", "worse"} != set(pair) for pair in words.values()) and len(words) == 4
    for label, result in theirs.algorithms.items():
        assert result.status == "ok" and not result.departures
        for trial in result.seeds.values():
            assert {way["generation.engine"] for way in trial.details["sampling"]} == {"vllm"}, label
    assert not list((tmp_path / "vllm" / "servers").glob("*.json")), "no server is left"


def test_a_server_that_is_killed_costs_its_stages_alone_and_the_same_command_goes_on(tmp_path) -> None:
    out = tmp_path / "killed"
    sets = ["budget.prompts=64", "evaluation.prompts=32", *VLLM[2:], "algorithms={dpo: {}, rejection_sampling: {n: 8}}"]
    killed = threading.Event()

    def kill() -> None:
        while not killed.is_set():
            for record in (out / "servers").glob("*.json"):
                if "Loaded new LoRA adapter" in record.with_suffix(".log").read_text():  # and samples from it
                    watch = psutil.Process(json.loads(record.read_text())["pid"])
                    for process in watch.children(recursive=True):
                        process.kill()
                    killed.set()
            time.sleep(0.05)

    threading.Thread(target=kill, daemon=True).start()
    results = compare("quickstart", seeds=1, sets=sets, out=out, workers=1)
    assert killed.is_set()
    lost = results.algorithms["rejection_sampling"]
    assert lost.status == "failed" and "vLLM" in lost.error and "the same command goes on" in lost.error
    assert results.algorithms["dpo"].status == "ok"
    done = {folder: folder.stat().st_mtime_ns for folder in (out / "trials").iterdir() if folder.is_dir()}
    results = compare("quickstart", seeds=1, sets=sets, out=out, workers=1)
    assert {result.status for result in results.algorithms.values()} == {"ok"}
    assert all(folder.stat().st_mtime_ns == when for folder, when in done.items() if folder.suffix != ".partial")
