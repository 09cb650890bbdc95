"""Iterative preference optimization: rounds of sampling, labelling and learning."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench, Policy
from prefzoo.judges.ai_preferences import in_words
from prefzoo.zoo.feedback_loop import FeedbackLoop
from prefzoo.zoo.pairwise import REFERENCE_FIELDS, Pairwise
from prefzoo.zoo.sampled_pairs import SampledPairs


@dataclass(frozen=True)
class IterativeDPO(SampledPairs, FeedbackLoop):
    """Iterative DPO (Xiong et al. 2024, https://arxiv.org/abs/2312.11456; Dong et al. 2024,
    https://arxiv.org/abs/2405.07863), with any learner that takes pairs, labelled replies or demonstrations.

    Each round samples `n` replies to its share of the prompts from the latest policy, and the learner goes on from that
    policy with an optimizer and a schedule of its own. SPPO's self-play (Wu et al. 2024,
    https://arxiv.org/abs/2405.00675) is `learner: sppo` with `reference: latest`.

    Attributes:
        learner: any algorithm that learns from pairs, labelled replies or demonstrations (`sft` on the chosen ones), by
            name. Default: Dong et al. 2024.
        rounds: how often to sample from the latest policy and learn. The prompts are divided among the rounds, so that
            more rounds use no more of them; the policy of each round is measured. Default: Dong et al. 2024.
        reference: what the learner's loss compares with: the `start`, or the `latest` policy, which is the start in the
            first round. The KL in results is to the start all the same. Default: Dong et al. 2024.
    """

    family: ClassVar[str] = SampledPairs.family

    rounds: Annotated[int, Field(ge=1)] = 3
    reference: Literal["start", "latest"] = "start"

    def __post_init__(self) -> None:
        super().__post_init__()
        learner = self.build_learner()
        if self.reference == "start":
            return
        if not isinstance(learner, Pairwise) or not learner.reference:
            raise ValueError(
                f"reference: 'latest' has no meaning for learner {self.learner!r}, which is no loss on pairs, or "
                "has no reference. Allowed: start."
            )
        if stray := sorted({*REFERENCE_FIELDS} & learner.trainer.keys()):
            raise ValueError(f"learner_settings.trainer.{stray[0]}: the reference is the policy of the round before")
        if self.rounds == 1:
            raise ValueError("reference: 'latest' is the start in a single round. Allowed: rounds of 2 or more.")

    @property
    def replies_per_row(self) -> int:
        return self.learner_replies_per_row

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.finished_rounds import FinishedRounds

        finished = FinishedRounds(bench)
        policy = finished.policy
        self_play = self.reference == "latest"
        bench = bench.replace(machinery=dataclasses.replace(bench.machinery, self_play=self_play))
        prompts = list(bench.data.prompts)
        random.Random(f"iterative_dpo {bench.seed}").shuffle(prompts)
        for i in range(finished.done, self.rounds):
            part, seed = prompts[i :: self.rounds], bench.seed * 1000 + i
            samples = bench.sample(policy, part, self.n, seed)
            labelled = self.labelled_pairs(bench, part, samples, seed)
            pairs = [row for row, dropped in labelled if dropped is None]
            counts = {"prompts": len(part), **Counter(dropped or "pairs" for _, dropped in labelled)}
            bench.report.setdefault("sampled_pairs", []).append(counts)
            if not pairs:
                raise PrefzooError(f"iterative_dpo: no pair could be made in round {i + 1}: {in_words(counts)}")
            policy = self.learn(bench.replace(latest=policy if i else bench.latest), part, pairs)
            if i + 1 < self.rounds:
                bench.keep(policy, f"round {i + 1}")
                finished.save(i + 1)
        if self.labeller == "judge":
            assert bench.judge is not None
            bench.report["judge"] = bench.judge.report()
        return policy
