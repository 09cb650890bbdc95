"""Preferences that a judge gives over a policy's own replies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefzoo.interface import Bench, Policy
from prefzoo.types import Completion, Prompt


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
    def chosen(self) -> str:
        """The text of the reply that came out better."""
        return (self.first if self.first_better > 0.5 else self.second).text

    @property
    def rejected(self) -> str:
        """The text of the other one."""
        return (self.second if self.first_better > 0.5 else self.first).text


def label_pairs(
    prompts: Sequence[Prompt], samples: Sequence[Sequence[Completion]], first_better: Sequence[float]
) -> list[LabelledPair]:
    """Pairs out of two replies each and a judge's answers.

    Two replies make no pair when one was cut off (a trainer would append an end that the policy never wrote) or is
    empty, when both are the same, or when both are as good.
    """
    pairs = []
    for prompt, (a, b), p in zip(prompts, samples, first_better, strict=True):
        reasons = {
            "unfinished_reply": not (a.finished and b.finished),
            "empty_reply": not (a.text.strip() and b.text.strip()),
            "identical_pair": a.text == b.text,
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
    first, second = [a.text for a, _ in samples], [b.text for _, b in samples]
    return label_pairs(prompts, samples, bench.prefer(prompts, first, second, questions))


def preferences(pairs: Sequence[LabelledPair]) -> list[dict[str, Any]]:
    """Those that were not dropped, in the format of `Views.preferences`."""
    return [
        {
            "prompt": list(pair.prompt),
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in pairs
        if pair.dropped is None
    ]


def counts(pairs: Sequence[LabelledPair]) -> dict[str, int]:
    """How many prompts and usable pairs there are, and how many were dropped for which reason."""
    dropped = Counter(pair.dropped for pair in pairs if pair.dropped is not None)
    return {"prompts": len(pairs), "pairs": len(pairs) - dropped.total(), **dropped}
