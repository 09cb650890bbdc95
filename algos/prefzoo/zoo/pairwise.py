"""Base classes of algorithms that learn from preference pairs: TRL's losses, or a loss of one's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.types import Range

if TYPE_CHECKING:
    from torch import Tensor
    from trl import DPOTrainer

    from prefzoo.trainers.pairwise_trainer import ReplyBatch

LOSS_FIELDS = (
    "beta", "loss_type", "loss_weights", "label_smoothing", "f_divergence_type", "f_alpha_divergence_coef",
    "use_weighting", "discopop_tau", "ld_alpha", "use_liger_kernel", "router_aux_loss_coef",
)  # fmt: skip
REFERENCE_FIELDS = (
    "precompute_ref_log_probs", "precompute_ref_batch_size", "sync_ref_model", "ref_model_mixup_alpha",
    "ref_model_sync_steps",
)  # fmt: skip

DPO_BETA = Range(0.05, 1.0, log=True, source="Rafailov et al. 2023 use 0.1 and 0.5; half and twice that")
"""What tuning tries of a `beta` that multiplies log-ratios of whole replies, as DPO's does."""
SMALL_BETA = Range(0.01, 0.5, log=True, source="0.01 in the paper, up to DPO's, which short replies want")
"""The same where the paper takes a tenth of DPO's."""
SMOOTHING = Range(0.01, 0.3, log=True, source="ours: 0.1 in Chowdhury et al. 2024, and three to ten times either way")
"""What tuning tries of the share of labels believed to be wrong."""
OWN_LOSS = dict.fromkeys(LOSS_FIELDS, "the loss is the algorithm's own")


@dataclass(frozen=True)
class Pairwise(Algorithm):
    """Learns from preference pairs with TRL's DPOTrainer. The start is the reference, whose log-probabilities are taken
    once before a training that sees every pair (`trainers.reference`), else in each step. DPOTrainer turns the messages
    of the rows into tokens by the chat template of the tokenizer.

    A subclass may override `trainer_class` (any subclass of DPOTrainer) and `trainer_settings`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    family: ClassVar[str] = "preference pairs"
    config: ClassVar[str | None] = "trl.trainer.dpo_config:DPOConfig"
    divisible: ClassVar[bool] = True

    reference: ClassVar[bool] = True
    """Whether the loss compares the policy with the start; without, no reference is loaded, computed or charged."""

    def __post_init__(self) -> None:
        if self.trainer.get("precompute_ref_log_probs") and self.trainer.get("sync_ref_model"):
            raise ValueError(
                "trainer.precompute_ref_log_probs: true needs a reference that stays the start, and "
                "trainer.sync_ref_model: true moves it. Allowed: one of the two."
            )

    def trainer_class(self) -> type[DPOTrainer]:
        """Return the trainer that computes the loss."""
        from trl import DPOTrainer

        return DPOTrainer

    def trainer_settings(self) -> dict[str, Any]:
        """Return what the trainer's config is given beside what all algorithms of a comparison share."""
        return dict(self.trainer)

    def train(self, bench: Bench) -> Policy:
        from trl import DPOConfig

        from prefzoo.trainers.fitting import fit
        from prefzoo.trainers.reference import precomputed_reference, without_reference

        trainer, settings = self.trainer_class(), self.trainer_settings()
        if self.reference:
            trainer = precomputed_reference(trainer, bench, settings.get("precompute_ref_log_probs"))
        else:
            trainer = without_reference(trainer)
        rows = self.rows(bench)
        return fit(bench, trainer, DPOConfig, rows, settings, reference=self.reference, divisible=True)

    def rows(self, bench: Bench) -> list[dict[str, Any]]:
        """Return the pairs that are learned from; a `margin` that they have is the loss's `chosen.margins`."""
        from prefzoo.views import without_margins

        return without_margins(bench.data.preferences)


@dataclass(frozen=True)
class NamedLoss(Pairwise):
    """A loss of TRL's DPOTrainer as an algorithm. A subclass names it in `loss_settings`; its hyper-parameters are
    fields of TRL's config, by the same names.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Rafailov et al. 2023.
    """

    owned: ClassVar[Mapping[str, str]] = OWN_LOSS
    space: ClassVar[Mapping[str, Range]] = {"beta": DPO_BETA}

    loss_settings: ClassVar[Mapping[str, Any]] = {}
    """Fields of the config that make it this loss."""

    beta: Annotated[float, Field(gt=0)] = 0.1

    def trainer_settings(self) -> dict[str, Any]:
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "trainer"}
        return {**self.loss_settings, **own, **self.trainer}


@dataclass(frozen=True)
class PairwiseLoss(Pairwise):
    """A loss of one's own on preference pairs. A subclass is a frozen dataclass of hyper-parameters with a method
    `loss`, such as `return (1 - self.beta * (chosen.log_ratios - rejected.log_ratios)).relu()`;
    `docs/examples/simpo_like.py` is one.
    """

    owned: ClassVar[Mapping[str, str]] = OWN_LOSS

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if not cls.reference:
            cls.owned = {**cls.owned, **dict.fromkeys(REFERENCE_FIELDS, "the loss has no reference")}

    def trainer_class(self) -> type[DPOTrainer]:
        from prefzoo.trainers.pairwise_trainer import pairwise_trainer

        return pairwise_trainer(self)

    @abstractmethod
    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        """Return the loss of each pair, (B,), or their mean; it is minimized."""

    def reward(self, replies: ReplyBatch) -> Tensor:
        """Return what the curves show as the reward of each reply, (B,): here `beta` (1 where the algorithm has none)
        times the log-ratio, or the log-probability where there is no reference. It is not learned from."""
        scores = replies.log_ratios if self.reference else replies.log_probabilities
        return getattr(self, "beta", 1.0) * scores

    @staticmethod
    def log_sigmoid(values: Tensor) -> Tensor:
        """Return the logarithm of the sigmoid of each value."""
        from torch.nn.functional import logsigmoid

        return logsigmoid(values)


@dataclass(frozen=True)
class ReferenceFree(PairwiseLoss):
    """A loss of one's own that compares the policy with no reference."""

    reference: ClassVar[bool] = False
