"""What holds for every trainer that samples its own replies, whatever it makes of them."""

from __future__ import annotations

from typing import Any

from prefzoo.policies.positions import from_first_token


class Rollouts:
    """Mixed into TRL's trainers that sample: they pad prompts on the left, and pass no positions on."""

    def __init__(self: Any, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for model in (self.model, self.ref_model):
            if model is not None:
                from_first_token(self.accelerator.unwrap_model(model))


def sampling(trainer_class: Any) -> Any:
    """`trainer_class` with `Rollouts` mixed in, under its own name."""
    return type(trainer_class.__name__, (Rollouts, trainer_class), {})
