"""A judge: P(the first of two replies is better) over both orders of showing them, and a grade of one reply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.types import Prompt

CompareOnce = Callable[[Sequence[Prompt], Sequence[str], Sequence[str], Sequence[str | None]], Sequence[float | None]]
"""`(prompts, shown first, shown second, questions) -> P(the one shown first is better)`, in one order of showing; None
where no answer could be read. A question is what a principle asks; None asks which reply is better."""

GradeReplies = Callable[[Sequence[Prompt], Sequence[str]], Sequence[float | None]]
"""`(prompts, replies) -> grades from 0 to 10`; None where no answer could be read."""

EXAMPLES = 5
"""How many unreadable answers a report shows."""
SHOWN = 300
"""How much of each, in characters."""


@dataclass
class JudgeCounts:
    """What a judge was asked and how it answered.

    Attributes:
        pairs, grades: pairs judged, and replies graded.
        questions: questions put: two a pair, one a grade.
        failures: questions to which no answer could be read. Of a pair such an order counts as undecided.
        unanswered: those of the failures in which no answer came at all.
        undecided: pairs of which no answer could be read in either order; they are among the ties.
        ties: pairs of which neither reply came out better over both orders.
        inconsistent: pairs of which the two orders preferred different replies.
        first_preferred: questions about pairs in which the reply shown first was preferred, undecided ones counting
            half; of a judge without position bias, half.
    """

    pairs: int = 0
    grades: int = 0
    questions: int = 0
    failures: int = 0
    unanswered: int = 0
    undecided: int = 0
    ties: int = 0
    inconsistent: int = 0
    first_preferred: float = 0.0


class Judge:
    """Compares replies in both orders of showing them, and grades them one by one where it can.

    Args:
        compare_once: the comparison, in one order.
        grade_replies: the grading; None where this judge cannot.
        name: what it is called in messages.

    Attributes:
        spec: what `build_judge` makes this judge of again; None for one that was made otherwise.
        counts: what it was asked so far.
        flops: floating-point operations so far, of a judge that counts them.
        about: what a report says of it besides what it was asked.
        failure_examples: the first few answers that could not be read.
    """

    def __init__(
        self, compare_once: CompareOnce, grade_replies: GradeReplies | None = None, name: str = "the judge"
    ) -> None:
        self.compare_once, self.grade_replies, self.name = compare_once, grade_replies, name
        self.flops = 0.0
        self.spec: dict[str, Any] | None = None
        self.counts = JudgeCounts()
        self.about: dict[str, Any] = {}
        self.failure_examples: list[dict[str, str]] = []

    def __call__(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> list[float]:
        """The mean of P(first better) when it is shown first and when it is shown second, for each pair.

        Args:
            questions: for each pair what is asked about it; None asks which reply is better.
        """
        both = self.compare_both_orders(prompts, first, second, questions)
        counts = self.counts
        counts.failures += sum(p is None for order in both for p in order)
        counts.undecided += sum(p is None and q is None for p, q in zip(*both, strict=True))
        original, swapped = ([0.5 if p is None else p for p in order] for order in both)
        verdicts = [(p + (1 - q)) / 2 for p, q in zip(original, swapped, strict=True)]
        counts.pairs += len(verdicts)
        counts.questions += 2 * len(verdicts)
        counts.ties += sum(math.isclose(p, 0.5, abs_tol=1e-9) for p in verdicts)
        counts.inconsistent += sum((p - 0.5) * (q - 0.5) > 0 for p, q in zip(original, swapped, strict=True))
        counts.first_preferred += sum((p > 0.5) + (p == 0.5) / 2 for p in (*original, *swapped))
        return [0.5 if math.isclose(p, 0.5, abs_tol=1e-9) else p for p in verdicts]

    def compare_both_orders(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> tuple[Sequence[float | None], Sequence[float | None]]:
        """P(the one shown first is better) of each pair with `first` shown first, and with `second` shown first; None
        where no answer could be read. Not counted in `counts`."""
        asks = list(questions) if questions is not None else [None] * len(prompts)
        return self.compare_once(prompts, first, second, asks), self.compare_once(prompts, second, first, asks)

    def grade(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float | None]:
        """A grade from 0 to 10 for each reply; None where no answer could be read, which is counted.

        Raises:
            PrefzooError: when this judge compares only.
        """
        if self.grade_replies is None:
            raise PrefzooError(
                f"{self.name} compares replies, but does not grade them one by one; "
                "judge.path may name a model that does"
            )
        grades = list(self.grade_replies(prompts, completions))
        self.counts.grades += len(grades)
        self.counts.questions += len(grades)
        self.counts.failures += sum(grade is None for grade in grades)
        return grades

    def report(self) -> dict[str, Any]:
        """What was asked so far, and how; `failure_examples` are `{"failure": why, "answer": its beginning}`."""
        return {**asdict(self.counts), "failure_examples": self.failure_examples, **self.about}

    def state(self) -> dict[str, Any]:
        """All that asking changes in the judge, as plain values."""
        counts, examples = asdict(self.counts), self.failure_examples
        return {"asked": counts, "flops": self.flops, "about": self.about, "examples": examples}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the judge to a `state` that it or another one of its kind had."""
        self.counts, self.flops = JudgeCounts(**state["asked"]), state["flops"]
        self.about, self.failure_examples = dict(state["about"]), list(state["examples"])

    def record_failure(self, reason: str | None, answer: str = "") -> None:
        """Record an answer of which nothing could be read, for the report.

        Args:
            reason: why there is no answer at all; None where there is one.
        """
        self.counts.unanswered += reason is not None
        if len(self.failure_examples) < EXAMPLES:
            self.failure_examples.append({"failure": reason or "unreadable", "answer": answer[:SHOWN]})
