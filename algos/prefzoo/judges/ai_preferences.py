"""Preferences that a judge gives over a policy's own replies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefzoo.interface import Bench, Policy
from prefzoo.types import Completion, Prompt


@dataclass(frozen=True)
class Labelled:
    """Two replies to a prompt and what the judge made of them.

    Attributes:
        prompt: what was answered.
        first, second: the replies.
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
        """The reply that came out better."""
        return (self.first if self.first_better > 0.5 else self.second).text

    @property
    def rejected(self) -> str:
        """The other one."""
        return (self.second if self.first_better > 0.5 else self.first).text


def labelled(
    prompts: Sequence[Prompt], drawn: Sequence[Sequence[Completion]], first_better: Sequence[float]
) -> list[Labelled]:
    """Pairs out of two replies each and a judge's answers.

    Two replies make no pair when one was cut off (a trainer would append an end that the policy never wrote) or is
    empty, when both are the same, or when both are as good.
    """
    found = []
    for prompt, (a, b), p in zip(prompts, drawn, first_better, strict=True):
        reasons = {
            "unfinished_reply": not (a.finished and b.finished),
            "empty_reply": not (a.text.strip() and b.text.strip()),
            "identical_pair": a.text == b.text,
            "tied_replies": p == 0.5,
        }
        found.append(Labelled(prompt, a, b, p, next((name for name, holds in reasons.items() if holds), None)))
    return found


def ask(
    bench: Bench, policy: Policy, prompts: Sequence[Prompt], seed: int, questions: Sequence[str | None] | None = None
) -> list[Labelled]:
    """Sample two replies of `policy` to each prompt and have the bench's judge compare them; both are charged.

    Args:
        questions: what the judge is asked about each pair; None asks which reply is better.
    """
    drawn = bench.sample(policy, prompts, 2, seed=seed)
    sides = [a.text for a, _ in drawn], [b.text for _, b in drawn]
    bench.progress("judging", 0, 1)
    return labelled(prompts, drawn, bench.prefer(prompts, *sides, questions))


def preferences(found: Sequence[Labelled]) -> list[dict[str, Any]]:
    """The pairs among `found`, in the format of `Views.preferences`."""
    return [
        {
            "prompt": list(each.prompt),
            "chosen": [{"role": "assistant", "content": each.chosen}],
            "rejected": [{"role": "assistant", "content": each.rejected}],
        }
        for each in found
        if each.dropped is None
    ]


def counts(found: Sequence[Labelled]) -> dict[str, int]:
    """How many pairs were made, and how many prompts made none for which reason."""
    dropped = Counter(each.dropped for each in found if each.dropped is not None)
    return {"prompts": len(found), "pairs": len(found) - dropped.total(), **dropped}
