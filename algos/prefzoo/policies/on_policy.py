"""Trainers that learn from their own samples with a reward for each token, on top of TRL's GRPOTrainer.

What is overridden of TRL: `_calculate_rewards` (to keep the scores), `_generate_and_score_completions` (to put
advantages of a token each in the place of GRPO's), `_compute_loss` (no KL term, for the KL is in the reward; the critic
learns beside), `_get_per_token_logps_and_entropies` (on a CPU alone; see `fused_head`). Sampling, the reference,
accumulation and the clipped policy loss stay TRL's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from trl import GRPOConfig, GRPOTrainer

from prefzoo.policies import advantages as adv
from prefzoo.policies.fused_head import plain_head, token_log_probabilities

VALUE = "value"
"""Name of the critic's adapter on the shared base."""


@dataclass
class OnPolicyConfig(GRPOConfig):
    """GRPO's config, admitting one generation per prompt: the baseline is not the group's mean here."""

    num_generations: int = 1

    def __post_init__(self) -> None:
        wanted = self.num_generations
        # Divides every generation batch, whatever the number of processes, so that only GRPO's own minimum is passed.
        self.num_generations = self.per_device_train_batch_size * (self.steps_per_generation or 1)
        super().__post_init__()
        self.num_generations = wanted
        if self.generation_batch_size % wanted:
            raise ValueError(f"{self.generation_batch_size} replies a rollout do not divide into groups of {wanted}")


@dataclass(frozen=True)
class TokenRewards:
    """How a rollout's scores become rewards of tokens; see `prefzoo.zoo.ppo.PPO` for the meaning of each."""

    kl_coefficient: float
    kl_target: float | None
    kl_horizon: int
    kl_estimator: adv.KLEstimator
    missing_eos_penalty: float
    whiten_rewards: bool
    whiten_advantages: bool


@dataclass(frozen=True)
class CriticSettings:
    """What the critic estimates and how it learns; see `prefzoo.zoo.ppo.PPO`."""

    gamma: float
    lam: float
    vf_coef: float
    clip_value: float | None


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
        scores = scores - settings.missing_eos_penalty * (~ended).float()
        with torch.no_grad():
            if "old_per_token_logps" not in batch:  # TRL leaves them out where a rollout is used once
                batch["old_per_token_logps"] = self._log_probabilities(batch)
            old = batch["old_per_token_logps"]
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
        ids, attention = _whole(batch)
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


class ActorCriticTrainer(OnPolicyTrainer):
    """PPO: generalized advantages from a critic, which shares the policy's base under an adapter of its own.

    The critic learns in a backward pass of its own, so that its activations are gone when the policy's are made;
    one that reads the policy's hidden states learns in the policy's.

    Args:
        critic: what it estimates and how it learns.
        value_model: a backbone of its own for the critic; None puts an adapter on the policy's base.
        reads_policy: the critic is a head on the policy's last hidden states, with no weights below it of its own.
        value_head: weights (1, H) that its head begins with; None draws them.
    """

    def __init__(
        self,
        *,
        critic: CriticSettings,
        value_model: nn.Module | None = None,
        reads_policy: bool = False,
        value_head: Tensor | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.critic = critic
        self._reads_policy = reads_policy
        model = self.model
        if value_model is None and not reads_policy:
            if not isinstance(model, PeftModel):
                raise ValueError("a critic on the policy's base needs an adapter; give it a model of its own instead")
            model.add_adapter(VALUE, model.peft_config["default"])
            model.set_adapter("default")
            _thaw(model)
        elif value_model is not None:
            model.add_module("value_backbone", value_model)
        self._backbone = value_model
        hidden = model.config.get_text_config().hidden_size if value_head is None else value_head.shape[1]
        head = nn.Linear(hidden, 1)
        # Values begin small beside any reward (Huang et al. 2024, detail 7, for scalar heads).
        nn.init.normal_(head.weight, std=1 / (hidden + 1) ** 0.5)
        nn.init.zeros_(head.bias)
        if value_head is not None:
            head.weight.data.copy_(value_head)
        model.add_module("value_head", head.to(self.accelerator.device))

    def train(self, *args: Any, **more: Any) -> Any:
        """As TRL trains; the critic is gone afterwards, so that what is saved is the policy alone."""
        output = super().train(*args, **more)
        self.remove_critic()
        return output

    def remove_critic(self) -> None:
        """Take the critic off the model."""
        if isinstance(self.model, PeftModel) and VALUE in self.model.peft_config:
            self.model.delete_adapter(VALUE)
        for name in ("value_head", "value_backbone"):
            if hasattr(self.model, name):
                delattr(self.model, name)

    def values(self, batch: dict[str, Any]) -> Tensor:
        """What the critic expects from each token of the replies on, before that token is generated, (B, T)."""
        ids, attention = _whole(batch)
        backbone = self._backbone if self._backbone is not None else self._policy_backbone()
        with self.accelerator.autocast():
            hidden = backbone(input_ids=ids, attention_mask=attention).last_hidden_state  # (B, P + T, H)
            return self._read(hidden, batch["completion_ids"].shape[1])

    def _policy_backbone(self) -> nn.Module:
        model = self.accelerator.unwrap_model(self.model)
        return (model.get_base_model() if isinstance(model, PeftModel) else model).base_model

    def _read(self, hidden: Tensor, width: int) -> Tensor:
        """The head's values before each of the last `width` tokens, (B, width)."""
        head = self.accelerator.unwrap_model(self.model).value_head
        return head(hidden[:, -width - 1 : -1].to(head.weight.dtype))[..., 0].float()

    def _advantages(self, batch: dict[str, Any], rewards: Tensor, mask: Tensor) -> dict[str, Tensor]:
        size = self.args.per_device_train_batch_size
        with self._critic_on():
            parts = [self.values(_rows(batch, i, i + size)) for i in range(0, len(mask), size)]
        values = torch.cat(parts) * mask
        advantages, returns = adv.generalized_advantages(rewards, values, mask, self.critic.gamma, self.critic.lam)
        kept = mask.bool()
        spread = returns[kept].var(unbiased=False)
        unexplained = (returns - values)[kept].var(unbiased=False)
        self._note(value=values[kept].mean().item(), explained_variance=(1 - unexplained / (spread + 1e-8)).item())
        return {"advantages": advantages, "returns": returns, "old_values": values}

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        if self._reads_policy:
            seen: list[Tensor] = []
            watch = self._policy_backbone().register_forward_hook(lambda *args: seen.append(args[2].last_hidden_state))
            try:
                loss = super()._compute_loss(model, inputs)
            finally:
                watch.remove()
            return loss + self._value_loss(inputs, self._read(seen[-1], inputs["completion_ids"].shape[1]))
        if torch.is_grad_enabled():
            with self._critic_on():
                self.accelerator.backward(self._value_loss(inputs, self.values(inputs)))
            self._average_critic()
        return super()._compute_loss(model, inputs)

    def _average_critic(self) -> None:
        """Over all processes, once a step: the critic's pass is not the one that the policy's wrapper watches over."""
        if self.accelerator.num_processes > 1 and self.accelerator.sync_gradients:
            model = self.accelerator.unwrap_model(self.model)
            for name, weight in model.named_parameters():
                if weight.grad is not None and (f".{VALUE}." in name or name.startswith("value_")):
                    weight.grad.copy_(self.accelerator.reduce(weight.grad, "mean"))

    def _value_loss(self, inputs: dict[str, Any], values: Tensor) -> Tensor:
        mask = inputs["completion_mask"]
        each = adv.clipped_value_loss(values, inputs["old_values"], inputs["returns"], self.critic.clip_value) * mask
        # The same normalizer as the policy's loss: all tokens of one optimizer step count alike.
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        share = self.current_gradient_accumulation_steps / self.args.steps_per_generation
        loss = self.critic.vf_coef * each.sum() / (tokens * share)
        self._metrics["train"]["value_loss"].append((each.sum() / mask.sum().clamp(min=1)).item())
        return loss

    @contextlib.contextmanager
    def _critic_on(self) -> Iterator[None]:
        model = self.accelerator.unwrap_model(self.model)
        if self._backbone is not None or self._reads_policy:
            yield
            return
        model.set_adapter(VALUE)
        try:
            yield
        finally:
            model.set_adapter("default")
            _thaw(model)


def _thaw(model: nn.Module) -> None:
    """peft freezes every adapter but the active one; policy and critic are both trained."""
    for name, weight in model.named_parameters():
        if f".{VALUE}." in name:
            weight.requires_grad_(True)


def _whole(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Prompts and replies in one: token ids and attention mask, (B, P + T)."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    return ids, torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)


def _rows(batch: dict[str, Any], begin: int, end: int) -> dict[str, Any]:
    return {k: v[begin:end] for k, v in batch.items() if isinstance(v, Tensor) and v.dim() > 1}
