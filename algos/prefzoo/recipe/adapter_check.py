"""Whether the modules that adapters name are in the model, where its files are on this disk; found without torch."""

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
from prefzoo.recipe.model_check import same_place
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.settings import Adapter

PREFIXES = ("", "model.", "transformer.", "gpt_neox.", "backbone.", "language_model.", "model.language_model.")
"""What a module's path may begin with that the names of stored weights leave out, as those of a bare backbone do."""
HEADS = ("lm_head", "embed_out")
"""What architectures call the head of a language model."""


def adapter_problems(recipe: Recipe) -> list[str]:
    """What could only fail when a model is loaded: names that no module has, and modules that no adapter can train."""
    stored = _Stored.of(Path(same_place(recipe.model.path)))
    parts = {f"{key}.adapter": part.adapter for key, part in recipe.reward.places.items()}
    problems: list[str] = []
    for key, adapter in {"adapter": recipe.adapter, **parts}.items():
        if adapter is not None and adapter.type != "full":
            problems += _target_problems(key, adapter, stored)
    if stored is not None:
        problems += _saved_problems("adapter.modules_to_save", recipe.adapter, stored)
    return problems


def _target_problems(block: str, adapter: Adapter, stored: _Stored | None) -> Iterator[str]:
    key, targets = f"{block}.target_modules", adapter.target_modules
    if targets == "all-linear":
        return
    listed = isinstance(targets, list)
    for target in targets if isinstance(targets, list) else [targets]:
        if _last(target) in HEADS if listed else any(re.fullmatch(target, name) for name in HEADS):
            yield validation_messages.head(key, target)
        elif stored is None:
            continue
        elif not (found := stored.named(target) if listed else stored.fitting(target)):
            yield validation_messages.no_module(key, target, stored.names, listed)
        elif block == "adapter" and stored.tied & found:  # a reward model has no such head
            yield validation_messages.tied(key, target)


def _saved_problems(key: str, adapter: Adapter, stored: _Stored) -> Iterator[str]:
    for name in adapter.modules_to_save:
        if stored.tied and (_last(name) in HEADS or stored.tied & stored.named(name)):
            yield validation_messages.tied(key, name)
        elif not any(_last(name) in path.split(".") for path in stored.paths):
            yield validation_messages.no_module(key, name, stored.names, listed=True)


def _last(path: str) -> str:
    return path.rpartition(".")[2]


@dataclass(frozen=True)
class _Stored:
    """What the files of a model say about its modules: its weights' names with their shapes, and its config."""

    shapes: dict[str, list[int]]
    config: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> _Stored | None:
        """None where nothing is known: of hub ids, and of architectures whose modules are named otherwise in memory
        than in files."""
        if not (folder / "config.json").is_file() or not (files := list(folder.glob("*.safetensors"))):
            return None
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        inner = config.get("text_config") or {}
        spec = find_spec("transformers")
        renaming = Path(str(spec.origin)).with_name("conversion_mapping.py") if spec else folder / "none"
        if renaming.is_file():
            text = renaming.read_text(encoding="utf-8")
            if any(f'"{each.get("model_type")}"' in text for each in (config, inner)):
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

    def fitting(self, expression: str) -> set[str]:
        return {path for path in self.paths if any(re.fullmatch(expression, prefix + path) for prefix in PREFIXES)}


def _header(file: Path) -> dict[str, list[int]]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file} is no safetensors")
        header = json.loads(opened.read(length))
    return {name: each["shape"] for name, each in header.items() if name != "__metadata__"}
