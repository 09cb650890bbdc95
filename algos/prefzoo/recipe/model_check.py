"""Checks of the models that a recipe names: their files, tokens, critics and the modules of adapters; without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefzoo import validation_messages
from prefzoo.errors import did_you_mean
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.lab import MODELS
from prefzoo.recipe.model_folder_check import Use, folder_problems
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.rewards.reward_files import REWARD_FILE, critic_problem, tokenizer_folder
from prefzoo.settings import Adapter

TOKENS = ("eos_token", "pad_token")
"""Settings of trainers that name a token."""
SHOWN = 20
PREFIXES = ("", "model.", "transformer.", "gpt_neox.", "backbone.", "language_model.", "model.language_model.")
"""What a module's path may begin with that the names of stored weights leave out, as those of a bare backbone do."""
HEADS = ("lm_head", "embed_out")
"""What architectures call the head of a language model."""


def model_problems(recipe: Recipe) -> list[str]:
    """The base model and the models that judge must be folders with a whole model in them, or hub ids; a reward model
    in a folder must be whole."""
    remote_code = recipe.model.trust_remote_code
    problems = _path_problems("model.path", recipe.model.path, "policy", remote_code)
    for key, judge in judge_blocks(recipe).items():
        # A judge is only asked, and transformers loads an adapter's folder together with its base.
        if judge.path is not None and not (Path(judge.path).expanduser() / "adapter_config.json").is_file():
            problems += _path_problems(f"{key}.path", judge.path, "judge", remote_code)
    for key, part in recipe.reward.places.items():
        folder = Path(part.path or "").expanduser()
        if part.type != "path" or not part.path or not folder.is_dir():
            continue
        if (folder / "config.json").is_file():
            problems += folder_problems(f"{key}.path", part.path, folder, "reward", remote_code)
        elif not (folder / REWARD_FILE).is_file():
            problems.append(
                f"{key}.path: {part.path!r} is no reward model: there is neither a config.json in it, as in a whole "
                f"model, nor a {REWARD_FILE}, as in an adapter that was trained here."
            )
    return problems


def _path_problems(key: str, path: str, use: Use, remote_code: bool) -> list[str]:
    place = Path(path).expanduser()
    allowed = f"Allowed: {', '.join(MODELS)}, a folder, a hub id (owner/name)."
    if path in MODELS:
        return []
    if (place / "config.json").is_file():
        return folder_problems(key, path, place, use, remote_code)
    if place.is_dir():
        return [f"{key}: {path!r} is no model: there is no config.json in it. {allowed}"]
    meant = did_you_mean(path, MODELS) if "/" not in path else ""
    if meant or place.exists() or path.count("/") > 1 or path.startswith((".", "/", "~")):
        return [f"{key}: {path!r} is no folder.{meant} {allowed}"]
    return []


def downloaded_problems(recipe: Recipe, folder: str) -> list[str]:
    """What `model_problems` would say of the recipe's model from the hub, now that it is in `folder`."""
    path = recipe.model.path
    if path in MODELS or Path(path).expanduser().is_dir():
        return []
    return folder_problems("model.path", path, Path(folder), "policy", recipe.model.trust_remote_code)


def judge_blocks(recipe: Recipe) -> dict[str, JudgeSettings]:
    """The blocks of a recipe that describe a judge, by key."""
    final = recipe.evaluation.judge
    return {"judge": recipe.judge, **({"evaluation.judge": final} if final is not None else {})}


def trainer_blocks(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The `trainer:` blocks of a recipe, by key."""
    blocks = {
        "start.trainer": recipe.start.parameters.get("trainer"),
        **{f"{key}.trainer": part.trainer for key, part in recipe.reward.places.items()},
        **{f"algorithms.{label}.trainer": settings.get("trainer") for label, settings in recipe.algorithms.items()},
    }
    return {key: block for key, block in blocks.items() if isinstance(block, dict)}


def same_place(path: str) -> str:
    """One spelling for every way to name a model on this disk; hub ids stay as they are."""
    place = MODELS.get(path) or Path(path).expanduser()
    return str(place.resolve()) if place.is_dir() else path


def token_problems(recipe: Recipe) -> list[str]:
    """The tokens that `trainer:` blocks name must be tokens of the model, where its tokenizer is on this disk."""
    named = {
        f"{key}.{name}": block[name]
        for key, block in trainer_blocks(recipe).items()
        for name in TOKENS
        if isinstance(block.get(name), str)
    }
    if not named or (tokenizer := _vocabulary(same_place(recipe.model.path))) is None:
        return []
    vocabulary, special = tokenizer
    return [
        f"{key}: {token!r} is no token of {recipe.model.path!r}.{did_you_mean(token, special)} Its special tokens: "
        f"{', '.join(map(repr, special[:SHOWN])) or 'none'}."
        for key, token in named.items()
        if token not in vocabulary
    ]


def critic_problems(recipe: Recipe) -> list[str]:
    """A critic that begins as the reward model needs a reward that is one model."""
    parts = recipe.reward.parts
    if len(parts) == 1 and parts[0].type in ("trained", "path") and parts[0].members == 1:
        return []
    return [
        f"algorithms.{label}.value_model: 'reward' begins as the reward model, and the reward is not one model. "
        "Allowed here: shared, separate."
        for label in _with_reward_critic(recipe)
    ]


def critic_token_problems(recipe: Recipe) -> list[str]:
    """Such a critic must read the policy's tokens, as far as both tokenizers are on this disk."""
    part = recipe.reward.parts[0]
    if recipe.reward.of or part.type != "path" or part.path is None:
        return []
    places = same_place(recipe.model.path), tokenizer_folder(Path(part.path).expanduser())
    policy, reward = (tokenizer and tokenizer[0] for tokenizer in map(_vocabulary, places))
    if policy is None or reward is None or (problem := critic_problem(policy, reward)) is None:
        return []
    return [
        f"algorithms.{label}.value_model: {problem} model.path is {recipe.model.path!r}, reward.path {part.path!r}."
        for label in _with_reward_critic(recipe)
    ]


def _with_reward_critic(recipe: Recipe) -> list[str]:
    return [label for label, settings in recipe.algorithms.items() if settings.get("value_model") == "reward"]


def _vocabulary(folder: str | Path) -> tuple[dict[str, int], list[str]] | None:
    """Token -> id of the tokenizer in a folder, and its special tokens; None where it is not on this disk."""
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = tokenizer["model"].get("vocab", [])
    except (ValueError, LookupError, TypeError, AttributeError):  # `model_problems` says what is wrong
        return None
    if not isinstance(vocabulary, dict):  # Unigram's is a list
        vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    added = {token["content"]: token.get("id", -1) for token in tokenizer.get("added_tokens", [])}
    return {**vocabulary, **added}, list(added)


def adapter_problems(recipe: Recipe) -> list[str]:
    """What could only fail when a model is loaded: names that no module has, and modules that no adapter can train."""
    modules = _StoredModules.of(Path(same_place(recipe.model.path)))
    parts = {f"{key}.adapter": part.adapter for key, part in recipe.reward.places.items()}
    problems: list[str] = []
    for key, adapter in {"adapter": recipe.adapter, **parts}.items():
        if adapter is not None and adapter.type != "full":
            problems += _target_problems(key, adapter, modules)
    if modules is not None:
        problems += _saved_problems("adapter.modules_to_save", recipe.adapter, modules)
    return problems


def _target_problems(block: str, adapter: Adapter, modules: _StoredModules | None) -> Iterator[str]:
    key, targets = f"{block}.target_modules", adapter.target_modules
    if targets == "all-linear":
        return
    listed = isinstance(targets, list)
    for target in targets if isinstance(targets, list) else [targets]:
        if _last(target) in HEADS if listed else any(re.fullmatch(target, name) for name in HEADS):
            yield validation_messages.adapter_on_head(key, target)
        elif modules is None:
            continue
        elif not (paths := modules.named(target) if listed else modules.matching(target)):
            yield validation_messages.unknown_module(key, target, modules.names, listed)
        elif block == "adapter" and modules.tied & paths:  # a reward model has no such head
            yield validation_messages.tied_module(key, target)


def _saved_problems(key: str, adapter: Adapter, modules: _StoredModules) -> Iterator[str]:
    for name in adapter.modules_to_save:
        if modules.tied and (_last(name) in HEADS or modules.tied & modules.named(name)):
            yield validation_messages.tied_module(key, name)
        elif not any(_last(name) in path.split(".") for path in modules.paths):
            yield validation_messages.unknown_module(key, name, modules.names, listed=True)


def _last(path: str) -> str:
    return path.rpartition(".")[2]


@dataclass(frozen=True)
class _StoredModules:
    """What the files of a model say about its modules: its weights' names with their shapes, and its config."""

    shapes: dict[str, list[int]]
    config: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> _StoredModules | None:
        """None where nothing is known: of hub ids, and of architectures whose modules are named otherwise in memory
        than in files."""
        if not (folder / "config.json").is_file() or not (files := list(folder.glob("*.safetensors"))):
            return None
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            inner = config.get("text_config") or {}
        except (ValueError, AttributeError):  # `model_problems` says what is wrong
            return None
        spec = find_spec("transformers")
        renaming = Path(str(spec.origin)).with_name("conversion_mapping.py") if spec else folder / "none"
        if renaming.is_file():
            text = renaming.read_text(encoding="utf-8")
            if any(f'"{block.get("model_type")}"' in text for block in (config, inner)):
                return None
        try:
            return cls({k: shape for file in files for k, shape in _header(file).items()}, {**config, **inner})
        except ValueError:  # no safetensors, which loading will say
            return None

    @cached_property
    def paths(self) -> set[str]:
        return {name.rpartition(".")[0] for name in self.shapes}

    @cached_property
    def names(self) -> set[str]:
        return {_last(path) for path in self.paths}

    @cached_property
    def tied(self) -> set[str]:
        """The module whose weight is the embeddings and the head at once; empty where those are two."""
        size = self.config.get("vocab_size")
        tables = {n.rpartition(".")[0] for n, shape in self.shapes.items() if len(shape) == 2 and shape[0] == size}
        return tables if self.config.get("tie_word_embeddings", len(tables) == 1) else set()

    def named(self, name: str) -> set[str]:
        """Modules whose path ends with the last part of this name: what comes before it may be left out in files."""
        return {path for path in self.paths if _last(path) == _last(name)}

    def matching(self, expression: str) -> set[str]:
        return {path for path in self.paths if any(re.fullmatch(expression, prefix + path) for prefix in PREFIXES)}


def _header(file: Path) -> dict[str, list[int]]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file} is no safetensors")
        header = json.loads(opened.read(length))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
