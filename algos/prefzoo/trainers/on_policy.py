"""Trainers that learn from their own samples with a reward for each token, on top of TRL's GRPOTrainer.

What is overridden of TRL: `_calculate_rewards` (to keep the scores), `_generate_and_score_completions` (to put
advantages of a token each in the place of GRPO's), `_compute_loss` (no KL term, for the KL is in the reward),
`_get_per_token_logps_and_entropies` (on a CPU alone; see `fused_head`). Sampling, the reference,
accumulation and the clipped policy loss stay TRL's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from trl import GRPOConfig, GRPOTrainer

from prefzoo.models.token_log_probabilities import plain_head, token_log_probabilities
from prefzoo.trainers import advantages as adv


@dataclass
class OnPolicyConfig(GRPOConfig):
    """GRPO's config, admitting one generation per prompt: the baseline is not the group's mean here."""

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
    """How a rollout's scores become rewards of tokens; see `prefzoo.zoo.ppo.PPO` for the meaning of each."""

    kl_coefficient: float
    kl_target: float | None
    kl_horizon: int
    kl_estimator: adv.KLEstimator
    whiten_rewards: bool
    whiten_advantages: bool


class OnPolicyTrainer(GRPOTrainer):
    """REINFORCE: a reply's score minus its KL, minus a moving average of what earlier replies had.

    Args:
        token_rewards: how scores become rewards.
        more: what `GRPOTrainer` takes; `args.beta` must be 0 exactly when the KL coefficient is.
    """

    beta: float

    def __init__(self, *, token_rewards: TokenRewards, **more: Any) -> None:
        super().__init__(**more)
        self.token_rewards = token_rewards
        self.controller = adv.KLController(
            token_rewards.kl_coefficient, token_rewards.kl_target, token_rewards.kl_horizon
        )
        self.average: tuple[float, int] = (0.0, 0)  # of all earlier replies, and their number
        self._scores: Tensor

    @property
    def kl_coefficient(self) -> float:
        """The KL coefficient now; a checkpoint puts it back."""
        return self.controller.coefficient

    @kl_coefficient.setter
    def kl_coefficient(self, value: float) -> None:
        self.controller.coefficient = value

    def _calculate_rewards(self, *args: Any, **more: Any) -> Tensor:
        self._scores = super()._calculate_rewards(*args, **more)  # (B over all processes, functions)
        return self._scores

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        settings = self.token_rewards
        batch = super()._generate_and_score_completions(inputs)
        mask = batch["completion_mask"]  # (B, T)
        first = self.accelerator.process_index * len(inputs)
        weights = self.reward_weights.to(mask.device)
        scores = (self._scores * weights).nansum(dim=1)[first : first + len(inputs)]  # (B,)
        ended = self._ended(batch["completion_ids"], mask)
        with torch.no_grad():
            # TRL leaves them out where a rollout is used once: then the loss takes its own, and ratios are 1.
            old = batch["old_per_token_logps"] if "old_per_token_logps" in batch else self._log_probabilities(batch)
            kl = adv.kl_per_token(old, batch.get("ref_per_token_logps", old), settings.kl_estimator) * mask
            rewards = adv.token_rewards(scores, kl, mask, self.kl_coefficient)
            if settings.whiten_rewards:
                rewards = adv.whiten(rewards, mask, shift_mean=False, total=self._total)
            batch |= self._advantages(batch, rewards, mask)
            if settings.whiten_advantages:
                batch["advantages"] = adv.whiten(batch["advantages"], mask, total=self._total)
        mean_kl = self.accelerator.gather(kl.sum(-1)).mean().item()
        self._note(kl=mean_kl, kl_coefficient=self.kl_coefficient, ended=ended.float().mean().item())
        self._note(score=scores.mean().item(), returns=(rewards * mask).sum(-1).mean().item())
        self.controller.update(mean_kl, len(self._scores))
        return batch

    def _advantages(self, batch: dict[str, Any], rewards: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Advantages (B, T), and whatever else the loss will need of this rollout."""
        totals = rewards.sum(-1)
        mean, seen = self.average
        everyone = self.accelerator.gather(totals)
        baseline = mean if seen else everyone.mean().item()
        count = seen + len(everyone)
        self.average = (mean + (everyone.mean().item() - mean) * len(everyone) / count, count)
        return {"advantages": (totals - baseline)[:, None] * mask}

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
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
        asked = (input_ids, attention_mask, logits_to_keep)
        head = None if self.accelerator.num_processes > 1 or self._entropy_bonus_enabled else plain_head(model)
        if head is None or any(value is not None and value is not False for value in more.values()):
            more |= {"batch_size": batch_size, "compute_entropy": compute_entropy}
            return super()._get_per_token_logps_and_entropies(model, *asked, **more)
        with self.accelerator.autocast():
            size = batch_size or len(input_ids)
            parts = [
                token_log_probabilities(model, head, ids, attention, logits_to_keep, self.temperature)
                for ids, attention in zip(input_ids.split(size), attention_mask.split(size), strict=True)
            ]
        logs, entropies = (torch.cat(each) for each in zip(*parts, strict=True))
        return logs, entropies if compute_entropy else None, None

    def _log_probabilities(self, batch: dict[str, Any]) -> Tensor:
        ids, attention = whole(batch)
        size = self.args.per_device_train_batch_size
        width = batch["completion_ids"].shape[1]
        return self._get_per_token_logps_and_entropies(self.model, ids, attention, width, batch_size=size)[0]

    def _ended(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Whether each reply ended by itself, (B,): a look at the completion only, at its last generated token."""
        last = ids.gather(1, (mask.long().sum(-1, keepdim=True) - 1).clamp(min=0))[:, 0]
        return torch.isin(last, torch.tensor(self.eos_token_ids, device=ids.device))

    def _total(self, own: Tensor) -> Tensor:
        """The sum over all processes."""
        return self.accelerator.reduce(own, "sum")

    def _note(self, **metrics: float) -> None:
        for name, value in metrics.items():
            self._metrics["train"][f"rollout/{name}"].append(value)


def whole(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Prompts and replies in one: token ids and attention mask, (B, P + T)."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    return ids, torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
