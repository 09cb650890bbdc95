"""SPPO's hard-label loss on given pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class SPPO(NamedLoss):
    """SPPO's hard-label loss on given pairs (Wu et al. 2024, https://arxiv.org/abs/2405.00675).

    The loss of a pair is (chosen log-ratio - 1 / (2 beta))^2 + (rejected log-ratio + 1 / (2 beta))^2. The paper's
    self-play is `iterative_dpo` with `learner: sppo` and `reference: latest`: each round's reference is the policy that
    the round begins with.

    Attributes:
        beta: 1 / eta of the paper; the target of a log-ratio is 1 / (2 beta). Default: Wu et al. 2024 (eta 1000).
    """

    loss_settings: ClassVar = {"loss_type": ["sppo_hard"]}
    space: ClassVar = {
        "beta": Range(
            0.001, 0.1, log=True, source="Wu et al. 2024, up to targets of a few nats, which short replies reach"
        )
    }

    beta: Annotated[float, Field(gt=0)] = 0.001
