"""What was asked for and what is used, and what cannot be asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("bitsandbytes")

from prefzoo import registry
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.recipe import check_recipe as recipes
from prefzoo.results.caveats import notes
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.settings import Adapter


def test_what_was_used_is_found_in_the_model(adapted) -> None:
    trial = adapted("qdora", gradient_checkpointing=True)
    registry.get("dpo", trainer={"max_steps": 1}).train(trial)
    used = trial.report["model"]["used"]
    assert used["adapter"] == {
        "type": "qlora",
        "layers": 7,
        "r": 4,
        "scale": 2.0,
        "use_dora": True,
        "modules_to_save": ["model.norm"],
        "quantized_layers": "7 of 8 linear ones",  # not the head
        "quant_type": "nf4",
        "double_quant": True,
        "compute_dtype": "float32",
        "storage_dtype": "uint8",
    }
    assert used["gradient_checkpointing"] and used["precision"] == "no"
    # 7 layers of 64 x 64 with two factors of rank 4 and a magnitude each, and the norm.
    assert used["trainable_parameters"] == 7 * (2 * 4 * 64 + 64) + 64
    assert used["parameters"] == 2 * 1024 * 64 + 7 * 64 * 64 + 3 * 64 + used["trainable_parameters"]
    assert used["optimizer_state"] == {"float32": 1.0}


def test_8_bit_moments_are_kept_in_8_bits_or_said_not_to_be(adapted) -> None:
    small = adapted("lora", optim="adamw_8bit")
    registry.get("sft", trainer={"max_steps": 1}).train(small)
    (said,) = small.report["model"]["differs"]
    assert "'adamw_8bit' was asked for, and 0% of the optimizer's state is in 8 bits" in said
    large = adapted("lora", optim="adamw_8bit")
    large = large.replace(adapter=Adapter(r=64, alpha=8))  # factors of 4,096 numbers
    registry.get("sft", trainer={"max_steps": 1}).train(large)
    assert large.report["model"]["differs"] == []
    assert large.report["model"]["used"]["optimizer_state"]["uint8"] > 0.9
    assert large.report["model"]["used"]["optim"].startswith("bitsandbytes.")


def test_peft_takes_ends_of_names_and_that_is_said(adapted) -> None:
    trial = adapted("lora").replace(adapter=Adapter(r=4, modules_to_save=["norm"]))
    registry.get("sft", trainer={"max_steps": 1}).train(trial)
    assert [said.partition(" is ")[0] for said in trial.report["model"]["differs"]] == [
        f"adapter.modules_to_save: 'model.layers.0.{name}'" for name in ("input_layernorm", "post_attention_layernorm")
    ]


def test_what_is_not_as_asked_is_said(adapted) -> None:
    """A adapted that says one thing, and a base that was loaded as another: as if the loading had fallen back."""
    trial = adapted("qlora")
    whole = trial.replace(loading={"dtype": "float32", "attn_implementation": "eager"})
    registry.get("sft", trainer={"max_steps": 1}).train(whole)
    assert whole.report["model"]["differs"] == ["adapter.type: 'qlora' was asked for, 'lora' used"]
    assert whole.report["model"]["used"]["attn_implementation"] == "eager"


def test_the_report_notes_what_differs_once() -> None:
    recipe = recipes.check({"algorithms": {"dpo": {}}})
    other = {"model": {"differs": ["dtype: 'bfloat16' was asked for, 'float32' used"]}}
    seed = SimpleNamespace(details=other, metrics={"finished": 1.0}, ledger={"reward_calls": 0})
    dpo = SimpleNamespace(differs={}, departures={}, algorithm="dpo", seeds={"0": seed, "1": seed})
    said = notes(recipe, {"dpo": dpo}, {}, {"splits": {"test": {"prompts": 300}}})
    assert [n for n in said if n.startswith("The model")] == [
        "The model of dpo: dtype: 'bfloat16' was asked for, 'float32' used."
    ]


@pytest.mark.parametrize(
    ("training", "words"),
    [({"optim": "paged_adamw_8bit"}, "Allowed here: adamw_8bit"), ({"fp16": True}, "Allowed here: training.bf16")],
)
def test_what_needs_a_gpu_is_refused_before_training(
    training: dict[str, Any], words: str, adapted, monkeypatch
) -> None:
    monkeypatch.setattr("prefzoo.trainers.trainer_arguments.device", lambda: SimpleNamespace(type="cpu"))
    with pytest.raises(PrefzooError, match=words):
        registry.get("dpo").train(adapted("lora", **training))
    with pytest.raises(PrefzooError, match=words):
        registry.get("dpo", trainer=training).train(adapted("lora"))
    with pytest.raises(PrefzooError, match=words):
        train_reward_model(adapted("lora", **training), {})


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"target_modules": ["q_proj", "k_prj"]}, "'k_prj' is no module of this model. Did you mean 'k_proj'"),
        ({"target_modules": "q|v"}, "'q|v' is no module"),
        ({"modules_to_save": ["lm_had"]}, "Did you mean 'lm_head'"),
        ({"target_modules": ["lm_head"]}, "TRL's losses read by itself"),
        ({"target_modules": ".*(q_proj|lm_head)"}, "TRL's losses read by itself"),
    ],
)
def test_modules_that_a_model_does_not_have_are_refused(block: dict[str, Any], words: str, adapted) -> None:
    with pytest.raises(PrefzooError) as caught:
        registry.get("sft").train(adapted("lora").replace(adapter=Adapter(**block)))
    assert words in str(caught.value)


def test_modules_that_cannot_be_trained_whole_are_refused(adapted, make_bench) -> None:
    for key in ("modules_to_save", "target_modules"):  # an adapter would be merged into both ends
        tied = make_bench().replace(adapter=Adapter(**{key: ["embed_tokens"]}))
        with pytest.raises(PrefzooError, match=f"{key}: 'embed_tokens' shares its weights with the other end"):
            registry.get("sft").train(tied)
    train_reward_model(tied, {"max_steps": 1})  # where there is no other end
    trial = adapted("qlora")
    with pytest.raises(PrefzooError, match="'q_proj' is quantized here"):
        registry.get("sft").train(trial.replace(adapter=Adapter(type="qlora", modules_to_save=["q_proj"])))


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "full", "r": 8}, "adapter.r: has no meaning with type 'full'"),
        ({"use_dora": True, "type": "full"}, "adapter.use_dora: has no meaning with type 'full'"),
        ({"compute_dtype": "bfloat16"}, "no meaning with type 'lora', allowed: qlora"),
        ({"type": "qlora", "quant_type": "int8", "double_quant": False}, "no meaning with quant_type 'int8'"),
        ({"type": "qlora", "quant_type": "int8", "use_dora": True}, "'int8' cannot be combined with use_dora"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the weights of the base"),
        ({"init_lora_weights": "loftq"}, "with the adapter off the policy is no longer the start"),
        ({"init_lora_weights": False}, "not exactly the start"),
        ({"init_lora_weights": "orthogonal"}, "'orthogonal' begins at 0 to rounding only"),
        ({"init_lora_weights": "gausian"}, "Did you mean 'gaussian'"),
    ],
)
def test_what_means_nothing_together_is_refused_by_name(block: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.check({"algorithms": {"dpo": {}}, "adapter": block})
    assert words.replace(",", ";") in str(caught.value) or words in str(caught.value)


def test_one_precision_and_weights_whose_gradients_can_be_scaled(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(RecipeError, match=r"training\.fp16: .*in one of them"):
        recipes.check({"algorithms": {"dpo": {}}, "training": {"bf16": True, "fp16": True}})
    with pytest.raises(RecipeError, match=r"training\.fp16: true scales .* float32"):
        recipes.check({"algorithms": {"dpo": {}}, "training": {"fp16": True}, "model": {"dtype": "float16"}})
    assert recipes.check({"algorithms": {"dpo": {}}, "training": {"fp16": True}}).training.fp16
