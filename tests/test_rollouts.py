"""Rollouts of online algorithms on the lab model: without dropout, and of any size from one reply on."""

from __future__ import annotations

import json

import pytest
import torch
from trl import GRPOTrainer, RLOOTrainer

from prefzoo import get
from prefzoo.settings import Adapter
from prefzoo.trainers.on_policy import OnPolicyConfig


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
