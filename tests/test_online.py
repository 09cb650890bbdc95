"""Online algorithms on the lab model: what must hold at the first step, whatever the batch, and of memory."""

from __future__ import annotations

import inspect
import itertools
import json

import pytest
import torch
from accelerate.utils import send_to_device
from trl import GRPOTrainer, RLOOTrainer

from prefzoo import get
from prefzoo.errors import PrefzooError
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import device
from prefzoo.models.weight_counts import VALUE
from prefzoo.settings import Adapter, Generation, Shaping
from prefzoo.trainers.on_policy import ActorCriticTrainer, OnPolicyTrainer

ONLINE = ("ppo", "a2c", "reinforce", "grpo", "rloo")
LOG = {"logging_steps": 1}
CUTS_SOME = 16


def courtesy(prompts, completions) -> list[float]:
    return [text.lower().count("please") - len(text) / 100 for text in completions]


@pytest.fixture
def bench(make_bench):
    def make(**more):
        return make_bench(**more).replace(reward=courtesy)

    return make


@pytest.fixture
def caught(monkeypatch):
    """The trainers that were built, kept with their critics."""
    trainers = []

    def keep(self) -> None:
        trainers.append(self)

    monkeypatch.setattr(ActorCriticTrainer, "remove_critic", keep)
    return trainers


def adapters(policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("name", ONLINE)
def test_each_trains_saves_and_charges(name, bench) -> None:
    trial = bench()
    policy = get(name, trainer=LOG).train(trial)
    assert any((p != 0).any() for n, p in adapters(policy).items() if "lora_B" in n)
    assert {f.name for f in (trial.out / "policy").iterdir()} >= {"adapter_model.safetensors", "policy.json"}
    assert not (trial.out / "policy" / "value").exists()
    replies = 24 * (1 if name in ("ppo", "a2c", "reinforce") else 4)
    assert trial.ledger.reward_calls == replies
    assert trial.ledger.generated_tokens >= replies
    # Each rollout is learned from once, by PPO four times; prompts count as read.
    curve = json.loads((trial.out / "curves.json").read_text())[0]
    assert sum("loss" in entry for entry in curve) == 3 * (4 if name == "ppo" else 1)
    prompts = [row["prompt"] for row in trial.data.preferences]
    read = sum(len(policy.render(prompt)) for prompt in prompts) * replies // 24 + trial.ledger.generated_tokens
    uses = {"ppo": 2 * 4, "a2c": 2}.get(name, 1)  # a critic learns from it too
    assert trial.ledger.trained_tokens == uses * read


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_at_the_first_step_the_ratio_is_1_and_the_kl_0(name, bench) -> None:
    trial = bench()
    get(name, trainer={**LOG, "learning_rate": 0.0}).train(trial)
    for entry in json.loads((trial.out / "curves.json").read_text())[0]:
        if "loss" in entry:
            assert entry.get("clip_ratio/region_mean", 0) == 0
            assert entry.get("rollout/kl", 0) == pytest.approx(0, abs=1e-4)


def test_a2c_is_ppo_with_one_epoch(bench) -> None:
    """Used once, a rollout has ratios of 1, which nothing clips: the same steps to the last bit."""
    a2c = adapters(get("a2c").train(bench(name="a2c")))
    ppo = adapters(get("ppo", epochs=1).train(bench(name="ppo")))
    twice = adapters(get("ppo", epochs=2).train(bench(name="twice")))
    assert all(torch.equal(a2c[n], ppo[n]) for n in a2c)
    assert any(not torch.equal(a2c[n], twice[n]) for n in a2c)


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_two_accumulated_batches_of_four_are_one_of_eight(name, bench, caught) -> None:
    parameters = {"epochs": 2} if name == "ppo" else {}
    one = adapters(get(name, **parameters).train(bench(name="one", accumulation=1, max_grad_norm=1e9)))
    two = adapters(get(name, **parameters).train(bench(name="two", accumulation=2, max_grad_norm=1e9)))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], atol=2e-5, rtol=1e-3)


def test_values_do_not_depend_on_padding_or_batch(bench, caught) -> None:
    get("ppo").train(bench())
    trainer = caught[0]
    ids, reply = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[9, 10, 11]])
    alone = {"prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "completion_ids": reply}
    alone["completion_mask"] = torch.ones_like(reply)
    padded = {
        "prompt_ids": torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], 1).repeat(2, 1),
        "prompt_mask": torch.tensor([[0, 0, 0, 1, 1, 1, 1]]).repeat(2, 1),
        "completion_ids": torch.cat([reply, torch.zeros(1, 2, dtype=torch.long)], 1).repeat(2, 1),
        "completion_mask": torch.tensor([[1, 1, 1, 0, 0]]).repeat(2, 1),
    }
    with torch.no_grad(), trainer._critic_on():
        padded, alone = (send_to_device(batch, device()) for batch in (padded, alone))
        torch.testing.assert_close(trainer.values(padded)[1, :3], trainer.values(alone)[0], atol=1e-5, rtol=0)


def test_values_are_those_before_the_token(bench, caught) -> None:
    """What the critic says of token t must not depend on token t."""
    get("ppo").train(bench())
    ids = torch.tensor([[5, 6, 7, 8]])
    batch = {"prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "completion_mask": torch.ones(1, 3).long()}
    with torch.no_grad(), caught[0]._critic_on():
        replies = (torch.tensor([[9, 10, 11]]), torch.tensor([[9, 200, 11]]))
        batches = send_to_device([{**batch, "completion_ids": reply} for reply in replies], device())
        first, other = (caught[0].values(each) for each in batches)
    assert torch.equal(first[:, :2], other[:, :2]) and not torch.equal(first[:, 2], other[:, 2])


def test_the_loss_of_token_advantages_by_hand(bench, caught) -> None:
    """-sum(advantage * ratio) over the tokens of the step, the ratio clipped where that is the smaller gain."""
    get("ppo", trainer={"max_steps": 1}).train(bench())
    trainer = caught[0]
    ids, reply = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[9, 10, 11]])
    batch = {"prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "completion_ids": reply}
    batch["completion_mask"] = torch.ones_like(reply)
    batch["num_items_in_batch"] = torch.tensor(3.0)
    batch = send_to_device(batch, device())
    trainer.current_gradient_accumulation_steps = 1
    with torch.no_grad():
        now = trainer._log_probabilities(batch)
        batch["old_per_token_logps"] = now - torch.tensor([[0.0, 0.5, -0.5]], device=device())
        batch["advantages"] = torch.tensor([[1.0, 2.0, -3.0]], device=device())
        # Ratios 1, e^0.5 = 1.6487 (clipped to 1.2), e^-0.5 = 0.6065 (clipped to 0.8, which is the larger loss).
        expected = -(1.0 * 1.0 + 2.0 * 1.2 - 3.0 * 0.8) / 3
        assert trainer._compute_loss(trainer.model, batch).item() == pytest.approx(expected, abs=1e-5)


def test_the_moving_average_by_hand(bench, monkeypatch) -> None:
    """Totals 1, 3, then 6, 0: the first rollout's baseline is its own mean, 2; the second's is 2 as well, which is what
    came before; a third's would be (1 + 3 + 6 + 0) / 4 = 2.5."""
    kept = []
    train = OnPolicyTrainer.train
    monkeypatch.setattr(OnPolicyTrainer, "train", lambda self, **more: (kept.append(self), train(self, **more))[1])
    get("reinforce", trainer={"max_steps": 1}).train(bench())
    trainer = kept[0]
    trainer.average = (0.0, 0)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    first = trainer._advantages({}, torch.tensor([[0.5, 0.5], [3.0, 0.0]]), mask)["advantages"]
    torch.testing.assert_close(first, torch.tensor([[-1.0, -1.0], [1.0, 0.0]]))
    second = trainer._advantages({}, torch.tensor([[4.0, 2.0], [0.0, 0.0]]), mask)["advantages"]
    torch.testing.assert_close(second, torch.tensor([[4.0, 4.0], [-2.0, 0.0]]))
    assert trainer.average == (2.5, 4)
    assert not trainer.token_rewards.whiten_advantages, "whitening would take the average out again"


def test_greedy_sampling_is_refused(bench) -> None:
    with pytest.raises(PrefzooError, match="temperature is 0"):
        get("grpo").train(bench().replace(generation=Generation(temperature=0)))


def test_a_reply_that_was_cut_is_penalized_and_one_that_ended_is_not(bench, caught) -> None:
    get("ppo", trainer={"max_steps": 1}).train(bench())
    trainer = caught[0]
    end = trainer.eos_token_ids[0]
    ids = torch.tensor([[9, 10, end], [9, end, 0], [9, 10, 11], [end, 10, 11]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]])
    assert trainer._ended(ids, mask).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("name", "given", "penalty"),
    [*((name, {}, 1.0) for name in ONLINE), ("rloo", {"missing_eos_penalty": 0.25}, 0.25)],
)
def test_every_algorithm_learns_from_the_same_reward_of_a_reply_that_was_cut(name, given, penalty, bench) -> None:
    """The reward gives 100 to each, of which 3 is left by clipping; the penalty is taken off after that."""
    trial = bench().replace(generation=Generation(max_new_tokens=CUTS_SOME), shaping=Shaping(clip=3.0))
    hundred = trial.replace(reward=lambda prompts, replies: [100.0] * len(replies))
    get(name, **given, trainer={**LOG, "max_steps": 1}).train(hundred)
    entry = json.loads((trial.out / "curves.json").read_text())[-1][0]
    cut = entry["completions/clipped_ratio"]
    assert 0 < cut < 1
    assert entry["rewards/reward/mean"] == pytest.approx(3.0 - penalty * cut)


@pytest.mark.parametrize(
    ("score", "given"),
    [
        (float("nan"), "nan to 1 of 4"),
        (None, "None to 1 of 4"),
        (float("inf"), "inf to 1 of 4"),
        ("2", "'2' to 1 of 4"),
    ],
)
def test_a_reply_without_a_score_is_named(score, given, bench) -> None:
    replies = ["Yes.", "No.", "At nine.", "Never."]
    trial = bench().replace(reward=lambda prompts, texts: [score if text == "At nine." else 1 for text in texts])
    with pytest.raises(PrefzooError, match=rf"gave {given} replies, first to 'At nine\.'; a score must be a finite"):
        trial.score([[{"role": "user", "content": "When?"}]] * 4, replies)
    assert trial.ledger.reward_calls == 0
    with pytest.raises(PrefzooError, match="gave 3 scores for 4 replies"):
        bench().replace(reward=lambda prompts, texts: [1.0] * 3).score([[]] * 4, replies)


def test_nothing_is_learned_from_scores_that_are_no_numbers(bench) -> None:
    trial = bench().replace(shaping=Shaping(normalize=True), reward=lambda prompts, texts: [float("nan")] * len(texts))
    with pytest.raises(PrefzooError, match="gave nan to 8 of 8 replies"):
        get("reinforce").train(trial)
    assert "scores" not in trial.machinery.memory


def test_policy_critic_and_reference_share_one_set_of_base_weights(bench, caught) -> None:
    get("ppo", trainer={"max_steps": 1}).train(bench())
    model = caught[0].model
    start = LanguageModelPolicy.from_start(caught[0].model.get_base_model().name_or_path).model
    base = [p for n, p in model.named_parameters() if "lora_" not in n and "value_head" not in n]
    assert len({p.untyped_storage().data_ptr() for p in base}) == len(list(start.parameters()))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(base, start.parameters(), strict=True))
    assert caught[0].ref_model is None
    learned = [n for n, p in model.named_parameters() if p.requires_grad]
    assert any(".default." in n for n in learned) and any(".value." in n for n in learned)


@pytest.mark.parametrize(
    ("adapter", "settings"),
    [
        ("lora", {"value_model": "separate"}),
        ("full", {"value_model": "shared"}),
        ("full", {"value_model": "frozen", "kl_coefficient": 0.0}),
        ("full", {"value_model": "frozen", "reference_decay": 0.9}),
    ],
    ids=str,
)
def test_a_critic_of_its_own(adapter, settings, bench) -> None:
    trial = bench().replace(adapter=Adapter(type=adapter, **({} if adapter == "full" else {"r": 4, "alpha": 8})))
    policy = get("ppo", **settings).train(trial)
    names = [n for n, _ in policy.model.named_parameters()]
    assert names and not any("value" in n for n in names)
    assert all(weight.requires_grad for weight in policy.model.parameters()) or adapter == "lora"


@pytest.mark.parametrize("value_model", ["shared", "frozen"])
def test_the_critic_learns(value_model, bench) -> None:
    trial = bench(epochs=8.0)
    settings = {**LOG, "learning_rate": 3e-3}
    get("ppo", kl_coefficient=0.0, trainer=settings, vf_coef=1.0, value_model=value_model).train(trial)
    curve = json.loads((trial.out / "curves.json").read_text())[0]
    losses = [entry["value_loss"] for entry in curve if "value_loss" in entry]
    assert sum(losses[-12:]) < 0.5 * sum(losses[:12])


@pytest.mark.parametrize(
    ("adapter", "settings"),
    [("lora", {}), ("full", {}), ("full", {"kl_coefficient": 0.0}), ("full", {"reference_decay": 0.5})],
    ids=str,
)
def test_a_frozen_critic_reads_the_start_once_a_rollout(adapter, settings, bench, caught, monkeypatch) -> None:
    """Its states are those of the start, whatever the policy, and a reference that moves, have become."""
    read, counted = [], ActorCriticTrainer.critic_states
    monkeypatch.setattr(ActorCriticTrainer, "critic_states", lambda self, batch: read.append(1) or counted(self, batch))
    trial = bench().replace(adapter=Adapter(type=adapter, **({} if adapter == "full" else {"r": 4, "alpha": 8})))
    policy = get("ppo", value_model="frozen", epochs=4, **settings).train(trial)
    rollouts, parts = 3, 1
    assert len(read) == rollouts * parts
    ids = torch.tensor([[5, 6, 7, 8]])
    batch = {"prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "completion_mask": torch.ones(1, 3).long()}
    [batch] = send_to_device([{**batch, "completion_ids": torch.tensor([[9, 10, 11]])}], device())
    states = caught[0].critic_states(batch)
    start = LanguageModelPolicy.from_start(trial.start).model.to(device())
    whole = torch.cat([ids, torch.tensor([[9, 10, 11]])], 1).to(device())
    with torch.no_grad():
        expected = start.model(input_ids=whole).last_hidden_state[:, 3:6]
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
    assert (caught[0].start_states is None) == (adapter == "full" and bool(settings)), "the reference is not the start"
    assert not any("value" in name for name, _ in policy.model.named_parameters())


def test_too_few_prompts_are_refused_and_left_over_ones_are_told(bench) -> None:
    with pytest.raises(PrefzooError, match="24 prompts are fewer than the 32 of one rollout"):
        get("ppo", minibatches=4).train(bench())
    trial = bench(batch_size=16)
    get("reinforce", trainer={"max_steps": 1}).train(trial)
    assert trial.report["prompts_left_over"] == 8


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_compute_loss", ["self", "model", "inputs"]),
        ("_get_per_token_logps_and_entropies", ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]),
    ],
)
def test_the_seams_to_trl_are_where_they_were(method, parameters) -> None:
    found = list(inspect.signature(getattr(GRPOTrainer, method)).parameters)
    if "args" in found:  # TRL 1.14 passes them on unnamed
        parameters = parameters[: found.index("args")]
    assert found[: len(parameters)] == parameters, f"TRL changed GRPOTrainer.{method}; see trainers/on_policy.py"
    if method == "_generate_and_score_completions":
        assert list(inspect.signature(getattr(RLOOTrainer, method)).parameters) == parameters, (
            "see trainers/rollouts.py"
        )


def test_all_of_the_critic_learns_in_every_step(adapted, monkeypatch) -> None:
    """The reference is the policy with its adapter off, and peft freezes the critic's when it puts that on again."""
    seen = []
    loss = ActorCriticTrainer._compute_loss

    def noted(self, model, inputs):
        seen.append({n: w.detach().clone() for n, w in self.model.named_parameters() if f".{VALUE}." in n})
        return loss(self, model, inputs)

    monkeypatch.setattr(ActorCriticTrainer, "_compute_loss", noted)
    get("ppo", epochs=2, trainer={"max_steps": 5}).train(adapted("lora"))
    assert len(seen) == 5
    # The rate rises from zero, and where B is zero A has no gradient yet.
    for before, after in itertools.pairwise(seen[2:]):
        assert all(not torch.equal(before[name], after[name]) for name in before)
