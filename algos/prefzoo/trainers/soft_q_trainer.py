"""Soft actor-critic on sampled replies: the targets of Q-values, and the actor that follows them."""

from __future__ import annotations

import contextlib
import shutil
from typing import Any, ClassVar

import torch
from accelerate import PartialState
from torch import Tensor
from trl import SFTConfig

from prefzoo.interface import Bench, Policy, is_first_process
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import count_parameters
from prefzoo.models.q_value_policy import Q_HEADS, SoftQPolicy
from prefzoo.models.score_head import backbone
from prefzoo.trainers.divided_weights import divided_model, is_divided
from prefzoo.trainers.fitting import fit
from prefzoo.trainers.q_learning_trainer import QLearningTrainer


def soft_values(actor: Tensor, start: Tensor, q: Tensor, kl_coefficient: float) -> Tensor:
    """V(s) = sum over tokens a of actor(a|s) * (Q(s, a) - kl_coefficient * (log actor(a|s) - log start(a|s))), (N,):
    what the actor gets in a state, its KL to the start paid for. The sum is exact.

    Args:
        actor, start: log-probabilities of each token, (N, vocabulary), in nats.
        q: (N, vocabulary).
    """
    return (actor.exp() * (q - kl_coefficient * (actor - start))).sum(-1)


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
    """Trains actor and Q heads of a `SoftQPolicy` by the settings of a `prefzoo.zoo.sac.SAC`.

    The heads read the last hidden states of the start, which also gives the distribution that KL is measured to. Each
    loss is the mean over the tokens of a reply, and then over replies.

    Attributes:
        start_model: the start, where the actor is fully tuned; with an adapter, the model with that off.
    """

    reward_column: ClassVar[str] = "reward"
    start_model: Any = None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        ours, ids = self.algorithm, inputs["input_ids"]
        mask = inputs["labels"][:, 1:] != -100  # (B, T): positions at which a token of the reply is chosen
        passed = {"input_ids": ids, "attention_mask": inputs["attention_mask"], "use_cache": False}
        actor = torch.log_softmax(model(**passed).logits[:, :-1][mask].float(), dim=-1)
        trained, tokens = self.accelerator.unwrap_model(model), ids[:, 1:][mask][:, None]
        start, state = self._start(trained, passed, mask)
        heads = [getattr(trained, name) for name in Q_HEADS]
        with torch.no_grad():
            averaged, grid = self._target_q(heads, state), torch.zeros(2, *mask.shape, device=ids.device)
            grid[0][mask] = soft_values(actor, start, averaged, ours.kl_coefficient)
            grid[1][mask] = averaged.gather(1, tokens)[:, 0]
            rewards = inputs["rewards"].to(ids.device)
            aim = soft_q_targets(grid[0], grid[1], rewards, mask, ours.gamma, ours.td_lambda)[mask]
        both = [head(state).float() for head in heads]
        q = [each.gather(1, tokens)[:, 0] for each in both]
        losses = {
            "q": sum((each - aim).square() for each in q),
            "actor": -soft_values(actor, start, torch.minimum(*both).detach(), ours.kl_coefficient),
        }
        loss = sum(self._means(losses, mask, inputs).values())
        self.bench.ledger.flops += 6.0 * sum(map(count_parameters, heads)) * len(state)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["values/q"].append(self.accelerator.gather(torch.minimum(*q).detach().mean()).mean().item())
        metrics["values/v"].append(self.accelerator.gather(grid[0][mask].mean()).mean().item())
        return (loss, None) if return_outputs else loss

    @torch.no_grad()
    def _start(self, trained: Any, passed: dict[str, Any], mask: Tensor) -> tuple[Tensor, Tensor]:
        """The start's log-probabilities, (N, vocabulary), and its last hidden states, (N, H), at each of N tokens."""
        adapted, states = hasattr(trained, "disable_adapter"), list[Tensor]()
        if not adapted and self.start_model is None:
            model = LanguageModelPolicy.start_of(self.bench).model.eval()
            self.start_model = divided_model(model) if is_divided(self) else model
        start = trained if adapted else self.start_model
        hook = backbone(start).register_forward_hook(lambda module, given, out: states.append(out.last_hidden_state))
        try:
            with trained.disable_adapter() if adapted else contextlib.nullcontext():
                logits = start(**passed).logits
        finally:
            hook.remove()
        return torch.log_softmax(logits[:, :-1][mask].float(), dim=-1), states[0][:, :-1][mask].float()


def fit_soft_q_values(bench: Bench, algorithm: Any, rows: list[dict[str, Any]]) -> Policy:
    """Go on training actor and Q heads of `bench.latest`, or begin at the start, on replies with a `reward` each."""
    trainer = type("SoftQTrainer", (SoftQTrainer,), {"algorithm": algorithm, "bench": bench})
    kind: dict[str, Any] = {"policy_kind": SoftQPolicy, "divisible": True}
    policy: Policy = fit(bench, trainer, SFTConfig, rows, algorithm.trainer, reference=1, **kind)
    return policy


def keep_actor(bench: Bench, policy: Any) -> LanguageModelPolicy:
    """Save the actor of a `SoftQPolicy` as the trial's policy, without the Q heads, and return it."""
    actor: LanguageModelPolicy = policy.policy
    PartialState().wait_for_everyone()  # others may still read what is replaced
    if is_first_process():
        shutil.rmtree(bench.out / "policy")
        actor.save(bench.out / "policy")
    PartialState().wait_for_everyone()
    return actor
