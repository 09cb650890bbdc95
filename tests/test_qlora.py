"""QLoRA: a base in 4 bits under every trainer, adapters and heads that survive it, merging in full precision."""

from __future__ import annotations

import json
import math

import pytest
import torch

pytest.importorskip("bitsandbytes")

from prefzoo import registry
from prefzoo.errors import RecipeError
from prefzoo.lab import MODEL_DIR
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import device
from prefzoo.models.policy_kinds import load_policy
from prefzoo.recipe import check_recipe as recipes
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.settings import Adapter, Generation

ADAPTER = Adapter(type="qlora", r=4, alpha=8)
LOADING = {"dtype": "float32", "trust_remote_code": False, "quantization": ADAPTER.quantization}


@pytest.fixture
def bench(make_bench):
    return make_bench().replace(adapter=ADAPTER, loading=LOADING)


def four_bit(model) -> list[str]:
    return [name for name, p in model.named_parameters() if type(p).__name__ == "Params4bit"]


def test_a_quantized_policy_is_another_model_of_the_same_size() -> None:
    """Without this, every test below would pass on a base that was never quantized."""
    whole = LanguageModelPolicy.from_start(str(MODEL_DIR))
    small = LanguageModelPolicy.from_start(str(MODEL_DIR), **LOADING)
    assert four_bit(small.model) and not four_bit(whole.model)
    assert small.parameters == whole.parameters == whole.model.num_parameters()
    ids = torch.arange(5, 25, device=device())[None]
    assert not torch.allclose(small.model(ids).logits, whole.model(ids).logits, atol=1e-3)


def test_a_pass_in_eval_mode_leaves_the_gradients_of_training_as_they_are() -> None:
    """bitsandbytes repacks weights in 4 bits in such a pass on some processors, for a kernel that has no gradient."""
    ids, gradients = torch.arange(5, 25, device=device())[None], []
    for passes in (0, 1):
        model = LanguageModelPolicy.from_start(str(MODEL_DIR), **LOADING).model.eval()
        with torch.no_grad():
            for _ in range(passes):
                model(ids)
        inputs = model.get_input_embeddings()(ids).detach().requires_grad_(True)
        model.train()(inputs_embeds=inputs).logits.square().mean().backward()
        gradients.append(inputs.grad)
    assert torch.equal(*gradients) and gradients[0].abs().max() > 0


def test_dpo_begins_at_ln_2_and_comes_back_from_disk(bench) -> None:
    dpo = registry.get("dpo", trainer={"logging_steps": 1})
    policy = dpo.train(bench)
    curve = json.loads((bench.out / "curves.json").read_text())[0]
    assert curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    prompts = bench.data.prompts[:6]
    replies = [each[0] for each in policy.sample(prompts, Generation(max_new_tokens=12), seed=0)]
    again = load_policy(bench.out / "policy")
    assert four_bit(again.model)
    assert again.log_probabilities(prompts, replies) == policy.log_probabilities(prompts, replies)
    assert all(kl > 0 for kl in again.kl_to_start(prompts, replies))
    with again.as_start() as start:
        assert start.log_probabilities(prompts, replies) == LanguageModelPolicy.from_start(
            str(MODEL_DIR), **LOADING
        ).log_probabilities(prompts, replies)


def test_adapter_weights_keep_full_precision(bench) -> None:
    """At a small learning rate, steps on bfloat16 weights of size 0.1 would round to nothing."""
    policy = registry.get("dpo", trainer={"learning_rate": 1e-6}).train(bench)
    trained = {name: p for name, p in policy.model.named_parameters() if "lora_A" in name}
    assert trained and all(p.dtype == torch.float32 for p in trained.values())
    assert any((p != p.bfloat16().float()).any() for p in trained.values())


def test_merging_adds_the_adapter_to_the_base_in_full_precision(bench, tmp_path) -> None:
    policy = registry.get("sft").train(bench)
    updates = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight"): name
        for name, _ in policy.model.named_parameters()
        if "lora_A" in name
    }
    weights = dict(policy.model.named_parameters())
    scale = ADAPTER.alpha / ADAPTER.r
    expected = {
        key: scale * weights[name.replace("lora_A", "lora_B")].detach() @ weights[name].detach()
        for key, name in updates.items()
    }
    policy.export(tmp_path / "exported")
    exported = LanguageModelPolicy.from_start(str(tmp_path / "exported")).model.state_dict()
    base = LanguageModelPolicy.from_start(str(MODEL_DIR)).model.state_dict()
    assert not four_bit(LanguageModelPolicy.from_start(str(tmp_path / "exported")).model)
    for key, update in expected.items():
        assert update.abs().max() > 0
        torch.testing.assert_close(exported[f"{key}.weight"], base[f"{key}.weight"] + update, atol=1e-6, rtol=0)


def test_the_reward_model_learns_saves_and_scores_alike(bench) -> None:
    trained = train_reward_model(bench, {})
    assert four_bit(trained.model)
    prompts = bench.data.prompts[:6]
    texts = [f"That costs {i} euros." for i in range(6)]
    scores = trained(prompts, texts)
    assert RewardModel.load(str(bench.out / "reward"))(prompts, texts) == scores
    assert len(set(scores)) == 6


def test_quantization_keys_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(RecipeError, match="no meaning with type 'lora'"):
        recipes.check({"algorithms": {"dpo": {}}, "adapter": {"quant_type": "fp4"}})
