"""Models and tokenizers by path, hub id, or the name of a bundled one, always prepared in the same way."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prefzoo import validation_messages
from prefzoo.errors import PrefzooError
from prefzoo.lab import MODELS
from prefzoo.machine import divides_weights
from prefzoo.models.chat_rendering import with_rendering
from prefzoo.models.chat_templates import BEGINNING, CONTINUATION, PLAIN_TEMPLATE
from prefzoo.models.checkpoint import read_weights
from prefzoo.models.dropout import without_dropout


def resolve(path: str, revision: str | None = None) -> str:
    """A folder on this disk: that of a bundled model, itself for a folder, a download for a hub id.

    A hub model becomes a folder once and for all, so that every later load, TRL's own of a reference included, reads
    the same revision.
    """
    if path in MODELS:
        return str(MODELS[path])
    place = Path(path).expanduser()
    if place.is_dir():
        return str(place.resolve())
    import huggingface_hub

    kinds = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.py"]
    try:
        return huggingface_hub.snapshot_download(path, revision=revision, allow_patterns=kinds)
    except Exception as error:  # the hub client raises a dozen unrelated classes; the user needs one sentence
        raise PrefzooError(f"model: {path!r} is no folder and could not be had from the hub: {error}") from error


def device() -> torch.device:
    """This process's accelerator if there is one, else the CPU."""
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    )


_to_be_divided: ContextVar[bool] = ContextVar("to_be_divided", default=False)


@contextlib.contextmanager
def to_be_divided() -> Iterator[None]:
    """Within this block models are read into the machine's own memory where the launch divides weights: each process's
    share of them goes to its device later. Elsewhere nothing changes."""
    before = _to_be_divided.set(divides_weights())
    try:
        yield
    finally:
        _to_be_divided.reset(before)


def load_tokenizer(
    path: str, trust_remote_code: bool = False, replies: bool = True, chat_template: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder: padded on the left, with a chat template as `chat_rendering` applies it, and
    with a pad token that is not the end-of-sequence token if the vocabulary has any other that fits.

    Args:
        replies: whether its model writes replies, and must be able to end them. A model that only reads them reads
            what its chat template writes.
        chat_template: see `chat_templates.template_text`; None is its own, or `PLAIN_TEMPLATE` where it has none.

    Raises:
        PrefzooError: when there is no end-of-sequence token, and one is needed.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    if tokenizer.eos_token is None and (replies or tokenizer.chat_template is None):
        raise PrefzooError(
            f"the tokenizer in {path} has no end-of-sequence token, so that no reply would ever end. Name one of its "
            f"tokens as eos_token in {Path(path) / 'tokenizer_config.json'}; its special tokens: "
            f"{', '.join(map(repr, tokenizer.all_special_tokens)) or 'none'}."
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        embedded = _embeddings(path)
        spare = [
            t
            for t in (tokenizer.unk_token, *_pad_like(tokenizer))
            if t and t != tokenizer.eos_token and tokenizer.convert_tokens_to_ids(t) < embedded
        ]
        tokenizer.pad_token = spare[0] if spare else tokenizer.eos_token
    continuation = chat_template == CONTINUATION
    if continuation:
        tokenizer.chat_template = None
    elif chat_template is not None or tokenizer.chat_template is None:
        tokenizer.chat_template = chat_template or PLAIN_TEMPLATE
        if tokenizer.chat_template == PLAIN_TEMPLATE and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
            tokenizer.chat_template = BEGINNING + PLAIN_TEMPLATE
    return with_rendering(tokenizer, continuation, aligned=replies)


def tokenizer_arguments(loading: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arguments with which a model is read, those that `load_tokenizer` takes too."""
    return {
        "trust_remote_code": bool(loading.get("trust_remote_code", False)),
        "chat_template": loading.get("chat_template"),
    }


def _embeddings(path: str) -> float:
    """How many tokens the model in a folder has embeddings for; infinite where its config does not say."""
    config = _config(path)
    return {**config, **(config.get("text_config") or {})}.get("vocab_size") or float("inf")


def _config(path: str) -> dict[str, Any]:
    """The content of a model's config.json; empty where there is none."""
    file = Path(path) / "config.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def positions(config: PreTrainedConfig) -> int | None:
    """How many tokens of prompt and reply a model has positions for; None where its config states no limit."""
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else None


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token with which the chat template ends a reply, if it is a special one.

    Base models often declare another token as the end of a sequence; what learns from templated replies would then
    be cut at the length limit every time, although it said that it was done.
    """
    reply = "\u2603"  # in no template
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": reply}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(reply)[2]
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]
    return ids[0] if ids and ids[0] in {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()} else None


def _pad_like(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    names = ("pad", "reserved", "unused", "endoftext")
    return [t for t in sorted(tokenizer.get_added_vocab()) if any(name in t.lower() for name in names)]


def from_pretrained_arguments(
    dtype: str = "float32",
    trust_remote_code: bool = False,
    quantization: Mapping[str, Any] | None = None,
    attn_implementation: str | None = None,
    chat_template: str | None = None,
) -> dict[str, Any]:
    """Return the arguments with which `from_pretrained` reads a model's weights: safetensors only, in `dtype`, onto
    this machine's device, as `Adapter.quantization` says, with this implementation of attention (None is what
    transformers chooses). `chat_template` is the tokenizer's, and changes nothing here.

    Raises:
        PrefzooError: for an implementation that this machine cannot run.
    """
    if device().type == "cpu" and (message := validation_messages.attention_without_gpu(attn_implementation)):
        raise PrefzooError(message)
    settings: dict[str, Any] = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "trust_remote_code": trust_remote_code,
        "device_map": {"": "cpu" if _to_be_divided.get() else device()},
    }
    if attn_implementation:
        settings["attn_implementation"] = attn_implementation
    if quantization is None:
        return settings
    if quantization["quant_type"] == "int8":
        # It says at each multiplication that it computes in float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        settings["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    else:
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization["quant_type"],
            bnb_4bit_use_double_quant=quantization["double_quant"],
            bnb_4bit_compute_dtype=getattr(torch, quantization.get("compute_dtype") or dtype),
            bnb_4bit_quant_storage=getattr(torch, quantization.get("storage_dtype", "uint8")),
        )
    return settings


_copies: dict[str, Path] = {}
"""Quantized copies of models that this process knows of."""


def use_quantized_copy(path: str, folder: Path, **loading: Any) -> None:
    """From now on, `source` gives the copy in `folder` for the model in `path`, quantized as `loading` says.

    A model that is quantized while it is read is in memory in both forms for a while, and quantizing takes a CPU far
    longer than reading. What is read from the copy is the same, bit by bit.
    """
    _copies[_quantized_copy_key(path, loading)] = folder


def source(path: str, **loading: Any) -> tuple[str, dict[str, Any]]:
    """Where a model is read from, and the arguments of `from_pretrained` for it; `loading` is as
    `from_pretrained_arguments` takes it."""
    copy = _copies.get(_quantized_copy_key(path, loading))
    place = path if copy is None else str(copy)
    if copy is not None or "quantization_config" in _config(place):  # its files say how
        loading["quantization"] = None
    return place, from_pretrained_arguments(**loading)


def _quantized_copy_key(path: str, loading: Mapping[str, Any]) -> str:
    decisive = {name: loading.get(name) for name in ("dtype", "quantization", "trust_remote_code")}
    return json.dumps([str(Path(path).resolve()), decisive], sort_keys=True)


def count_parameters(model: torch.nn.Module) -> int:
    """Weights that a token passes through."""
    return count(model.parameters())


def count(parameters: Iterable[torch.nn.Parameter]) -> int:
    """How many weights these hold; those in 4 bits are stored two to a byte."""
    return sum(p.numel() * 2 * p.element_size() if type(p).__name__ == "Params4bit" else p.numel() for p in parameters)


def load_model(path: str, **loading: Any) -> PreTrainedModel:
    """A causal language model on this machine's device, ready to be trained or sampled; `loading` is as
    `from_pretrained_arguments` takes it.

    Raises:
        PrefzooError: when its files cannot be read, or lack weights.
    """
    place, settings = source(path, **loading)
    model = read_weights(AutoModelForCausalLM, place, **settings)
    # The end-of-sequence tokens are the model's; every other sampling default it ships is left behind, because
    # `generate` would merge a top-k or a repetition penalty into settings that the recipe believes to have made.
    shipped = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=shipped.bos_token_id, eos_token_id=shipped.eos_token_id, pad_token_id=shipped.pad_token_id
    )
    return without_dropout(keep_differentiable(model))


def keep_differentiable(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with its weights in 4 bits left as they were read.

    On a CPU with AVX512-BF16 bitsandbytes would repack them in the first pass in eval mode, for a kernel that
    multiplies in bfloat16 and carries no gradient back: what is measured would be another policy than what is trained,
    its KL to the start would not begin at 0, and no other model could share its weights.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model
