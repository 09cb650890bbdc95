"""AOT: the whole distribution of chosen rewards above that of rejected ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class AOT(NamedLoss):
    """AOT: the whole distribution of chosen rewards above that of rejected ones (Melnyk et al. 2024,
    https://arxiv.org/abs/2406.05882).

    The log-ratios of a batch are sorted before they are compared, which is optimal transport in one dimension; each
    process sorts its own part of a batch.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Rafailov et al. 2023; the paper takes DPO's.
        label_smoothing: the share of labels believed to be wrong. Default: Melnyk et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["aot"]}

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
