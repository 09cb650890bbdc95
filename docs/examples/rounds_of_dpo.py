"""DPO in rounds on the policy's own replies, labelled by a reward; the built-in `iterative_dpo` is more of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

import prefzoo


@prefzoo.register("rounds_of_dpo")
@dataclass(frozen=True)
class RoundsOfDPO(prefzoo.Algorithm):
    """Each round samples two replies to each of its prompts; DPO learns which one the reward prefers.

    Attributes:
        rounds: the prompts are divided among them.
        beta: of DPO.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    config: ClassVar[str] = "trl.trainer.dpo_config:DPOConfig"
    replies_per_row = 2  # DPO trains on both replies to a prompt

    rounds: Annotated[int, Field(ge=1)] = 2
    beta: Annotated[float, Field(gt=0)] = 0.1

    def train(self, bench: prefzoo.Bench) -> prefzoo.Policy:
        policy, learner = prefzoo.current_policy(bench), prefzoo.get("dpo", beta=self.beta, trainer=self.trainer)
        for i in range(self.rounds):
            prompts = bench.data.prompts[i :: self.rounds]
            samples = bench.sample(policy, prompts, n=2, seed=1000 * bench.seed + i)
            ones, others = ([replies[k].text for replies in samples] for k in (0, 1))
            rows = zip(prompts, ones, others, bench.score(prompts, ones), bench.score(prompts, others), strict=True)
            # A prompt, the chosen reply and the rejected one; nothing is learned from replies that score alike.
            pairs = [(p, a, b) if x > y else (p, b, a) for p, a, b, x, y in rows if x != y]
            policy = learner.train(bench.replace(data=bench.data.with_sampled_pairs(pairs), latest=policy))
        return policy
