"""TRL's DPOTrainer with the loss of a `prefzoo.PairwiseLoss`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from trl import DPOTrainer
from trl.trainer import dpo_trainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import selective_log_softmax

from prefzoo.errors import PrefzooError

FUSED_HEAD = hasattr(dpo_trainer, "add_fused_lm_head")
"""Whether this TRL takes log-probabilities without holding the logits of a batch."""


def token_log_probabilities(model: Any, inputs: dict[str, Any]) -> Tensor:
    """Return the log-probability of each token but the first of each row of a batch, (B, L - 1), in nats; only those of
    replies (`completion_mask`) mean something."""
    ids, mask = inputs["input_ids"], inputs["completion_mask"]  # (B, L)
    arguments = {"input_ids": ids, "attention_mask": inputs["attention_mask"], "use_cache": False}
    if FUSED_HEAD:
        labels = ids.masked_fill(mask == 0, -100)
        return model(**arguments, labels=labels, fused_lm_head=True).log_probs
    return selective_log_softmax(model(**arguments).logits[:, :-1], ids[:, 1:])


def reply_log_probabilities(model: Any, inputs: dict[str, Any]) -> Tensor:
    """Return the log-probability of each reply of a batch under the policy, (B,), in nats."""
    return (token_log_probabilities(model, inputs) * inputs["completion_mask"][:, 1:]).sum(1)


@dataclass(frozen=True)
class ReplyBatch:
    """One side of a batch of B pairs: the chosen replies, or the rejected ones.

    Attributes:
        log_probabilities: (B,), of all tokens of each reply under the policy, summed, in nats; the gradient flows
            through them.
        reference_log_probabilities: (B,), the same under the start, without a gradient; None where the loss declares
            `reference = False`.
        lengths: (B,), tokens of each reply, its end-of-sequence token included.
        margins: (B,), by how much the chosen reply of each pair is better, as the rows say; None where they say
            nothing.
        by_start: (B,), 1 where the start wrote the reply and 0 where it did not, as the rows say of the chosen ones;
            None where they say nothing.
    """

    log_probabilities: Tensor
    reference_log_probabilities: Tensor | None
    lengths: Tensor
    margins: Tensor | None = None
    by_start: Tensor | None = None

    @property
    def log_ratios(self) -> Tensor:
        """(B,), the log-probability under the policy minus that under the reference."""
        assert self.reference_log_probabilities is not None, "a loss without a reference has no log-ratios"
        return self.log_probabilities - self.reference_log_probabilities

    @property
    def means(self) -> Tensor:
        """(B,), the mean log-probability of a token under the policy."""
        return self.log_probabilities / self.lengths


NUMBERS = ("margin", "chosen_by_start")
"""Columns of rows that a loss may use beside the replies."""


@dataclass
class _PairCollator(DataCollatorForPreference):
    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        given = [name for name in NUMBERS if name in examples[0]]
        numbers = {name: torch.tensor([row[name] for row in examples], dtype=torch.float) for name in given}
        return {**super().torch_call(examples), **numbers}


class PairwiseTrainer(DPOTrainer):
    """Trains with `algorithm.loss` in the place of TRL's losses; batches, reference and optimizer steps are TRL's.

    It logs what DPO logs: loss, rewards/chosen, rewards/rejected, rewards/margins, rewards/accuracies, logps/chosen,
    logps/rejected.
    """

    algorithm: ClassVar[Any]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.data_collator: Any = _PairCollator(**vars(self.data_collator))

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns += [name for name in NUMBERS if name not in self._signature_columns]

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        chosen, rejected = self._reply_batches(model, inputs)
        loss = self.algorithm.loss(chosen, rejected)
        if not isinstance(loss, Tensor) or loss.shape not in ((), chosen.lengths.shape):
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise PrefzooError(
                f"{type(self.algorithm).__name__}.loss returned {shape}; it must return a tensor with one loss for "
                f"each of the {len(chosen.lengths)} pairs, or their mean"
            )
        with torch.no_grad():
            self._record(chosen, rejected, inputs)
        return (loss.mean(), None) if return_outputs else loss.mean()

    def _reply_batches(self, model: Any, inputs: dict[str, Any]) -> tuple[ReplyBatch, ReplyBatch]:
        sides = reply_log_probabilities(model, inputs).chunk(2)  # the chosen replies come first
        lengths = inputs["completion_mask"][:, 1:].sum(1).chunk(2)
        references: Any = (None, None)
        if self.algorithm.reference:
            if self.precompute_ref_logps:
                references = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
            else:
                references = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        margins, by_start = (inputs.get(name) for name in NUMBERS)
        of_start = (by_start, None if by_start is None else 1 - by_start)
        chosen, rejected = map(ReplyBatch, sides, references, lengths, (margins, margins), of_start)
        return chosen, rejected

    def _record(self, chosen: ReplyBatch, rejected: ReplyBatch, inputs: dict[str, Any]) -> None:
        rewards, others = self.algorithm.reward(chosen), self.algorithm.reward(rejected)
        values = {
            "rewards/chosen": rewards,
            "rewards/rejected": others,
            "rewards/margins": rewards - others,
            "rewards/accuracies": (rewards > others).float(),
            "logps/chosen": chosen.log_probabilities,
            "logps/rejected": rejected.log_probabilities,
        }
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in values.items():
            metrics[name].append(self.accelerator.gather(value.detach()).mean().item())
        self._total_train_tokens += int(self.accelerator.gather(inputs["attention_mask"].sum()).sum())
        metrics["num_tokens"] = [self._total_train_tokens]


def pairwise_trainer(algorithm: Any) -> type[PairwiseTrainer]:
    """A `PairwiseTrainer` with the loss of this algorithm, named after it."""
    return type(f"{type(algorithm).__name__}Trainer", (PairwiseTrainer,), {"algorithm": algorithm})
