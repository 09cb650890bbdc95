"""Preferences out of prompts alone: the start answers each twice, and the truth says which answer is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefzoo.data.formats import Dropped, Row
from prefzoo.data.views import Views, prompt_key
from prefzoo.interface import Generation, Ledger, Policy, Progress

Gold = Callable[[list[Any], list[str]], list[Mapping[str, float]]]


def label(
    rows: Sequence[Row],
    policy: Policy,
    gold: Gold,
    generation: Generation,
    seed: int,
    ledger: Ledger,
    progress: Progress,
) -> tuple[list[Row], Dropped]:
    """Pairs of two sampled replies for the prompts of one split.

    A pair is left out, with its reason, when a reply is empty, or was cut off (a trainer would append an end that the
    policy never wrote), when both replies are the same, or when both are as good.

    Args:
        rows: of the split; each distinct prompt is answered.
        policy: the start.
        gold: `(prompts, replies) -> [{"gold": score}]`.
        generation, seed: how replies are sampled.
        ledger: is charged for the samples and for each scored reply.
        progress: is told how far sampling is.

    Returns:
        The rows that were given and after them a row for each pair; and what was left out.
    """
    prompts = Views.of(rows).prompts
    first = {prompt_key(row.prompt): row for row in reversed(rows)}
    drawn = policy.sample(prompts, generation, seed, n=2, ledger=ledger, progress=progress)
    flat = [reply.text for replies in drawn for reply in replies]
    scores = [each["gold"] for each in gold([prompt for prompt in prompts for _ in range(2)], flat)]
    ledger.reward_calls += len(flat)
    dropped = Dropped()
    pairs = []
    for i, (prompt, (a, b)) in enumerate(zip(prompts, drawn, strict=True)):
        row = first[prompt_key(prompt)]
        difference = scores[2 * i] - scores[2 * i + 1]
        reasons = {
            "unfinished_reply": not (a.finished and b.finished),
            "empty_reply": not (a.text.strip() and b.text.strip()),
            "identical_pair": a.text == b.text,
            "tied_replies": difference == 0,
        }
        if reason := next((name for name, holds in reasons.items() if holds), None):
            dropped.add(reason, row.id, prompt[-1]["content"])
            continue
        good, bad = (a, b) if difference > 0 else (b, a)
        pairs.append(Row(f"{row.id} labelled", row.prompt, chosen=good.text, rejected=bad.text, slice=row.slice))
    return [*rows, *pairs], dropped
