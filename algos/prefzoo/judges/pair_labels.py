"""Which of a policy's own replies are a pair, by the reward or by the judge."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any, Literal

from prefzoo.interface import Bench
from prefzoo.judges.ai_preferences import first_better, label_pairs
from prefzoo.types import Completion, Prompt
from prefzoo.views import assistant_turn

Labeller = Literal["reward", "judge"]
PairRule = Literal["best_worst", "best_random", "mu_minus_2sigma"]
Label = tuple[int, int, float | None] | str
"""Of the replies to a prompt the chosen one, the rejected one, and the gap of their rewards (None of a judge's label);
or why they make no pair."""


def chosen_and_rejected(scores: Sequence[float], rule: PairRule, rng: random.Random) -> tuple[int, int] | None:
    """Return which reply to a prompt is chosen and which rejected, by their scores; None where all score alike.

    The chosen one scores highest, the first of several. The rejected one scores less: the lowest (`best_worst`), any
    (`best_random`), or nearest to the mean minus two standard deviations of all scores (`mu_minus_2sigma`, Xiao et al.
    2025, https://arxiv.org/abs/2502.16825); of two that are as near, the lower one.
    """
    best = max(range(len(scores)), key=scores.__getitem__)
    worse = [i for i, score in enumerate(scores) if score < scores[best]]
    if not worse:
        return None
    if rule == "best_random":
        return best, rng.choice(worse)
    if rule == "best_worst":
        return best, min(worse, key=scores.__getitem__)
    target = fmean(scores) - 2 * pstdev(scores)
    return best, min(worse, key=lambda i: (abs(scores[i] - target), scores[i]))


def labelled(
    bench: Bench,
    labeller: Labeller,
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Completion]],
    rule: PairRule = "best_worst",
    seed: int = 0,
) -> list[Label]:
    """Return a label for the replies to each prompt; what the labeller is asked is charged.

    Args:
        samples: two or more replies to each prompt; a judge compares two.
        rule: which pair is made of more than two.
        seed: of `best_random`.
    """
    if labeller == "judge":
        bench.progress("judging", 0, 1)
        assert bench.judge is not None
        answers = first_better(bench.judge, prompts, samples, bench.generation, bench.prefer)
        judged = label_pairs(prompts, samples, answers, bench.generation.unfinished == "keep")
        return [each.dropped or ((0, 1, None) if each.better is each.first else (1, 0, None)) for each in judged]
    flat = [(prompt, reply.text) for prompt, replies in zip(prompts, samples, strict=True) for reply in replies]
    scores = iter(bench.score([prompt for prompt, _ in flat], [text for _, text in flat]))
    rng = random.Random(f"pairs {seed}")
    return [_by_score(bench, replies, [next(scores) for _ in replies], rule, rng) for replies in samples]


def _by_score(
    bench: Bench, replies: Sequence[Completion], scores: Sequence[float], rule: PairRule, rng: random.Random
) -> Label:
    finished = [i for i, reply in enumerate(replies) if bench.generation.counts(reply)]
    usable = [i for i in finished if replies[i].text.strip()]
    if len(usable) < 2:
        return "unfinished_reply" if len(finished) < 2 else "empty_reply"
    found = chosen_and_rejected([scores[i] for i in usable], rule, rng)
    if found is None:
        return "identical_pair" if len({replies[i].text for i in usable}) == 1 else "tied_replies"
    chosen, rejected = (usable[i] for i in found)
    return chosen, rejected, scores[chosen] - scores[rejected]


def pair(prompt: Prompt, replies: Sequence[Completion], label: Label) -> dict[str, Any]:
    """Return a row of `Views.preferences`; of replies that make no pair, the first two in any order."""
    chosen, rejected, margin = (0, 1, 0.0) if isinstance(label, str) else label
    row = {"prompt": list(prompt), "chosen": assistant_turn(replies[chosen])}
    row["rejected"] = assistant_turn(replies[rejected])
    return row if margin is None else {**row, "margin": margin}
