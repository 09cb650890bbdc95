"""Preferences that a judge gives over a policy's own replies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefzoo.interface import Bench, Policy
from prefzoo.settings import Generation
from prefzoo.types import Completion, Judge, Prompt
from prefzoo.views import assistant_turn


@dataclass(frozen=True)
class LabelledPair:
    """Two replies to a prompt and what the judge made of them.

    Attributes:
        prompt: what was answered.
        first, second: the replies in the order of sampling.
        first_better: the judge's P(first is better), over both orders.
        dropped: why they make no pair; None where they make one.
    """

    prompt: Prompt
    first: Completion
    second: Completion
    first_better: float
    dropped: str | None

    @property
    def better(self) -> Completion:
        """The reply that came out better."""
        return self.first if self.first_better > 0.5 else self.second

    @property
    def worse(self) -> Completion:
        """The other one."""
        return self.second if self.first_better > 0.5 else self.first

    @property
    def chosen(self) -> str:
        """The text of the better one."""
        return self.better.text

    @property
    def rejected(self) -> str:
        """The text of the worse one."""
        return self.worse.text


def label_pairs(
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Completion]],
    first_better: Sequence[float],
    keep_unfinished: bool = False,
) -> list[LabelledPair]:
    """Pairs out of two replies each and a judge's answers.

    Two replies make no pair when one was cut off (unless `keep_unfinished`) or is empty, when both are the same, when
    nobody was asked about them (an answer that is no number), or when both are as good.
    """
    pairs = []
    for prompt, (a, b), p in zip(prompts, samples, first_better, strict=True):
        reasons = {
            "unfinished_reply": not (keep_unfinished or (a.finished and b.finished)),
            "empty_reply": not (a.text.strip() and b.text.strip()),
            "identical_pair": a.text == b.text,
            "not_asked": math.isnan(p),
            "tied_replies": p == 0.5,
        }
        dropped = next((reason for reason, holds in reasons.items() if holds), None)
        pairs.append(LabelledPair(prompt, a, b, p, dropped))
    return pairs


def ask(
    bench: Bench, policy: Policy, prompts: Sequence[Prompt], seed: int, questions: Sequence[str | None] | None = None
) -> list[LabelledPair]:
    """Sample two replies of `policy` to each prompt and have the bench's judge compare them; both are charged.

    Args:
        questions: what the judge is asked about each pair; None asks which reply is better.
    """
    samples = bench.sample(policy, prompts, 2, seed=seed)
    bench.progress("judging", 0, 1)
    assert bench.judge is not None
    judged = first_better(bench.judge, prompts, samples, bench.generation, bench.prefer, questions)
    return label_pairs(prompts, samples, judged, bench.generation.unfinished == "keep")


def first_better(
    judge: Judge,
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Completion]],
    generation: Generation,
    ask: Callable[..., list[float]],
    questions: Sequence[str | None] | None = None,
) -> list[float]:
    """`ask(prompts, first, second, questions)` of two replies to each prompt. People's time is dear: they are not asked
    about a reply that was cut off, of which no pair is made."""
    dear = getattr(judge, "pauses", False)
    asked = [i for i, pair in enumerate(samples) if not dear or all(map(generation.counts, pair))]
    chosen = [[reply.text for reply in samples[i]] for i in asked]
    about = None if questions is None else [questions[i] for i in asked]
    answers = ask([prompts[i] for i in asked], [a for a, _ in chosen], [b for _, b in chosen], about)
    said = dict(zip(asked, answers, strict=True))
    return [said.get(i, math.nan) for i in range(len(samples))]


def preferences(pairs: Sequence[LabelledPair]) -> list[dict[str, Any]]:
    """Those that were not dropped, in the format of `Views.preferences`."""
    return [
        {
            "prompt": list(pair.prompt),
            "chosen": assistant_turn(pair.better),
            "rejected": assistant_turn(pair.worse),
        }
        for pair in pairs
        if pair.dropped is None
    ]


def counts(pairs: Sequence[LabelledPair]) -> dict[str, int]:
    """How many prompts and usable pairs there are, and how many were dropped for which reason."""
    dropped = Counter(pair.dropped for pair in pairs if pair.dropped is not None)
    return {"prompts": len(pairs), "pairs": len(pairs) - dropped.total(), **dropped}


def in_words(counts: Mapping[str, int]) -> str:
    """What became of sampled replies, and what to change where some were cut."""
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    cut = counts.get("unfinished_reply", 0) or counts.get("unfinished", 0)
    return f"{text}. {CUT}" if cut else f"{text}."


CUT = (
    "A reply is unfinished where it was cut at generation.max_new_tokens: raise that, or say "
    "generation.unfinished: keep to learn from cut replies."
)
