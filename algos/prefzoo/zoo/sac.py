"""SAC: a soft actor-critic for text, with a replay of sampled replies."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.types import Range
from prefzoo.views import assistant_turn
from prefzoo.zoo.online_bases import KL_RANGE


@dataclass(frozen=True)
class SAC(Algorithm):
    """Soft actor-critic for text (Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290), with the KL to the start for
    its entropy and a replay of sampled replies.

    A token is an action; a reply's reward is at its last one, less the mean of those of the start. Two Q heads over the
    vocabulary read the states of the frozen start; the policy is the actor. Losses: (Q - target)^2, and minus the
    actor's value, the sum over tokens of actor * (min(Q) - kl_coefficient * log(actor / start)). Both hold sums over
    the vocabulary in the place of samples, so that replies of earlier rounds teach without importance weights.

    Attributes:
        kl_coefficient: weight of the KL to the start, in units of the reward. Default: ours.
        rounds: how often to sample a reply to each of a share of the prompts, and learn. Default: ours.
        replay: replies of earlier rounds that are learned from again for each new one. Default: ours.
        gamma: discount of a token. Default: ours, none, as of the policy gradients here.
        td_lambda: share of an error that is passed on to the token before; 0 carries a reward back by one token a step.
            Default: ours, as of ilql.
        polyak: share of the Q heads in their average, each step. Default: ours, as of ilql.
        missing_eos_penalty: taken off the score of a reply that was cut at the length limit. Default: Huang et al.
            2024, of PPO.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "Q-learning"
    divisible: ClassVar[bool] = True
    plain_sampling: ClassVar[bool] = False
    config: ClassVar[str | None] = "trl.trainer.sft_config:SFTConfig"
    owned: ClassVar = dict.fromkeys(("completion_only_loss", "loss_type", "packing"), "its losses are on replies alone")
    space: ClassVar = {
        "kl_coefficient": dataclasses.replace(KL_RANGE, low=0.05, high=2.0),
        "td_lambda": Range(0.5, 1.0, source="ours"),
    }

    kl_coefficient: Annotated[float, Field(gt=0)] = 0.3
    rounds: Annotated[int, Field(ge=1)] = 6
    replay: Annotated[int, Field(ge=0)] = 3
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    td_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    polyak: Annotated[float, Field(gt=0, le=1)] = 0.1
    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0

    @property
    def replies_per_row(self) -> int:
        """Each reply when it is new, and what is taken from the replay beside it."""
        return 1 + self.replay

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.fitting import current_policy
        from prefzoo.trainers.reward_shaping import shaped
        from prefzoo.trainers.soft_q_trainer import fit_soft_q_values, keep_actor

        rng = random.Random(f"sac {bench.seed}")
        prompts, policy, old = list(bench.data.prompts), current_policy(bench), list[dict[str, Any]]()
        rng.shuffle(prompts)
        bench = bench.replace(data=dataclasses.replace(bench.data, sampled=True))
        baseline = None
        for i in range(self.rounds):
            part = prompts[i :: self.rounds]
            replies = [row[0] for row in bench.sample(policy, part, 1, bench.seed * 1000 + i)]
            scores = bench.score(part, [reply.text for reply in replies])
            scores = shaped(scores, bench.machinery.shaping, bench.machinery.memory)
            scores = [
                score - self.missing_eos_penalty * (not bench.generation.counts(reply))
                for score, reply in zip(scores, replies, strict=True)
            ]
            baseline = sum(scores) / len(scores) if baseline is None else baseline
            new = [
                {"prompt": list(prompt), "completion": assistant_turn(reply), "reward": score - baseline}
                for prompt, reply, score in zip(part, replies, scores, strict=True)
            ]
            rows = new + rng.sample(old, min(len(old), self.replay * len(new)))
            rng.shuffle(rows)
            old += new
            latest = policy if i else bench.latest
            del policy  # of the start the training reads another copy
            policy = fit_soft_q_values(bench.replace(latest=latest), self, rows)
            if i + 1 < self.rounds:
                bench.keep(policy, f"round {i + 1}")
        bench.report["soft_q"] = {"baseline": baseline, "replies": len(old)}
        return keep_actor(bench, policy)
