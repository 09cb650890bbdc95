"""Models for benchmarks of speed and memory: random weights, so that nothing has to be downloaded.

Imports nothing of this project, so that it serves another environment's Python too.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

VOCABULARY = 32_000
SPECIAL = ("<pad>", "<end>", "<unk>", "<user>", "<assistant>")
WORDS = tuple(f"w{i}" for i in range(VOCABULARY - len(SPECIAL)))


def random_25m(folder: Path) -> dict[str, str]:
    """A Llama of 25 million random weights, half of them embeddings, and a reward model like it.

    Returns:
        The folders of `start` and `reward`.
    """
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=7,
        num_attention_heads=6,
        tie_word_embeddings=True,
    )
    return {name: random_model(folder / name, config, name == "reward") for name in ("start", "reward")}


def random_model(folder: Path, config: Any, reward: bool = False, dtype: str = "float32", device: str = "cpu") -> str:
    """Random weights of this shape, the same each time, as a language model or a `reward` model, and a tokenizer of as
    many words, at least `VOCABULARY`. A word is a token, so that decoding loses nothing.

    Args:
        dtype: of the files.
        device: where the weights are drawn.

    Returns:
        The folder, which is new.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    words = (*SPECIAL, *WORDS, *(f"w{i}" for i in range(len(WORDS), config.vocab_size - len(SPECIAL))))
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<end>", unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>"],
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<' + m['role'] + '> ' }}{% generation %}{{ m['content'] + ' <end> ' }}"
        "{% endgeneration %}{% endfor %}{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
    )
    config.pad_token_id, config.eos_token_id, config.bos_token_id = 0, 1, None
    config.num_labels = 1 if reward else 2
    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    torch.manual_seed(int(reward))
    with torch.device(device):
        drawn = kind.from_config(config, dtype=getattr(torch, dtype))
    drawn.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return str(folder)


def random_texts(count: int, words: int, seed: int) -> list[str]:
    """Texts of so many words at random."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=words)) for _ in range(count)]
