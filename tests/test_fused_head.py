"""Log-probabilities in small tiles: the same numbers and gradients as TRL's, wherever they are used instead."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl import GRPOTrainer

from prefzoo import get
from prefzoo.lab import MODEL_DIR
from prefzoo.models import token_log_probabilities
from prefzoo.models.loading import device, load_model
from prefzoo.trainers.on_policy import ActorCriticTrainer


def adapted(**more):
    torch.manual_seed(0)
    model = get_peft_model(load_model(str(MODEL_DIR)), LoraConfig(r=4, init_lora_weights=False, **more))
    ids = torch.randint(5, 1000, (3, 12)).to(device())
    attention = torch.ones_like(ids)
    attention[1, -2:] = 0
    attention[2, :3] = 0
    return model, ids, attention


@pytest.mark.parametrize("tile", [1, 5 * 1024, 2**22])
def test_values_and_gradients_are_those_of_all_logits(tile, monkeypatch) -> None:
    monkeypatch.setattr(token_log_probabilities, "TILE", tile)
    model, ids, attention = adapted(target_modules="all-linear")
    weights = [p for p in model.parameters() if p.requires_grad]
    kept = attention[:, -5:]
    upstream = torch.randn(3, 5).to(device()) * kept

    logs = (model(input_ids=ids, attention_mask=attention).logits[:, -6:-1] / 0.7).log_softmax(-1)
    expected = logs.gather(-1, ids[:, -5:, None])[..., 0] * kept
    gradients = torch.autograd.grad((expected * upstream).sum(), weights)

    head = token_log_probabilities.plain_head(model)
    found, entropy = token_log_probabilities.token_log_probabilities(model, head, ids, attention, 5, 0.7)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, -(logs.exp() * logs).sum(-1) * kept, atol=1e-4, rtol=1e-5)
    assert not entropy.requires_grad
    for mine, theirs in zip(torch.autograd.grad((found * upstream).sum(), weights), gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


def test_only_a_frozen_plain_head_of_a_known_model_is_taken() -> None:
    model, *_ = adapted(target_modules="all-linear")
    assert token_log_probabilities.plain_head(model) is model.get_base_model().lm_head
    assert token_log_probabilities.plain_head(load_model(str(MODEL_DIR))) is None, (
        "trained whole: the head needs a gradient"
    )
    assert token_log_probabilities.plain_head(adapted(target_modules=["q_proj", "lm_head"])[0]) is None
    model.get_base_model().config.model_type = "gemma2"  # which caps its logits
    assert token_log_probabilities.plain_head(model) is None


def test_ppo_learns_the_same_with_trls_own(make_bench, monkeypatch) -> None:
    def polite(prompts, completions) -> list[float]:
        return [text.lower().count("please") - len(text) / 100 for text in completions]

    def train(name: str) -> dict[str, torch.Tensor]:
        policy = get("ppo").train(make_bench(name=name).replace(reward=polite))
        return {key: p.detach() for key, p in policy.model.named_parameters() if "lora_" in key}

    mine = train("mine")
    monkeypatch.setattr(
        ActorCriticTrainer,
        "_get_per_token_logps_and_entropies",
        GRPOTrainer._get_per_token_logps_and_entropies,
    )
    theirs = train("theirs")
    for key in mine:
        torch.testing.assert_close(mine[key], theirs[key], atol=5e-5, rtol=1e-3)
