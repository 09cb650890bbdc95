"""Direct preference optimization and the family of losses that TRL offers for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import Pairwise

Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]


@dataclass(frozen=True)
class DPO(Pairwise):
    """Direct preference optimization (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290).

    The start is the reference. The sigmoid loss of a pair is -log sigmoid(beta * (chosen log-ratio - rejected
    log-ratio)), where a reply's log-ratio is its log-probability under the policy minus that under the reference.
    The reference's are taken once before a training that sees every pair, and shared by the trials on the same pairs;
    `trainer: {precompute_ref_log_probs: false}` takes them in each step.

    Attributes:
        beta: how strongly the policy is held to the reference; the paper uses 0.5 for summaries. Default:
            Rafailov et al. 2023.
        loss_type: one of TRL's losses, or several that are added up (weights: `trainer: {loss_weights: [...]}`).
            Default: Rafailov et al. 2023.
        label_smoothing: the share of labels believed to be wrong, for `sigmoid`, `robust` and `exo_pair`;
            `exo_pair` needs a value above 0 (its paper uses 1e-3). Default: Rafailov et al. 2023, who know of none.
    """

    owned: ClassVar[Mapping[str, str]] = {name: name for name in ("beta", "loss_type", "label_smoothing")}
    space: ClassVar[Mapping[str, Range]] = {
        "beta": Range(0.05, 1.0, log=True, source="Rafailov et al. 2023 use 0.1 and 0.5; half and twice that")
    }

    beta: Annotated[float, Field(gt=0)] = 0.1
    loss_type: Loss | list[Loss] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        losses = [self.loss_type] if isinstance(self.loss_type, str) else self.loss_type
        if "exo_pair" in losses and self.label_smoothing == 0:
            raise ValueError("loss_type 'exo_pair' needs label_smoothing above 0; its paper uses 1e-3")
        if "robust" in losses and self.label_smoothing >= 0.5:
            raise ValueError(f"loss_type 'robust' needs label_smoothing below 0.5, not {self.label_smoothing}")
        if self.trainer.get("precompute_ref_log_probs") and self.trainer.get("sync_ref_model"):
            raise ValueError(
                "trainer.precompute_ref_log_probs: true needs a reference that stays the start, and "
                "trainer.sync_ref_model: true moves it. Allowed: one of the two."
            )

    def trainer_settings(self) -> dict[str, Any]:
        return {
            "beta": self.beta,
            "loss_type": [self.loss_type] if isinstance(self.loss_type, str) else list(self.loss_type),
            "label_smoothing": self.label_smoothing,
            **self.trainer,
        }
