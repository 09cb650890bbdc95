"""XPO: online DPO with an exploration bonus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.interface import Bench, Policy
from prefzoo.judges.pair_labels import Labeller, labelled, pair
from prefzoo.types import Prompt, Range
from prefzoo.zoo.pairwise import DPO_BETA, OWN_LOSS, PairwiseLoss
from prefzoo.zoo.sampled_pairs import IN_EACH_STEP, Sync

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch


@dataclass(frozen=True)
class XPO(PairwiseLoss):
    """Exploratory preference optimization (Xie et al. 2024, https://arxiv.org/abs/2405.21046).

    One training on pairs of a reply of the policy and a reply of the start to the same prompt. The loss of a pair is
    DPO's, -log sigmoid(beta * (chosen log-ratio - rejected log-ratio)), plus alpha * log-probability, under the policy,
    of the reply that the start wrote: a bonus for leaving what the start says. Each step learns from new pairs alone,
    and not, as in the paper's theory, from all pairs so far.

    Attributes:
        beta: how strongly the policy is held to the start. Default: Rafailov et al. 2023.
        alpha: weight of the bonus; 0 is online DPO against the start's replies. Default: TRL's, while it had XPO.
        labeller: who says which reply is better: the reward, or the judge, which compares them in both orders.
            Default: ours, for the least cost.
        sync: after how many optimizer steps the policy that samples is brought up to date, as of `online_dpo`.
            Default: ours, as of `online_dpo`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "online preferences"
    owned: ClassVar[Mapping[str, str]] = {**OWN_LOSS, **IN_EACH_STEP}
    space: ClassVar[Mapping[str, Range]] = {
        "beta": DPO_BETA,
        "alpha": Range(1e-6, 1e-2, log=True, source="ours, from below TRL's 1e-5 up, for short replies"),
    }
    compares_samples: ClassVar[bool] = True
    samples_from_start: ClassVar[bool] = True
    replies_per_row: ClassVar[int] = 2

    beta: Annotated[float, Field(gt=0)] = 0.1
    alpha: Annotated[float, Field(ge=0)] = 1e-5
    labeller: Labeller = "reward"
    sync: Sync = 1

    @property
    def required(self) -> frozenset[str]:
        return frozenset({"prompts", self.labeller})

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        by_start = chosen.by_start
        assert by_start is not None
        bonus = by_start * chosen.log_probabilities + (1 - by_start) * rejected.log_probabilities
        return self.alpha * bonus - self.log_sigmoid(self.reward(chosen) - self.reward(rejected))

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.online_pairs import fit_online_pairs

        def pairs(bench: Bench, policy: Any, prompts: Sequence[Prompt], seed: int) -> Any:
            own = bench.sample(policy, prompts, 1, seed)
            with policy.as_start() as start:  # whose prompts are charged already
                others = start.sample(prompts, bench.generation, seed + 1, ledger=bench.ledger)
            samples = [[*mine, *theirs] for mine, theirs in zip(own, others, strict=True)]
            labels = labelled(bench, self.labeller, prompts, samples)
            return [
                (
                    {**pair(prompt, replies, label), "chosen_by_start": float(label[0] == 1)},
                    label if isinstance(label, str) else None,
                )
                for prompt, replies, label in zip(prompts, samples, labels, strict=True)
            ]

        return fit_online_pairs(bench, self, pairs, self.sync, self.trainer, self.samples_from_start)
