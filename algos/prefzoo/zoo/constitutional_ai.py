"""Constitutional AI: a model criticises and revises its own replies by written principles, and compares them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.errors import PrefzooError
from prefzoo.interface import LEARNING_RATE, Bench, Policy
from prefzoo.judges import ai_preferences
from prefzoo.judges.critique_revision import TRANSCRIPTS, Revised, revise
from prefzoo.registry import get
from prefzoo.types import Prompt, Range
from prefzoo.zoo.feedback_loop import FeedbackLoop


@dataclass(frozen=True)
class ConstitutionalAI(FeedbackLoop):
    """Constitutional AI (Bai et al. 2022, https://arxiv.org/abs/2212.08073).

    Supervised phase: the start replies to each prompt, its reply is criticised and revised by a principle drawn at
    random, as often as `revisions` says, and the final revisions are imitated. Preference phase: of two replies of the
    resulting policy the judge says which keeps a principle better, and the learner learns from that. The start stays
    the reference in both; in the paper's second phase it is the policy of the first.

    Attributes:
        phase: `both`, or one alone: `supervised`, `preferences`. Default: Bai et al. 2022.
        revisions: how often a reply is criticised and revised; the paper goes up to 4. Default: ours, for the least
            cost.
        helpful_share: the share of what is imitated that is the data's demonstrations, so that a model that is made
            harmless stays helpful. Default: ours; the paper mixes some in.
        rounds: of the preference phase. Default: Bai et al. 2022.
        learner_rate: the share of `training.learning_rate` at which the learner goes on from the supervised phase: an
            adapter that has been trained moves much further in a step than one that begins at zero. Default: ours.
        trainer: of the supervised phase (TRL's SFTConfig). Default: TRL's, but for what `training` sets for all.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "judge", "constitution"})
    config: ClassVar[str | None] = "trl.trainer.sft_config:SFTConfig"

    phase: Literal["both", "supervised", "preferences"] = "both"
    revisions: Annotated[int, Field(ge=1)] = 1
    helpful_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    learner_rate: Annotated[float, Field(gt=0, le=1)] = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.phase == "supervised" and self.rounds > 1:
            raise ValueError(f"rounds: {self.rounds} has no meaning with phase 'supervised'; it is of the other phase")
        if self.phase == "supervised" and (self.learner != "dpo" or self.learner_settings):
            raise ValueError(
                "learner and learner_settings have no meaning with phase 'supervised'; nothing is compared"
            )
        if self.phase == "preferences" and (self.helpful_share > 0 or self.revisions > 1 or self.trainer):
            raise ValueError("revisions, helpful_share and trainer have no meaning with phase 'preferences'")
        if self.phase != "both" and self.learner_rate != 0.25:
            raise ValueError(
                f"learner_rate: {self.learner_rate} has no meaning with phase {self.phase!r}; it must be 'both'"
            )

    @property
    def continues(self) -> bool:
        return self.phase == "both" or super().continues

    @property
    def compares_samples(self) -> bool:
        return self.phase != "supervised"

    @property
    def required(self) -> frozenset[str]:
        unneeded = {"judge"} if self.phase == "supervised" else set()
        return self.needs - unneeded | ({"demonstrations"} if self.helpful_share > 0 else set())

    @property
    def tunable(self) -> dict[str, Range]:
        """With both phases the learner's rate is `learner_rate`, a share of the first phase's."""
        tried = super().tunable
        if self.phase == "supervised":
            return {LEARNING_RATE: tried[LEARNING_RATE]}
        if self.phase == "preferences":
            return {key: each for key, each in tried.items() if key != LEARNING_RATE}
        tried.pop(f"learner_settings.{LEARNING_RATE}", None)
        return {**tried, "learner_rate": Range(0.05, 1.0, log=True, source="ours, around the default")}

    @property
    def replies_per_row(self) -> int:
        return (self.phase != "preferences") + (self.learner_replies_per_row if self.phase != "supervised" else 0)

    def train(self, bench: Bench) -> Policy:
        from prefzoo.models.language_model import LanguageModelPolicy

        prompts = list(bench.data.prompts)
        random.Random(f"constitutional_ai {bench.seed}").shuffle(prompts)
        policy: Policy = LanguageModelPolicy.start_of(bench)
        latest = None
        if self.phase != "preferences":
            policy = latest = self._supervised(bench, policy, prompts)
            if self.phase == "both":
                bench.keep(policy, "supervised phase")
                bench = self._slower(bench)
        for i in range(self.rounds if self.phase != "supervised" else 0):
            part = prompts[i :: self.rounds]
            policy = latest = self.learn(bench.replace(latest=latest), part, self._pairs(bench, policy, part, i))
            if i + 1 < self.rounds:
                bench.keep(policy, f"round {i + 1}")
        if bench.judge is not None:
            bench.report["judge"] = bench.judge.report()
        if (own := getattr(bench.assistant, "report", None)) is not None:
            bench.report["assistant"] = own()
        return policy

    def _slower(self, bench: Bench) -> Bench:
        rate = self.learner_rate * (bench.training.learning_rate or 0.0)
        bench.report["learner_learning_rate"] = rate
        return bench.replace(training=bench.training.model_copy(update={"learning_rate": rate}))

    def _supervised(self, bench: Bench, start: Policy, prompts: Sequence[Prompt]) -> Policy:
        """Fine-tune on revisions, and on demonstrations for the other prompts."""
        demonstrated = [row for row in bench.data.demonstrations if self.helpful_share > 0]
        helpful = min(round(self.helpful_share * len(prompts)), len(demonstrated))
        revised = revise(bench, start, prompts[helpful:], self.revisions)
        bench.record(TRANSCRIPTS, [reply.transcript() for reply in revised])
        usable = [reply for reply in revised if reply.dropped is None]
        bench.report["supervised"] = {
            **_counts(revised),
            "helpful": helpful,
            "helpful_wanted": round(self.helpful_share * len(prompts)),
        }
        if not usable:
            counts = ai_preferences.in_words(_counts(revised))
            raise PrefzooError(f"constitutional_ai: no reply of {len(revised)} could be revised: {counts}")
        data = bench.data.with_demonstrations([r.prompt for r in usable], [r.final for r in usable])
        rows = data.demonstrations + random.Random(bench.seed).sample(demonstrated, helpful)
        random.Random(bench.seed).shuffle(rows)
        learner = get("sft", on="demonstrations", trainer=self.trainer)
        bench.ledger.prompts += round(helpful * bench.budget.epochs)
        return learner.train(bench.replace(data=dataclasses.replace(data, demonstrations=rows, sampled=True)))

    def _pairs(self, bench: Bench, policy: Policy, prompts: Sequence[Prompt], i: int) -> list[dict[str, Any]]:
        """Return one round's pairs, each compared by a principle; the transcripts say what became of each."""
        assert bench.constitution is not None
        rng = random.Random(f"principles {bench.seed} {i}")
        drawn = [(prompt, bench.constitution.draw(prompt, rng)) for prompt in prompts]
        fitting = [(prompt, principle) for prompt, principle in drawn if principle is not None]
        principles = [principle for _, principle in fitting]
        questions = [principle.preference for principle in principles]
        seed = bench.seed * 1000 + 500 + i
        compared = ai_preferences.ask(bench, policy, [p for p, _ in fitting], seed, questions) if fitting else []
        records = [
            {
                "phase": f"preferences, round {i + 1}",
                "prompt": pair.prompt,
                "principle": principle.id,
                "first": pair.first.text,
                "second": pair.second.text,
                "first_better": pair.first_better,
                "dropped": pair.dropped,
            }
            for principle, pair in zip(principles, compared, strict=True)
        ]
        bench.record(TRANSCRIPTS, records)
        counts = {**ai_preferences.counts(compared), "prompts": len(prompts)}
        if missed := len(prompts) - len(fitting):
            counts["no_principle_applies"] = missed
        bench.report.setdefault("preferences", []).append(counts)
        pairs = ai_preferences.preferences(compared)
        if not pairs:
            words = ai_preferences.in_words(counts)
            raise PrefzooError(f"constitutional_ai: of {len(prompts)} prompts no pair could be made: {words}")
        return pairs


def _counts(replies: Sequence[Revised]) -> dict[str, int]:
    """Return how many replies were revised, and how many were left out for each reason."""
    reasons = [reply.dropped for reply in replies if reply.dropped is not None]
    left_out = {reason: reasons.count(reason) for reason in set(reasons)}
    return {"prompts": len(replies), "revised": len(replies) - len(reasons), **left_out}
