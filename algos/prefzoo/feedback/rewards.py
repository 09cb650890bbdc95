"""Rewards by description: a trained model, a function of the user's, noise, and combinations of them."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from prefzoo.errors import PrefzooError, unknown
from prefzoo.feedback.combined import Ensemble, WeightedSum
from prefzoo.interface import Prompt, Reward

REWARD_FILE = "reward.json"
"""Beside the weights of a reward model that was trained here: how they were read, and the base of an adapter."""

RewardLoss = Literal["bradley_terry", "regression", "plackett_luce"]
"""What a reward model is trained by: pairs, ratings, rankings."""


class FunctionReward:
    """A Python function `(prompts, completions) -> scores` from a file, as `FILE.py:NAME`.

    `prompts` are lists of messages, `completions` texts; one number each comes back.
    """

    def __init__(self, path: str, key: str = "reward.path") -> None:
        self.path = path
        self.function = load_function(path, key)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        try:
            scores = [float(score) for score in self.function(list(prompts), list(completions))]
        except Exception as error:  # the user's own function may raise anything
            raise PrefzooError(f"{self.path} raised {type(error).__name__}: {error}") from error
        if len(scores) != len(completions):
            raise PrefzooError(f"{self.path} returned {len(scores)} scores for {len(completions)} completions")
        if bad := [i for i, score in enumerate(scores) if not math.isfinite(score)]:
            raise PrefzooError(f"{self.path} returned {scores[bad[0]]} for the completion {completions[bad[0]]!r}")
        return scores

    def spec(self, folder: Path) -> dict[str, Any]:
        return {"type": "function", "path": self.path}


class RandomReward:
    """A negative control: noise that depends on the text and the seed, and on nothing that could be learned."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        return [self._noise(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]

    def _noise(self, prompt: Prompt, text: str) -> float:
        digest = hashlib.sha256(repr((self.seed, [turn["content"] for turn in prompt], text)).encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def spec(self, folder: Path) -> dict[str, Any]:
        return {"type": "random", "seed": self.seed}


def load_reward(spec: dict[str, Any], folder: Path) -> Reward:
    """The reward that a `spec` describes."""
    if spec["type"] == "function":
        return FunctionReward(spec["path"])
    if spec["type"] == "random":
        return RandomReward(spec["seed"])
    if spec["type"] == "sum":
        return WeightedSum([load_reward(part, folder) for part in spec["of"]], spec["weights"])
    if spec["type"] == "ensemble":
        members = [load_reward(member, folder) for member in spec["members"]]
        return Ensemble(members, spec["combine"], spec["std_weight"])
    if spec["type"] == "judge":
        from prefzoo.feedback.judge_reward import load_judge_reward

        return load_judge_reward(spec, folder)
    from prefzoo.feedback.reward_model import RewardModel

    return RewardModel.load(resolve_path(spec["path"], folder))


def resolve_path(path: str, folder: Path) -> str:
    """A noted path: as it is when absolute or a hub id, else relative to `folder` if it exists there."""
    beside = (folder / path).resolve()
    return str(beside) if not os.path.isabs(path) and beside.exists() else path


def tokenizer_folder(folder: Path) -> str | Path:
    """Where the tokenizer and the config of the reward model in a folder are: with its base where it is an adapter."""
    noted = folder / REWARD_FILE
    base = json.loads(noted.read_text(encoding="utf-8")).get("base") if noted.is_file() else None
    return resolve_path(base, folder) if base else folder


def critic_problem(policy: Mapping[str, int], reward: Mapping[str, int]) -> str | None:
    """A sentence if a critic that begins as the reward model would misread the policy's tokens; None if it would not.

    It is given token ids, where a reward model is given text. A vocabulary with more tokens than the policy's does.

    Args:
        policy, reward: token -> id, of the two tokenizers.
    """
    apart = sorted((token for token, i in policy.items() if reward.get(token) != i), key=policy.__getitem__)
    if not apart:
        return None
    there = f"number {reward[apart[0]]}" if apart[0] in reward else "missing"
    return (
        f"'reward' begins as the reward model, which would misread the policy's tokens: {len(apart)} of {len(policy)} "
        f"tokens of the policy's tokenizer are others in the reward model's, which has {len(reward)} ({apart[0]!r} is "
        f"number {policy[apart[0]]} in the one and {there} in the other). Allowed here: shared, separate."
    )


def function_problem(path: str) -> str | None:
    """A sentence if `path` does not name a function as `FILE.py:NAME`; None if it does. Runs nothing."""
    file, _, name = path.rpartition(":")
    location = Path(file).expanduser()
    if not file.endswith(".py") or not name:
        return f"{path!r} does not name a function as FILE.py:NAME"
    if not location.is_file():
        return f"{path!r} does not name a function as FILE.py:NAME: there is no file {file!r}"
    try:
        tree = ast.parse(location.read_text(encoding="utf-8"))
    except SyntaxError as error:
        return f"{file} is not Python: {error.msg} in line {error.lineno}"
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    names += [
        t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    ]
    return None if name in names else f"{unknown('function', name, names)} (in {file})"


def load_function(path: str, key: str) -> Callable[..., Any]:
    """The function behind `FILE.py:NAME`.

    Raises:
        PrefzooError: when the file or the name does not exist, naming `key`, the value and the nearest name.
    """
    if problem := function_problem(path):
        raise PrefzooError(f"{key}: {problem}")
    file, _, name = path.rpartition(":")
    location = Path(file).expanduser().resolve()
    spec = importlib.util.spec_from_file_location(f"prefzoo_user_{location.stem}", location)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name)
    if not callable(found):
        raise PrefzooError(f"{key}: {path!r} is no function, but {found!r}")
    return found
