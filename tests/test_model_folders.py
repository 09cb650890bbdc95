"""Models that a recipe names and that are not whole, or none that can be trained: refused by name before anything is
trained, and at every load."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.lab import MODEL_DIR
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import load_model, load_tokenizer
from prefzoo.models.policy_kinds import load_policy
from prefzoo.recipe import check_recipe as recipes
from prefzoo.run.stages import data_stage

SHAPE = {
    "vocab_size": 1024,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A sound model with the lab's tokenizer."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=False)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL_DIR).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def renamed(rename):
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        new = {name: weight for old, weight in weights.items() if (name := rename(old))}
        save_file(new, folder / "model.safetensors", {"format": "pt"})

    return change


def configured(file: str = "config.json", **values):
    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps({**content, **values}))

    return change


def replaced(make):
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        make().save_pretrained(folder)

    return change


def reward_model() -> LlamaForSequenceClassification:
    return LlamaForSequenceClassification(LlamaConfig(**SHAPE, num_labels=1))


def sharded(folder: Path) -> list[Path]:
    model = LlamaForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    return sorted(folder.glob("model-*.safetensors"))


def cut_shard(folder: Path) -> None:
    last = sharded(folder)[-1]
    last.write_bytes(last.read_bytes()[:-8])


def lost_shard(folder: Path) -> None:
    sharded(folder)[1].unlink()


def bin_alone(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def pad_beyond(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<more-{i}>" for i in range(1024 - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "<beyond>"})
    tokenizer.save_pretrained(folder)


LOST_LAYER = renamed(lambda name: None if ".layers.1." in name else name)
PREFIXED = renamed(lambda name: f"_orig_mod.{name}")
UNMERGED = renamed(lambda name: name.replace("_proj.weight", "_proj.base_layer.weight"))
BERT = BertConfig(vocab_size=1024, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
BROKEN = {
    "reward model": (replaced(reward_model), r"1 weight is missing .*\(lm_head\.weight\)\. .*reward\.path"),
    "compiled": (PREFIXED, r"21 weights are missing .*, and 17 more\)\. .*prefix '_orig_mod\.'"),
    "parallel": (renamed(lambda n: f"module.{n}"), r"21 weights .*prefix 'module\.'"),
    "lost layer": (LOST_LAYER, r"9 weights are missing .*\(model\.layers\.1\.input_layernorm\.weight"),
    "lost weight": (renamed(lambda n: None if n == "model.norm.weight" else n), r"1 weight .*\(model\.norm\.weight\)"),
    "lost head": (renamed(lambda n: None if n == "lm_head.weight" else n), r"lm_head\.weight.*tie_word_embeddings"),
    "unmerged adapter": (UNMERGED, r"14 weights .*merge_and_unload"),
    "another shape": (configured(intermediate_size=24), r"6 weights are in another shape .*down_proj"),
    "cut shard": (cut_shard, r"cannot be read; was a download or a copy cut"),
    "lost shard": (lost_shard, r"cannot be read; was a download or a copy cut .*model-00002"),
    "bin alone": (bin_alone, r"pytorch_model\.bin, and only safetensors .*save_pretrained"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no weights in it as safetensors"),
    "no tokenizer": (no_tokenizer, r"no tokenizer in it"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b'{"a": "\xff"}'), r"config\.json is not JSON in UTF-8"),
    "not JSON": (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer\.json is not JSON in UTF-8"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), r"config\.json .*no block of keys"),
    "unknown type": (configured(model_type="nonesuch"), r"no model that transformers knows"),
    "pad beyond": (pad_beyond, r"pad_token '<beyond>' is number 1024, .*1024 tokens \(0 to 1023\)"),
    "pad in config beyond": (configured(pad_token_id=1024), r"pad_token_id 1024 .*\(0 to 1023\)"),
    "quantized": (configured(quantization_config={"quant_method": "gptq"}), r"quantized already .*'gptq'"),
    "encoder-decoder": (
        replaced(lambda: T5ForConditionalGeneration(T5Config(vocab_size=1024, d_model=16, d_ff=16, num_layers=1))),
        r"'t5' is an encoder with a decoder",
    ),
    "encoder": (replaced(lambda: BertForMaskedLM(BERT)), r"'bert' is an encoder"),
}


def said(**sets: object) -> str:
    with pytest.raises(RecipeError) as caught:
        recipes.load("quickstart", [f"{key.replace('__', '.')}={value}" for key, value in sets.items()])
    return str(caught.value)


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_that_is_not_whole_is_refused_by_validate(name, copy) -> None:
    change, message = BROKEN[name]
    change(copy)
    text = said(model__path=copy)
    assert f"model.path: '{copy}': " in text and "1 mistake" in text
    assert re.search(message, text), text


@pytest.mark.parametrize("change", [lambda folder: None, sharded, configured(tie_word_embeddings=True)])
def test_a_sound_model_is_not_refused(change, copy) -> None:
    change(copy)
    if json.loads((copy / "config.json").read_text())["tie_word_embeddings"]:
        renamed(lambda name: None if name == "lm_head.weight" else name)(copy)  # as a tied model is stored
    recipes.load("quickstart", [f"model.path={copy}"])


def test_judges_and_reward_models_are_checked_alike(whole, copy, tmp_path) -> None:
    LOST_LAYER(copy)
    assert f"judge.path: '{copy}': 9 weights are missing" in said(judge__path=copy, algorithms="{rlaif: {}}")
    # A language model has no score head.
    assert "(score.weight)" in said(reward=f"{{type: path, path: {whole}}}")
    reward_model().save_pretrained(tmp_path / "reward")
    shutil.copy(whole / "tokenizer.json", tmp_path / "reward")
    recipes.load("quickstart", [f"reward={{type: path, path: {tmp_path / 'reward'}}}"])


def test_a_model_from_the_hub_is_checked_before_anything_is_trained(copy, tmp_path, monkeypatch) -> None:
    configured(quantization_config={"quant_method": "fp8"})(copy)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **more: str(copy))
    recipe = recipes.load("quickstart", ["model.path=owner/name", "budget.prompts=8"])
    plan = SimpleNamespace(recipe=recipe)
    with pytest.raises(PrefzooError, match=r"model\.path: 'owner/name': its weights are quantized already"):
        data_stage.prepare(plan, None, tmp_path, lambda *args: None)


@pytest.mark.parametrize("name", ["reward model", "compiled", "lost layer", "another shape", "cut shard", "no weights"])
def test_a_model_that_is_not_whole_is_refused_where_it_is_loaded(name, copy) -> None:
    """As one from the hub, which `validate` has not seen."""
    BROKEN[name][0](copy)
    with pytest.raises(PrefzooError, match=r"missing in its files|another shape|cannot be read|safetensors"):
        load_model(str(copy))


def test_a_saved_policy_without_all_of_its_adapter_is_refused(make_bench, whole, tmp_path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_model(str(whole)), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    LanguageModelPolicy(model, load_tokenizer(str(whole)), str(whole)).save(tmp_path / "policy")
    load_policy(tmp_path / "policy")
    file = tmp_path / "policy" / "adapter_model.safetensors"
    save_file({name: w for name, w in load_file(file).items() if ".layers.1." not in name}, file, {"format": "pt"})
    with pytest.raises(PrefzooError, match=r"adapter in .* is not whole.*layers\.1"):
        load_policy(tmp_path / "policy")


def test_padding_needs_an_embedding_at_load_too(copy) -> None:
    pad_beyond(copy)
    with pytest.raises(PrefzooError, match=r"pad_token '<beyond>' is number 1024"):
        LanguageModelPolicy.from_start(str(copy))


def test_no_pad_token_is_chosen_that_has_no_embedding(copy) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens([f"<more-{i}>" for i in range(1024 - len(tokenizer))])
    tokenizer.add_tokens(["<pad-beyond>"])
    tokenizer.pad_token, tokenizer.unk_token = tokenizer.eos_token, None
    tokenizer.save_pretrained(copy)
    assert load_tokenizer(str(copy)).pad_token_id < 1024


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["adapter.type=full", "model.dtype=bfloat16"], r"model\.dtype: 'bfloat16' .*type 'full'.*bf16: true`"),
        (["adapter.type=full", "model.dtype=float16"], r"model\.dtype: 'float16' .*`training\.fp16: true`"),
        (["reward.adapter={type: full}", "model.dtype=bfloat16"], r"reward\.adapter\.type 'full'"),
        (["adapter.modules_to_save=[norm]", "model.dtype=bfloat16"], r"adapter\.modules_to_save"),
    ],
)  # fmt: skip
def test_weights_that_are_trained_whole_are_kept_in_float32(sets, message) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.load("quickstart", sets)
    recipes.load("quickstart", [*sets[:1], "model.dtype=float32", "training.bf16=true"])
    recipes.load("quickstart", ["adapter.type=lora", *sets[1:]])


@pytest.mark.parametrize("label", ["grpo", "rloo", "ppo"])
def test_continuous_batching_is_refused(label) -> None:
    sets = [
        f"algorithms={{{label}: {{trainer: {{use_transformers_continuous_batching: true}}}}}}",
        "training.bf16=true",
    ]
    with pytest.raises(RecipeError, match=r"use_transformers_continuous_batching: cannot be set here .*seed"):
        recipes.load("quickstart", sets)
