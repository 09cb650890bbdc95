"""A model's own dropout is off in every training, wherever its maker keeps it, and as it was in what is saved."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from prefzoo import registry
from prefzoo.lab import MODEL_DIR
from prefzoo.models.dropout import own_dropout, without_dropout
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import device
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.settings import Adapter, Generation

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 512}


@pytest.fixture(scope="module")
def dropping(tmp_path_factory) -> dict[str, str]:
    """Models with dropout that is no layer of theirs: a function's, in OPT's block, in Llama's attention."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    opt = OPTConfig(ffn_dim=32, word_embed_proj_dim=32, dropout=0.2, attention_dropout=0.1, **SIZES, **ids)
    llama = LlamaConfig(intermediate_size=32, attention_dropout=0.2, **SIZES, **ids)
    found = {}
    torch.manual_seed(0)
    for name, model in (("opt", OPTForCausalLM(opt)), ("llama", LlamaForCausalLM(llama))):
        folder = tmp_path_factory.mktemp(name)
        for weight in model.parameters():  # as drawn, such a model hardly answers to its own attention
            weight.data *= 5
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(200, 400)]  # so that replies do end
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = str(folder)
    return found


def worded(prompts, completions) -> list[float]:
    return [text.count("e") - len(text) / 20 for text in completions]


@pytest.mark.parametrize("algorithm", ["dpo", "grpo"])
@pytest.mark.parametrize("model", ["opt", "llama"])
def test_each_begins_as_the_start(model: str, algorithm: str, dropping, make_bench) -> None:
    trial = make_bench().replace(start=dropping[model], reward=worded, generation=Generation(max_new_tokens=6))
    registry.get(algorithm, trainer={"max_steps": 1, "logging_steps": 1}).train(trial)
    first = json.loads((trial.out / "curves.json").read_text())[0][0]
    if algorithm == "dpo":
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    else:
        assert first["kl"] == pytest.approx(0, abs=1e-6)


def test_the_adapters_dropout_is_left_on(dropping, make_bench) -> None:
    trial = make_bench().replace(start=dropping["llama"], adapter=Adapter(r=4, alpha=8, dropout=0.3))
    policy = registry.get("sft", trainer={"max_steps": 1}).train(trial)
    rates = {module.p for module in policy.model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.3}


@pytest.mark.parametrize("model", ["opt", "llama"])
def test_what_is_saved_says_what_its_maker_said(model: str, dropping, make_bench, tmp_path) -> None:
    def rates(folder: Path) -> dict[str, float]:
        config = json.loads((folder / "config.json").read_text())
        return {name: value for name, value in config.items() if "drop" in name}

    trial = make_bench("full").replace(start=dropping[model])
    before = rates(Path(dropping[model]))
    assert 0.2 in before.values()
    policy = registry.get("sft", trainer={"max_steps": 1}).train(trial)
    assert rates(trial.out / "policy") == before
    assert 0.2 not in policy.model.config.to_dict().values(), "off again when it is loaded"
    train_reward_model(trial, {"max_steps": 1})
    assert rates(trial.out / "reward") == before
    adapted = make_bench().replace(start=dropping[model])
    registry.get("sft", trainer={"max_steps": 1}).train(adapted).export(tmp_path / "exported")
    assert rates(tmp_path / "exported") == before


def test_rates_of_configs_inside_configs_are_found_and_nothing_else() -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    config = Gemma3Config(
        text_config={**SIZES, "intermediate_size": 32, "vocab_size": 64, "attention_dropout": 0.1},
        vision_config={**SIZES, "intermediate_size": 32, "image_size": 28, "patch_size": 14, "attention_dropout": 0.3},
    )
    config.drop_remainder, config.drop_first = True, 3  # no rates
    with torch.device("meta"):
        model = without_dropout(Gemma3ForConditionalGeneration(config))
    assert config.text_config.attention_dropout == config.vision_config.attention_dropout == 0.0
    assert (config.drop_remainder, config.drop_first) == (True, 3)
    assert {m.attention_dropout for m in model.modules() if hasattr(m, "attention_dropout")} == {0.0}
    with own_dropout(model):
        assert (config.text_config.attention_dropout, config.vision_config.attention_dropout) == (0.1, 0.3)
    assert config.text_config.attention_dropout == 0.0


def test_one_model_answers_alike_in_training_and_in_evaluation(dropping) -> None:
    for folder in dropping.values():
        model, ids = LanguageModelPolicy.from_start(folder).model, torch.arange(5, 45, device=device()).reshape(2, 20)
        with torch.inference_mode():
            assert torch.equal(model.train()(ids).logits, model.eval()(ids).logits)
