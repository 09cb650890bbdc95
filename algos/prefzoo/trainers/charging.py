"""What a training costs, charged alike for all trainers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from prefzoo.interface import Bench
from prefzoo.ledger import CHARGES, Ledger
from prefzoo.models.weight_counts import REFERENCE, weights_of

if TYPE_CHECKING:
    from transformers import Trainer


class Charging:
    """Keeps account of one training.

    Args:
        trainer, bench: built, and not begun.
        prompts: how many prompts an epoch takes up; 0 where that is charged otherwise.
        reference: how often a reference passes over the same tokens, forward only.
        extra_passes: how often the policy itself passes over them beside learning, forward only.
    """

    def __init__(
        self, trainer: Trainer, bench: Bench, prompts: int = 0, reference: int = 0, extra_passes: int = 0
    ) -> None:
        self.trainer, self.bench, self.prompts = trainer, bench, prompts
        self.reference, self.extra_passes = reference, extra_passes
        self.before = replace(bench.ledger)
        self.weights = weights_of(trainer.model)
        adapters = getattr(trainer.model, "peft_config", {})
        self.reference_weights = self.weights.passed if REFERENCE in adapters else self.weights.start

    def so_far(self) -> Ledger:
        """What the trial has used by now, in all processes together, each of which must ask at the same time."""
        ledger, state = replace(self.bench.ledger), self.trainer.state
        for name in CHARGES:  # each process has charged what it did itself
            before = getattr(self.before, name)
            own = torch.tensor(getattr(ledger, name) - before, dtype=torch.float64)
            total = self.trainer.accelerator.reduce(own.to(self.trainer.accelerator.device), "sum").item()
            setattr(ledger, name, type(before)(before + total))
        if self.trainer.args.include_num_input_tokens_seen != "no":  # else rollouts are charged as they are made
            tokens = int(state.num_input_tokens_seen)
            ledger.trained(tokens, self.weights.passed, self.weights.trained)
            ledger.forwarded(tokens * self.reference, self.reference_weights)
            ledger.forwarded(tokens * self.extra_passes, self.weights.passed)
        ledger.prompts += round(self.prompts * (state.epoch or 0.0))
        return ledger

    def settle(self) -> None:
        """Charge the bench, once the training has ended."""
        used = self.so_far()
        for name in CHARGES:
            setattr(self.bench.ledger, name, getattr(used, name))
