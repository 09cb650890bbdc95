"""What holds for every trainer that samples its own replies, whatever it makes of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from prefzoo.models.position_ids import from_first_token


class Rollouts:
    """Mixed into TRL's trainers that sample: they pad prompts on the left and pass no positions on, and they sample and
    score with the dropout of training.

    What is sampled here, and its log-probabilities and values, are those of the policy itself, without the adapter's
    dropout (Huang et al. 2024, https://arxiv.org/abs/2403.17031, have none at all). The passes that are learned from
    have it, as in every other trainer; where a rollout is learned from more than once, its noise is in the ratios.
    """

    def __init__(self: Any, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for model in (self.model, self.ref_model):
            if model is not None:
                from_first_token(self.accelerator.unwrap_model(model))

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        with _without_dropout(self.model):
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        return batch


def sampling(trainer_class: Any) -> Any:
    """`trainer_class` with `Rollouts` mixed in, under its own name."""
    return type(trainer_class.__name__, (Rollouts, trainer_class), {})


@contextlib.contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """For a while, with all else as it is: TRL asks the model whether it is training."""
    active = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.training]
    for module in active:
        module.eval()
    try:
        yield
    finally:
        for module in active:
            module.train()
