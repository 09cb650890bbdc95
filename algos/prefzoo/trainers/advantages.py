"""The arithmetic of online algorithms: token rewards, advantages, whitening, the KL coefficient.

Shapes: B replies, T tokens; `mask` (B, T) is 1 on generated tokens, the end-of-sequence token included, 0 on padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k3"]


def kl_per_token(policy: Tensor, reference: Tensor, estimator: KLEstimator) -> Tensor:
    """Return an estimate of KL(policy || reference) at each sampled token, in nats, (B, T).

    Args:
        policy, reference: log-probabilities of the sampled tokens, (B, T).
        estimator: `k1`, the log-ratio: unbiased, of either sign; `k3`, exp(-log-ratio) - 1 + log-ratio: unbiased too,
            never negative (Schulman 2020, http://joschu.net/blog/kl-approx.html).
    """
    ratio = policy - reference
    return ratio if estimator == "k1" else torch.exp(-ratio) - 1 + ratio


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """Return the reward of each token, (B, T): -`coefficient` times its KL, and the reply's score at its last token.

    The last token is the end-of-sequence token of a reply that was ended, and the last generated one of a reply that
    was cut (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593).

    Args:
        scores: (B,), a reward a reply.
    """
    rewards = -coefficient * kl * mask
    last = mask.long().sum(-1, keepdim=True) - 1
    return rewards.scatter_add(1, last.clamp(min=0), scores[:, None] * (last >= 0))


def potential_rewards(potentials: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Return rewards of potential-based shaping (Ng et al. 1999), (B, T): gamma F(s_{t+1}) - F(s_t) for token t.

    Beyond a reply's last token F is 0. The sum of gamma^t times the rewards is then -F(s_0), whatever the reply.

    Args:
        potentials: (B, T); `potentials[:, t]` is F of the prompt and the tokens before t.
    """
    potentials = potentials * mask
    following = torch.cat([potentials[:, 1:], torch.zeros_like(potentials[:, :1])], dim=1)
    return (gamma * following - potentials) * mask


def returns_to_go(rewards: Tensor, mask: Tensor) -> Tensor:
    """Return what a reply still gets from each token on, that token's reward included, (B, T)."""
    return (rewards * mask).flip(-1).cumsum(-1).flip(-1) * mask


def less_group_mean(scores: Tensor, generations: int) -> Tensor:
    """Return scores less the mean of their group, (B,): of `generations` replies to one prompt, side by side."""
    groups = scores.view(-1, generations)
    return (groups - groups.mean(1, keepdim=True)).flatten()


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Compute generalized advantages (Schulman et al. 2016, https://arxiv.org/abs/1506.02438).

    With d_t = r_t + gamma V_{t+1} - V_t, the advantage is A_t = d_t + gamma lam A_{t+1}; beyond a reply's last token V
    and A are 0.

    Args:
        rewards, values: (B, T); `values[:, t]` is the value before token t is generated.
        gamma, lam: discount and trace decay, between 0 and 1.

    Returns:
        Advantages and returns (advantages + values), both (B, T), 0 where the mask is 0.
    """
    values = values * mask
    steps = rewards.shape[1]
    advantages = torch.zeros_like(rewards)
    later = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(steps)):
        following = values[:, t + 1] if t + 1 < steps else torch.zeros_like(later)
        delta = rewards[:, t] + gamma * following - values[:, t]
        later = (delta + gamma * lam * later) * mask[:, t]
        advantages[:, t] = later
    return advantages, (advantages + values) * mask


def whiten(
    values: Tensor, mask: Tensor, shift_mean: bool = True, total: Callable[[Tensor], Tensor] = lambda own: own
) -> Tensor:
    """Return `values` (B, T) with variance 1 over the masked tokens, 0 elsewhere; with mean 0 if `shift_mean` is on.

    Args:
        total: sums a tensor over all processes that hold a part of the rollout.
    """
    generated = values[mask.bool()].double()
    count, summed = total(torch.stack([torch.full_like(generated.sum(), generated.numel()), generated.sum()]))
    if count < 2:
        return values * mask
    mean = summed / count
    std = (total((generated - mean).square().sum()) / count + 1e-8).sqrt()
    centre = torch.zeros_like(mean) if shift_mean else mean
    return ((values - mean) / std + centre).to(values.dtype) * mask


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Return half the squared error of each token's value, (B, T): the larger one of that of the value, and of that of
    the value clipped to within `clip` of the one at rollout; None does not clip."""
    loss = (values - returns).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.maximum(loss, (near - returns).square())
    return 0.5 * loss


@dataclass
class KLController:
    """The KL coefficient: fixed, or moved so that the KL of a reply stays near a target (Ziegler et al. 2019, 2.2).

    Attributes:
        coefficient: its value now.
        target: KL in nats a reply to aim at; None keeps the coefficient fixed.
        horizon: replies over which the coefficient adapts; the paper uses 10,000.
    """

    coefficient: float
    target: float | None = None
    horizon: int = 10_000

    def update(self, kl: float, replies: int) -> None:
        """Take in the mean KL of `replies` replies: the proportional error, clipped to 0.2, times replies / horizon.

        That is one measurement, and counts as one horizon at most: the error is clipped so that none moves the
        coefficient by more than a fifth, and one of more than five horizons would turn its sign.
        """
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error * min(replies / self.horizon, 1.0)
