"""How likely a policy finds the chosen and the rejected replies of test pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefzoo.data.formats import Row
from prefzoo.data.row_views import cluster_of, distinct_pairs, views_of
from prefzoo.interface import HasLogProbabilities, Policy
from prefzoo.models.loading import load_tokenizer, tokenizer_arguments
from prefzoo.run.evaluation_records import PAIR_LIKELIHOODS
from prefzoo.types import Completion, Progress, Truth

MOST_PAIRS = 256
"""Of the test split: a share of them is known to 0.06, and scoring them costs less than sampling the replies."""


def write_pair_likelihoods(
    policy: Policy,
    rows: Sequence[Row],
    start: str,
    loading: dict[str, Any],
    folder: Path,
    progress: Progress,
    of_start: bool,
    truth: Truth | None,
) -> None:
    """Write a line for each of the first test pairs to `pairs.jsonl` in `folder`: the log-probabilities of the `chosen`
    and the `rejected` reply, in nats at temperature 1, the end of the turn included. Nothing is written where there
    are no pairs, and of a policy that scores no tokens.

    The start's lines say too which pair it is: `prompt`, `replies` (the chosen one first), `group`, what is the same of
    pairs that are not independent, and `gold` of both replies where a truth is known.

    Args:
        rows: the test split.
        start, loading: where the tokenizer is, and how it is read.
        of_start: whether this policy is the start.
        truth: is asked about the start's lines only.
    """
    pairs = distinct_pairs(rows)[:MOST_PAIRS]
    if not pairs or not isinstance(policy, HasLogProbabilities):
        return
    tokenizer = load_tokenizer(start, **tokenizer_arguments(loading))
    prompts = [row.prompt for row in pairs]
    preferences = views_of(pairs).preferences
    lines: list[dict[str, Any]] = [{} for _ in pairs]
    for i, side in enumerate(("chosen", "rejected")):
        progress("likelihood of test pairs", i, 2)
        turns = [[*pair["prompt"], *pair[side]] for pair in preferences]
        replies = [
            Completion(text[-1]["content"], tuple(ids), True)
            for text, (_, ids) in zip(turns, tokenizer.parts(turns), strict=True)
        ]
        for line, tokens in zip(lines, policy.log_probabilities(prompts, replies), strict=True):
            line[side] = sum(tokens)
    if of_start:
        chosen, rejected = [row.chosen or "" for row in pairs], [row.rejected or "" for row in pairs]
        for line, row, *texts in zip(lines, pairs, chosen, rejected, strict=True):
            line |= {"prompt": row.prompt, "replies": texts, "group": cluster_of(row)}
        if truth is not None:
            gold = [part["gold"] for part in truth([*prompts, *prompts], [*chosen, *rejected])]
            for line, *of_pair in zip(lines, gold[: len(pairs)], gold[len(pairs) :], strict=True):
                line["gold"] = of_pair
    with (folder / PAIR_LIKELIHOODS).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
