"""What every trainer that samples its own replies needs: positions under left padding, sampling without dropout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.models.batch_invariance import check_left_padding
from prefzoo.models.decoding import fast_generate
from prefzoo.models.position_ids import from_first_token
from prefzoo.models.weight_counts import weights_of
from prefzoo.trainers.divided_weights import all_finite, references_by_blocks, whole_weights
from prefzoo.trainers.vllm_rollouts import VllmRollouts, correct
from prefzoo.validation_messages import diverged


class Rollouts:
    """Mixed into TRL's trainers that sample: they pad prompts on the left and pass no positions on, and they sample and
    score with the dropout of training.

    What is sampled here, and its log-probabilities and values, are those of the policy itself, without the adapter's
    dropout (Huang et al. 2024, https://arxiv.org/abs/2403.17031, have none at all). The passes that are learned from
    have it, as in every other trainer; where a rollout is learned from more than once, its noise is in the ratios.

    In float32 the log-probabilities of a reply are those that its tokens were drawn with, which are the policy's to
    rounding. Otherwise, and where something else sampled, the policy passes over the rollout for them.
    """

    bench: ClassVar[Bench]
    _drawn: list[tuple[Tensor, Tensor]] | None = None
    """Of the rollout that is being made, what `fast_generate` gives."""

    def __init__(self: Any, *args: Any, **more: Any) -> None:
        with references_by_blocks():
            super().__init__(*args, **more)
        for model in (self.model, self.ref_model):
            if model is not None:
                from_first_token(self.accelerator.unwrap_model(model))
        check_left_padding(self.accelerator.unwrap_model(self.model))
        if self.bench.generation.engine == "vllm":  # what TRL would set, but for the environment that it asks for
            self.use_vllm, self.vllm_mode, self._last_loaded_step = True, "server", -1
            self.vllm_generation = VllmRollouts(self, self.bench)

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not all_finite(self):  # to sample from it would end the process on a GPU
            raise PrefzooError(diverged(f"weights are not finite after step {self.state.global_step}"))
        self._drawn, model = [], self.accelerator.unwrap_model(self.model)
        fast = fast_generate(model, noise=True, drawn=self._drawn)
        with whole_weights(self), _without_dropout(self.model), fast:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        self._drawn = None
        if self.bench.generation.engine == "vllm":
            correct(self, batch, self.bench)
        return batch

    def _get_per_token_logps_and_entropies(
        self: Any,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,
        **more: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        inputs = (input_ids, attention_mask, logits_to_keep)
        trained = "default" if isinstance(model, PeftModel) else None
        of_policy = model is self.model and adapter_in_use(model) == trained
        if self._drawn is not None and of_policy and not torch.is_grad_enabled():
            if (logs := self._as_drawn(*inputs)) is not None:
                return logs, None, None
            self.bench.ledger.forwarded(int(attention_mask.sum()), weights_of(model).passed)
        return super()._get_per_token_logps_and_entropies(model, *inputs, *args, **more)  # type: ignore[misc]

    def _as_drawn(self: Any, ids: Tensor, attention: Tensor, width: int) -> Tensor | None:
        """Return the log-probabilities that the last `width` tokens were drawn with, (B, width), 0 where `attention`
        is 0; None where they are not known to be those of a pass over them."""
        exact = {weight.dtype for weight in self.model.parameters()} == {torch.float32}
        if not exact or self.accelerator.mixed_precision != "no" or len(self._drawn) != 1:
            return None
        replies, logs = self._drawn[0]
        attended = attention[:, -width:].bool()
        if len(replies) != len(ids) or attended[:, replies.shape[1] :].any():
            return None
        room = max(0, width - replies.shape[1])  # TRL may pad to a multiple
        replies, logs = (nn.functional.pad(each, (0, room))[:, :width] for each in (replies, logs))
        if not torch.equal(replies[attended], ids[:, -width:][attended]):
            return None
        return logs * attended


def with_rollouts(trainer_class: Any, bench: Bench) -> Any:
    """Return `trainer_class` with `Rollouts` mixed in, under its own name."""
    return type(trainer_class.__name__, (Rollouts, trainer_class), {"bench": bench})


def adapter_in_use(model: nn.Module) -> str | None:
    """Return the name of the adapter that a model runs under; None where it is off, or the model has none."""
    layer: Any = next((module for module in model.modules() if isinstance(module, BaseTunerLayer)), None)
    return None if layer is None or layer.disable_adapters else layer.active_adapters[0]


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
