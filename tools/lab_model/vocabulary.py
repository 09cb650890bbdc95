"""The bundled models' tokenizers: byte-level BPE learned from the lab's own text, and their chat template."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from tools.lab_model.curriculum import example

from prefzoo.lab.chinese import CHINESE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
SIZE = 1024
MAX_LENGTH = 2048
SAMPLE_EXAMPLES = 6000

# Digits stand alone, so that copying a number is copying tokens; a blank sticks to what follows it.
PIECES = r" ?[0-9]| ?[A-Za-z]+| ?[^\sA-Za-z0-9]+|\s+"

# Words that fill slots stand alone, so that copying one is copying a token; what stands between them is learned.
_SLOT_WORDS = "|".join((*CHINESE.items, *CHINESE.names, *CHINESE.streets, *sorted(CHINESE.value_words)))
CHINESE_PIECES = rf"{_SLOT_WORDS}|(?:(?!{_SLOT_WORDS})[\u4e00-\u9fff])+|[，。！？；：]"
CHINESE_MERGES = 640

# Everything of the answer, its end included, is marked as generated; the generation prompt is an exact prefix of it.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- elif message['role'] in ['user', 'system'] -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- else -%}"
    "{{- raise_exception('role ' + message['role'] + ' is unknown; allowed: system, user, assistant') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def render_question(system: str, user: str) -> str:
    """The templated text of a turn up to where its answer begins; ``system`` may be empty."""
    return (f"{SYSTEM}{system}{END}" if system else "") + f"{USER}{user}{END}{ASSISTANT}"


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Learn the vocabulary from training examples; the same seed gives the same vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=[PAD, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(seed)
    items = [example(rng) for _ in range(SAMPLE_EXAMPLES)]
    core.train_from_iterator([f"{turn.user}\n{turn.answer}" for item in items for turn in item.turns], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
        chat_template=CHAT_TEMPLATE,
    )


def extend_tokenizer(english: PreTrainedTokenizerFast, seed: int) -> PreTrainedTokenizerFast:
    """The bilingual vocabulary: that of ``english`` with its ids, and merges of Chinese text behind them.

    English text has the same tokens in both, because no merge of Chinese joins bytes of English.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    splits = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"{CHINESE_PIECES}|{PIECES}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    chinese = Tokenizer(models.BPE())
    chinese.pre_tokenizer = splits
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rng = random.Random(seed)
    items = [example(rng, languages=(CHINESE,)) for _ in range(SAMPLE_EXAMPLES)]
    chinese.train_from_iterator(
        [f"{turn.user}\n{turn.answer}" for item in items for turn in item.turns],
        trainers.BpeTrainer(vocab_size=len(alphabet) + CHINESE_MERGES, initial_alphabet=alphabet, show_progress=False),
    )
    both = json.loads(english.backend_tokenizer.to_str())
    vocabulary, merges = both["model"]["vocab"], both["model"]["merges"]
    for left, right in json.loads(chinese.to_str())["model"]["merges"]:
        if left + right not in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            merges.append([left, right])
    both["pre_tokenizer"] = json.loads(chinese.to_str())["pre_tokenizer"]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(both)), pad_token=PAD, eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM], clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
