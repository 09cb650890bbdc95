"""What a reward's folder holds, readable without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

REWARD_FILE = "reward.json"
"""Beside the weights of a reward model that was trained here: how they were read, and the base of an adapter."""


RewardLoss = Literal["bradley_terry", "regression", "plackett_luce"]
"""What a reward model is trained by: pairs, ratings, rankings."""


def resolve_path(path: str, folder: Path) -> str:
    """A path out of a description: as it is when absolute or a hub id, else relative to `folder` if it exists there."""
    local = (folder / path).resolve()
    return str(local) if not os.path.isabs(path) and local.exists() else path


def tokenizer_folder(folder: Path) -> str | Path:
    """Where the tokenizer and the config of the reward model in a folder are: with its base where it is an adapter."""
    description = folder / REWARD_FILE
    base = json.loads(description.read_text(encoding="utf-8")).get("base") if description.is_file() else None
    return resolve_path(base, folder) if base else folder


def critic_problem(policy: Mapping[str, int], reward: Mapping[str, int]) -> str | None:
    """A sentence if a critic that begins as the reward model would misread the policy's tokens; None if it would not.

    It is given token ids, where a reward model is given text. A vocabulary with more tokens than the policy's does.

    Args:
        policy, reward: token -> id, of the two tokenizers.
    """
    others = sorted((token for token, i in policy.items() if reward.get(token) != i), key=policy.__getitem__)
    if not others:
        return None
    there = f"number {reward[others[0]]}" if others[0] in reward else "missing"
    return (
        f"'reward' begins as the reward model, which would misread the policy's tokens: {len(others)} of {len(policy)} "
        f"tokens of the policy's tokenizer are others in the reward model's, which has {len(reward)} ({others[0]!r} is "
        f"number {policy[others[0]]} in the one and {there} in the other). Allowed here: shared, separate."
    )
