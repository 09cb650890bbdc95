"""DPO with another function of the log-ratios, another divergence, or other weights of the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import DPO_BETA, NamedLoss, PairwiseLoss

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch


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


@dataclass(frozen=True)
class DiscoPOP(NamedLoss):
    """DiscoPOP: a blend of logistic and exponential loss, found by search (Lu et al. 2024,
    https://arxiv.org/abs/2406.08414).

    With m = beta * (chosen log-ratio - rejected log-ratio) and s = sigmoid(m / discopop_tau) the loss of a pair is
    -(1 - s) * log sigmoid(m) + s * exp(-m). At the published `discopop_tau` it has a minimum at m = -0.12, to which the
    gradient points from the start, where m is 0; from 0.11 on it points the right way.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Lu et al. 2024.
        discopop_tau: how sharply one loss gives way to the other. Default: Lu et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["discopop"]}
    space: ClassVar = {
        "beta": Range(0.01, 0.5, log=True, source="Lu et al. 2024, around their 0.05"),
        "discopop_tau": Range(
            0.05, 1.0, log=True, source="ours, from Lu et al.'s 0.05 to where the loss is monotonous"
        ),
    }

    beta: Annotated[float, Field(gt=0)] = 0.05
    discopop_tau: Annotated[float, Field(gt=0)] = 0.05


@dataclass(frozen=True)
class FDPO(NamedLoss):
    """f-DPO: DPO with another divergence than the reverse KL (Wang et al. 2023, https://arxiv.org/abs/2309.16240).

    The loss of a pair is -log sigmoid(beta * (f'(chosen ratio) - f'(rejected ratio))), where a ratio is the policy's
    probability over the reference's, and f' the derivative of the divergence's function.

    Attributes:
        f_divergence_type: the divergence that the policy is held by. Default: ours, the one that is bounded.
        f_alpha_divergence_coef: alpha of the alpha divergence. Default: TRL's.
    """

    loss_settings: ClassVar = {"loss_type": ["sigmoid"]}

    f_divergence_type: Literal["forward_kl", "js_divergence", "alpha_divergence"] = "js_divergence"
    f_alpha_divergence_coef: float = 0.5


@dataclass(frozen=True)
class WPO(NamedLoss):
    """WPO: DPO on pairs weighted by how likely the policy would write them (Zhou et al. 2024,
    https://arxiv.org/abs/2406.11827).

    The loss of a pair is DPO's, multiplied by both replies' probability a token under the policy, where that of the
    policy's own samples counts as 1.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Zhou et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["sigmoid"], "use_weighting": True}
    space: ClassVar = {"beta": Range(0.01, 0.5, log=True, source="0.01 in Zhou et al. 2024, up to DPO's")}

    beta: Annotated[float, Field(gt=0)] = 0.01


@dataclass(frozen=True)
class HDPO(PairwiseLoss):
    """H-DPO: DPO that says how much entropy the policy keeps (Omura et al. 2024, https://arxiv.org/abs/2411.07595).

    The loss of a pair is -log sigmoid(beta * (alpha * (log-probability of chosen - that of rejected) - the reference's
    difference of the same)).

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Rafailov et al. 2023.
        alpha: below 1 the policy becomes sharper than DPO's, above 1 more diverse. Default: ours, a little below DPO's
            1.
    """

    space: ClassVar = {
        "beta": DPO_BETA,
        "alpha": Range(0.8, 1.2, source="ours, around DPO's 1, to both sides as Omura et al. 2024 do"),
    }

    beta: Annotated[float, Field(gt=0)] = 0.1
    alpha: Annotated[float, Field(gt=0)] = 0.95

    def reward(self, replies: ReplyBatch) -> Tensor:
        return self.beta * (replies.log_ratios + (self.alpha - 1) * replies.log_probabilities)

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        return -self.log_sigmoid(self.reward(chosen) - self.reward(rejected))
