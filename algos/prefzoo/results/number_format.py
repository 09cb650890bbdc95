"""Numbers as people read them."""

from __future__ import annotations

MOST_DIGITS = 4


def fixed(value: float, form: str = ".2f") -> str:
    """Format a number, a zero without a minus."""
    text = f"{value:{form}}"
    return text if float(text) != 0 else f"{0.0:{form}}"


def interval(low: float, high: float, sign: str = "+", digits: int = 2) -> str:
    """Format both ends in brackets, with more digits where an end that is not 0 would be read as 0, since readers look
    for the side of 0 on which it lies; `sign` is `+` or empty."""
    for more in (*range(digits, MOST_DIGITS + 1), digits):
        ends = [fixed(end, f"{sign}.{more}f") for end in (low, high)]
        if all(float(text) != 0 or end == 0 for text, end in zip(ends, (low, high), strict=True)):
            break
    return "[{}, {}]".format(*ends)
