"""What an audit of a judge says, in sentences and in a table."""

from __future__ import annotations

from collections.abc import Sequence

from prefzoo.judges.judge_audit import Audit, Figures, Share

AGAINST = {"gold": "gold", "labels": "the labels of the data"}
Cells = tuple[list[str], list[list[str]]]
"""Headings and rows."""


def verdict(audit: Audit) -> str:
    """Whether the judge can be trusted, in one sentence."""
    found = audit.agreement
    if audit.failures.share == 1:
        return f"No answer of {audit.judge} could be read: it says nothing about these replies."
    if found is None or audit.truth is None:
        return f"How far {audit.judge} is to be trusted is not known: there is no truth to hold its verdicts against."
    against, low, high = AGAINST[audit.truth], *found.ci95
    said = f"agrees with {against} in {_with_interval(found)} of {found.count} pairs"
    if high < 0.5:
        return f"{_capital(audit.judge)} is worse than a coin: it {said}. Are its verdicts read the wrong way round?"
    if low <= 0.5:
        return f"{_capital(audit.judge)} cannot be told from a coin: it {said}. What learns from it learns noise."
    return f"{_capital(audit.judge)} is better than a coin: it {said}."


def warnings(audit: Audit) -> list[str]:
    """What is wrong with the judge, a sentence each; nothing where nothing was shown to be."""
    said = []
    low, high = audit.first_preferred.ci95
    if not low <= 0.5 <= high:
        place = "first" if low > 0.5 else "second"
        share = audit.first_preferred.share if low > 0.5 else 1 - audit.first_preferred.share
        fully = "only this counts for it" if share == 1 else "asking in both orders evens that out"
        said.append(f"Position bias: it prefers the reply shown {place} in {_percent(share)} of its answers; {fully}.")
    if audit.consistency is not None and audit.consistency.ci95[0] <= 0.5 and audit.ties.share < 1:
        said.append(
            f"Inconsistency: its verdicts are ruled by the order no less than by the replies; in both orders "
            f"it prefers the same reply in only {_percent(audit.consistency.share)}."
        )
    if audit.ties.share == 1:
        said.append(
            "Only ties: over both orders it never prefers either reply, so that nothing can be learned from it."
        )
    if (length := audit.length) is not None and length.favour_ci95 is not None:
        longer, shorter = length.where_longer_is_better, length.where_shorter_is_better
        assert longer is not None and shorter is not None
        if not length.favour_ci95[0] <= 0 <= length.favour_ci95[1]:
            word = "longer" if length.favour_ci95[0] > 0 else "shorter"
            said.append(
                f"Length bias: it favours {word} replies. Where the better reply is the longer one it is right in "
                f"{_percent(longer.share)}, where it is the shorter one in {_percent(shorter.share)}."
            )
    if audit.calibration is not None and audit.agreement is not None:
        sure, right = audit.calibration.sure, audit.agreement
        if not right.ci95[0] <= sure <= right.ci95[1]:
            word = "too sure" if sure > right.ci95[1] else "less sure than it could be"
            said.append(
                f"Calibration: it is {word}. It gives the reply it prefers a probability of {_percent(sure)} on "
                f"average, and that is right in {_percent(right.share)}."
            )
    if audit.failures.share:
        said.append(
            f"No answer could be read to {round(audit.failures.share * audit.failures.count)} of "
            f"{audit.failures.count} questions ({_percent(audit.failures.share)}); they count as undecided."
        )
    return said


def sentences(audit: Audit) -> list[str]:
    """The verdict, the warnings, and how it was found."""
    said = [verdict(audit), *warnings(audit)]
    low, high = audit.first_preferred.ci95
    if low <= 0.5 <= high:
        said.append("No position bias was shown.")
    if audit.length is not None and (interval := audit.length.favour_ci95) and interval[0] <= 0 <= interval[1]:
        said.append("No length bias was shown.")
    how = f"{audit.questions} questions were put to it: {audit.pairs} held-out pairs, each in both orders"
    if audit.truth == "labels":
        how += ". No gold is known here: labels err too, so that not even a perfect judge would agree with all of them"
    if audit.without_truth:
        how += f"; {audit.without_truth} more pairs, whose replies are as good in gold, were left out"
    return [*said, f"{how}. These questions are charged to no algorithm."]


def cells(audit: Audit) -> Cells:
    """The figures: a row for each, a column for all pairs and for each slice."""
    parts: dict[str, Figures] = {"all": audit, **audit.slices}
    rows = [["pairs", *[str(part.pairs) for part in parts.values()]]]

    def add(name: str, found: Sequence[Share | None]) -> None:
        if any(each is not None for each in found):
            rows.append([name, *["-" if each is None else _with_interval(each) for each in found]])

    every = list(parts.values())
    against = AGAINST.get(audit.truth or "", "")
    add(f"agrees with {against}", [part.agreement for part in every])
    add("agrees with itself in the other order", [part.consistency for part in every])
    add("prefers the reply shown first", [part.first_preferred for part in every])
    add("ties", [part.ties for part in every])
    add("answers that could not be read", [part.failures for part in every])
    lengths = [part.length for part in every]
    add("prefers the longer reply", [each.longer_preferred if each else None for each in lengths])
    if any(each is not None and each.longer_better is not None for each in lengths):
        shares = [
            "-" if each is None or each.longer_better is None else _percent(each.longer_better) for each in lengths
        ]
        rows.append(["the longer reply is the better one", *shares])
    add("right where the longer is better", [each.where_longer_is_better if each else None for each in lengths])
    add("right where the shorter is better", [each.where_shorter_is_better if each else None for each in lengths])
    found = [part.calibration for part in every]
    if any(found):
        rows.append(["expected calibration error", *["-" if each is None else f"{each.error:.3f}" for each in found]])
        rows.append(["Brier score (a coin: 0.25)", *["-" if each is None else f"{each.brier:.3f}" for each in found]])
    return ["", *parts], rows


def calibration_cells(audit: Audit) -> Cells | None:
    """The reliability table; None without a truth."""
    if audit.calibration is None:
        return None
    rows = [
        [
            f"{each.low:.1f} to {each.high:.1f}",
            str(each.pairs),
            "-" if each.mean is None else f"{each.mean:.2f}",
            "-"
            if each.right is None
            else f"{each.right.share:.2f} ({each.right.ci95[0]:.2f} to {each.right.ci95[1]:.2f})",
        ]
        for each in audit.calibration.bins
    ]
    return ["sure", "pairs", "mean", "right [95%]"], rows


def _with_interval(share: Share) -> str:
    low, high = share.ci95
    return f"{_percent(share.share)} ({100 * low:.0f} to {_percent(high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
