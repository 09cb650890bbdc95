"""The audit of a judge in sentences and in tables."""

from __future__ import annotations

from collections.abc import Sequence

from prefzoo.judges.judge_audit import Audit, Block, Figures, Share

AGAINST = {"gold": "gold", "labels": "the labels of the data"}
Cells = tuple[list[str], list[list[str]]]
"""Headings and rows."""


def verdict(audit: Audit) -> str:
    """Whether the judge can be trusted, in one sentence."""
    agreement = audit.agreement
    if audit.failures.share == 1:
        return f"No answer of {audit.judge} could be read: it says nothing about these replies."
    if agreement is None or audit.truth is None:
        return f"How far {audit.judge} is to be trusted is not known: there is no truth to hold its verdicts against."
    low, high = agreement.ci95
    name = audit.judge[0].upper() + audit.judge[1:]
    agrees = f"agrees with {AGAINST[audit.truth]} in {_with_interval(agreement)} of {agreement.count} pairs"
    if high < 0.5:
        return f"{name} is worse than a coin: it {agrees}. Are its verdicts read the wrong way round?"
    if low <= 0.5:
        return f"{name} cannot be told from a coin: it {agrees}. What learns from it learns noise."
    return f"{name} is better than a coin: it {agrees}."


def warnings(audit: Audit) -> list[str]:
    """What is wrong with the judge, a sentence each; nothing where nothing was shown to be."""
    texts = []
    low, high = audit.first_preferred.ci95
    if not low <= 0.5 <= high:
        place = "first" if low > 0.5 else "second"
        share = audit.first_preferred.share if low > 0.5 else 1 - audit.first_preferred.share
        effect = "only this counts for it" if share == 1 else "asking in both orders evens that out"
        texts.append(
            f"Position bias: it prefers the reply shown {place} in {_percent(share)} of its answers; {effect}."
        )
    if audit.consistency is not None and audit.consistency.ci95[0] <= 0.5 and audit.ties.share < 1:
        texts.append(
            f"Inconsistency: its verdicts are ruled by the order no less than by the replies; in both orders "
            f"it prefers the same reply in only {_percent(audit.consistency.share)}."
        )
    if audit.ties.share == 1:
        texts.append(
            "Only ties: over both orders it never prefers either reply, so that nothing can be learned from it."
        )
    if (length := audit.length) is not None and length.favour_ci95 is not None:
        longer, shorter = length.where_longer_is_better, length.where_shorter_is_better
        assert longer is not None and shorter is not None
        if not length.favour_ci95[0] <= 0 <= length.favour_ci95[1]:
            favoured = "longer" if length.favour_ci95[0] > 0 else "shorter"
            texts.append(
                f"Length bias: it favours {favoured} replies. Where the better reply is the longer one it is right in "
                f"{_percent(longer.share)}, where it is the shorter one in {_percent(shorter.share)}."
            )
    if audit.calibration is not None and audit.agreement is not None:
        sure, right = audit.calibration.sure, audit.agreement
        if not right.ci95[0] <= sure <= right.ci95[1]:
            error = "too sure" if sure > right.ci95[1] else "less sure than it could be"
            texts.append(
                f"Calibration: it is {error}. It gives the reply it prefers a probability of {_percent(sure)} on "
                f"average, and that is right in {_percent(right.share)}."
            )
    if audit.failures.share:
        texts.append(
            f"No answer could be read to {round(audit.failures.share * audit.failures.count)} of "
            f"{audit.failures.count} questions ({_percent(audit.failures.share)}); they count as undecided."
        )
    return texts


def sentences(audit: Audit) -> list[str]:
    """The verdict, the warnings, and how the audit was made."""
    texts = [verdict(audit), *warnings(audit)]
    low, high = audit.first_preferred.ci95
    if low <= 0.5 <= high:
        texts.append("No position bias was shown.")
    if audit.length is not None and (interval := audit.length.favour_ci95) and interval[0] <= 0 <= interval[1]:
        texts.append("No length bias was shown.")
    method = f"{audit.questions} questions were put to it: {audit.pairs} held-out pairs, each in both orders"
    if audit.truth == "labels":
        method += (
            ". No gold is known here: labels err too, so that not even a perfect judge would agree with all of them"
        )
    if audit.without_truth:
        method += f"; {audit.without_truth} more pairs, whose replies are as good in gold, were left out"
    return [*texts, f"{method}. These questions are charged to no algorithm."]


def cells(audit: Audit) -> Cells:
    """The figures: a row for each, a column for all pairs and for each slice."""
    parts: dict[str, Figures] = {"all": audit, **audit.slices}
    figures = list(parts.values())
    lengths, calibrations = [part.length for part in figures], [part.calibration for part in figures]

    def shares(field: str, blocks: Sequence[Block | None]) -> list[str | None]:
        values: list[Share | None] = [getattr(block, field, None) for block in blocks]
        return [None if share is None else _with_interval(share) for share in values]

    better = [None if bias is None else bias.longer_better for bias in lengths]
    rows: dict[str, list[str | None]] = {
        "pairs": [str(part.pairs) for part in figures],
        f"agrees with {AGAINST.get(audit.truth or '', '')}": shares("agreement", figures),
        "agrees with itself in the other order": shares("consistency", figures),
        "prefers the reply shown first": shares("first_preferred", figures),
        "ties": shares("ties", figures),
        "answers that could not be read": shares("failures", figures),
        "prefers the longer reply": shares("longer_preferred", lengths),
        "the longer reply is the better one": [None if share is None else _percent(share) for share in better],
        "right where the longer is better": shares("where_longer_is_better", lengths),
        "right where the shorter is better": shares("where_shorter_is_better", lengths),
        "expected calibration error": [None if table is None else f"{table.error:.3f}" for table in calibrations],
        "Brier score (a coin: 0.25)": [None if table is None else f"{table.brier:.3f}" for table in calibrations],
    }
    shown = {name: row for name, row in rows.items() if any(cell is not None for cell in row)}
    return ["", *parts], [[name, *[cell or "-" for cell in row]] for name, row in shown.items()]


def calibration_cells(audit: Audit) -> Cells | None:
    """The reliability table; None without a truth."""
    if audit.calibration is None:
        return None
    rows = []
    for row in audit.calibration.bins:
        mean, right = "-" if row.mean is None else f"{row.mean:.2f}", "-"
        if row.right is not None:
            right = f"{row.right.share:.2f} ({row.right.ci95[0]:.2f} to {row.right.ci95[1]:.2f})"
        rows.append([f"{row.low:.1f} to {row.high:.1f}", str(row.pairs), mean, right])
    return ["sure", "pairs", "mean", "right [95%]"], rows


def _with_interval(share: Share) -> str:
    low, high = share.ci95
    return f"{_percent(share.share)} ({100 * low:.0f} to {_percent(high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
