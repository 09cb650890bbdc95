"""An algorithm in a package of its own: a rule for the data, and a learner by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

import prefzoo
from prefzoo import Algorithm, Bench, Policy, PrefzooError


@dataclass(frozen=True)
class LengthMatchedDPO(Algorithm):
    """DPO on pairs whose replies are about equally long, so that length cannot be what is learned
    (the bias: Park et al. 2024, https://arxiv.org/abs/2403.19159).

    Attributes:
        ratio: the longer reply of a pair may have at most this many times the characters of the shorter one.
        beta: DPO's.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    config: ClassVar[str | None] = "trl.trainer.dpo_config:DPOConfig"

    ratio: Annotated[float, Field(ge=1)] = 2.0
    beta: Annotated[float, Field(gt=0)] = 0.1

    def train(self, bench: Bench) -> Policy:
        pairs = bench.data.preferences
        matched = [pair for pair in pairs if self.matches(pair)]
        bench.report["length_matched"] = {"pairs": len(pairs), "kept": len(matched)}
        if not matched:
            raise PrefzooError(
                f"tiny: none of {len(pairs)} pairs has replies within a factor of {self.ratio:g} in length"
            )
        learner = prefzoo.get("dpo", beta=self.beta, trainer=self.trainer)
        return learner.train(bench.replace(data=dataclasses.replace(bench.data, preferences=matched)))

    def matches(self, pair: dict[str, Any]) -> bool:
        """Whether the two replies of a pair are about equally long."""
        shorter, longer = sorted(len(pair[reply][0]["content"]) for reply in ("chosen", "rejected"))
        return longer <= self.ratio * shorter
