"""A model's weights as its files have them: all that the architecture needs, or a sentence about what is missing."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging

from prefzoo import validation_messages
from prefzoo.errors import PrefzooError

SHOWN = 4
"""How many names of weights a message lists."""
DECODERS = ("gpt_neox", "gpt_neox_japanese")
"""Types that read from left to right although the `is_decoder` of their configs is false."""


def read_weights(auto_class: Any, place: str, **settings: Any) -> PreTrainedModel:
    """Read a model with `auto_class.from_pretrained`, which draws weights that it does not find at random.

    Raises:
        PrefzooError: naming the weights that the files do not have, or have in another shape.
    """
    try:
        model, info = auto_class.from_pretrained(
            place, output_loading_info=True, ignore_mismatched_sizes=True, **settings
        )
    except (OSError, safetensors.SafetensorError) as error:
        raise PrefzooError(f"the model in {place}: {_unreadable(place, error)}") from error
    if problem := _incomplete(model.config, info):
        raise PrefzooError(f"the model in {place}: {problem}")
    return model


def read_adapter(model: PreTrainedModel, folder: str) -> PeftModel:
    """Put the adapter in a folder on a model.

    Raises:
        PrefzooError: when its files lack weights of it, which peft would draw.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(model, folder)
        except UserWarning as error:
            raise PrefzooError(f"the adapter in {folder} is not whole: {_first_sentence(error)}") from error


def checkpoint_problem(folder: str, classifier: bool = False) -> str | None:
    """A sentence if the model in a folder is none that can be read whole, or no language model that reads from left to
    right; None where nothing is wrong or nothing is known. Weights are not read, but their names and shapes.

    Args:
        classifier: whether it must be a sequence-classification model instead.
    """
    with _silent():
        return _problem(folder, classifier)


def _problem(folder: str, classifier: bool) -> str | None:
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, KeyError, TypeError, OSError) as error:  # an unknown architecture, or keys of the wrong kind
        return f"config.json is of no model that transformers knows: {_first_sentence(error)}"
    if not classifier and (problem := _no_decoder(config)):
        return problem
    auto_class: Any = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    if type(config) not in auto_class._model_mapping:
        return None  # a classifier that is put together here
    try:
        read_weights(auto_class, folder, device_map="meta", use_safetensors=True)
    except PrefzooError as error:
        return str(error).removeprefix(f"the model in {folder}: ")
    except (ValueError, TypeError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        return f"transformers cannot build it from config.json: {_first_sentence(error)}"
    return None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Within this block transformers shows no progress, and no report of what it found."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _no_decoder(config: Any) -> str | None:
    kind = f"the architecture {config.model_type!r}"
    advice = "Allowed: language models that read from left to right (transformers' AutoModelForCausalLM)."
    if getattr(config, "is_encoder_decoder", False):
        return f"{kind} is an encoder with a decoder. {advice}"
    if getattr(config, "is_decoder", True) is False and config.model_type not in DECODERS:
        return f"{kind} is an encoder, which sees the words that it should predict. {advice}"
    if type(config) not in AutoModelForCausalLM._model_mapping:
        return f"{kind} is no language model. {advice}"
    return None


def _unreadable(place: str, error: Exception) -> str:
    folder = Path(place)
    if not folder.is_dir() or list(folder.glob("*.safetensors")):
        return f"its weights cannot be read; was a download or a copy cut short? ({_first_sentence(error)})"
    return "it has no weights in safetensors, the only format that is read."


def _incomplete(config: Any, info: dict[str, Any]) -> str | None:
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    other = sorted(str(entry[0]) if isinstance(entry, tuple) else str(entry) for entry in info["mismatched_keys"])
    if other:
        return (
            f"{_counted(other)} in another shape than config.json says ({_named(other)}); one of the two files is of "
            "another model."
        )
    if not missing:
        return None
    return (
        f"{_counted(missing)} missing in its files and would be drawn at random ({_named(missing)}). "
        f"{_reason(config, missing, unexpected)}"
    )


def _reason(config: Any, missing: list[str], unexpected: list[str]) -> str:
    """What has probably happened to a checkpoint, and what to do."""
    head = {name.rpartition(".")[0].rpartition(".")[2] for name in missing} <= {"lm_head", "embed_out", "output"}
    if head and any(name.startswith(("score.", "classifier.", "v_head.", "value_head.")) for name in unexpected):
        return "It is a reward model or classifier, without the head of a language model: say it as reward.path."
    prefixes = Counter(name.removesuffix(need) for name in unexpected for need in missing if name.endswith(f".{need}"))
    if prefixes:
        return (
            f"They are there under the prefix {prefixes.most_common(1)[0][0]!r}, as a wrapper leaves it "
            "(torch.compile, DataParallel): save the model inside it with save_pretrained."
        )
    if any(".base_layer." in name or "lora_" in name for name in unexpected):
        return "The files are of a model with an adapter that was not merged: save what merge_and_unload() returns."
    if head:
        return (
            "Where the head is the embeddings, say `tie_word_embeddings: true` in config.json; else the checkpoint is "
            "one of a model without its head."
        )
    return "The upload or copy was cut, or config.json is another model's."


def _counted(names: list[str]) -> str:
    return "1 weight is" if len(names) == 1 else f"{len(names)} weights are"


def _named(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f", and {more} more" if more > 0 else "")


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def check_token_ids(tokenizer: Any, model: torch.nn.Module, place: str) -> None:
    """Refuse a pad or end-of-sequence token that the model has no embedding for.

    Raises:
        PrefzooError: naming the token.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    for name in ("pad", "eos"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None and number >= rows:
            token = getattr(tokenizer, f"{name}_token")
            what = validation_messages.beyond_embeddings(f"{name}_token", token, number, rows)
            raise PrefzooError(f"the tokenizer in {place}: {what}")
