"""Direct preference optimization and the family of losses that TRL offers for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from prefzoo.registry import BUILT_IN
from prefzoo.types import Range
from prefzoo.zoo.pairwise import DPO_BETA, Pairwise

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
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")
"""The losses in which TRL uses `label_smoothing`."""


def _no_algorithm(value: Any) -> Any:
    """Refuse the name of another algorithm in the place of a loss, with how that is had."""
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, str) and name in BUILT_IN and name not in get_args(Loss):
            raise ValueError(f"{name!r} is an algorithm by itself, not a loss of dpo: say `{name}: {{}}`")
    return value


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
        label_smoothing: the share of labels believed to be wrong, for `robust`, `exo_pair` and `aot`;
            `exo_pair` needs a value above 0 (its paper uses 1e-3). Default: Rafailov et al. 2023, who know of none.
    """

    owned: ClassVar[Mapping[str, str]] = {name: name for name in ("beta", "loss_type", "label_smoothing")}

    space: ClassVar[Mapping[str, Range]] = {"beta": DPO_BETA}

    beta: Annotated[float, Field(gt=0)] = 0.1
    loss_type: Annotated[Loss | list[Loss], BeforeValidator(_no_algorithm)] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        losses = [self.loss_type] if isinstance(self.loss_type, str) else self.loss_type
        if "exo_pair" in losses and self.label_smoothing == 0:
            raise ValueError("loss_type 'exo_pair' needs label_smoothing above 0; its paper uses 1e-3")
        if self.label_smoothing and not {*SMOOTHED} & {*losses}:
            raise ValueError(
                f"label_smoothing: {self.label_smoothing:g} changes nothing in TRL's {', '.join(losses)}. Allowed: 0; "
                f"above 0 with loss_type {', '.join(SMOOTHED)}. DPO with soft labels is the algorithm `cdpo`."
            )
        if "robust" in losses and self.label_smoothing >= 0.5:
            raise ValueError(f"loss_type 'robust' needs label_smoothing below 0.5, not {self.label_smoothing}")

    def trainer_settings(self) -> dict[str, Any]:
        return {
            "beta": self.beta,
            "loss_type": [self.loss_type] if isinstance(self.loss_type, str) else list(self.loss_type),
            "label_smoothing": self.label_smoothing,
            **self.trainer,
        }
