"""Preferences out of prompts alone: the start answers each twice, and a judge says which answer is better."""

from __future__ import annotations

from collections.abc import Sequence

from prefzoo.data.formats import Row
from prefzoo.data.rejects import Rejects
from prefzoo.data.row_views import views_of
from prefzoo.interface import Policy
from prefzoo.judges.ai_preferences import labelled
from prefzoo.ledger import Ledger
from prefzoo.settings import Generation
from prefzoo.types import Judge, Progress
from prefzoo.views import prompt_key


def label(
    rows: Sequence[Row],
    policy: Policy,
    judge: Judge,
    generation: Generation,
    seed: int,
    ledger: Ledger,
    progress: Progress,
) -> tuple[list[Row], Rejects]:
    """Pairs of two sampled replies for the prompts of one split.

    What makes no pair is left out, with its reason (see `ai_labels.labelled`).

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
    prompts = views_of(rows).prompts
    first = {prompt_key(row.prompt): row for row in reversed(rows)}
    drawn = policy.sample(prompts, generation, seed, n=2, ledger=ledger, progress=progress)
    sides = [a.text for a, _ in drawn], [b.text for _, b in drawn]
    first_better = ledger.judged(judge, lambda: judge(prompts, *sides))
    dropped = Rejects()
    pairs = []
    for each in labelled(prompts, drawn, first_better):
        row = first[prompt_key(each.prompt)]
        if each.dropped:
            dropped.add(each.dropped, row.id, each.prompt[-1]["content"])
        else:
            pairs.append(
                Row(f"{row.id} labelled", row.prompt, chosen=each.chosen, rejected=each.rejected, slice=row.slice)
            )
    return [*rows, *pairs], dropped
