"""How far a judge is to be trusted: what it says of pairs whose better reply is known, asked in both orders."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from prefzoo.data.agreement import clustered_wilson, wilson
from prefzoo.data.formats import Row, slices_of
from prefzoo.data.row_views import cluster_of
from prefzoo.judges.judge import Judge
from prefzoo.judges.judge_audit import Audit, Bin, Calibration, Figures, KnownBy, LengthBias, Share
from prefzoo.types import Truth

EDGES = (0.6, 0.7, 0.8, 0.9)
"""Where the bins of the reliability table end; the first begins at 0.5."""


@dataclass(frozen=True)
class Case:
    """One pair, its better reply first where a truth is known.

    Attributes:
        p_original_order, p_swapped_order: P(the one shown first is better) with the first shown first, and with the
            second shown first; None where unreadable.
        longer: by how many characters the first is longer.
        slice: the named part of the prompts that it belongs to.
        cluster: its group of prompts, or its prompt: pairs of one are not independent. None: no other is of it.
    """

    p_original_order: float | None
    p_swapped_order: float | None
    longer: int
    slice: str | None
    cluster: str | None = None

    @property
    def orders(self) -> tuple[float, float]:
        """P(the one shown first is better) in both orders, one half where unreadable."""
        original, swapped = (0.5 if p is None else p for p in (self.p_original_order, self.p_swapped_order))
        return original, swapped

    @property
    def p(self) -> float:
        """P(first better) over both orders, rounded so that what cancels out is a tie."""
        original, swapped = self.orders
        return round((original + 1 - swapped) / 2, 9)


def audit(judge: Judge, rows: Sequence[Row], gold: Truth | None, labelled: bool = True) -> Audit | None:
    """Ask a judge about pairs whose better reply is known, in both orders, and compare.

    Args:
        judge: whom to audit.
        rows: held-out rows; those without a pair are passed over.
        gold: the truth; where there is none, the labels of the rows are.
        labelled: False where these labels come from a judge, and without `gold` nothing is known.

    Returns:
        The audit; None where there is no pair to ask about.
    """
    pairs = [(row, row.chosen, row.rejected) for row in rows if row.chosen is not None and row.rejected is not None]
    judged = pairs
    if gold is not None:
        prompts = [row.prompt for row, _, _ in pairs]
        sides = [[a for _, a, _ in pairs], [b for _, _, b in pairs]]
        scores = [[score["gold"] for score in gold(prompts, texts)] for texts in sides]
        judged = [
            (row, a, b) if x > y else (row, b, a) for (row, a, b), x, y in zip(pairs, *scores, strict=True) if x != y
        ]
    if not judged:
        return None
    rows, better, worse = zip(*judged, strict=True)
    original, swapped = judge.compare_both_orders([row.prompt for row in rows], better, worse)
    cases = [
        Case(p, q, len(a) - len(b), row.slice, cluster_of(row))
        for (row, a, b), p, q in zip(judged, original, swapped, strict=True)
    ]
    truth: KnownBy | None = "gold" if gold is not None else "labels" if labelled else None
    slices = sorted({name for case in cases for name in slices_of(case.slice)})
    return Audit(
        **dict(figures(cases, truth is not None)),
        judge=judge.name,
        truth=truth,
        questions=2 * len(cases),
        without_truth=len(pairs) - len(judged),
        slices={
            name: figures([case for case in cases if name in slices_of(case.slice)], truth is not None)
            for name in slices
        },
    )


def figures(cases: Sequence[Case], known: bool) -> Figures:
    """The figures of these pairs.

    Args:
        cases: at least one.
        known: whether the first reply of each is truly the better one.
    """
    orders = [case.orders for case in cases]
    clusters = _clusters(cases)
    decided = [case for case in cases if 0.5 not in case.orders]
    consistent = [(p > 0.5) != (q > 0.5) for p, q in (case.orders for case in decided)]
    return Figures(
        pairs=len(cases),
        agreement=_share([_win(case.p) for case in cases], clusters) if known else None,
        consistency=_share(consistent, _clusters(decided)) if consistent else None,
        first_preferred=_share_of_questions([(_win(p), _win(q)) for p, q in orders], clusters),
        ties=_share([case.p == 0.5 for case in cases], clusters),
        failures=_share_of_questions(
            [(case.p_original_order is None, case.p_swapped_order is None) for case in cases], clusters
        ),
        length=_length([case for case in cases if case.longer], known),
        calibration=_calibration(cases) if known else None,
    )


def _length(cases: Sequence[Case], known: bool) -> LengthBias | None:
    if not cases:
        return None
    where_longer = [case for case in cases if case.longer > 0]
    where_shorter = [case for case in cases if case.longer < 0]
    preferred = _share([_win(case.p) if case.longer > 0 else 1 - _win(case.p) for case in cases], _clusters(cases))
    if not known:
        return LengthBias(longer_preferred=preferred)
    longer, shorter = (
        _share([_win(case.p) for case in part], _clusters(part)) if part else None
        for part in (where_longer, where_shorter)
    )
    favour = interval = None
    if longer is not None and shorter is not None:
        low, high = longer.share - longer.ci95[0], longer.ci95[1] - longer.share
        below, above = shorter.share - shorter.ci95[0], shorter.ci95[1] - shorter.share
        favour = longer.share - shorter.share
        interval = (favour - (low**2 + above**2) ** 0.5, favour + (high**2 + below**2) ** 0.5)
    return LengthBias(
        longer_preferred=preferred,
        longer_better=len(where_longer) / len(cases),
        where_longer_is_better=longer,
        where_shorter_is_better=shorter,
        favour=favour,
        favour_ci95=interval,
    )


def _calibration(cases: Sequence[Case]) -> Calibration:
    """The reliability table."""
    better = [case.p for case in cases]
    members: list[list[Case]] = [[] for _ in range(len(EDGES) + 1)]
    for case in cases:
        members[bisect_right(EDGES, max(case.p, 1 - case.p))].append(case)
    bins, gaps = [], []
    for low, high, part in zip((0.5, *EDGES), (*EDGES, 1.0), members, strict=True):
        mean, right = None, None
        if part:
            mean = statistics.fmean(max(case.p, 1 - case.p) for case in part)
            right = _share([_win(case.p) for case in part], _clusters(part))
            gaps.append(len(part) * abs(mean - right.share))
        bins.append(Bin(low=low, high=high, pairs=len(part), mean=mean, right=right))
    return Calibration(
        bins=bins,
        error=sum(gaps) / len(better),
        brier=statistics.fmean((1 - p) ** 2 for p in better),
        sure=statistics.fmean(max(p, 1 - p) for p in better),
    )


def _win(p: float) -> float:
    return 1.0 if p > 0.5 else 0.5 if p == 0.5 else 0.0


def _clusters(cases: Sequence[Case]) -> list[str | int]:
    return [i if case.cluster is None else case.cluster for i, case in enumerate(cases)]


def _share(values: Sequence[float], clusters: Sequence[str | int]) -> Share:
    return Share(share=statistics.fmean(values), ci95=clustered_wilson(values, clusters), count=len(values))


def _share_of_questions(pairs: Sequence[tuple[float, float]], clusters: Sequence[str | int]) -> Share:
    """A share over both questions of each pair, which are not independent: of a judge that looks at replies alone, the
    answers of the two orders are opposites. The interval is Wilson's for as many independent questions as would vary
    as much (Kish's effective sample size), and where nothing varies, as there are pairs."""
    means = [statistics.fmean(pair) for pair in pairs]
    share = statistics.fmean(means)
    if len(set(clusters)) < len(clusters):
        return Share(share=share, ci95=clustered_wilson(means, clusters), count=2 * len(pairs))
    variance = statistics.variance(means) / len(means) if len(means) > 1 else 0.0
    count = share * (1 - share) / variance if variance else len(means)
    return Share(share=share, ci95=wilson(share, count), count=2 * len(pairs))
