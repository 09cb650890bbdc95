"""A model for benchmarks of speed and memory: random weights, so that nothing has to be downloaded.

Imports nothing of this project, so that it serves another environment's Python too.
"""

from __future__ import annotations

import random
from pathlib import Path

VOCABULARY = 32_000
SPECIAL = ("<pad>", "<end>", "<unk>", "<user>", "<assistant>")
WORDS = tuple(f"w{i}" for i in range(VOCABULARY - len(SPECIAL)))


def random_25m(folder: Path) -> dict[str, str]:
    """A Llama of 25 million random weights, half of them embeddings, and a reward model like it. A word is a token, so
    that decoding loses nothing.

    Returns:
        The folders of `start` and `reward`.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

    model = models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="<unk>")
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
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=7,
        num_attention_heads=6,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    found = {}
    for name, kind in (("start", LlamaForCausalLM), ("reward", LlamaForSequenceClassification)):
        config.num_labels = 1 if name == "reward" else 2
        kind(config).save_pretrained(str(folder / name))
        tokenizer.save_pretrained(str(folder / name))
        found[name] = str(folder / name)
    return found


def random_texts(count: int, words: int, seed: int) -> list[str]:
    """Texts of so many words at random."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=words)) for _ in range(count)]
