"""Rollouts of online algorithms on the lab model: without dropout, and of any size from one reply on."""

from __future__ import annotations

import json

import pytest
import torch
from trl import GRPOTrainer, RLOOTrainer

from prefzoo import get
from prefzoo.models.loading import load_model
from prefzoo.models.score_head import backbone
from prefzoo.models.token_log_probabilities import states_before
from prefzoo.settings import Adapter
from prefzoo.trainers import critic
from prefzoo.trainers.critic import STATES
from prefzoo.trainers.on_policy import OnPolicyConfig, OnPolicyTrainer
from prefzoo.trainers.rollouts import prompts_and_replies


@pytest.fixture
def bench(make_bench):
    def make(**more):
        return make_bench(**more).replace(
            reward=lambda prompts, completions: [-len(text) / 100 for text in completions]
        )

    return make


def test_used_once_a_rollout_has_ratios_of_1_with_dropout_too(bench) -> None:
    """Then the loss is minus the mean of whitened advantages."""
    trial = bench().replace(adapter=Adapter(r=4, alpha=8, dropout=0.3))
    get("a2c", trainer={"logging_steps": 1, "learning_rate": 1e-2}).train(trial)
    losses = [e["loss"] for e in json.loads((trial.out / "curves.json").read_text())[0] if "loss" in e]
    assert len(losses) == 3 and losses == pytest.approx([0.0] * 3, abs=1e-6)


@pytest.mark.parametrize("name", ["ppo", "grpo", "rloo"])
def test_replies_are_sampled_and_scored_without_dropout_and_learned_from_with_it(name, bench, monkeypatch) -> None:
    seen = []
    for trainer in (GRPOTrainer, RLOOTrainer):
        for method in ("_generate", "_calculate_rewards", "_compute_loss"):
            called = getattr(trainer, method)

            def note(self, *args, method=method, called=called, **more):
                active = any(m.training for m in self.model.modules() if isinstance(m, torch.nn.Dropout))
                seen.append((method, active, self.model.training))
                return called(self, *args, **more)

            monkeypatch.setattr(trainer, method, note)
    trial = bench().replace(adapter=Adapter(r=4, alpha=8, dropout=0.3))
    get(name, epochs=1, trainer={"max_steps": 1}).train(trial)
    assert set(seen) == {
        ("_generate", False, True),
        ("_calculate_rewards", False, True),
        ("_compute_loss", True, True),
    }


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_a_rollout_of_one_reply_is_learned_from(name, bench) -> None:
    trial = bench(batch_size=1)
    policy = get(name, trainer={"max_steps": 3}).train(trial)
    assert any((p != 0).any() for n, p in policy.model.named_parameters() if "lora_B" in n)
    assert trial.ledger.reward_calls == (1 if name == "ppo" else 3)  # three of PPO's four epochs over one


@pytest.mark.parametrize(("processes", "steps", "whole"), [(1, 1, 1), (2, 1, 2), (1, 6, 6), (2, 3, 6)])
def test_a_rollout_is_what_all_processes_sample_in_its_steps(processes, steps, whole, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(OnPolicyConfig, "world_size", processes)
    sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": steps, "num_generations": whole}
    for asked in ({"steps_per_generation": steps}, {}):
        config = OnPolicyConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, **sizes, **asked)
        assert (config.generation_batch_size, config.steps_per_generation) == (whole, steps)
        assert config.num_generations == whole
    with pytest.raises(ValueError, match=f"{whole} replies a rollout do not divide into groups of {whole + 1}"):
        OnPolicyConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, **{**sizes, "num_generations": whole + 1})


def noted_rollouts(monkeypatch) -> list[tuple[OnPolicyTrainer, dict]]:
    """Each rollout, and a pass of the policy over it."""
    seen = []
    made = OnPolicyTrainer._generate_and_score_completions

    def note(self, inputs):
        batch = made(self, inputs)
        ids, attention = prompts_and_replies(batch)
        with torch.no_grad():
            plain = self.model(input_ids=ids, attention_mask=attention).logits / self.temperature
        width = batch["completion_ids"].shape[1]
        logs = plain[:, -width - 1 : -1].float().log_softmax(-1).gather(-1, batch["completion_ids"][..., None])[..., 0]
        seen.append((self, batch | {"plain": logs * batch["completion_mask"]}))
        return batch

    monkeypatch.setattr(OnPolicyTrainer, "_generate_and_score_completions", note)
    return seen


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_old_log_probabilities_are_those_of_the_policy_as_it_is(adapter, bench, monkeypatch) -> None:
    seen = noted_rollouts(monkeypatch)
    trial = bench(adapter=adapter)
    generation = trial.generation.model_copy(update={"temperature": 0.8})
    get("ppo", epochs=2, trainer={"learning_rate": 1e-2}).train(trial.replace(generation=generation))
    assert len(seen) == 3
    for _, batch in seen:
        torch.testing.assert_close(batch["old_per_token_logps"], batch["plain"], atol=1e-4, rtol=0)
    away = (seen[2][1]["old_per_token_logps"] - seen[2][1]["ref_per_token_logps"]).abs()
    assert away.max() > 0.1, "the policy is still the start: this shows nothing"


@pytest.mark.parametrize(
    ("loading", "settings"), [({"dtype": "bfloat16"}, {}), ({}, {"trainer": {"bf16": True}})], ids=str
)
def test_the_policy_passes_over_replies_that_were_drawn_by_other_numbers(loading, settings, bench) -> None:
    trial = bench().replace(loading=loading)
    get("ppo", epochs=2, kl_coefficient=0.0, value_model="frozen", **settings).train(trial)
    read = trial.ledger.trained_tokens // 2
    sampled = trial.ledger.generated_tokens
    # Prompts before replies; the policy over both; and the start, which no reference has passed here.
    assert trial.ledger.forward_tokens == (read - sampled) + read + read


@pytest.mark.parametrize(("decay", "passes"), [(None, 0), (0.5, 1)])
def test_a_frozen_critic_reads_the_pass_of_a_reference_that_is_the_start(decay, passes, bench, monkeypatch) -> None:
    """And where the reference moves, its own."""
    seen, begun = noted_rollouts(monkeypatch), []
    monkeypatch.setattr(critic, "states_before", lambda *args: begun.append(1) or states_before(*args))
    get("ppo", epochs=2, value_model="frozen", reference_decay=decay, trainer={"learning_rate": 1e-2}).train(bench())
    assert len(begun) == 3 * passes
    for trainer, batch in seen:
        ids, attention = prompts_and_replies(batch)
        start = load_model(trainer.model.get_base_model().name_or_path)
        with torch.no_grad():
            expected = states_before(backbone(start), ids, attention, batch["completion_ids"].shape[1])
        mask = batch["completion_mask"].bool()
        torch.testing.assert_close(batch[STATES][mask], expected[mask], atol=1e-5, rtol=0)
