"""Which loss, of which frameworks call several by one name, a training on sampled replies has: for the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

CLIPPED = "clipped policy gradient"
BY_REPLY = "over the tokens of each reply, then over replies"
BY_STEP = "over all tokens of an optimizer step"
AVERAGED = {
    "grpo": BY_REPLY,
    "sapo": BY_REPLY,
    "dapo": BY_STEP,
    "cispo": BY_STEP,
    "vespo": BY_STEP,
    "bnpo": "over all tokens of a forward pass",
    "dr_grpo": "over replies, each the sum over its tokens divided by generation.max_new_tokens",
    "luspo": "over replies, each times its number of tokens",
}
"""TRL's `loss_type` -> what the loss is averaged over."""
ADVANTAGES = {
    "group": "reward less the mean of its group, divided by the group's standard deviation",
    "batch": "reward less the mean of its group, divided by the rollout's standard deviation",
    "none": "reward less the mean of its group",
}
"""TRL's `scale_rewards` -> what the advantage of a reply is."""
BESIDE = ("delta", "off_policy_mask_threshold", "mask_truncated_completions", "top_entropy_quantile")
"""Fields of TRL's config by which replies or tokens are left out of the loss, or clipped once more."""


def loss_facts(
    trainer_class: Any,
    config_class: Any,
    settings: Mapping[str, Any],
    updates: int,
    trainer_settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the loss is made of, in words and numbers.

    Args:
        trainer_class, config_class: what trains: TRL's GRPOTrainer or RLOOTrainer, or a subclass.
        settings: what the config is given; the rest are its defaults.
        updates: optimizer steps on each rollout.
        trainer_settings: what the trainer is given beside.
    """
    config: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(config_class)}
    config |= settings
    low, high = config["epsilon"], config["epsilon_high"] or config["epsilon"]
    clipped = f"clipped to {1 - low:g} .. {1 + high:g}" if low != float("inf") else "not clipped"
    on_tokens = getattr(trainer_class, "advantage_is", None)
    if "loss_type" in config:
        name = config["loss_type"]
        loss = f"TRL's {name}"
        ratio = "of a reply" if "sequence" in (config["importance_sampling_level"], name) else "of a token"
        scale = {True: "group", False: "none"}.get(config["scale_rewards"], config["scale_rewards"])
        averaged, advantages = AVERAGED.get(name, name), ADVANTAGES[scale]
        if config.get("multi_objective_aggregation") == "normalize_then_sum":
            advantages = f"{ADVANTAGES['group']}, and normalized again over the rollout"
        weighed = config["use_bias_correction_kl"]
        kl = "k3 of a token, in the loss" + ", times the probability ratio" * bool(weighed)
        if name == "cispo":
            clipped = f"a constant weight of at most {high:g}"
        elif name == "sapo":
            clipped = f"a sigmoid, temperatures {config['sapo_temperature_pos']:g}, {config['sapo_temperature_neg']:g}"
        elif name == "vespo":
            ratio, clipped = "of a reply", "a constant weight that fades away from 1"
    else:  # RLOOTrainer
        loss, ratio, averaged = CLIPPED, "of a reply", "over replies, each the sum over its tokens"
        advantages, kl = "reward less the mean of the others in its group", "k1 of a reply, in the reward"
    if on_tokens:
        loss, advantages = CLIPPED, on_tokens
        if trainer_settings.get("group_baseline"):
            advantages += ", after the mean of its group was taken off the score"
        kl = f"{trainer_settings['token_rewards'].kl_estimator} of a token, in the reward"
    decay = trainer_settings.get("reference_decay")
    reference = "the start" if decay is None else f"moving average of the policy, {decay:g} of itself a rollout"
    return {
        "loss": loss,
        "averaged": averaged,
        "advantage": advantages,
        "ratio": f"{ratio}, {clipped}" if updates > 1 else f"{ratio}, 1 throughout: a rollout is used in one step",
        "updates_a_rollout": updates,
        "kl": f"{config['beta']:g} x {kl}" if config["beta"] else "none",
        **({"reference": reference} if config["beta"] else {}),
        **({"entropy_bonus": config["entropy_coef"]} if config.get("entropy_coef") else {}),
        **{name: config[name] for name in BESIDE if config.get(name) not in (None, False, 1.0)},
    }
