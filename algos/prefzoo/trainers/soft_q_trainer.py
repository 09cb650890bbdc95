"""Soft Q-learning on sampled replies: its targets, and the heads that learn them on the frozen start."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from trl import SFTConfig

from prefzoo.interface import Bench, Policy
from prefzoo.models.q_value_policy import Q_HEADS, SoftQPolicy
from prefzoo.models.score_head import backbone
from prefzoo.trainers.fitting import fit
from prefzoo.trainers.q_learning_trainer import QLearningTrainer


def soft_values(start_log_probabilities: Tensor, q: Tensor, kl_coefficient: float) -> Tensor:
    """V(s) = c * log sum over tokens a of start(a|s) * exp(Q(s, a) / c), (N,), with c the price of a nat of KL: the
    value of the best policy for these Q-values, its KL paid for.

    Args:
        start_log_probabilities: of each token under the start, (N, vocabulary), in nats.
        q: (N, vocabulary).
    """
    return kl_coefficient * torch.logsumexp(start_log_probabilities + q / kl_coefficient, dim=-1)


def soft_q_targets(
    values: Tensor, chosen: Tensor, rewards: Tensor, mask: Tensor, gamma: float, td_lambda: float
) -> Tensor:
    """What the Q-value of each token of each reply is drawn to, (B, T): the reward at the last token; before it gamma *
    (V + td_lambda * (the next token's target - its Q-value)), V and Q of the next state (Q(lambda) with expectations
    by the learned policy, Harutyunyan et al. 2016, https://arxiv.org/abs/1602.04951). An old reply is not taken for
    what the policy would write: what differs from the Q-values is passed on, not the reply's own return.

    Args:
        values: V of the state that each token is chosen in, (B, T).
        chosen: the Q-value of each token, (B, T).
        rewards: of each reply, (B,).
        mask: which positions are tokens of the reply, without gaps, (B, T).
    """
    following, targets = torch.zeros_like(rewards), torch.zeros_like(values)
    inside = torch.zeros_like(mask[:, 0])
    for t in reversed(range(mask.shape[1])):
        if t + 1 < mask.shape[1]:
            ahead = gamma * (values[:, t + 1] + td_lambda * (following - chosen[:, t + 1]))
            following = torch.where(inside, ahead, rewards)
        else:
            following = rewards
        targets[:, t], inside = following, mask[:, t]
    return targets * mask


class SoftQTrainer(QLearningTrainer):
    """Trains the heads of a `SoftQPolicy` by the settings of a `prefzoo.zoo.sac.SAC`; the language model stays the
    start."""

    reward_column: ClassVar[str] = "reward"

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        ours, ids = self.algorithm, inputs["input_ids"]
        mask = inputs["labels"][:, 1:] != -100  # (B, T): positions at which a token of the reply is chosen
        trained, states = self.accelerator.unwrap_model(model), list[Tensor]()
        hook = backbone(trained).register_forward_hook(lambda module, given, out: states.append(out.last_hidden_state))
        try:
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=inputs["attention_mask"], use_cache=False).logits
        finally:
            hook.remove()
        tokens, state = ids[:, 1:][mask][:, None], states[0][:, :-1][mask].float()
        heads = [getattr(trained, name) for name in Q_HEADS]
        with torch.no_grad():
            averaged, grid = self._target_q(heads, state), torch.zeros(2, *mask.shape, device=ids.device)
            start = torch.log_softmax(logits[:, :-1][mask].float(), dim=-1)
            grid[0][mask] = soft_values(start, averaged, ours.kl_coefficient)
            grid[1][mask] = averaged.gather(1, tokens)[:, 0]
            aim = soft_q_targets(*grid, inputs["rewards"].to(ids.device), mask, ours.gamma, ours.td_lambda)[mask]
        q = [head(state).float().gather(1, tokens)[:, 0] for head in heads]
        loss = self._means({"q": sum((each - aim).square() for each in q)}, mask, inputs)["q"]
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["values/q"].append(self.accelerator.gather(torch.minimum(*q).detach().mean()).mean().item())
        metrics["values/v"].append(self.accelerator.gather(grid[0][mask].mean()).mean().item())
        return (loss, None) if return_outputs else loss


def fit_soft_q_values(bench: Bench, algorithm: Any, rows: list[dict[str, Any]]) -> Policy:
    """Go on training the heads of `bench.latest`, or new ones on the start, on replies with a `reward` each."""
    trainer = type("SoftQTrainer", (SoftQTrainer,), {"algorithm": algorithm, "bench": bench})
    beta = {"decode_beta": 1 / algorithm.kl_coefficient}
    kind: dict[str, Any] = {"policy_kind": SoftQPolicy, "policy_settings": beta}
    policy: Policy = fit(bench, trainer, SFTConfig, rows, algorithm.trainer, **kind)
    return policy
