"""A real vLLM on loopback: what it samples is what the policy in this process would.

`PREFZOO_VLLM_PYTHON` names the interpreter of an environment with vllm (`make vllm-env` makes one), and
`PREFZOO_SMOLLM2` the folder of SmolLM2-135M (`make smollm2`), without which what is said of it is skipped.
`PREFZOO_VLLM_URL` names a server on the lab's model that runs already, and saves the start of one while tests are
written.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from scipy.stats import chisquare
from tests.conftest import worded
from tests.recorded_steps import replay_here
from tests.serving import drawn_adapter
from transformers import StaticCache

from prefzoo import lab, registry
from prefzoo.lab import MODEL_DIR
from prefzoo.models import merged_layers, replayed_steps, vllm_server
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.padding import padded
from prefzoo.models.policy_kinds import load_policy
from prefzoo.models.vllm_sampling import VllmSampler
from prefzoo.settings import Adapter, Generation, VllmServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]
VLLM = Path(__file__).parents[2] / ".venv-vllm"
PYTHON = os.environ.get("PREFZOO_VLLM_PYTHON", str(VLLM / "bin" / "python"))
SMOLLM2 = Path(os.environ.get("PREFZOO_SMOLLM2", VLLM / "SmolLM2-135M-Instruct"))
PROMPTS = [[{"role": "user", "content": pair["prompt"]}] for pair in lab.preferences("train", 48, 5)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server on the lab's model, and its settings."""
    if url := os.environ.get("PREFZOO_VLLM_URL"):
        yield VllmServer(url=url)
        return
    with hosted(vllm_server.Hosting(tmp_path_factory.mktemp("servers"), rank=16)) as settings:
        yield settings


@contextlib.contextmanager
def hosted(hosting: vllm_server.Hosting) -> Iterator[VllmServer]:
    """Have servers started as this says, and stopped at the end."""
    before, vllm_server.hosting = vllm_server.hosting, hosting
    yield VllmServer(python=PYTHON)
    vllm_server.stop_servers(hosting.folder)
    vllm_server.hosting = before


@pytest.fixture(scope="module")
def policies(tmp_path_factory) -> list[LanguageModelPolicy]:
    """The start, and five policies with adapters: one more than vLLM samples from side by side."""
    folder = tmp_path_factory.mktemp("adapters")
    return [
        LanguageModelPolicy.from_start(str(MODEL_DIR)),
        *(load_policy(drawn_adapter(folder / str(i), i)) for i in range(vllm_server.ADAPTERS_AT_ONCE + 1)),
    ]


def apart(some: list[Any], others: list[Any]) -> list[float]:
    """How far log-probabilities of the same tokens are from each other."""
    return [abs(a - b) for one, other in zip(some, others, strict=True) for a, b in zip(one, other, strict=True)]


@torch.inference_mode()
def usual_beginnings(policy: LanguageModelPolicy, prompt: Any, count: int) -> dict[tuple[int, ...], float]:
    """How often one expects the first two tokens of a reply in so many draws, of those that are expected five times."""

    def following(before: tuple[int, ...]) -> list[tuple[int, float]]:
        scores = policy.model(torch.tensor([[*policy.render(prompt), *before]])).logits[0, -1]
        return list(enumerate(scores.double().softmax(-1).tolist()))

    found: dict[tuple[int, ...], float] = {}
    for first, p in following(()):
        if first in policy.eos_ids:
            found[first,] = count * p
        elif count * p >= 5:
            found |= {(first, second): count * p * q for second, q in following((first,))}
    return {tokens: often for tokens, often in found.items() if often >= 5}


def of(server: VllmServer, **more: Any) -> Generation:
    return Generation(**{"max_new_tokens": 32, "engine": "vllm", "vllm": server, **more})


def plain(**more: Any) -> Generation:
    return Generation(**{"max_new_tokens": 32, **more})


class Adapted(NamedTuple):
    """A policy with an adapter, in float32, and what is sampled from it: replies to prompts, and many draws for one."""

    policy: LanguageModelPolicy
    prompts: list[Any]
    asked: Any
    draws: int


@pytest.fixture(scope="module", params=["lab", "SmolLM2-135M"])
def adapted(request, server, tmp_path_factory) -> Adapted:
    """One on the lab's model, and one on a pretrained model of 250 times as many weights."""
    folder = tmp_path_factory.mktemp("adapted")
    if request.param == "lab":
        return Adapted(load_policy(drawn_adapter(folder, 1)), PROMPTS, PROMPTS[0], 2000)
    if not SMOLLM2.is_dir() or server.url is not None:
        pytest.skip("needs `make smollm2`, or its folder in PREFZOO_SMOLLM2, and no PREFZOO_VLLM_URL")
    policy = load_policy(drawn_adapter(folder, 1, str(SMOLLM2), spread=0.05))
    return Adapted(policy, PROMPTS[:16], [{"role": "user", "content": "Is it open?"}], 300)


def test_greedy_replies_of_merged_unmerged_static_cache_and_vllm_are_the_same_tokens(
    adapted, server, monkeypatch, tmp_path
) -> None:
    policy, prompts, *_ = adapted
    rendered = [policy.render(prompt) for prompt in prompts]
    replies = {"vllm": policy.sample(prompts, of(server, temperature=0), 0)}
    replies["merged for each batch"] = policy.sample(prompts, plain(temperature=0), 0)
    with policy.as_start() as start:
        starts = [start.sample(prompts, each, 0) for each in (plain(temperature=0), of(server, temperature=0))]
    with monkeypatch.context() as patch:
        patch.setattr(merged_layers, "most_bytes", lambda device: 0)
        replies["unmerged"] = policy.sample(prompts, plain(temperature=0), 0)
        for name, most in (("replayed, merged", 2**30), ("replayed, unmerged", 0)):
            patch.setattr(merged_layers, "most_bytes", lambda device, most=most: most)
            recorded = replay_here(patch)
            with replayed_steps.noting_steps() as ways:
                replies[name] = policy.sample(prompts, plain(temperature=0), 0)
            assert recorded and ways == ["replayed"]
    inputs = padded(rendered, policy.tokenizer, "left", policy.model.device)
    said = policy.model.generate(
        **inputs, max_new_tokens=32, do_sample=False, cache_implementation="static", return_dict_in_generate=True
    )
    assert isinstance(said.past_key_values, StaticCache)
    rows = said.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    replies["static cache"] = [[policy.completion(*each)] for each in zip(rendered, rows, strict=True)]
    policy.save(tmp_path / "policy")
    merged = load_policy(tmp_path / "policy").merged()
    replies["merged"] = merged.sample(prompts, plain(temperature=0), 0)
    tokens = {name: [reply.token_ids for (reply,) in rows] for name, rows in replies.items()}
    other = {name: sum(a != b for a, b in zip(rows, tokens["unmerged"], strict=True)) for name, rows in tokens.items()}
    print(f"of {len(prompts)} replies, {sum(map(len, tokens['unmerged']))} tokens, others than unmerged: {other}")
    assert not any(other.values())
    assert starts[0] == starts[1] and starts[0] != replies["unmerged"], "the adapter changes replies"


@pytest.mark.parametrize("heat", [1.0, 0.7])
def test_log_probabilities_are_the_policys_at_the_temperature_of_the_request(
    heat, adapted, server, monkeypatch
) -> None:
    policy, prompts, *_ = adapted
    rendered = [policy.render(prompt) for prompt in prompts]
    drawn = VllmSampler(policy, server).draw(rendered, range(len(rendered)), of(server, temperature=heat))
    replies = [reply.token_ids for (reply,) in drawn]
    merged = policy.tokens_log_probabilities(rendered, replies, heat)
    monkeypatch.setattr(merged_layers, "most_bytes", lambda device: 0)
    unmerged = policy.tokens_log_probabilities(rendered, replies, heat)
    vllm = [reply.logprobs for (reply,) in drawn]
    away = {name: apart(unmerged, rows) for name, rows in {"vllm": vllm, "merged": merged}.items()}
    print({name: (len(each), max(each), sum(each) / len(each)) for name, each in away.items()})
    assert len(away["vllm"]) > 300 and max(away["vllm"]) < 1e-4 and max(away["merged"]) < 1e-4
    assert all(reply.finished == (reply.token_ids[-1] in policy.eos_ids) for (reply,) in drawn)


def test_first_two_tokens_are_drawn_with_the_policys_probabilities(adapted, server, monkeypatch) -> None:
    policy, _, asked, count = adapted
    expected = usual_beginnings(policy, asked, count)
    assert len(expected) > 3
    for name in ("vllm", "merged", "unmerged"):
        if name == "unmerged":
            monkeypatch.setattr(merged_layers, "most_bytes", lambda device: 0)
        generation = of(server, max_new_tokens=2) if name == "vllm" else plain(max_new_tokens=2)
        drawn = policy.sample([asked] * (count // 100), generation, 0, n=100)
        seen = Counter(reply.token_ids for replies in drawn for reply in replies)
        observed, wanted = [seen[each] for each in expected], [*expected.values()]
        found = chisquare([*observed, count - sum(observed)], [*wanted, count - sum(wanted)]).pvalue
        print(f"{name}: {len(expected)} beginnings, p {found:.3f}")
        assert found > 1e-3, name


def test_many_replies_of_both_engines_are_as_good_and_as_long(policies, server) -> None:
    prompts = [[{"role": "user", "content": pair["prompt"]}] for pair in lab.preferences("test", 200, 5)]
    long = {"max_new_tokens": 40}
    by_engine = [policies[0].sample(prompts, each, 3, n=10) for each in (of(server, **long), plain(**long))]

    def gold(prompt: Any, reply: Any) -> float:
        return lab.gold(prompt[0]["content"], reply.text)

    for measure in (gold, lambda _, reply: len(reply.token_ids)):
        vllm, ours = ([[measure(p, r) for r in rs] for p, rs in zip(prompts, rows, strict=True)] for rows in by_engine)
        more = [(sum(a) - sum(b)) / len(a) for a, b in zip(vllm, ours, strict=True)]
        error = statistics.stdev(more) / len(more) ** 0.5
        print(f"by vllm {statistics.mean(more):.3f} more, standard error {error:.3f}")
        assert abs(statistics.mean(more)) < 3.3 * error


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
    assert max(apart(ours, [reply.logprobs for reply in drawn])) < 1e-4


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


def test_whole_models_are_sampled_one_after_another_and_rollouts_are_the_learners(tmp_path, make_bench) -> None:
    start = LanguageModelPolicy.from_start(str(MODEL_DIR))
    whole = load_policy(drawn_adapter(tmp_path / "policy", 1)).merged()
    with hosted(vllm_server.Hosting(tmp_path / "servers", whole=True)) as settings:
        for policy in (whole, start, whole):
            greedy = policy.sample(PROMPTS, of(settings, temperature=0), 0)
            assert greedy == policy.sample(PROMPTS, plain(temperature=0), 0)
            rendered = [policy.render(prompt) for prompt in PROMPTS]
            drawn = [each for (each,) in VllmSampler(policy, settings).draw(rendered, range(48), of(settings))]
            ours = policy.tokens_log_probabilities(rendered, [reply.token_ids for reply in drawn])
            assert max(apart(ours, [reply.logprobs for reply in drawn])) < 1e-4
        for name in ("grpo", "ppo"):
            bench = make_bench(name=name)
            bench = bench.replace(generation=of(settings, max_new_tokens=16), adapter=Adapter(type="full"))
            registry.get(name).train(bench.replace(reward=worded))
            found = bench.report["importance_sampling"]
            assert found["mean_ratio"] == pytest.approx(1, abs=1e-4) and found["largest_difference"] < 1e-3
            logged = json.loads((bench.out / "curves.json").read_text())[0]
            kl = [each[key] for each in logged for key in ("rollout/kl", "kl") if key in each]
            print(name, found, kl)
            assert abs(kl[0]) < 1e-5 < kl[-1], "it is the start still, and later no more"
