"""Iterated RLHF: the reward model is kept fresh by labels on what the policy writes now."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench, Policy, Reward
from prefzoo.judges import ai_preferences
from prefzoo.types import Completion
from prefzoo.zoo.feedback_loop import FeedbackLoop


@dataclass(frozen=True)
class IteratedRLHF(FeedbackLoop):
    """Iterated RLHF (Bai et al. 2022, https://arxiv.org/abs/2204.05862, section 4.5; Wolf et al. 2025,
    https://arxiv.org/abs/2505.18126): the reward model is kept fresh by labels on what the policy writes now.

    Each round samples two replies to each of its prompts from the latest policy and has the judge compare them. A new
    reward model is trained on the start, on people's pairs and on the labelled ones, and the learner goes on from the
    latest policy with that reward. The report says how often the reward of the round before agrees with the new labels:
    what falls there is what a policy had found to exploit.

    Attributes:
        learner: any algorithm that learns from prompts and a reward, by name. Default: ours; with PPO, of Bai et al.
            2022, the KL to the start adds up over the rounds (docs/log.md).
        rounds: how often the reward is refreshed. The prompts are divided among the rounds; the policy of each round is
            measured. Default: Wolf et al. 2025.
        pairs: what a reward model learns from beside people's pairs: the labels of `all` rounds so far, or of the
            `latest`. Default: Wolf et al. 2025, who find that all of them are best.
        people: whether it learns from the pairs of the data, too. Default: Bai et al. 2022.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "judge"})

    learner: str = "reinforce"
    rounds: Annotated[int, Field(ge=1)] = 3
    pairs: Literal["all", "latest"] = "all"
    people: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if "reward" not in self.build_learner().needs:
            raise ValueError(f"learner: {self.learner!r} learns from no reward. Allowed: ppo, grpo, rloo, ...")

    @property
    def required(self) -> frozenset[str]:
        return self.needs | ({"preferences"} if self.people else set())

    @property
    def replies_per_row(self) -> int:
        """The learner's, and pairs of the reward models: people's in each round, those of earlier rounds anew."""
        labelled = self.rounds + 1 if self.pairs == "all" else 2
        return self.build_learner().replies_per_row + labelled + 2 * self.rounds * self.people

    @property
    def models_on_data(self) -> int:
        return self.rounds if self.people else 1

    def train(self, bench: Bench) -> Policy:
        from prefzoo.rewards.reward_model import RewardModel
        from prefzoo.rewards.train_reward import train_reward_model
        from prefzoo.trainers.finished_rounds import FinishedRounds

        assert bench.judge is not None
        finished = FinishedRounds(bench)
        policy, people = finished.policy, bench.data.preferences if self.people else []
        prompts, labelled = list(bench.data.prompts), list[dict[str, Any]](finished.state.get("labelled", []))
        folder = bench.out / f"round-{finished.done}" / "reward"
        reward = RewardModel.load(str(folder), bench.loading) if finished.done else None
        random.Random(f"iterated_rlhf {bench.seed}").shuffle(prompts)
        for i in range(finished.done, self.rounds):
            part = prompts[i :: self.rounds]
            asked = ai_preferences.ask(bench, policy, part, bench.seed * 1000 + i)
            new, counts = ai_preferences.preferences(asked), dict[str, Any](ai_preferences.counts(asked))
            if not new:
                words = ai_preferences.in_words(counts)
                raise PrefzooError(f"iterated_rlhf: no pair could be made in round {i + 1}: {words}")
            if reward is not None:
                counts |= {"old_reward_agrees": _agreement(bench, reward, asked)}
            bench.report.setdefault("iterated_rlhf", []).append(counts)
            labelled = labelled + new if self.pairs == "all" else new
            data = dataclasses.replace(bench.data, preferences=[*people, *labelled], labelled=[], sampled=True)
            reward = train_reward_model(bench.replace(data=data, out=bench.out / f"round-{i + 1}"), {})
            latest = policy if i else bench.latest
            policy = self.learn(bench.replace(reward=reward, latest=latest), part, new)
            if i + 1 < self.rounds:
                bench.keep(policy, f"round {i + 1}")
                finished.save(i + 1, labelled=labelled)
        bench.report["judge"] = bench.judge.report()
        return policy


def _agreement(bench: Bench, reward: Reward, asked: list[ai_preferences.LabelledPair]) -> float:
    """The share of usable pairs whose chosen reply has the higher reward; a tie is half."""
    pairs = [pair for pair in asked if pair.dropped is None]

    def scores(replies: list[Completion]) -> list[float]:
        return bench.ledger.scored(reward, [pair.prompt for pair in pairs], [reply.text for reply in replies])

    better, worse = scores([pair.better for pair in pairs]), scores([pair.worse for pair in pairs])
    return sum((b > w) + 0.5 * (b == w) for b, w in zip(better, worse, strict=True)) / len(pairs)
