"""Numbers as people read them."""

from __future__ import annotations

MOST_DIGITS = 4


def fixed(value: float, form: str = ".2f") -> str:
    """A number in this format, in which no zero has a minus."""
    said = f"{value:{form}}"
    return said if _seen(said) else f"{0.0:{form}}"


def interval(low: float, high: float, sign: str = "+", digits: int = 2) -> str:
    """Both ends in brackets, with more digits where an end that is not 0 would be read as 0, on which side of it the
    interval lies being what it is looked at for; `sign` is `+` or empty."""
    for more in range(digits, MOST_DIGITS + 1):
        ends = [fixed(end, f"{sign}.{more}f") for end in (low, high)]
        if all(_seen(said) or end == 0 for said, end in zip(ends, (low, high), strict=True)):
            return "[{}, {}]".format(*ends)
    return "[{}, {}]".format(*[fixed(end, f"{sign}.{digits}f") for end in (low, high)])


def _seen(said: str) -> bool:
    """Whether it is read as another number than 0; one without an end is."""
    return float(said) != 0
