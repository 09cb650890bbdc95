"""ILQL and SAC: their losses, their targets, and the distribution that they sample from."""

from __future__ import annotations

import collections
import json
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import prefzoo
from prefzoo.data.formats import Row
from prefzoo.data.rejects import Rejects
from prefzoo.errors import DataError, PrefzooError, RecipeError
from prefzoo.interface import Bench
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.q_value_policy import Q_HEADS, V_HEAD, QValuePolicy
from prefzoo.recipe import check_recipe as recipes
from prefzoo.run.stages.data_stage import _check_kinds
from prefzoo.settings import Generation
from prefzoo.trainers.q_learning_trainer import head_losses, q_targets, rewarded_replies
from prefzoo.trainers.soft_q_trainer import fit_soft_q_values, soft_q_targets, soft_values
from test_policy_kinds import same, weights_in

ONE_STEP = {"logging_steps": 1, "max_steps": 1}


def test_targets_by_hand() -> None:
    """A reply of 3 tokens from position 1 on, and one of 2 from position 0 on."""
    values = torch.tensor([[9.0, 0.2, 0.4, 0.6], [0.1, 0.3, 9.0, 9.0]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]]).bool()
    rewards = torch.tensor([1.0, 0.5])
    one_step = [[0, 0.9 * 0.4, 0.9 * 0.6, 1.0], [0.9 * 0.3, 0.5, 0, 0]]
    monte_carlo = [[0, 0.81, 0.9, 1.0], [0.45, 0.5, 0, 0]]
    third = 0.9 * (0.75 * 0.6 + 0.25 * 1.0)
    mixed = [[0, 0.9 * (0.75 * 0.4 + 0.25 * third), third, 1.0], [0.9 * (0.75 * 0.3 + 0.25 * 0.5), 0.5, 0, 0]]
    for share, expected in ((0.0, one_step), (1.0, monte_carlo), (0.25, mixed)):
        found = q_targets(values, rewards, mask, 0.9, share)
        torch.testing.assert_close(found, torch.tensor(expected))


def test_losses_of_the_heads_by_hand() -> None:
    """Two tokens in the vocabulary, two tokens of a reply: the first is token 0, the second token 1."""
    q1, q2 = np.array([[0.5, -0.5], [0.0, 1.0]]), np.array([[0.2, 0.1], [0.3, 0.3]])
    losses, smaller = head_losses(
        [torch.tensor(q1), torch.tensor(q2)],
        v=torch.tensor([0.3, 0.6]),
        averaged=torch.tensor([0.8, 0.2]),
        aim=torch.tensor([0.7, 1.0]),
        tokens=torch.tensor([0, 1]),
        tau=0.7,
    )
    assert smaller.tolist() == pytest.approx([0.2, 0.3])
    # 0.8 - 0.3 = 0.5 is above V and weighs 0.7; 0.2 - 0.6 = -0.4 is below and weighs 0.3.
    assert losses["v"].tolist() == pytest.approx([0.7 * 0.25, 0.3 * 0.16])
    assert losses["q"].tolist() == pytest.approx([0.2**2 + 0.5**2, 0.0 + 0.7**2])
    by_hand = [np.log(1 + np.exp(-1.0)) + np.log(1 + np.exp(-0.1)), np.log(1 + np.exp(-1.0)) + np.log(2)]
    assert losses["cql"].tolist() == pytest.approx(by_hand)


def test_soft_values_and_targets_by_hand() -> None:
    actor, start = np.array([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]]), np.array([[0.5, 0.25, 0.25]] * 2)
    q = np.array([[1.0, -1.0, 2.0], [1.0, -1.0, 2.0]])
    found = soft_values(*map(torch.tensor, (np.log(actor), np.log(start), q)), 0.5)
    kl = 0.2 * np.log(0.2 / 0.5) + 0.3 * np.log(0.3 / 0.25) + 0.5 * np.log(0.5 / 0.25)
    assert found.tolist() == pytest.approx([0.2 - 0.3 + 1.0 - 0.5 * kl, 0.5 - 0.25 + 0.5])
    # None gets more than start * exp(Q / 0.5), normalised, which gets 0.5 log of the norm.
    best = start * np.exp(q / 0.5)
    most = soft_values(*map(torch.tensor, (np.log(best / best.sum(1, keepdims=True)), np.log(start), q)), 0.5)
    assert most.tolist() == pytest.approx(0.5 * np.log(best.sum(1))) and (most > found).all()
    # A reply of 3 tokens from position 1 on, and one of 2 from position 0 on.
    values = torch.tensor([[9.0, 0.2, 0.4, 0.6], [0.1, 0.3, 9.0, 9.0]])
    chosen = torch.tensor([[9.0, 0.5, 0.1, 0.8], [0.2, 0.7, 9.0, 9.0]])
    mask, rewards = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]]).bool(), torch.tensor([1.0, 0.5])
    second = 0.9 * (0.6 + 0.25 * (1.0 - 0.8))
    mixed = [[0, 0.9 * (0.4 + 0.25 * (second - 0.1)), second, 1.0], [0.9 * (0.3 + 0.25 * (0.5 - 0.7)), 0.5, 0, 0]]
    for share, expected in ((0.0, [[0, 0.36, 0.54, 1.0], [0.27, 0.5, 0, 0]]), (0.25, mixed)):
        torch.testing.assert_close(soft_q_targets(values, chosen, rewards, mask, 0.9, share), torch.tensor(expected))


def curve(bench: Bench) -> dict[str, float]:
    return next(entry for entry in json.loads((bench.out / "curves.json").read_text())[-1] if "loss" in entry)


def moved(policy: QValuePolicy, scale: float = 0.3) -> QValuePolicy:
    """The policy with other heads."""
    torch.manual_seed(1)
    for module in policy.modules.values():
        for weight in module.parameters():
            torch.nn.init.normal_(weight, std=scale)
    return policy


def head(policy: QValuePolicy, name: str, states: np.ndarray) -> np.ndarray:
    """What a head gives, without torch."""
    w = {key: value.detach().double().numpy() for key, value in policy.modules[name].state_dict().items()}
    return np.maximum(states @ w["0.weight"].T + w["0.bias"], 0) @ w["2.weight"].T + w["2.bias"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


def states_and_logits(model: Any, prompt: list[int], reply: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Where each token of a reply is chosen."""
    with torch.no_grad():
        out = model(input_ids=torch.tensor([[*prompt, *reply]]), output_hidden_states=True)
    at = slice(len(prompt) - 1, len(prompt) + len(reply) - 1)
    return out.hidden_states[-1][0, at].double().numpy(), out.logits[0, at].double().numpy()


def test_the_loss_of_a_trained_policy_is_the_formula(make_bench) -> None:
    """All pairs in one step at a learning rate of 0, on heads that say something, against numpy."""
    settings = {"gamma": 0.9, "tau": 0.8, "td_lambda": 0.4, "v_weight": 2.0, "q_weight": 0.5}
    weights = {"v": 2.0, "q": 0.5, "cql": 0.3, "imitation": 0.7}
    algorithm = prefzoo.get("ilql", **settings, cql_weight=0.3, imitation_weight=0.7, trainer=ONE_STEP)
    first = moved(algorithm.train(make_bench(name="first")), 0.1)
    bench = make_bench(name="second", batch_size=24, learning_rate=0.0).replace(latest=first)
    algorithm.train(bench)
    losses, policy = collections.defaultdict(list), first.policy
    for row in bench.data.unpaired:
        prompt = policy.render(row["prompt"])
        whole = policy.tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False)
        reply = list(whole[len(prompt) :])
        states, logits = states_and_logits(policy.model, prompt, reply)
        each = np.arange(len(reply))
        q, v = [head(first, name, states) for name in Q_HEADS], head(first, V_HEAD, states)[:, 0]
        target = [1.0 if row["label"] else -1.0]
        for value in v[:0:-1]:
            target.insert(0, 0.9 * (0.6 * value + 0.4 * target[0]))
        gap = np.minimum(*q)[each, reply] - v
        losses["v"].append((np.where(gap < 0, 0.2, 0.8) * gap**2).mean())
        losses["q"].append(sum(((values[each, reply] - target) ** 2).mean() for values in q))
        losses["cql"].append(sum(-log_softmax(values)[each, reply].mean() for values in q))
        losses["imitation"].append(-log_softmax(logits)[each, reply].mean())
    means = {name: np.mean(values) for name, values in losses.items()}
    found = curve(bench)
    for name, mean in means.items():
        assert found[f"losses/{name}"] == pytest.approx(mean, rel=2e-3), name
    assert found["loss"] == pytest.approx(sum(weights[name] * mean for name, mean in means.items()), rel=2e-3)
    assert min(means["v"], means["q"]) > 1e-3, "a formula of nothing"


class Length:
    """A reward that is longer than what was cut."""

    def __call__(self, prompts: Any, completions: Any) -> list[float]:
        return [len(text) / 20 for text in completions]


@pytest.mark.parametrize("adapter", ["lora", pytest.param("qlora", marks=pytest.mark.slow), "full"])
def test_the_losses_of_sac_are_the_formula(adapter, adapted) -> None:
    """Replies of an actor that has moved and of heads that say something, all in one step, against numpy."""
    bench = adapted(adapter, batch_size=24, learning_rate=0.01).replace(reward=Length())
    settings = {"kl_coefficient": 0.5, "gamma": 0.9, "td_lambda": 0.4, "rounds": 1}
    algorithm = prefzoo.get("sac", **settings, trainer={"logging_steps": 1})
    rows = [{"prompt": r["prompt"], "completion": r["chosen"], "reward": 1.0} for r in bench.data.preferences]
    first = moved(fit_soft_q_values(bench, algorithm, rows), 0.1)
    start = LanguageModelPolicy.start_of(bench)
    again = bench.replace(latest=first, out=bench.out / "again", report={})
    policy = algorithm.train(again)
    prompts = list(bench.data.prompts)
    random.Random(f"sac {bench.seed}").shuffle(prompts)
    first = prefzoo.load_policy(bench.out / "policy")
    moved(first, 0.1)
    replies = [row[0] for row in first.sample(prompts, bench.generation, bench.seed * 1000)]
    scores = [len(r.text) / 20 - (not r.finished) for r in replies]
    assert again.report["soft_q"] == {"baseline": pytest.approx(np.mean(scores)), "replies": len(prompts)}
    assert any(r.finished for r in replies)
    losses = collections.defaultdict(list)
    for prompt, reply, score in zip(prompts, replies, scores, strict=True):
        ids = list(reply.token_ids)
        if reply.finished and start.encoded_again(prompt, reply) != "other text":  # learned as its text is written
            turns = [*prompt, {"role": "assistant", "content": reply.text}]
            whole = start.tokenizer.apply_chat_template(turns, return_dict=False)
            ids = list(whole[len(start.render(prompt)) :])
        at = np.arange(len(ids))
        states, logits = states_and_logits(start.model, start.render(prompt), ids)
        _, of_actor = states_and_logits(first.policy.model, start.render(prompt), ids)
        both = [head(first, name, states) for name in Q_HEADS]
        smaller, actor, of_start = np.minimum(*both), log_softmax(of_actor), log_softmax(logits)
        v = (np.exp(actor) * (smaller - 0.5 * (actor - of_start))).sum(-1)
        target = [score - np.mean(scores)]
        for t in range(len(ids) - 1, 0, -1):
            target.insert(0, 0.9 * (v[t] + 0.4 * (target[0] - smaller[at, ids][t])))
        losses["q"].append(sum(((values[at, ids] - target) ** 2).mean() for values in both))
        losses["actor"].append(-v.mean())
    found = curve(again)
    for name, values in losses.items():
        assert found[f"losses/{name}"] == pytest.approx(np.mean(values), rel=2e-3), name
    assert found["loss"] == pytest.approx(found["losses/q"] + found["losses/actor"], rel=1e-4)
    # Between rounds the actor is what samples, beside its heads; in the end it is the policy, alone.
    generation = Generation(max_new_tokens=6)
    assert first.sample(prompts[:3], generation, 2) == first.policy.sample(prompts[:3], generation, 2)
    assert first.kl_to_start(prompts, replies) == first.policy.kl_to_start(prompts, replies)
    saved = prefzoo.load_policy(again.out / "policy")
    assert type(saved) is LanguageModelPolicy and not (again.out / "policy" / "modules.safetensors").exists()
    assert saved.sample(prompts[:3], generation, 2) == policy.sample(prompts[:3], generation, 2)
    assert min(saved.kl_to_start(prompts, replies)) > 0


def test_sac_learns_again_from_a_replay_and_keeps_its_baseline(make_bench) -> None:
    bench = make_bench().replace(reward=Length())
    prefzoo.get("sac", rounds=3, replay=1, trainer={"max_steps": 1}).train(bench)
    assert bench.ledger.prompts == 24 == bench.ledger.reward_calls == bench.report["soft_q"]["replies"]
    sampled = bench.report["sampled_replies"]
    assert [each["replies"] for each in sampled] == [8, 16, 16]
    assert prefzoo.get("sac", replay=1).replies_per_row == 2
    assert len(list((bench.out / "milestones").iterdir())) == 2


def test_averaged_heads_follow_once_a_step_and_passes_of_theirs_are_charged(make_bench) -> None:
    from prefzoo.trainers.q_learning_trainer import QLearningTrainer

    one = torch.nn.Linear(3, 2)
    state, ledger = SimpleNamespace(global_step=0), prefzoo.Ledger()
    trainer: Any = SimpleNamespace(
        target_heads=None, target_heads_step=-1, state=state, algorithm=SimpleNamespace(polyak=0.25),
        bench=SimpleNamespace(ledger=ledger),
    )  # fmt: skip
    states = torch.ones(4, 3)
    before = one.weight.detach().clone()
    QLearningTrainer._target_q(trainer, [one, one], states)
    with torch.no_grad():
        one.weight.add_(1.0)
    for step, follows in ((0, 0.0), (1, 0.25), (1, 0.25), (2, 1 - 0.75**2)):  # accumulation: two passes in a step
        state.global_step = step
        found = QLearningTrainer._target_q(trainer, [one, one], states)
        expected = (states @ (before + follows).T + one.bias).detach()
        torch.testing.assert_close(found, expected)
    assert ledger.flops == 2 * 5 * 4 * (2 * 8)


@pytest.mark.parametrize("adapter", ["lora", "qlora", "full"])
def test_what_is_sampled_and_its_kl_are_those_of_the_formula(adapter, adapted, tmp_path) -> None:
    bench = adapted(adapter)
    policy = moved(prefzoo.get("ilql", decode_beta=3.0, trainer=ONE_STEP).train(bench))
    start = LanguageModelPolicy.start_of(bench)
    prompts = bench.data.prompts[:3]
    replies = [each[0] for each in policy.sample(prompts, Generation(max_new_tokens=6, temperature=0.7), seed=1)]
    found = policy.log_probabilities(prompts, replies, 0.7)
    kl = policy.kl_to_start(prompts, replies, 0.7)
    model = policy.policy.model
    for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        ids = list(reply.token_ids)
        states, logits = states_and_logits(model, policy.policy.render(prompt), ids)
        _, others = states_and_logits(start.model, start.render(prompt), ids)
        values = np.minimum(*(head(policy, name, states) for name in Q_HEADS)) - head(policy, V_HEAD, states)
        by_hand = log_softmax((log_softmax(logits) + 3.0 * values) / 0.7)
        assert found[i] == pytest.approx(by_hand[np.arange(len(ids)), ids].tolist(), abs=1e-3)
        expected = (np.exp(by_hand) * (by_hand - log_softmax(others / 0.7))).sum()
        assert kl[i] == pytest.approx(expected, abs=1e-3, rel=1e-3) and expected > 0.5
    # The first token is drawn as often as the formula says, and greedily it is the likeliest.
    prompt = policy.policy.render(prompts[0])
    states, logits = states_and_logits(model, prompt, [0])
    values = np.minimum(*(head(policy, name, states) for name in Q_HEADS))
    share = np.exp(log_softmax(logits + 3.0 * values))[0]
    ledger = prefzoo.Ledger()
    drawn = policy.sample(prompts[:1], Generation(max_new_tokens=1), seed=5, n=2000, ledger=ledger)[0]
    counts = collections.Counter(reply.token_ids[0] for reply in drawn)
    likeliest = int(share.argmax())
    assert counts[likeliest] / 2000 == pytest.approx(share[likeliest], abs=4 * (0.25 / 2000) ** 0.5)
    greedy = policy.sample(prompts[:1], Generation(max_new_tokens=1, temperature=0.0), seed=5)[0]
    assert greedy[0].token_ids == (likeliest,)
    heads = sum(w.numel() for name in Q_HEADS for w in policy.modules[name].parameters())
    plain = prefzoo.Ledger()
    alone = policy.policy.sample(prompts[:1], Generation(max_new_tokens=1), seed=5, n=2000, ledger=plain)[0]
    assert ledger.flops - plain.flops == 2.0 * heads * 2000 and alone != drawn
    # From disk it is the same policy.
    policy.save(bench.out / "saved")
    again = prefzoo.load_policy(bench.out / "saved")
    assert again.settings == {"decode_beta": 3.0}
    assert again.kl_to_start(prompts, replies, 0.7) == kl
    generation = Generation(max_new_tokens=6)
    assert again.sample(prompts, generation, seed=2) == policy.sample(prompts, generation, seed=2)
    # Without Q-values it is the language model.
    policy.settings["decode_beta"] = 0.0
    assert policy.sample(prompts, generation, seed=2) == policy.policy.sample(prompts, generation, seed=2)
    assert policy.kl_to_start(prompts, replies) == policy.policy.kl_to_start(prompts, replies)


def test_heads_are_trained_in_float32_on_a_quantized_base_in_bfloat16(adapted) -> None:
    bench = adapted("qlora", batch_size=4)
    bench = bench.replace(loading={**bench.loading, "dtype": "bfloat16"})
    policy = prefzoo.get("ilql").train(bench)
    assert {w.dtype for head in policy.modules.values() for w in head.parameters()} == {torch.float32}
    assert bench.report["model"]["differs"] == []
    replies = [each[0] for each in policy.sample(bench.data.prompts[:2], Generation(max_new_tokens=4), seed=1)]
    assert all(0 < each < 20 for each in policy.kl_to_start(bench.data.prompts[:2], replies))


def test_two_labels_that_differ_in_decoding_alone_have_one_training(make_bench) -> None:
    benches = [make_bench(name=name) for name in ("with", "without")]
    for bench, beta in zip(benches, (8.0, 0.0), strict=True):
        prefzoo.get("ilql", decode_beta=beta).train(bench)
    first, second = (weights_in(bench.out / "policy") for bench in benches)
    assert same(first, second) and len([key for key in first if key.startswith("modules")]) == 12
    assert benches[0].report["q_learning"] == {
        "rewards": "labels", "replies": 48, "mean_reward": 0.0, "replies_a_step": 16
    }  # fmt: skip


def rated(*ratings: float) -> list[Row]:
    prompt = [{"role": "user", "content": "q"}]
    return [Row(str(i), prompt, reply=f"r{i}", rating=rating) for i, rating in enumerate(ratings)]


def test_ratings_become_rewards_from_minus_1_to_1(make_bench) -> None:
    from prefzoo.data.row_views import views_of

    bench = make_bench()
    found = rewarded_replies(bench.replace(data=views_of(rated(2.0, 10.0, 4.0))), "ratings")
    assert [row["label"] for row in found] == [-1.0, 1.0, -0.5]
    assert found[1]["completion"] == [{"role": "assistant", "content": "r1"}]
    with pytest.raises(PrefzooError, match="'ratings' needs ratings that differ, and the 0 training rows"):
        rewarded_replies(bench, "ratings")
    with pytest.raises(PrefzooError, match="the 2 training rows with one have 1 different"):
        rewarded_replies(bench.replace(data=views_of(rated(3.0, 3.0))), "ratings")


def test_what_it_lacks_is_told_before_a_model_is_loaded() -> None:
    by_ratings = recipes.check(
        {"start": "none", "reward": {"type": "random"}, "algorithms": {"ilql": {"rewards": "ratings"}}}
    )
    _check_kinds(by_ratings, rated(1.0, 2.0), Rejects())
    liked = [Row("0", [{"role": "user", "content": "q"}], reply="r", liked=True)]
    with pytest.raises(DataError, match="not one reply with a rating"):
        _check_kinds(by_ratings, liked, Rejects())
    by_labels = recipes.check({"start": "none", "reward": {"type": "random"}, "algorithms": {"ilql": {}}})
    _check_kinds(by_labels, liked, Rejects())
    with pytest.raises(DataError, match="not one reply that was liked or not"):
        _check_kinds(by_labels, rated(1.0, 2.0), Rejects())
    with pytest.raises(RecipeError, match=r"trainer\.packing: .*its losses are on replies alone"):
        prefzoo.get("ilql", trainer={"packing": True})
