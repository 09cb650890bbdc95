"""Base class of algorithms that learn from pairs of the policy's own replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from prefzoo.interface import Bench
from prefzoo.judges.pair_labels import Labeller, PairRule, labelled, pair
from prefzoo.types import Completion, Prompt, Range
from prefzoo.zoo.feedback_loop import WithLearner
from prefzoo.zoo.pairwise import REFERENCE_FIELDS


def _steps_or_once(value: Any) -> Any:
    if value != "once" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"must be 1 or more optimizer steps, or once (got {value!r})")
    return value


Sync = Annotated[Annotated[int, Field(ge=1)] | Literal["once"], BeforeValidator(_steps_or_once)]
"""After how many optimizer steps the policy that samples is brought up to date."""
IN_EACH_STEP = dict.fromkeys(REFERENCE_FIELDS, "the reference is the start, which scores new pairs in each step")
"""Fields of DPO's config that one training on pairs made on the way does not leave to a recipe."""


@dataclass(frozen=True)
class SampledPairs(WithLearner):
    """Learns from pairs of the policy's own replies.

    Attributes:
        labeller: who says which reply is better: the reward, or the judge, which compares two in both orders.
            Default: ours, for the least cost.
        n: replies sampled to each prompt; 2 with a judge. Default: Guo et al. 2024.
        pairs: which pair is made of the n. The best reply is chosen; rejected is the worst, one of the others at
            random, or the one whose reward is nearest to two standard deviations below the mean, which suits a large n.
            Replies that score alike make no pair; the report counts them. Default: Dong et al. 2024.
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
