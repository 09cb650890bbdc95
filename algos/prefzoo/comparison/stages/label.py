"""Preferences out of prompts alone: the start answers each twice, and a judge says which answer is better."""

from __future__ import annotations

from collections.abc import Sequence

from prefzoo.data.formats import Row
from prefzoo.data.reasons import Dropped
from prefzoo.data.views import Views, prompt_key
from prefzoo.feedback.judges.judge import Judge
from prefzoo.interface import Ledger, Policy, Progress
from prefzoo.settings import Generation


def label(
    rows: Sequence[Row],
    policy: Policy,
    judge: Judge,
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
        judge: says which reply is better; the truth is one, too.
        generation, seed: how replies are sampled.
        ledger: is charged for the samples and for each question to the judge.
        progress: is told how far sampling is.

    Returns:
        The rows that were given and after them a row for each pair; and what was left out.
    """
    prompts = Views.of(rows).prompts
    first = {prompt_key(row.prompt): row for row in reversed(rows)}
    drawn = policy.sample(prompts, generation, seed, n=2, ledger=ledger, progress=progress)
    sides = [a.text for a, _ in drawn], [b.text for _, b in drawn]
    first_better = ledger.judged(judge, lambda: judge(prompts, *sides))
    dropped = Dropped()
    pairs = []
    for i, (prompt, (a, b)) in enumerate(zip(prompts, drawn, strict=True)):
        row = first[prompt_key(prompt)]
        reasons = {
            "unfinished_reply": not (a.finished and b.finished),
            "empty_reply": not (a.text.strip() and b.text.strip()),
            "identical_pair": a.text == b.text,
            "tied_replies": first_better[i] == 0.5,
        }
        if reason := next((name for name, holds in reasons.items() if holds), None):
            dropped.add(reason, row.id, prompt[-1]["content"])
            continue
        good, bad = (a, b) if first_better[i] > 0.5 else (b, a)
        pairs.append(Row(f"{row.id} labelled", row.prompt, chosen=good.text, rejected=bad.text, slice=row.slice))
    return [*rows, *pairs], dropped
