"""RLAIF: a judge takes the place of people who say which reply is better."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench, Policy
from prefzoo.judges import ai_preferences
from prefzoo.rewards.judge_reward import By
from prefzoo.types import Prompt
from prefzoo.views import prompt_key
from prefzoo.zoo.feedback_loop import FeedbackLoop


@dataclass(frozen=True)
class RLAIF(FeedbackLoop):
    """Reinforcement learning from AI feedback (Lee et al. 2023, https://arxiv.org/abs/2309.00267).

    Each round samples two replies to each of its prompts, has the judge compare them in both orders, and hands the
    pairs to the learner. The start stays the reference in every round.

    Attributes:
        mode: `preferences`, or `direct`: the judge's score itself is the learner's reward. Default: Lee et al.
            2023.
        score: what that score is, see `rewards.judge_reward.JudgeReward`. Default: ours.
        human_fraction: the share of prompts whose pair is one that people compared, where the data has any. Default:
            Lee et al.
            2023, who mix none in.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "judge"})

    mode: Literal["preferences", "direct"] = "preferences"
    score: By = "comparison"
    human_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "direct":
            if "reward" not in self.build_learner().needs:
                raise ValueError(f"mode: 'direct' needs a learner that learns from a reward, not {self.learner!r}")
            if self.score == "comparison" and not self.build_learner().trains:
                raise ValueError(
                    f"learner: {self.learner!r} asks for the reward of replies to test prompts too, for which score "
                    "'comparison' has no reply of the start. Allowed: a learner that trains, or score: grade."
                )
            if getattr(self.build_learner(), "value_model", None) == "reward":
                raise ValueError(
                    "learner_settings.value_model: 'reward' begins as the reward model, and with mode 'direct' the "
                    "reward is a judge. Allowed here: shared, separate."
                )
            if self.rounds > 1 or self.human_fraction > 0:
                raise ValueError("mode: 'direct' makes no preferences: rounds and human_fraction have no meaning")
        elif self.score != "comparison":
            raise ValueError(f"score: {self.score!r} has no meaning with mode 'preferences'; it must be 'direct'")

    @property
    def compares_samples(self) -> bool:
        return self.mode == "preferences" and self.human_fraction < 1

    @property
    def required(self) -> frozenset[str]:
        return self.needs | ({"preferences"} if self.human_fraction > 0 else set())

    @property
    def replies_per_row(self) -> int:
        return self.build_learner().replies_per_row if self.mode == "direct" else self.learner_replies_per_row

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.finished_rounds import FinishedRounds

        prompts = list(bench.data.prompts)
        random.Random(f"rlaif {bench.seed}").shuffle(prompts)
        if self.mode == "direct":
            policy = self._direct(bench, prompts)
        else:
            finished = FinishedRounds(bench)
            policy = finished.policy
            for i in range(finished.done, self.rounds):
                part = prompts[i :: self.rounds]
                pairs = self._pairs(bench, policy, part, i)
                policy = self.learn(bench.replace(latest=policy if i else None), part, pairs)
                if i + 1 < self.rounds:
                    bench.keep(policy, f"round {i + 1}")
                    finished.save(i + 1)
        assert bench.judge is not None
        bench.report["judge"] = bench.judge.report()
        return policy

    def _direct(self, bench: Bench, prompts: Sequence[Prompt]) -> Policy:
        from prefzoo.rewards.judge_reward import JudgeReward, start_replies

        assert bench.judge is not None
        references = start_replies(bench, prompts) if self.score == "comparison" else {}
        reward = JudgeReward(bench.judge, self.score, references)
        return self.learn(bench.replace(reward=reward), prompts, bench.data.preferences)

    def _pairs(self, bench: Bench, policy: Policy, prompts: Sequence[Prompt], i: int) -> list[dict[str, Any]]:
        """Return one round's pairs and report counts: people's for a share of the prompts, the judge's for the rest."""
        wanted = round(self.human_fraction * len(prompts))
        human_pairs = {prompt_key(pair["prompt"]): pair for pair in reversed(bench.data.preferences)}
        by_people = [prompt for prompt in prompts if prompt_key(prompt) in human_pairs][:wanted]
        taken = {prompt_key(prompt) for prompt in by_people}
        rest = [prompt for prompt in prompts if prompt_key(prompt) not in taken]
        labelled = ai_preferences.ask(bench, policy, rest, bench.seed * 1000 + i) if rest else []
        bench.ledger.prompts += round(len(by_people) * bench.budget.epochs)
        counts = ai_preferences.counts(labelled) | {"by_people": len(by_people), "by_people_wanted": wanted}
        bench.report.setdefault("rlaif", []).append(counts)
        pairs = [human_pairs[prompt_key(prompt)] for prompt in by_people]
        pairs += ai_preferences.preferences(labelled)
        if not pairs:
            raise PrefzooError(
                f"rlaif: of two replies to each of {len(prompts)} prompts no pair could be made: "
                f"{ai_preferences.in_words(counts)}"
            )
        return pairs
