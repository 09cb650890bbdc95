"""ILQL: offline Q-learning on the tokens of replies, and sampling by their Q-values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat

from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.types import Range


@dataclass(frozen=True)
class ILQL(Algorithm):
    """ILQL: implicit language Q-learning, offline (Snell et al. 2022, https://arxiv.org/abs/2206.11871).

    A token is an action; a reply's reward is at its last one. Two Q heads over the vocabulary and a V head read the
    language model's states. Loss: v_weight * expectile(min(averaged Q) - V) + q_weight * (Q - target)^2 + cql_weight *
    cross-entropy of Q + imitation_weight * that of the language model, whatever the rewards. The policy is
    softmax(log pi + decode_beta * (min(Q) - V)).

    Attributes:
        rewards: `labels`: 1 for chosen and liked replies, else -1; `ratings`: scaled to -1 to 1. Default: ours.
        decode_beta: weight of Q-values in sampling; 0 is the language model alone. Default: the authors'.
        gamma: discount of a token. Default: the authors' code for toxicity.
        tau: expectile of V; 0.5 is the mean. Default: trlx; the authors take 0.6 for toxicity.
        td_lambda: share of the reply's own reward in the target of a Q-value; the rest is the next V, which carries a
            reward back too slowly in short trainings. 0 is the paper's, 1 Monte Carlo. Default: ours.
        polyak: share of the Q heads in their average, each step; the authors' is 0.005. Default: ours, as `td_lambda`.
        v_weight: of V's loss. Default: the authors' code.
        q_weight: of Q's loss. Default: the authors' code.
        cql_weight: keeps Q-values down that no reply has. Much of it sharpens the policy, whatever the rewards are; the
            authors take 0.25, trlx 0.1. Default: ours, for short trainings.
        imitation_weight: of the language model's loss. Default: the authors' code.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"unpaired"})
    family: ClassVar[str] = "Q-learning"
    divisible: ClassVar[bool] = True
    plain_sampling: ClassVar[bool] = False
    config: ClassVar[str | None] = "trl.trainer.sft_config:SFTConfig"
    owned: ClassVar = dict.fromkeys(("completion_only_loss", "loss_type", "packing"), "its losses are on replies alone")
    space: ClassVar = {
        "decode_beta": Range(1.0, 32.0, log=True, source="ours, around the authors' 8"),
        "cql_weight": Range(0.01, 0.25, log=True, source="ours, below the authors' 0.25"),
    }

    rewards: Literal["labels", "ratings"] = "labels"
    decode_beta: NonNegativeFloat = 8.0
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99
    tau: Annotated[float, Field(gt=0, lt=1)] = 0.7
    td_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    polyak: Annotated[float, Field(gt=0, le=1)] = 0.1
    v_weight: NonNegativeFloat = 1.0
    q_weight: NonNegativeFloat = 1.0
    cql_weight: NonNegativeFloat = 0.03
    imitation_weight: NonNegativeFloat = 1.0

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.q_learning_trainer import fit_q_values

        return fit_q_values(bench, self)
