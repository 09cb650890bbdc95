"""A tiny random base model without a chat template, whose tokenizer begins every text with its own token, and a task of
continuing texts that a function scores."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

SCORE = """
def cheerful(prompts, completions):
    return [sum(c in "aeiou" for c in text) / max(1, len(text)) for text in completions]
"""


def make_base(folder: Path, kind: str = "bytes") -> Path:
    """Write the model and its tokenizer into `folder`.

    Args:
        kind: `bytes` is byte-level BPE; `metaspace` marks spaces by a letter and loses the one before a text.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<pad>"]
    raw = Tokenizer(models.BPE(unk_token=None))
    texts = [*beginnings(40), "a great film", "an awful meal, really"]
    if kind == "bytes":
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        raw.decoder = decoders.Metaspace(prepend_scheme="always")
        alphabet = sorted({*"".join(texts), *map(chr, range(33, 127)), "\n"} - {" "})
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def beginnings(count: int) -> list[str]:
    """Texts to go on from, all different."""
    rng = random.Random(0)
    things, words = ("film", "meal", "hotel", "book", "song"), ("was", "seemed", "is", "felt")
    return [f"The {rng.choice(things)} of row {i} {rng.choice(words)}" for i in range(count)]


def task(folder: Path, count: int = 60) -> dict[str, Any]:
    """The recipe of the task, with its files in `folder`."""
    make_base(folder / "base")
    (folder / "beginnings.txt").write_text("\n".join(beginnings(count)) + "\n")
    (folder / "score.py").write_text(SCORE)
    score = f"{folder / 'score.py'}:cheerful"
    return {
        "model": {"path": str(folder / "base"), "chat_template": "none"},
        "data": {"prompts": str(folder / "beginnings.txt"), "label_with": "gold"},
        "gold": {"path": score},
        "reward": {"type": "function", "path": score},
        "generation": {"max_new_tokens": 8, "unfinished": "keep"},
        "budget": {"prompts": 24},
        "training": {"batch_size": 4},
        "algorithms": {"dpo": {}, "ppo": {}, "rejection_sampling": {"n": 2}, "grpo": {}, "best_of_n": {"n": 2}},
        "evaluation": {"prompts": 8},
        "tracking": {"wandb": {"mode": "disabled"}},
        "seeds": 1,
    }
