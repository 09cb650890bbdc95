"""The recipes for hub models, trained on small random models of the same architecture and rows in the hub's format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from conftest import representatives
from prefzoo import compare
from prefzoo.lab import MODEL_DIR
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.recipe import check_recipe as recipes

pytestmark = pytest.mark.long

CHAT_ML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TULU = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] + eos_token }}"
    "{% if not loop.last %}{{ '\n' }}{% endif %}"
    "{% else %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL = [
    "budget.prompts=24",
    "data.splits={train: 0.6, validation: 0.1, test: 0.3}",
    "generation={max_new_tokens: 48, batch_size: 32}",
    "training.batch_size=8",
    "training.accumulation=2",
    "evaluation.prompts=8",
]


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> list[tuple[str, str, str]]:
    return [(f"What is {i} and {i + 1}?", f"It is {2 * i + 1}, gladly.", f"No idea, not {i}.") for i in range(60)]


def model_folder(folder: Path, kind: str) -> str:
    """A random model, scaled down, with a vocabulary of its own making and the special tokens of the real one."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    if kind == "qwen2":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = CHAT_ML
        config = Qwen2Config(**TINY, num_key_value_heads=2, tie_word_embeddings=True, vocab_size=len(tokenizer))
        model = Qwen2ForCausalLM(config)
    else:
        tokenizer.chat_template = TULU
        config = LlamaConfig(**TINY, num_key_value_heads=2, vocab_size=len(tokenizer))
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, do_sample=True, top_k=20, repetition_penalty=1.1
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_0_5b_lora_on_ultrafeedback(tmp_path, questions) -> None:
    rows = tmp_path / "ultrafeedback_binarized.jsonl"
    with rows.open("w") as file:
        for question, good, bad in questions:
            asked = {"role": "user", "content": question}
            sides = [[asked, {"role": "assistant", "content": text}] for text in (good, bad)]
            scores = {"score_chosen": 8.0, "score_rejected": 3.0}
            file.write(json.dumps({"chosen": sides[0], "rejected": sides[1], **scores}) + "\n")
    model = model_folder(tmp_path / "qwen", "qwen2")
    tokens = AutoTokenizer.from_pretrained(model)
    # The base's own end is another token than the one that ends a turn: both must end a reply.
    ends = LanguageModelPolicy.from_start(model).eos_ids
    assert ends == sorted([tokens.eos_token_id, tokens.convert_tokens_to_ids("<|im_end|>")])
    check_trained("ultrafeedback_lora", [f"data.preferences={rows}", f"model.path={model}"], tmp_path / "out")


def test_an_8b_qlora_on_hh_rlhf(tmp_path, questions) -> None:
    pytest.importorskip("bitsandbytes")
    rows = tmp_path / "train.jsonl"
    with rows.open("w") as file:
        for question, good, bad in questions:
            asked = f"\n\nHuman: {question}\n\nAssistant: Sorry?\n\nHuman: You heard me.\n\nAssistant: "
            file.write(json.dumps({"chosen": asked + good, "rejected": asked + bad}) + "\n")
    model = model_folder(tmp_path / "llama", "llama")
    check_trained("hh_qlora", [f"data.preferences={rows}", f"model.path={model}"], tmp_path / "out")


FEEDBACK = {"rlaif", "constitutional_ai", "online_dpo", "iterative_dpo", "iterated_rlhf"}


def check_trained(recipe: str, sets: list[str], out: Path) -> None:
    zoo = {settings.get("algorithm", label) for label, settings in recipes.load(recipe).algorithms.items()}
    # Two Q heads over the vocabulary of an 8B model are 2.1 billion weights that are trained in float32.
    heavy = {"ilql", "sac"} if recipe == "hh_qlora" else set()
    assert zoo >= set(representatives()) - heavy, "a recipe for real models lacks a kind of algorithm"
    found = compare(recipe, sets=[*sets, *SMALL], seeds=1, out=out)
    errors = {label: each.error or "" for label, each in found.algorithms.items() if each.status != "ok"}
    # A model of random weights hardly ever ends a reply, and what is cut off is no feedback.
    assert errors.keys() <= FEEDBACK and all("unfinished_reply" in error for error in errors.values()), errors
    assert found.reward["test_pairs"] > 5
    for label, each in ((label, each) for label, each in found.algorithms.items() if label not in errors):
        trained = each.seeds["0"].ledger["trained_tokens"]
        assert (trained > 0) == (label not in ("start", "best_of_n")), label
