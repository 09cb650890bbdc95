"""What every trainer that samples its own replies needs: positions under left padding, sampling without dropout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.models.batch_invariance import check_left_padding
from prefzoo.models.decoding import fast_generate
from prefzoo.models.position_ids import from_first_token
from prefzoo.models.weight_counts import is_finite
from prefzoo.trainers.vllm_rollouts import VllmRollouts, correct
from prefzoo.validation_messages import diverged


class Rollouts:
    """Mixed into TRL's trainers that sample: they pad prompts on the left and pass no positions on, and they sample and
    score with the dropout of training.

    What is sampled here, and its log-probabilities and values, are those of the policy itself, without the adapter's
    dropout (Huang et al. 2024, https://arxiv.org/abs/2403.17031, have none at all). The passes that are learned from
    have it, as in every other trainer; where a rollout is learned from more than once, its noise is in the ratios.
    """

    bench: ClassVar[Bench]

    def __init__(self: Any, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for model in (self.model, self.ref_model):
            if model is not None:
                from_first_token(self.accelerator.unwrap_model(model))
        check_left_padding(self.accelerator.unwrap_model(self.model))
        if self.bench.generation.engine == "vllm":  # what TRL would set, but for the environment that it asks for
            self.use_vllm, self.vllm_mode, self._last_loaded_step = True, "server", -1
            self.vllm_generation = VllmRollouts(self, self.bench)

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not is_finite(self.model):  # to sample from it would end the process on a GPU
            raise PrefzooError(diverged(f"weights are not finite after step {self.state.global_step}"))
        # Where weights are spread over processes, all must take every step together.
        whole = not (self.is_deepspeed_enabled or self.is_fsdp_enabled)
        fast = fast_generate(self.accelerator.unwrap_model(self.model), noise=True) if whole else nullcontext()
        with _without_dropout(self.model), fast:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        if self.bench.generation.engine == "vllm":
            correct(self, batch, self.bench)
        return batch


def with_rollouts(trainer_class: Any, bench: Bench) -> Any:
    """Return `trainer_class` with `Rollouts` mixed in, under its own name."""
    return type(trainer_class.__name__, (Rollouts, trainer_class), {"bench": bench})


def prompts_and_replies(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask of a rollout's prompts and replies in one, both (B, P + T)."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    return ids, torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)


@contextlib.contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Turn off dropout layers alone: TRL asks the model whether it is training, which must stay true."""
    active = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.training]
    for module in active:
        module.eval()
    try:
        yield
    finally:
        for module in active:
            module.train()
