"""What trials are charged, worked out by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from transformers import GenerationMixin, PreTrainedModel

from prefzoo import get
from prefzoo.interface import Bench
from prefzoo.ledger import Ledger
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import load_tokenizer
from prefzoo.rewards.train_reward import train_reward_model

RANK = 4


class Length:
    """Prefers long replies."""

    def __call__(self, prompts, completions) -> list[float]:
        return [len(text) / 50 for text in completions]

    def spec(self, folder) -> dict:
        return {}


length = Length()


@pytest.fixture(scope="module")
def sizes() -> tuple[int, int]:
    """Weights of the lab model, and of an adapter of this rank on all its linear layers but the head."""
    from prefzoo.lab import MODEL_DIR
    from prefzoo.models.loading import load_model

    model = load_model(str(MODEL_DIR))
    linear = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    return sum(p.numel() for p in model.parameters()), sum(RANK * (m.in_features + m.out_features) for m in linear)


def tokens(bench: Bench, rows: list, *replies: str) -> int:
    tokenizer = load_tokenizer(bench.start)
    return sum(
        len(tokenizer.apply_chat_template([*row["prompt"], *row[reply]], return_dict=False))
        for row in rows
        for reply in replies
    )


def flops(ledger: Ledger, base: int, adapter: int, on_base: int) -> float:
    """From its tokens: 2 a weight forward, 2 back through each, 2 for each that is trained; `on_base` tokens passed
    forward with the adapter off."""
    whole = base + adapter
    forward = 2 * whole * (ledger.generated_tokens + ledger.forward_tokens - on_base) + 2 * base * on_base
    return forward + (4 * whole + 2 * (adapter or base)) * ledger.trained_tokens


@contextlib.contextmanager
def forward_only() -> Iterator[list[int]]:
    """Counts attended tokens of forward passes without a gradient, those within `generate` left out."""
    seen, depth, sampling = [0], 0, 0
    call, generate = torch.nn.Module.__call__, GenerationMixin.generate

    def watched(self, *args, **kwargs):
        nonlocal depth
        depth += 1
        try:
            output = call(self, *args, **kwargs)
        finally:
            depth -= 1
        if depth == 0 and not sampling and not torch.is_grad_enabled():
            seen[0] += int(kwargs["attention_mask"].sum())
        return output

    def sampled(self, *args, **kwargs):
        nonlocal sampling
        sampling += 1
        try:
            return generate(self, *args, **kwargs)
        finally:
            sampling -= 1

    PreTrainedModel.__call__, GenerationMixin.generate = watched, sampled
    try:
        yield seen
    finally:
        del PreTrainedModel.__call__
        GenerationMixin.generate = generate


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_sft_is_charged_a_forward_and_a_backward_pass_and_nothing_for_gradients_that_nobody_needs(
    adapter, make_bench, sizes
) -> None:
    bench = make_bench(adapter, epochs=2.0)
    get("sft").train(bench)
    rows = bench.data.chosen()
    by_hand = 2 * tokens(bench, rows, "completion")
    base, trained = sizes
    each = 4 * base + 6 * trained if adapter == "lora" else 6 * base
    assert bench.ledger == Ledger(trained_tokens=by_hand, prompts=2 * len(rows), flops=by_hand * each)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_dpo_pays_for_its_reference(adapter, make_bench, sizes) -> None:
    bench = make_bench(adapter)
    with forward_only() as seen:
        get("dpo").train(bench)
    by_hand = tokens(bench, bench.data.preferences, "chosen", "rejected")
    base, trained = sizes[0], sizes[1] if adapter == "lora" else 0
    ledger = bench.ledger
    assert ledger.trained_tokens == ledger.forward_tokens == seen[0] == by_hand and ledger.prompts == 24
    assert ledger.flops == flops(ledger, base, trained, on_base=by_hand)
    assert ledger.flops == by_hand * (6 * base + 6 * trained if trained else 8 * base)


ONLINE = [
    # passes over a rollout: forward only on the policy and on the start, with gradients; what the critic adds.
    # The policy's log-probabilities come from sampling, and a frozen critic reads the states of the reference's pass.
    ("ppo", {"epochs": 2}, (0, 1, 2), (1, 2)),
    ("ppo", {"epochs": 2, "value_model": "frozen"}, (0, 1, 2), (0, 0)),
    ("ppo", {"epochs": 2, "value_model": "frozen", "kl_coefficient": 0.0}, (0, 0, 2), (1, 0)),
    ("reinforce", {}, (0, 1, 1), (0, 0)),
    ("grpo", {"generations": 2}, (0, 1, 1), (0, 0)),
    ("grpo", {"generations": 2, "epochs": 2, "kl_coefficient": 0.0}, (0, 0, 2), (0, 0)),
    ("gspo", {"generations": 2, "minibatches": 3}, (0, 0, 1), (0, 0)),
    ("reinforce_plus_plus", {"epochs": 2}, (0, 1, 2), (0, 0)),
    ("rloo", {"generations": 2, "kl_coefficient": 0.0}, (0, 0, 1), (0, 0)),
]


@pytest.mark.parametrize(("name", "settings", "passes", "critic"), ONLINE, ids=str)
def test_online_algorithms_pay_for_every_pass_over_a_rollout(name, settings, passes, critic, make_bench, sizes) -> None:
    bench = make_bench().replace(reward=length)
    with forward_only() as seen:
        get(name, **settings).train(bench)
    ledger, prompts = bench.ledger, bench.data.prompts
    start = LanguageModelPolicy.from_start(bench.start)
    read = settings.get("generations", 1) * sum(len(start.render(prompt)) for prompt in prompts)
    whole = read + ledger.generated_tokens
    anew, reference, learned = passes
    values, learned_values = critic
    assert ledger.prompts == len(prompts) and ledger.reward_calls == settings.get("generations", 1) * len(prompts)
    assert ledger.forward_tokens == read + (anew + reference + values) * whole
    assert seen[0] == (anew + reference + values) * whole
    assert ledger.trained_tokens == (learned + learned_values) * whole
    head = 129  # the critic's own: a weight for each of 128 hidden units, and a bias
    by_critic = 2 * head * values * whole + 6 * head * learned_values * whole
    if frozen := "value_model" in settings:  # two layers, without a pass over the base
        head += 128 * 129
        by_critic = 2 * head * whole + 6 * head * 2 * whole
    on_base = reference + (values if frozen else 0)
    assert ledger.flops == flops(ledger, *sizes, on_base=on_base * whole) + by_critic


@pytest.mark.parametrize(
    ("settings", "starts"),
    [
        ({}, 1),
        ({"value_model": "frozen"}, 1),
        ({"value_model": "frozen", "kl_coefficient": 0.0}, 1),
        ({"value_model": "frozen", "reference_decay": 0.9}, 2),
    ],
    ids=str,
)
def test_full_actor_and_critic_are_charged_as_two_models(settings, starts, make_bench, sizes) -> None:
    """A frozen critic reads the reference's pass, or where that is none or moves (`starts`), the start's once more."""
    bench = make_bench("full").replace(reward=length)
    get("ppo", epochs=1, **settings).train(bench)
    ledger, base = bench.ledger, sizes[0]
    separate = "value_model" not in settings
    critic = base + 129 if separate else 129 + 128 * 129  # the lab's head is its embedding
    whole = ledger.trained_tokens // (2 if separate else 1)
    read = whole - ledger.generated_tokens
    policy = 2 * base * (ledger.generated_tokens + read + starts * whole) + 6 * base * whole
    assert ledger.flops == policy + (2 + 6) * critic * whole


def test_prompts_count_when_they_are_sampled_from_and_not_again_in_what_is_made_of_them(make_bench) -> None:
    bench = make_bench(epochs=2.0).replace(reward=length)
    get("rejection_sampling", n=2, keep="top_k", iterations=2).train(bench)
    assert bench.ledger.prompts == len(bench.data.prompts) == 24
    read = 2 * sum(len(LanguageModelPolicy.from_start(bench.start).render(p)) for p in bench.data.prompts)
    assert bench.ledger.forward_tokens == read


def test_best_of_n_takes_up_no_prompt_in_training_and_pays_when_it_answers(make_bench, sizes) -> None:
    bench = make_bench().replace(reward=length)
    policy = get("best_of_n", n=3).train(bench)
    assert bench.ledger == Ledger()
    ledger, prompts = Ledger(), bench.data.prompts[:5]
    policy.sample(prompts, bench.generation, seed=0, ledger=ledger)
    read = 3 * sum(len(policy.policy.render(prompt)) for prompt in prompts)
    assert ledger.reward_calls == 15 and ledger.forward_tokens == read and ledger.prompts == 0
    assert ledger.flops == 2 * sizes[0] * (read + ledger.generated_tokens)


def test_a_reward_model_is_charged_for_its_tokens_and_takes_up_no_prompt_of_the_policy(make_bench) -> None:
    bench = make_bench()
    model = train_reward_model(bench, {})
    by_hand = tokens(bench, bench.data.preferences, "chosen", "rejected")
    assert (bench.ledger.trained_tokens, bench.ledger.prompts, bench.ledger.forward_tokens) == (by_hand, 0, 0)
    head = 128  # a copy of it is trained beside the adapter, the original is not passed
    adapter = sum(p.numel() for n, p in model.model.named_parameters() if "lora_" in n) + head
    passed = model.parameters - head
    assert bench.ledger.flops == by_hand * (4 * passed + 2 * adapter)
