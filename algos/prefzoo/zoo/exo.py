"""EXO: the reverse KL divergence from the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import DPO_BETA, NamedLoss


@dataclass(frozen=True)
class EXO(NamedLoss):
    """EXO: the reverse KL divergence from the labels (Ji et al. 2024, https://arxiv.org/abs/2402.00856).

    With q = sigmoid(beta * (chosen log-ratio - rejected log-ratio)) and e = `label_smoothing` the loss of a pair is
    q * log(q / (1 - e)) + (1 - q) * log((1 - q) / e).

    Attributes:
        label_smoothing: above 0, for a label of 1 has no such divergence. Default: Ji et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["exo_pair"]}
    space: ClassVar = {
        "beta": DPO_BETA,
        "label_smoothing": Range(1e-4, 0.1, log=True, source="ours, around the 1e-3 of Ji et al. 2024"),
    }

    label_smoothing: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
