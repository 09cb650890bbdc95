"""A reference that follows the policy: the moving average of its weights (Xu et al. 2024,
https://arxiv.org/abs/2404.10719)."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from prefzoo.models.weight_counts import REFERENCE
from prefzoo.trainers.divided_weights import gathered, shared_as


class MovingReference:
    """Mixed into a trainer on TRL's GRPOTrainer: before each rollout but the first, the reference becomes `decay` times
    itself and the rest the policy.

    With an adapter the reference is an adapter beside it, which begins as the start; its factors are averaged, and not
    their product. A whole model is averaged into the copy that TRL keeps of the start.

    Args:
        reference_decay: between 0 and 1; None leaves the reference at the start.
        more: what the trainer takes.
    """

    def __init__(self: Any, *, reference_decay: float | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.reference_decay = reference_decay

    @property
    def reference_weights(self: Any) -> dict[str, Tensor] | None:
        """Return the weights of the reference where they move, for a checkpoint; None where they do not."""
        if self.reference_decay is None:
            return None
        return {name: gathered(reference).clone() for name, reference, _ in self._pairs()}

    @reference_weights.setter
    def reference_weights(self: Any, saved: dict[str, Tensor] | None) -> None:
        if saved is not None:
            for name, reference, _ in self._pairs():
                reference.data.copy_(shared_as(reference, saved[name]))

    def train(self: Any, *args: Any, **more: Any) -> Any:
        """Train as TRL does, and remove the reference's adapter afterwards."""
        output = super().train(*args, **more)  # type: ignore[misc]
        if self.reference_decay is not None and isinstance(self.model, PeftModel):
            self.model.delete_adapter(REFERENCE)
            self.model.set_adapter("default")
        return output

    @torch.no_grad()
    def move_reference(self: Any) -> None:
        """Let the reference follow; it begins as the start, before the first rollout, when the policy is whole."""
        if self.reference_decay is None:
            return
        pairs = self._pairs()
        if self.state.global_step > 0:
            for _, reference, policy in pairs:
                reference.lerp_(shared_as(reference, policy.to(reference.dtype)), 1 - self.reference_decay)

    def _pairs(self: Any) -> list[tuple[str, Tensor, Tensor]]:
        """Return the name of each weight that the reference has of its own, that weight, and the policy's."""
        model = self.accelerator.unwrap_model(self.model)
        if not isinstance(model, PeftModel):
            reference = self.accelerator.unwrap_model(self.ref_model)
            named = dict(model.named_parameters())
            return [(name, weight, named[name]) for name, weight in reference.named_parameters()]
        if REFERENCE not in model.peft_config:
            self._add_adapter(model)
        named = dict(model.named_parameters())
        own, policy = f".{REFERENCE}.", ".default."
        return [(name, weight, named[name.replace(own, policy)]) for name, weight in named.items() if own in name]

    def _add_adapter(self: Any, model: PeftModel) -> None:
        """Add one that changes nothing, with the first factors of the policy's, so that factors can be averaged."""
        with torch.random.fork_rng(range(torch.cuda.device_count())):  # what is sampled stays what it was
            model.add_adapter(REFERENCE, model.peft_config["default"])
        model.set_adapter("default")
        named = dict(model.named_parameters())
        for name, weight in named.items():
            if f".{REFERENCE}." in name:
                weight.requires_grad_(False)
                if "lora_A" in name or "lora_embedding_A" in name:
                    weight.data.copy_(gathered(named[name.replace(f".{REFERENCE}.", ".default.")]))
