"""SimPO (Meng et al. 2024, https://arxiv.org/abs/2405.14734): DPO on mean log-probabilities, without a reference."""

from __future__ import annotations

from dataclasses import dataclass

import prefzoo


@prefzoo.register("simpo_like")
@dataclass(frozen=True)
class SimPOLike(prefzoo.PairwiseLoss):
    reference = False  # nothing compares the policy with the start, so that no reference is computed
    beta: float = 2.0  # a reply's reward is beta times its mean log-probability a token
    gamma: float = 1.0  # by how much the chosen reply's reward should be the higher one

    def reward(self, replies):
        return self.beta * replies.log_probabilities / replies.lengths

    def loss(self, chosen, rejected):
        from torch.nn.functional import logsigmoid

        return -logsigmoid(self.reward(chosen) - self.reward(rejected) - self.gamma)
