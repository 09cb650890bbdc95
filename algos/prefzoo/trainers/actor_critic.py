"""PPO and its relatives: the trainer of `on_policy` with a critic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from prefzoo.models.position_ids import from_first_token
from prefzoo.models.weight_counts import BACKBONE, HEAD, VALUE
from prefzoo.trainers import advantages as adv
from prefzoo.trainers.on_policy import OnPolicyTrainer, whole


@dataclass(frozen=True)
class CriticSettings:
    """What the critic estimates and how it learns; see `prefzoo.zoo.ppo.PPO`."""

    gamma: float
    lam: float
    vf_coef: float
    clip_value: float | None


class ActorCriticTrainer(OnPolicyTrainer):
    """PPO: generalized advantages from a critic, which shares the policy's base under an adapter of its own.

    The critic learns in a backward pass of its own, so that its activations are gone when the policy's are made.

    Args:
        critic: what it estimates and how it learns.
        value_model: a backbone of its own for the critic; None puts an adapter on the policy's base.
        value_head: weights (1, H) that its head begins with; None draws them.
    """

    def __init__(
        self,
        *,
        critic: CriticSettings,
        value_model: nn.Module | None = None,
        value_head: Tensor | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.critic = critic
        model = self.model
        if value_model is None:
            if not isinstance(model, PeftModel):
                raise ValueError("a critic on the policy's base needs an adapter; give it a model of its own instead")
            model.add_adapter(VALUE, model.peft_config["default"])
            model.set_adapter("default")
            _thaw(model)
        else:
            model.add_module(BACKBONE, from_first_token(value_model))
        self._backbone = value_model
        hidden = model.config.get_text_config().hidden_size if value_head is None else value_head.shape[1]
        head = nn.Linear(hidden, 1)
        # Values begin small beside any reward (Huang et al. 2024, detail 7, for scalar heads).
        nn.init.normal_(head.weight, std=1 / (hidden + 1) ** 0.5)
        nn.init.zeros_(head.bias)
        if value_head is not None:
            head.weight.data.copy_(value_head)
        model.add_module(HEAD, head.to(self.accelerator.device))

    def train(self, *args: Any, **more: Any) -> Any:
        """As TRL trains; the critic is gone afterwards, so that what is saved is the policy alone."""
        output = super().train(*args, **more)
        self.remove_critic()
        return output

    def remove_critic(self) -> None:
        """Take the critic off the model."""
        if isinstance(self.model, PeftModel) and VALUE in self.model.peft_config:
            self.model.delete_adapter(VALUE)
        for name in (HEAD, BACKBONE):
            if hasattr(self.model, name):
                delattr(self.model, name)

    @contextlib.contextmanager
    def without_critic(self) -> Iterator[None]:
        """The critic's own modules are off the model for a while, so that the policy can be saved alone."""
        model = self.accelerator.unwrap_model(self.model)
        # In their order: the norm of all gradients is summed in it.
        own = {name: module for name, module in model.named_children() if name in (HEAD, BACKBONE)}
        for name in own:
            delattr(model, name)
        try:
            yield
        finally:
            for name, module in own.items():
                model.add_module(name, module)

    def values(self, batch: dict[str, Any]) -> Tensor:
        """What the critic expects from each token of the replies on, before that token is generated, (B, T)."""
        ids, attention = whole(batch)
        model = self.accelerator.unwrap_model(self.model)
        backbone = self._backbone if self._backbone is not None else model.get_base_model().base_model
        with self.accelerator.autocast():
            hidden = backbone(input_ids=ids, attention_mask=attention).last_hidden_state  # (B, P + T, H)
            width, head = batch["completion_ids"].shape[1], model.value_head
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
        if torch.is_grad_enabled():
            with self._critic_on():
                self.accelerator.backward(self._value_loss(inputs))
            self._average_critic()
        return super()._compute_loss(model, inputs)

    def _average_critic(self) -> None:
        """Over all processes, once a step: the critic's pass is not the one that the policy's wrapper watches over."""
        if self.accelerator.num_processes > 1 and self.accelerator.sync_gradients:
            model = self.accelerator.unwrap_model(self.model)
            for name, weight in model.named_parameters():
                if weight.grad is not None and (f".{VALUE}." in name or name.startswith((HEAD, BACKBONE))):
                    weight.grad.copy_(self.accelerator.reduce(weight.grad, "mean"))

    def _value_loss(self, inputs: dict[str, Any]) -> Tensor:
        mask = inputs["completion_mask"]
        values = self.values(inputs)
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
        if self._backbone is not None:
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


def _rows(batch: dict[str, Any], begin: int, end: int) -> dict[str, Any]:
    return {k: v[begin:end] for k, v in batch.items() if isinstance(v, Tensor) and v.dim() > 1}
