"""How far a judge is to be trusted: what it says of pairs whose better reply is known, asked in both orders."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from prefzoo.data.agreement import wilson
from prefzoo.data.formats import Row
from prefzoo.judges.judge import Judge
from prefzoo.types import Truth

KnownBy = Literal["gold", "labels"]
AUDIT_FILE = "judge_audit.json"
EDGES = (0.6, 0.7, 0.8, 0.9)
"""Where the bins of the reliability table end; the first begins at 0.5."""


class Block(BaseModel):
    """A block of `judge_audit.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Share(Block):
    """A share of `count` cases with its 95% interval."""

    share: float
    ci95: tuple[float, float]
    count: int


class Bin(Block):
    """Pairs whose preferred reply the judge is `low` to `high` sure of."""

    low: float
    high: float
    pairs: int
    mean: float | None = Field(description="mean probability that the judge gives to the reply it prefers")
    right: Share | None = Field(description="how often that reply is the better one")


class Calibration(Block):
    """Whether the judge is right as often as it is sure.

    A pair is asked about in both orders, so that P(first better) and P(second better) add up to 1 and the reply that is
    preferred has at least one half: the table begins there.

    Attributes:
        error: expected calibration error: the mean over pairs of |sure - right| of their bin (Guo et al. 2017,
            https://arxiv.org/abs/1706.04599).
        brier: mean of (1 - P(the better reply))^2; a coin that says one half has 0.25 (Brier 1950).
        sure: mean probability of the preferred reply.
    """

    bins: list[Bin]
    error: float
    brier: float
    sure: float


class LengthBias(Block):
    """What length has to do with the verdicts, over pairs of replies that differ in characters.

    A judge that errs without looking at length errs as often where the better reply is the longer one as where it is
    the shorter one; `favour` is the difference.

    Attributes:
        longer_preferred: how often the longer reply is preferred.
        longer_better: how often it is the better one; None without a truth.
        where_longer_is_better, where_shorter_is_better: agreement in these pairs; None where there are none.
        favour, favour_ci95: the first less the second, with Newcombe's 95% interval of a difference of two shares
            (Newcombe 1998, method 10); above 0 the judge favours longer replies.
    """

    longer_preferred: Share
    longer_better: float | None = None
    where_longer_is_better: Share | None = None
    where_shorter_is_better: Share | None = None
    favour: float | None = None
    favour_ci95: tuple[float, float] | None = None


class Figures(Block):
    """What was found over some pairs; every pair is two questions, one in each order.

    Attributes:
        pairs: pairs that were judged.
        agreement: how often the judge, over both orders, prefers the better reply, ties counting half; None without a
            truth.
        consistency: of pairs in which both orders gave a verdict, how often it was the same; None where none did.
        first_preferred: questions in which the reply shown first was preferred, undecided ones counting half; without
            position bias one half.
        ties: how often neither reply came out better over both orders.
        failures: questions to which no answer could be read.
        length: None where all replies are equally long.
        calibration: None without a truth.
    """

    pairs: int
    agreement: Share | None
    consistency: Share | None
    first_preferred: Share
    ties: Share
    failures: Share
    length: LengthBias | None
    calibration: Calibration | None


class Audit(Figures):
    """The whole audit.

    Attributes:
        judge: what is audited.
        truth: what it is held against: gold, the labels of the data, or nothing.
        questions: how many were put to the judge; they are charged to no trial.
        without_truth: pairs that were left out because both replies are as good in gold.
        slices: the same for each named part of the prompts.
    """

    judge: str
    truth: KnownBy | None
    questions: int
    without_truth: int
    slices: dict[str, Figures] = {}

    @property
    def trusted(self) -> bool | None:
        """Whether it is better than a coin; None where there is no truth to tell that by."""
        return None if self.agreement is None else self.agreement.ci95[0] > 0.5


@dataclass(frozen=True)
class Case:
    """One pair, its better reply first where a truth is known: P(the one shown first is better) with the first shown
    first (`forth`) and with the second shown first (`back`), None where unreadable; and by how many characters the
    first is longer."""

    forth: float | None
    back: float | None
    longer: int
    slice: str | None

    @property
    def orders(self) -> tuple[float, float]:
        """The same, one half where unreadable."""
        return _or_half(self.forth), _or_half(self.back)

    @property
    def p(self) -> float:
        """P(first better) over both orders, rounded so that what cancels out is a tie."""
        forth, back = self.orders
        return round((forth + 1 - back) / 2, 9)


def audit(judge: Judge, rows: Sequence[Row], gold: Truth | None, labelled: bool = True) -> Audit | None:
    """Ask a judge about pairs whose better reply is known, in both orders, and compare.

    Args:
        judge: whom to audit.
        rows: held-out rows; those without a pair are passed over.
        gold: the truth; where there is none, the labels of the rows are.
        labelled: False where these labels come from a judge, and without `gold` nothing is known.

    Returns:
        What was found; None where there is no pair to ask about.
    """
    pairs = [row for row in rows if row.chosen is not None and row.rejected is not None]
    sides = [(row.chosen or "", row.rejected or "") for row in pairs]
    kept = [*zip(pairs, sides, strict=True)]
    if gold is not None:
        prompts = [row.prompt for row in pairs]
        scores = [[each["gold"] for each in gold(prompts, list(texts))] for texts in zip(*sides, strict=True)]
        kept = [
            (row, (a, b) if x > y else (b, a))
            for row, (a, b), x, y in zip(pairs, sides, *scores, strict=True)
            if x != y
        ]
    if not kept:
        return None
    better, other = [a for _, (a, _) in kept], [b for _, (_, b) in kept]
    forth, back = judge.in_both_orders([row.prompt for row, _ in kept], better, other)
    cases = [Case(p, q, len(a) - len(b), row.slice) for (row, (a, b)), p, q in zip(kept, forth, back, strict=True)]
    truth: KnownBy | None = "gold" if gold is not None else "labels" if labelled else None
    named = sorted({case.slice for case in cases if case.slice is not None})
    return Audit(
        **dict(figures(cases, truth is not None)),
        judge=judge.name,
        truth=truth,
        questions=2 * len(cases),
        without_truth=len(pairs) - len(kept),
        slices={name: figures([case for case in cases if case.slice == name], truth is not None) for name in named},
    )


def figures(cases: Sequence[Case], known: bool) -> Figures:
    """The figures of these pairs.

    Args:
        cases: at least one.
        known: whether the first reply of each is truly the better one.
    """
    both = [case.orders for case in cases]
    decided = [(p > 0.5) != (q > 0.5) for p, q in both if p != 0.5 and q != 0.5]
    return Figures(
        pairs=len(cases),
        agreement=_share([_win(case.p) for case in cases]) if known else None,
        consistency=_share([float(same) for same in decided]) if decided else None,
        first_preferred=_share_of_questions([(_win(p), _win(q)) for p, q in both]),
        ties=_share([float(case.p == 0.5) for case in cases]),
        failures=_share_of_questions([(float(case.forth is None), float(case.back is None)) for case in cases]),
        length=_length([case for case in cases if case.longer], known),
        calibration=_calibration([case.p for case in cases]) if known else None,
    )


def _length(cases: Sequence[Case], known: bool) -> LengthBias | None:
    if not cases:
        return None
    wins = [_win(case.p) for case in cases]
    preferred = _share([win if case.longer > 0 else 1 - win for case, win in zip(cases, wins, strict=True)])
    if not known:
        return LengthBias(longer_preferred=preferred)
    where = [
        [win for case, win in zip(cases, wins, strict=True) if (case.longer > 0) == longer] for longer in (True, False)
    ]
    longer, shorter = (_share(part) if part else None for part in where)
    found = LengthBias(
        longer_preferred=preferred,
        longer_better=len(where[0]) / len(cases),
        where_longer_is_better=longer,
        where_shorter_is_better=shorter,
    )
    if longer is None or shorter is None:
        return found
    low, high = (longer.share - longer.ci95[0], longer.ci95[1] - longer.share)
    below, above = (shorter.share - shorter.ci95[0], shorter.ci95[1] - shorter.share)
    favour = longer.share - shorter.share
    interval = (favour - (low**2 + above**2) ** 0.5, favour + (high**2 + below**2) ** 0.5)
    return found.model_copy(update={"favour": favour, "favour_ci95": interval})


def _calibration(better: Sequence[float]) -> Calibration:
    """Args: P(the better reply is better), of each pair."""
    held: list[list[tuple[float, float]]] = [[] for _ in range(len(EDGES) + 1)]
    for p in better:
        held[bisect_right(EDGES, max(p, 1 - p))].append((max(p, 1 - p), _win(p)))
    bins = []
    for low, high, part in zip((0.5, *EDGES), (*EDGES, 1.0), held, strict=True):
        mean = statistics.fmean(sure for sure, _ in part) if part else None
        right = _share([win for _, win in part]) if part else None
        bins.append(Bin(low=low, high=high, pairs=len(part), mean=mean, right=right))
    gaps = [each.pairs * abs(each.mean - each.right.share) for each in bins if each.mean is not None and each.right]
    return Calibration(
        bins=bins,
        error=sum(gaps) / len(better),
        brier=statistics.fmean((1 - p) ** 2 for p in better),
        sure=statistics.fmean(max(p, 1 - p) for p in better),
    )


def _or_half(p: float | None) -> float:
    return 0.5 if p is None else p


def _win(p: float) -> float:
    return 1.0 if p > 0.5 else 0.5 if p == 0.5 else 0.0


def _share(values: Sequence[float]) -> Share:
    share = statistics.fmean(values)
    return Share(share=share, ci95=wilson(share, len(values)), count=len(values))


def _share_of_questions(pairs: Sequence[tuple[float, float]]) -> Share:
    """A share over both questions of each pair, which are not independent: of a judge that looks at replies alone, the
    answers of the two orders are opposites. The interval is Wilson's for as many independent questions as would vary
    as much (Kish's effective sample size), and where nothing varies, as there are pairs."""
    means = [statistics.fmean(pair) for pair in pairs]
    share = statistics.fmean(means)
    variance = statistics.variance(means) / len(means) if len(means) > 1 else 0.0
    count = share * (1 - share) / variance if variance else len(means)
    return Share(share=share, ci95=wilson(share, count), count=2 * len(pairs))
