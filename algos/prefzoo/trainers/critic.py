"""The critic's weights on the policy's model: where they are, and when they are used, trained and removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from prefzoo.models.position_ids import from_first_token
from prefzoo.models.score_head import backbone, hidden_width
from prefzoo.models.token_log_probabilities import states_before
from prefzoo.models.weight_counts import BACKBONE, HEAD, VALUE, weights_of
from prefzoo.trainers.divided_weights import as_forward_pass, is_divided, take_from_first
from prefzoo.trainers.rollouts import prompts_and_replies

STATES = "critic_states"
"""Of a rollout, where they do not change while it is learned from."""


class CriticModules:
    """Mixed into a trainer: a head on the hidden states of a backbone, which is the policy's base under an adapter of
    the critic's own, a model of its own, or the start, whose states do not change while a rollout is learned from."""

    start_states: list[tuple[Tensor, Tensor]] | None
    """Of the trainer."""

    def attach_critic(self: Any, value_model: nn.Module | None, value_head: Tensor | None, frozen: bool) -> None:
        """Add the critic to the trainer's model.

        Args:
            value_model: its backbone; None puts an adapter on the policy's base.
            value_head: weights (1, H) that its head begins with; None draws them.
            frozen: whether the backbone is the start, under a head of two layers: `value_model`, or where that is None
                the policy's base with its adapter off, or of a policy that is trained whole its reference.
        """
        model = self.model
        self._adapted, self._frozen, self._start = [], frozen, model
        if frozen and value_model is not None:
            model.add_module(BACKBONE, from_first_token(value_model.requires_grad_(False)))
        elif frozen:
            self.start_states = []
            if not isinstance(model, PeftModel):
                self._start = self.ref_model.requires_grad_(False)  # as is asked of a head whose pass keeps states
                value_model = backbone(self._start)
        elif value_model is None:
            if not isinstance(model, PeftModel):
                raise ValueError("a critic on the policy's base needs an adapter; give it a model of its own instead")
            model.add_adapter(VALUE, model.peft_config["default"])
            model.set_adapter("default")
            kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
            self._adapted = [module for module in model.modules() if isinstance(module, kinds)]
            self._train_own_adapter()  # peft freezes all adapters but the active one
        else:
            # It is trained whole, and in 16 bits most of its steps would be rounded away.
            model.add_module(BACKBONE, from_first_token(value_model.float()))
        self._backbone, self._valued = value_model, model
        hidden = hidden_width(model.config) if value_head is None else value_head.shape[1]
        head = nn.Linear(hidden, 1)
        # Values begin small beside any reward (Huang et al. 2024, detail 7, for scalar heads).
        nn.init.normal_(head.weight, std=1 / (hidden + 1) ** 0.5)
        nn.init.zeros_(head.bias)
        if value_head is not None:
            head.weight.data.copy_(value_head)
        layers = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), head) if frozen else head
        model.add_module(HEAD, layers.to(self.accelerator.device))
        if is_divided(self):
            take_from_first([*layers.parameters(), *self._own_adapter()])

    def train(self: Any, *args: Any, **more: Any) -> Any:
        """Train as TRL does, and remove the critic afterwards, so that what is saved is the policy alone."""
        output = super().train(*args, **more)  # type: ignore[misc]
        self.remove_critic()
        return output

    def remove_critic(self: Any) -> None:
        """Remove the critic's adapter, head and backbone from the model."""
        if isinstance(self.model, PeftModel) and VALUE in self.model.peft_config:
            self.model.delete_adapter(VALUE)
        for name in (HEAD, BACKBONE):
            if hasattr(self.model, name):
                delattr(self.model, name)

    def values(self: Any, batch: dict[str, Any]) -> Tensor:
        """Return what the critic expects from each token of the replies on, before that token is generated, (B, T)."""
        model = self._valued
        with self.accelerator.autocast():
            hidden = batch[STATES] if STATES in batch else self.critic_states(batch)
            head = model.value_head
            return head(hidden.to(next(head.parameters()).dtype))[..., 0].float()

    def critic_states(self: Any, batch: dict[str, Any]) -> Tensor:
        """Return what the head reads, (B, T, H): the last hidden state before each token of the replies."""
        ids, attention = prompts_and_replies(batch)
        model, width = self._valued, batch["completion_ids"].shape[1]
        read = self._backbone if self._backbone is not None else backbone(model)
        if not self._frozen:
            return states_before(read, ids, attention, width)
        for passed, states in self.start_states or ():
            if torch.equal(passed, ids):
                return states
        self.bench.ledger.forwarded(int(attention.sum()), weights_of(model).start)
        with torch.no_grad(), model.disable_adapter() if self._backbone is None else contextlib.nullcontext():
            return as_forward_pass(self._start, lambda: states_before(read, ids, attention, width))

    def average_critic_gradients(self: Any) -> None:
        """Average them over all processes, once a step: data parallel training averages those of the policy alone."""
        if self.accelerator.num_processes > 1 and self.accelerator.sync_gradients and not is_divided(self):
            for name, weight in self._valued.named_parameters():
                if weight.grad is not None and (f".{VALUE}." in name or name.startswith((HEAD, BACKBONE))):
                    weight.grad.copy_(self.accelerator.reduce(weight.grad, "mean"))

    @contextlib.contextmanager
    def _critic_on(self: Any) -> Iterator[None]:
        """Within this block the policy's base runs under the critic's adapter."""
        # `set_adapter` would look through all weights of the model, and freeze the policy's adapter.
        for layer in self._adapted:
            layer._active_adapter = [VALUE]
        self._train_own_adapter()  # peft has frozen it where adapters were off meanwhile, for the reference
        try:
            yield
        finally:
            for layer in self._adapted:
                layer._active_adapter = ["default"]

    def _train_own_adapter(self: Any) -> None:
        for weight in self._own_adapter():
            weight.requires_grad_(True)

    def _own_adapter(self: Any) -> Iterator[Tensor]:
        """Yield the weights of the critic's adapter, which are others once they are divided over processes."""
        for layer in self._adapted:
            for name, weight in layer.named_parameters():
                if f".{VALUE}." in name:
                    yield weight
