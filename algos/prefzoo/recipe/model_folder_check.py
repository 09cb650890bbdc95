"""Checks of the folders that a recipe takes models from: their files, the tokens and weights in them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from prefzoo import validation_messages
from prefzoo.rewards.reward_files import REWARD_FILE

Use = Literal["policy", "judge", "reward"]
"""What a model is taken for: to be trained, to be asked, to score."""

READ = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "model.safetensors.index.json",
)
"""Files of a model's folder that are read as JSON."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "*.model", "vocab.*", "tekken.json", "tokenization_*.py")
"""Files that one of must be there for a tokenizer to be."""
NAMED = ("pad_token", "eos_token", "bos_token")


def folder_problems(key: str, path: str, folder: Path, use: Use, remote_code: bool) -> list[str]:
    """What is wrong with the model in a folder that has a `config.json`, a sentence each.

    Args:
        key: the recipe's, whose value is `path`.
        remote_code: whether code that comes with the model may be run; what that needs is not known here.
    """
    return [f"{key}: {path!r}: {problem}" for problem in _problems(folder, use, remote_code, _state(folder))]


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a folder's files."""
    return tuple(sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir() if f.is_file()))


@lru_cache(maxsize=16)
def _problems(folder: Path, use: Use, remote_code: bool, state: tuple[tuple[str, int, int], ...]) -> tuple[str, ...]:
    texts: dict[str, Any] = {}
    problems = []
    for name in READ:
        if (folder / name).is_file():
            try:
                texts[name] = json.loads((folder / name).read_text(encoding="utf-8"))
                if not isinstance(texts[name], dict):
                    raise ValueError("it holds no block of keys")
            except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
                problems.append(f"{name} is not JSON in UTF-8 ({error}); download or save the model again.")
    if problems:
        return tuple(problems)
    config, trained_here = texts["config.json"], (folder / REWARD_FILE).is_file()
    if not any(found for pattern in TOKENIZERS for found in folder.glob(pattern)):
        problems.append("there is no tokenizer in it (tokenizer.json): save the tokenizer into this folder too.")
    weights = [name for name, _, _ in state if name.endswith(".safetensors")]
    if not weights:
        problems.append(_without_safetensors([name for name, _, _ in state]))
    problems += _token_problems(config, texts)
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else "unknown"
        if use == "policy":
            problems.append(
                f"its weights are quantized already (quant_method {method!r}), and the start is merged in full "
                "precision before it is quantized. Give the model that it was made from, and say `adapter: {type: "
                "qlora}` to train on it in 4 bits."
            )
    elif weights and not problems and not trained_here and not (remote_code and "auto_map" in config):
        from prefzoo.models.checkpoint import checkpoint_problem  # imports torch

        if problem := checkpoint_problem(str(folder), classifier=use == "reward"):
            problems.append(problem)
    return tuple(problems)


def _without_safetensors(names: list[str]) -> str:
    others = sorted(n for n in names if n.endswith((".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".ckpt")))
    if not others:
        return "there are no weights in it as safetensors (model.safetensors), the only format that is read."
    how = (
        " Convert it once: `AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)` writes safetensors."
        if any(name.endswith(".bin") for name in others)
        else " Convert it with transformers, whose save_pretrained writes safetensors."
    )
    return f"its weights are in {others[0]}, and only safetensors are read.{how}"


def _token_problems(config: dict[str, Any], texts: dict[str, Any]) -> list[str]:
    """Tokens that the embeddings have no row for."""
    inner = config.get("text_config")
    both = {**config, **(inner if isinstance(inner, dict) else {})}
    rows = both.get("vocab_size")
    if not isinstance(rows, int):
        return []
    problems = []
    pad = both.get("pad_token_id")
    if isinstance(pad, int) and pad >= rows:
        problems.append(
            f"pad_token_id {pad} in config.json is no token of the model, which has embeddings for {rows} tokens (0 to "
            f"{rows - 1}). Name one of those, or save the model with larger embeddings (resize_token_embeddings)."
        )
    tokenizer = texts.get("tokenizer.json", {})
    named = {**texts.get("special_tokens_map.json", {}), **texts.get("tokenizer_config.json", {})}
    ids = {t["content"]: t.get("id", -1) for t in tokenizer.get("added_tokens", []) if isinstance(t, dict)}
    for key in NAMED:
        token = named.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and (number := ids.get(text, -1)) >= rows:
            problems.append(validation_messages.beyond_embeddings(key, text, number, rows))
    return problems
