"""Pairs of a policy's own replies, labelled by the reward or by the judge."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Bench
from prefzoo.judges.ai_preferences import label_pairs
from prefzoo.types import Completion, Prompt, Range
from prefzoo.views import assistant_turn
from prefzoo.zoo.feedback_loop import WithLearner

Labeller = Literal["reward", "judge"]
PairRule = Literal["best_worst", "best_random", "mu_minus_2sigma"]
Label = tuple[int, int, float | None] | str
"""Of the replies to a prompt the chosen one, the rejected one, and the gap of their rewards (None of a judge's label);
or why they make no pair."""


def chosen_and_rejected(scores: Sequence[float], rule: PairRule, rng: random.Random) -> tuple[int, int] | None:
    """Return which reply to a prompt is chosen and which rejected, by their scores; None where all score alike.

    The chosen one scores highest, the first of several. The rejected one scores less: the lowest (`best_worst`), any
    (`best_random`), or nearest to the mean minus two standard deviations of all scores (`mu_minus_2sigma`, Xiao et al.
    2025, https://arxiv.org/abs/2502.16825); of two that are as near, the lower one.
    """
    best = max(range(len(scores)), key=scores.__getitem__)
    worse = [i for i, score in enumerate(scores) if score < scores[best]]
    if not worse:
        return None
    if rule == "best_random":
        return best, rng.choice(worse)
    if rule == "best_worst":
        return best, min(worse, key=scores.__getitem__)
    target = fmean(scores) - 2 * pstdev(scores)
    return best, min(worse, key=lambda i: (abs(scores[i] - target), scores[i]))


def labelled(
    bench: Bench,
    labeller: Labeller,
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Completion]],
    rule: PairRule = "best_worst",
    seed: int = 0,
) -> list[Label]:
    """Return a label for the replies to each prompt; what the labeller is asked is charged.

    Args:
        samples: two or more replies to each prompt; a judge compares two.
        rule: which pair is made of more than two.
        seed: of `best_random`.
    """
    if labeller == "judge":
        bench.progress("judging", 0, 1)
        first_better = bench.prefer(prompts, *([replies[i].text for replies in samples] for i in (0, 1)))
        judged = label_pairs(prompts, samples, first_better, bench.generation.unfinished == "keep")
        return [each.dropped or ((0, 1, None) if each.better is each.first else (1, 0, None)) for each in judged]
    flat = [(prompt, reply.text) for prompt, replies in zip(prompts, samples, strict=True) for reply in replies]
    scores = iter(bench.score([prompt for prompt, _ in flat], [text for _, text in flat]))
    rng = random.Random(f"pairs {seed}")
    return [_by_score(bench, replies, [next(scores) for _ in replies], rule, rng) for replies in samples]


def _by_score(
    bench: Bench, replies: Sequence[Completion], scores: Sequence[float], rule: PairRule, rng: random.Random
) -> Label:
    finished = [i for i, reply in enumerate(replies) if bench.generation.counts(reply)]
    usable = [i for i in finished if replies[i].text.strip()]
    if len(usable) < 2:
        return "unfinished_reply" if len(finished) < 2 else "empty_reply"
    found = chosen_and_rejected([scores[i] for i in usable], rule, rng)
    if found is None:
        return "identical_pair" if len({replies[i].text for i in usable}) == 1 else "tied_replies"
    chosen, rejected = (usable[i] for i in found)
    return chosen, rejected, scores[chosen] - scores[rejected]


def pair(prompt: Prompt, replies: Sequence[Completion], label: Label) -> dict[str, Any]:
    """Return a row of `Views.preferences`; of replies that make no pair, the first two in any order."""
    chosen, rejected, margin = (0, 1, 0.0) if isinstance(label, str) else label
    row = {"prompt": list(prompt), "chosen": assistant_turn(replies[chosen])}
    row["rejected"] = assistant_turn(replies[rejected])
    return row if margin is None else {**row, "margin": margin}


@dataclass(frozen=True)
class SampledPairs(WithLearner):
    """Learns from pairs of the policy's own replies.

    Attributes:
        labeller: who says which reply is better: the reward, or the judge, which compares two in both orders.
            Default: ours, for the least cost.
        n: replies sampled to each prompt; 2 with a judge. Default: Guo et al. 2024.
        pairs: which pair is made of the n. The best reply is chosen; rejected is the worst, one of the others at
            random, or the one whose reward is nearest to two standard deviations below the mean, which suits a large n.
            Replies that score alike make no pair; the report counts them. Default: Lanchantin et al. 2025.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "online preferences"
    space: ClassVar[Mapping[str, Range]] = {
        "n": Range(2, 8, log=True, source="2 in Guo et al. 2024, 8 in Dong et al. 2024 and Lanchantin et al. 2025")
    }

    labeller: Labeller = "reward"
    n: Annotated[int, Field(ge=2)] = 2
    pairs: PairRule = "best_worst"

    def __post_init__(self) -> None:
        super().__post_init__()
        learner = self.build_learner()
        if not {"preferences", "unpaired", "demonstrations"} & learner.needs or "judge" in learner.needs:
            raise ValueError(
                f"learner: {self.learner!r} does not learn from pairs. Allowed: what learns from preferences, from "
                "labelled replies or from demonstrations, such as dpo, simpo, kto, sft."
            )
        if self.labeller == "judge" and (self.n > 2 or self.pairs != "best_worst"):
            key, value = ("n", self.n) if self.n > 2 else ("pairs", repr(self.pairs))
            raise ValueError(
                f"{key}: {value} ranks several replies, and labeller: judge compares two. Allowed: n: 2 with pairs: "
                "best_worst, or labeller: reward (with `reward: {type: judge}` a judge gives the rewards)."
            )
        if self.labeller == "judge" and getattr(learner, "margins", None) == "data":
            raise ValueError(
                f"learner_settings.margins: 'data' is the gap of rewards here, and labeller: judge gives none. "
                f"Allowed for {self.learner!r}: margins: reward, or labeller: reward."
            )

    @property
    def required(self) -> frozenset[str]:
        return frozenset({"prompts", self.labeller}) | (self.build_learner().required & {"reward"})

    @property
    def tunable(self) -> dict[str, Range]:
        """A judge compares two replies, whatever else is tried."""
        return {key: tried for key, tried in super().tunable.items() if key != "n" or self.labeller == "reward"}

    def labelled_pairs(
        self, bench: Bench, prompts: Sequence[Prompt], samples: Sequence[Sequence[Completion]], seed: int
    ) -> list[tuple[dict[str, Any], str | None]]:
        """Return a pair for each prompt, and why it is none; see `pair`."""
        labels = labelled(bench, self.labeller, prompts, samples, self.pairs, seed)
        rows = (pair(*each) for each in zip(prompts, samples, labels, strict=True))
        return [(row, label if isinstance(label, str) else None) for row, label in zip(rows, labels, strict=True)]
