"""ILQL: offline Q-learning on the tokens of replies, and sampling by their Q-values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.types import Range

Weight = Annotated[float, Field(ge=0)]
AS_IT_IS = "the losses are the algorithm's own, on the reply's tokens of rows that are not packed"


@dataclass(frozen=True)
class ILQL(Algorithm):
    """ILQL: implicit language Q-learning (Snell et al. 2022, https://arxiv.org/abs/2206.11871), offline.

    Each token is an action, the last one's reward is that of the reply, all others' is 0. Beside the language model are
    two Q heads over the vocabulary and a V head. The loss is v_weight * (expectile of min(averaged Q) - V) + q_weight *
    (both Q - target)^2 + cql_weight * (cross-entropy of both Q) + imitation_weight * (that of the language model, on all
    replies alike). The policy is softmax(log pi + decode_beta * (min(Q) - V)). The paper's policy and averaged Q have
    transformers of their own; here all read one.

    Attributes:
        rewards: of replies: `labels` gives 1 to chosen and liked ones and 0 to others; `ratings` takes the data's, from
            0 for the lowest to 1 for the highest. Default: ours, as trlx had it for pairs.
        decode_beta: weight of Q-values as replies are sampled; 0 is the language model alone, from the same training.
            Default: the authors' code for toxicity.
        gamma: discount of a token. Default: the authors' code.
        tau: expectile of V; 0.5 is the mean, 1 the best token of the data. Default: trlx, between the authors' 0.6 to 0.8.
        td_lambda: how much of a Q-value's target is the reply's own reward, and not V of the next state; 0 is the
            paper's, 1 is Monte Carlo. Default: ours: V carries a reward back one token at a time, for which short
            trainings have too few steps.
        polyak: share of the Q heads in their average, at each step; the authors take 0.005. Default: ours, for short
            trainings.
        v_weight: of V's loss. Default: the authors' code.
        q_weight: of the Q heads' loss. Default: the authors' code.
        cql_weight: of the loss that keeps Q-values of tokens down that no reply has; large ones sharpen the policy
            whatever the rewards are. Default: trlx; the authors take 0.25 for toxicity.
        imitation_weight: of the language model's loss. Default: the authors' code.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"unpaired"})
    family: ClassVar[str] = "Q-learning"
    config: ClassVar[str | None] = "trl.trainer.sft_config:SFTConfig"
    owned: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ["assistant_only_loss", "completion_only_loss", "loss_type", "packing", "padding_free"], AS_IT_IS
    )
    space: ClassVar[Mapping[str, Range]] = {
        "decode_beta": Range(1, 32.0, log=True, source="ours, around the authors' 4 to 16"),
        "td_lambda": Range(0.8, 1.0, source="ours: less is too slow for short trainings"),
        "cql_weight": Range(0.01, 1.0, log=True, source="ours, around the authors' 0.25 and trlx' 0.1"),
    }

    rewards: Literal["labels", "ratings"] = "labels"
    decode_beta: Weight = 8.0
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99
    tau: Annotated[float, Field(gt=0, lt=1)] = 0.7
    td_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    polyak: Annotated[float, Field(gt=0, le=1)] = 0.1
    v_weight: Weight = 1.0
    q_weight: Weight = 1.0
    cql_weight: Weight = 0.1
    imitation_weight: Weight = 1.0

    def train(self, bench: Bench) -> Policy:
        from trl import SFTConfig

        from prefzoo.models.q_value_policy import QValuePolicy
        from prefzoo.trainers.fitting import fit
        from prefzoo.trainers.q_learning_trainer import q_learning_trainer, rewarded_replies

        rows = rewarded_replies(bench, self.rewards)
        kind = {"policy_kind": QValuePolicy, "policy_settings": {"decode_beta": self.decode_beta}}
        return fit(bench, q_learning_trainer(self, bench), SFTConfig, rows, self.trainer, **kind)
