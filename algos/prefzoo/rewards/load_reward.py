"""Rewards by description: a trained model, a function of the user's, noise, and combinations of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefzoo.rewards.combined import Ensemble, WeightedSum
from prefzoo.rewards.random_reward import RandomReward
from prefzoo.rewards.reward_files import resolve_path
from prefzoo.scoring_function import FunctionReward
from prefzoo.types import Reward


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
        from prefzoo.rewards.judge_reward import load_judge_reward

        return load_judge_reward(spec, folder)
    from prefzoo.rewards.reward_model import RewardModel

    return RewardModel.load(resolve_path(spec["path"], folder))
