"""Best-of-n: nothing is trained; each answer costs n samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy


@dataclass(frozen=True)
class BestOfN(Algorithm):
    """Best-of-n sampling at inference (Stiennon et al. 2020, https://arxiv.org/abs/2009.01325).

    Attributes:
        n: candidates sampled from the start for each answer, of which the reward picks one. The ledger is charged
            for all of them. Default: ours.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"reward"})
    family: ClassVar[str] = "sampling"
    trains: ClassVar[bool] = False

    n: Annotated[int, Field(ge=1)] = 8

    def train(self, bench: Bench) -> Policy:
        from prefzoo.models.language_model import LanguageModelPolicy
        from prefzoo.rewards.best_of_n_policy import BestOfNPolicy

        start = LanguageModelPolicy.start_of(bench)
        assert bench.reward is not None
        policy = BestOfNPolicy(start, bench.reward, self.n)
        policy.save(bench.out / "policy")
        return policy
