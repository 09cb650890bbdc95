"""REINFORCE, REINFORCE++ and PPO on top of TRL's GRPOTrainer: a reward for each token, its advantage, and the losses.

What is overridden of TRL: `_calculate_rewards` (to keep the scores), `_generate_and_score_completions` (to replace
GRPO's advantages by one for each token), `_compute_loss` (no KL term, for the KL is in the reward; the critic's loss;
on a CPU in parts, see `batch_parts`), `_get_per_token_logps_and_entropies` (on a CPU alone; see
`models.token_log_probabilities`). Sampling, the reference, gradient accumulation and the clipped policy loss,
-min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A) averaged over the tokens of an optimizer step, stay TRL's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from peft import PeftModel
from torch import Tensor, nn
from trl import GRPOConfig, GRPOTrainer

from prefzoo.models.token_log_probabilities import plain_head, token_log_probabilities
from prefzoo.trainers import advantages as adv
from prefzoo.trainers.batch_parts import join_metrics, parts_of
from prefzoo.trainers.critic import STATES, CriticModules
from prefzoo.trainers.divided_weights import as_forward_pass
from prefzoo.trainers.moving_reference import MovingReference
from prefzoo.trainers.rollouts import adapter_in_use, prompts_and_replies
from prefzoo.types import Prompt

Potential = Callable[[Sequence[Prompt], Sequence[Sequence[int]]], list[list[float]]]
"""Prompts and the token ids of a reply to each -> the potential before each token, as long as the reply."""


@dataclass
class OnPolicyConfig(GRPOConfig):
    """GRPO's config that admits one generation per prompt: the baseline is not the group's mean here."""

    num_generations: int = 1
    steps_per_generation: int | None = None

    def __post_init__(self) -> None:
        wanted = self.num_generations
        steps: int = self.steps_per_generation or self.gradient_accumulation_steps
        # A rollout twice as long, in pairs: passes GRPO's own minimum of two generations, whatever is in a rollout.
        self.num_generations, self.steps_per_generation = 2, 2 * steps
        super().__post_init__()
        self.num_generations, self.steps_per_generation = wanted, steps
        self.generation_batch_size //= 2
        if self.generation_batch_size % wanted:
            raise ValueError(f"{self.generation_batch_size} replies a rollout do not divide into groups of {wanted}")


@dataclass(frozen=True)
class TokenRewards:
    """How a rollout's scores become rewards and advantages of tokens.

    Attributes:
        kl_coefficient: weight of a token's KL in its reward; with `kl_target` its first value.
        kl_target, kl_horizon: of `advantages.KLController`.
        kl_estimator: of `advantages.kl_per_token`.
        whiten_rewards: scale token rewards to variance 1.
        whiten_advantages: scale advantages to mean 0 and variance 1.
    """

    kl_coefficient: float
    kl_target: float | None
    kl_horizon: int
    kl_estimator: adv.KLEstimator
    whiten_rewards: bool = False
    whiten_advantages: bool = False


@dataclass(frozen=True)
class CriticSettings:
    """What the critic estimates and how it learns.

    Attributes:
        gamma, lam: discount and trace decay of generalized advantage estimation.
        vf_coef: weight of the value loss.
        clip_value: how far a value may go from the one at rollout; None does not clip.
    """

    gamma: float
    lam: float
    vf_coef: float
    clip_value: float | None


class OnPolicyTrainer(MovingReference, GRPOTrainer):
    """REINFORCE: a reply's score minus its KL, minus a moving average of what earlier replies had.

    Args:
        token_rewards: how scores become rewards.
        potential: of potential-based shaping, which is added to the rewards; None adds none.
        more: what `GRPOTrainer` takes; `args.beta` must be 0 exactly when the KL coefficient is.
    """

    advantage_is: ClassVar[str] = "reward of the reply less its KL, minus the average of all replies before"
    """For the report."""
    beta: float
    gamma = 1.0
    start_states: list[tuple[Tensor, Tensor]] | None = None
    """Where something reads them: token ids (B, L) and states (B, T, H) of this rollout's passes of the start."""

    def __init__(self, *, token_rewards: TokenRewards, potential: Potential | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.token_rewards, self.potential = token_rewards, potential
        self.controller = adv.KLController(
            token_rewards.kl_coefficient, token_rewards.kl_target, token_rewards.kl_horizon
        )
        self.average: tuple[float, int] = (0.0, 0)  # of all earlier replies, and their number
        self._scores: Tensor

    @property
    def kl_coefficient(self) -> float:
        """Return the KL coefficient, which a checkpoint keeps and restores."""
        return self.controller.coefficient

    @kl_coefficient.setter
    def kl_coefficient(self, value: float) -> None:
        self.controller.coefficient = value

    def _calculate_rewards(self, *args: Any, **more: Any) -> Tensor:
        self._scores = super()._calculate_rewards(*args, **more)  # (B over all processes, functions)
        return self._scores

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        settings = self.token_rewards
        self.move_reference()
        batch = super()._generate_and_score_completions(inputs)
        mask = batch["completion_mask"]  # (B, T)
        first = self.accelerator.process_index * len(inputs)
        weights = self.reward_weights.to(mask.device)
        everyone = (self._scores * weights).nansum(dim=1)
        scores = everyone[first : first + len(inputs)]  # (B,)
        relative = self._relative(everyone)[first : first + len(inputs)]
        ended = self._ended(batch["completion_ids"], mask)
        with torch.no_grad():
            # TRL leaves them out where a rollout is used once: then the loss takes its own, and ratios are 1.
            old = batch["old_per_token_logps"] if "old_per_token_logps" in batch else self._log_probabilities(batch)
            kl = adv.kl_per_token(old, batch.get("ref_per_token_logps", old), settings.kl_estimator) * mask
            rewards = adv.token_rewards(relative, kl, mask, self.kl_coefficient)
            if self.potential is not None:
                potentials = self._potentials([row["prompt"] for row in inputs], batch["completion_ids"], mask)
                rewards = rewards + adv.potential_rewards(potentials, mask, self.gamma)
            if settings.whiten_rewards:
                rewards = adv.whiten(rewards, mask, shift_mean=False, total=self._total)
            batch |= self._advantages(batch, rewards, mask)
            if settings.whiten_advantages:
                batch["advantages"] = adv.whiten(batch["advantages"], mask, total=self._total)
        mean_kl = self.accelerator.gather(kl.sum(-1)).mean().item()
        self._record(kl=mean_kl, kl_coefficient=self.kl_coefficient, ended=ended.float().mean().item())
        self._record(score=scores.mean().item(), returns=(rewards * mask).sum(-1).mean().item())
        self.controller.update(mean_kl, len(self._scores))
        return batch

    def _relative(self, scores: Tensor) -> Tensor:
        """Return what the replies of all processes are scored by, (B,)."""
        return scores

    def _potentials(self, prompts: Sequence[Prompt], ids: Tensor, mask: Tensor) -> Tensor:
        """Return the potential before each token, (B, T)."""
        assert self.potential is not None
        replies = [row[:length] for row, length in zip(ids.tolist(), mask.sum(-1).tolist(), strict=True)]
        rows = [torch.tensor(row) for row in self.potential(prompts, replies)]
        return torch.stack([nn.functional.pad(row, (0, ids.shape[1] - len(row))) for row in rows]).to(ids.device)

    def _advantages(self, batch: dict[str, Any], rewards: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return advantages (B, T), and whatever else the loss needs of this rollout. Here they are the reply's total
        reward minus the average of all replies before it."""
        totals = rewards.sum(-1)
        mean, seen = self.average
        everyone = self.accelerator.gather(totals)
        baseline = mean if seen else everyone.mean().item()
        count = seen + len(everyone)
        self.average = (mean + (everyone.mean().item() - mean) * len(everyone) / count, count)
        return {"advantages": (totals - baseline)[:, None] * mask}

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Return the loss of a batch. Where it is divided into parts, all but the last have gone backward by then."""
        # "dapo" divides by the tokens of the step, so that the losses of parts add up to that of the whole.
        by_rows = self.loss_type == "dapo" and self.top_entropy_quantile == 1
        divided = torch.is_grad_enabled() and by_rows and self._own_head(model) is not None
        parts = parts_of(inputs) if divided else [inputs]
        metrics = self._metrics["train"]
        already = {name: len(values) for name, values in metrics.items()}
        *earlier, last = parts
        loss = torch.zeros((), device=last["completion_mask"].device)
        for part in earlier:
            of_part = self._loss(model, part)
            self.accelerator.backward(of_part)
            loss += of_part.detach()
        loss = loss + self._loss(model, last)
        if earlier:
            join_metrics(metrics, already, [part["completion_mask"].sum().item() for part in parts])
        return loss

    def _loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        beta = self.beta
        self.beta = 0.0  # the KL is in the reward already
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.beta = beta

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **more: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        inputs = (input_ids, attention_mask, logits_to_keep)
        head = self._own_head(model)
        if head is None or any(value is not None and value is not False for value in more.values()):
            more |= {"batch_size": batch_size, "compute_entropy": compute_entropy}
            return super()._get_per_token_logps_and_entropies(model, *inputs, **more)
        start = model is self.ref_model or (isinstance(model, PeftModel) and adapter_in_use(model) is None)
        by_start = start and not torch.is_grad_enabled()
        states = self.start_states if by_start else None
        with self.accelerator.autocast():
            size = batch_size or len(input_ids)
            parts = [
                token_log_probabilities(model, head, ids, attention, logits_to_keep, self.temperature, states)
                for ids, attention in zip(input_ids.split(size), attention_mask.split(size), strict=True)
            ]
        logs, entropies = (torch.cat(batches) for batches in zip(*parts, strict=True))
        return logs, entropies if compute_entropy else None, None

    def _own_head(self, model: nn.Module) -> nn.Linear | None:
        """Return the head whose logits are never all held; None where TRL's own pass is taken."""
        return None if self.accelerator.num_processes > 1 or self._entropy_bonus_enabled else plain_head(model)

    def _log_probabilities(self, batch: dict[str, Any]) -> Tensor:
        ids, attention = prompts_and_replies(batch)
        size = self.args.per_device_train_batch_size
        width = batch["completion_ids"].shape[1]
        return self._get_per_token_logps_and_entropies(self.model, ids, attention, width, batch_size=size)[0]

    def _ended(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return whether each reply ended by itself, (B,): whether its last generated token is an end of sequence."""
        last = ids.gather(1, (mask.long().sum(-1, keepdim=True) - 1).clamp(min=0))[:, 0]
        return torch.isin(last, torch.tensor(self.eos_token_ids, device=ids.device))

    def _total(self, own: Tensor) -> Tensor:
        """Return the sum over all processes."""
        return self.accelerator.reduce(own, "sum")

    def _record(self, **metrics: float) -> None:
        """Add to the means that are logged as `rollout/..`."""
        for name, value in metrics.items():
            self._metrics["train"][f"rollout/{name}"].append(value)


class ReturnTrainer(OnPolicyTrainer):
    """REINFORCE++: what a reply still gets from each token on, which `token_rewards` shall whiten.

    Args:
        group_baseline: whether the mean score of the replies to a prompt is taken off first.
    """

    advantage_is: ClassVar[str] = "reward from the token on less its KL, whitened over the rollout"

    def __init__(self, *, group_baseline: bool, **more: Any) -> None:
        super().__init__(**more)
        self.group_baseline = group_baseline

    def _relative(self, scores: Tensor) -> Tensor:
        return adv.less_group_mean(scores, self.num_generations) if self.group_baseline else scores

    def _advantages(self, batch: dict[str, Any], rewards: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"advantages": adv.returns_to_go(rewards, mask)}


class ActorCriticTrainer(CriticModules, OnPolicyTrainer):
    """PPO: generalized advantages from a critic, which shares the policy's base under an adapter of its own.

    The critic learns in a backward pass of its own, so that its activations are gone when the policy's are made.

    Args:
        critic: what it estimates and how it learns.
        value_model: a backbone of its own for the critic; None puts an adapter on the policy's base.
        value_head: weights (1, H) that its head begins with; None draws them.
        frozen: whether the critic is a head on the hidden states of the start, which are computed once a rollout, in
            the reference's pass where that is one of the start here. The start is `value_model`, if that is given.
    """

    advantage_is: ClassVar[str] = "generalized, from a critic"

    def __init__(
        self,
        *,
        critic: CriticSettings,
        value_model: nn.Module | None = None,
        value_head: Tensor | None = None,
        frozen: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.critic, self.gamma = critic, critic.gamma
        self.attach_critic(value_model, value_head, frozen)

    def _advantages(self, batch: dict[str, Any], rewards: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return generalized advantages, with the values and returns that the value loss needs."""
        size = self.args.per_device_train_batch_size
        kept: dict[str, Tensor] = {}
        if self._frozen:
            parts = [self.critic_states(_rows(batch, i, i + size)) for i in range(0, len(mask), size)]
            kept[STATES] = torch.cat(parts)
            batch = batch | kept
            if self.start_states:
                self.start_states = []
        with self._critic_on():
            rows = [_rows(batch, i, i + size) for i in range(0, len(mask), size)]
            parts = [as_forward_pass(self._valued, partial(self.values, part)) for part in rows]
        values = torch.cat(parts) * mask
        advantages, returns = adv.generalized_advantages(rewards, values, mask, self.critic.gamma, self.critic.lam)
        generated = mask.bool()
        spread = returns[generated].var(unbiased=False)
        unexplained = (returns - values)[generated].var(unbiased=False)
        self._record(
            value=values[generated].mean().item(), explained_variance=(1 - unexplained / (spread + 1e-8)).item()
        )
        return {"advantages": advantages, "returns": returns, "old_values": values, **kept}

    def _loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        if torch.is_grad_enabled():
            with self._critic_on():
                self.accelerator.backward(as_forward_pass(self._valued, lambda: self._value_loss(inputs)))
            self.average_critic_gradients()
        return super()._loss(model, inputs)

    def _value_loss(self, inputs: dict[str, Any]) -> Tensor:
        """Return `vf_coef` times the mean clipped value loss of the tokens of this optimizer step."""
        mask = inputs["completion_mask"]
        values = self.values(inputs)
        losses = adv.clipped_value_loss(values, inputs["old_values"], inputs["returns"], self.critic.clip_value) * mask
        # The same normalizer as the policy's loss: all tokens of one optimizer step count alike.
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        share = self.current_gradient_accumulation_steps / self.args.steps_per_generation
        loss = self.critic.vf_coef * losses.sum() / (tokens * share)
        self._metrics["train"]["value_loss"].append((losses.sum() / mask.sum().clamp(min=1)).item())
        return loss


def _rows(batch: dict[str, Any], begin: int, end: int) -> dict[str, Any]:
    return {k: v[begin:end] for k, v in batch.items() if isinstance(v, Tensor) and v.dim() > 1}
