"""What a reward's folder holds, readable without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

REWARD_FILE = "reward.json"
"""Beside the weights of a reward model that was trained here: how they were read, and the base of an adapter."""


RewardLoss = Literal["bradley_terry", "regression", "plackett_luce", "logistic"]
"""What a reward model is trained by: pairs, ratings, rankings, replies that are liked or not."""


def resolve_path(path: str, folder: Path) -> str:
    """A path out of a description: as it is when absolute or a hub id, else relative to `folder` if it exists there."""
    local = (folder / path).resolve()
    return str(local) if not os.path.isabs(path) and local.exists() else path


def relative_path(path: str | Path, folder: Path) -> str:
    """A path on this disk as it is written into a description in `folder`, so that a run can be moved whole. Symbolic
    links are followed first: what is above a linked folder is not what is above the link."""
    return os.path.relpath(Path(path).resolve(), folder.resolve())


def tokenizer_folder(folder: Path) -> str | Path:
    """Where the tokenizer and the config of the reward model in a folder are: with its base where it is an adapter."""
    description = folder / REWARD_FILE
    base = json.loads(description.read_text(encoding="utf-8")).get("base") if description.is_file() else None
    return resolve_path(base, folder) if base else folder


POSITIVE = frozenset(
    ("label_1", "1", "positive", "pos", "good", "better", "chosen", "preferred", "accepted", "acceptable", "helpful")
)
"""Names of the label whose log-odds are the score of a classifier with two labels, in small letters."""


def reward_label(config: Mapping[str, Any]) -> int | None:
    """Which of two labels of a sequence-classification model is the good one; None where it has one label.

    Args:
        config: the content of its `config.json`.

    Raises:
        ValueError: when it cannot be a reward: there are more labels, they are not exclusive, or it is not known which
            is the good one.
    """
    names = {int(i): str(name) for i, name in (config.get("id2label") or {}).items()}
    count = len(names) or int(config.get("num_labels") or 2)  # transformers writes neither where there are two
    if count == 1:
        return None
    shown = ", ".join(repr(names[i]) for i in sorted(names)) or f"{count} without names"
    if count > 2:
        raise ValueError(f"has {count} labels ({shown}). Allowed: one, or two, of which one is the good one")
    if (kind := config.get("problem_type") or "single_label_classification") != "single_label_classification":
        raise ValueError(f"has two labels ({shown}) that are no alternatives (problem_type {kind!r})")
    good = [i for i, name in names.items() if name.lower() in POSITIVE] if names else [1]
    if len(good) != 1:
        raise ValueError(
            f"has two labels ({shown}), of which the good one is not known. Name it in id2label of its config.json; "
            f"known names: {', '.join(sorted(POSITIVE))}"
        )
    return good[0]


def given_problem(folder: Path) -> str | None:
    """What is wrong with a reward model in a folder that was trained elsewhere, as far as its `config.json` tells; None
    where nothing is."""
    if (folder / REWARD_FILE).is_file() or not folder.is_dir():
        return None
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            return "is an adapter that was trained elsewhere. Merge it into its base, and give the folder of the whole"
        return "is no model: there is no config.json in it"
    try:
        reward_label(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        return str(error)
    return None


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
