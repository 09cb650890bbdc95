"""DPO with an offset for each pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Bench
from prefzoo.types import Range
from prefzoo.zoo.pairwise import DPO_BETA, PairwiseLoss

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch

LEAST = 0.01
"""Margins below it count as it under `scale: log`."""


@dataclass(frozen=True)
class ODPO(PairwiseLoss):
    """ODPO: DPO with an offset by how much better the chosen reply is (Amini et al. 2024,
    https://arxiv.org/abs/2402.10571).

    The loss of a pair is -log sigmoid(beta * (chosen log-ratio - rejected log-ratio) - alpha * f(margin)), where f is
    the logarithm or leaves the margin as it is. Under `log` margins below 0.01 count as 0.01.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Amini et al. 2024.
        alpha: weight of the offset; 0 is DPO. Default: Amini et al. 2024.
        scale: what f is. Default: Amini et al. 2024.
        margins: `data`: the column `margin` of the pairs; `reward`: by how much the reward scores the chosen reply
            above the other one. Default: ours, for it takes no reward.
    """

    space: ClassVar = {
        "beta": DPO_BETA,
        "alpha": Range(0.1, 2.0, log=True, source="ours, around the 1 of Amini et al. 2024"),
    }

    beta: Annotated[float, Field(gt=0)] = 0.5
    alpha: Annotated[float, Field(ge=0)] = 1.0
    scale: Literal["log", "linear"] = "log"
    margins: Literal["data", "reward"] = "data"

    @property
    def required(self) -> frozenset[str]:
        return self.needs | ({"reward"} if self.margins == "reward" else frozenset())

    def rows(self, bench: Bench) -> list[dict[str, Any]]:
        from prefzoo.views import text_alone, with_margins

        pairs = bench.data.preferences
        if self.margins == "data":
            return with_margins(pairs)
        prompts, plain = [pair["prompt"] for pair in pairs], text_alone(pairs)
        good, bad = (bench.score(prompts, [pair[s][-1]["content"] for pair in plain]) for s in ("chosen", "rejected"))
        return [{**pair, "margin": x - y} for pair, x, y in zip(pairs, good, bad, strict=True)]

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        assert chosen.margins is not None
        offset = chosen.margins.clamp(min=LEAST).log() if self.scale == "log" else chosen.margins
        return -self.log_sigmoid(self.reward(chosen) - self.reward(rejected) - self.alpha * offset)
