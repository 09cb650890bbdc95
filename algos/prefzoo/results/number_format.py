"""Numbers as people read them."""

from __future__ import annotations

MOST_DIGITS = 4
UNEVEN = 0.05
"""Of the length of an interval: where its ends differ more in how far they are from the number, both are shown."""


def fixed(value: float, form: str = ".2f") -> str:
    """Format a number, a zero without a minus."""
    text = f"{value:{form}}"
    return text if float(text) != 0 else f"{0.0:{form}}"


def with_error(mean: float, ci95: tuple[float, float] | None, sign: str = "") -> str:
    """Format a number with half its interval, or with both ends where they are not as far from it."""
    text = fixed(mean, f"{sign}.2f")
    if ci95 is None:
        return text
    below, above = mean - ci95[0], ci95[1] - mean
    if abs(below - above) > UNEVEN * (below + above):
        return f"{text} {interval(*ci95, sign=sign)}"
    return f"{text} ±{(ci95[1] - ci95[0]) / 2:.2f}"


def interval(low: float, high: float, sign: str = "+", digits: int = 2) -> str:
    """Format both ends in brackets, with more digits where an end that is not 0 would be read as 0, since readers look
    for the side of 0 on which it lies; `sign` is `+` or empty."""
    for more in (*range(digits, MOST_DIGITS + 1), digits):
        ends = [fixed(end, f"{sign}.{more}f") for end in (low, high)]
        if all(float(text) != 0 or end == 0 for text, end in zip(ends, (low, high), strict=True)):
            break
    return "[{}, {}]".format(*ends)
