"""A policy that is read from its folder when it is first used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.policy_kinds import load_policy

ATTRIBUTES = frozenset({"model", "tokenizer", "start", "loading", "eos_ids"})
"""Attributes of a policy that has been read."""


class SavedPolicy(LanguageModelPolicy):
    """The policy that `save` wrote to a folder, read when it is first used. A trial that trains and saves its policy,
    and does no more with it, never holds a second base in memory.

    Args:
        folder: must stay as it is until this policy is used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getattr__(self, name: str) -> Any:
        if name not in ATTRIBUTES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with torch.inference_mode(False):  # sampling may be the first use, and training on the next one
            self.__dict__ |= vars(load_policy(self.folder, run_code=True))
        return self.__dict__[name]
