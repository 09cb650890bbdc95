"""Verdicts and grades out of the text of an answer, which gives them in the one form that it was asked for."""

from __future__ import annotations

import re
from typing import NamedTuple

VERDICTS = {"A": 1.0, "B": 0.0, "C": 0.5, "TIE": 0.5}
_VERDICT = r"[ABC]|tie"
_FACT = r"[ABC](?:[\s,:]+\d{1,3})?(?:[\s,:]+conflict)?"
_GRADE = r"\d{1,2}(?:\.\d+)?(?:\s*/\s*10)?"


def read_verdict(text: str, reasoning: bool = False) -> float | None:
    """1 where an answer says A, 0 where it says B, one half where it says that they tie (C, or the word); None where it
    says none of these in a form that `_read` knows, and where it says several.

    Args:
        reasoning: whether the answer thinks aloud first.
    """
    verdict = _read(text, _VERDICT, "verdict", reasoning)
    return None if verdict is None else VERDICTS[verdict.upper()]


def read_grade(text: str, reasoning: bool = False) -> float | None:
    """The grade from 0 to 10 that an answer gives; None where there is none, where there are several, and outside.

    Args:
        reasoning: as in `read_verdict`.
    """
    grade = _read(text, _GRADE, "grade", reasoning)
    value = None if grade is None else float(grade.partition("/")[0])
    return value if value is not None and value <= 10 else None


class FactAnswer(NamedTuple):
    """What an answer says of a claim: the letter, the number of the sentence that decides (from 1; 0 where it names
    none), and whether sentences contradict each other."""

    letter: str
    number: int
    conflict: bool


def read_fact(text: str, reasoning: bool = False) -> FactAnswer | None:
    """A letter out of A, B and C with the number of a sentence, as `A 2` or `B 1 CONFLICT`; None where there is none,
    and where there are several.

    Args:
        reasoning: as in `read_verdict`.
    """
    if (fact := _read(text, _FACT, "verdict", reasoning)) is None:
        return None
    number = re.search(r"\d+", fact)
    return FactAnswer(fact[0], int(number[0]) if number else 0, "CONFLICT" in fact)


def _read(text: str, value: str, field: str, reasoning: bool) -> str | None:
    """The value that an answer gives as `[[value]]`, as a JSON field, or alone on its first line.

    Values in brackets or in the field go before those alone on a line; None where an answer gives different ones. After
    reasoning only the last line with a value in brackets or in the field counts, and without one the last line of all.
    What a model writes between `<think>` and `</think>` is ignored; a thought that was cut off has nothing after it.

    Args:
        value: a regular expression.
        field: the name of the JSON field.
    """
    answer = text.rpartition("</think>")[2].partition("<think>")[0]
    lines = [line for line in answer.splitlines() if line.strip()]
    marked = re.compile(rf'\[\[\s*({value})\s*\]\]|"{field}"\s*:\s*"?({value})"?\s*(?=[,}}\n]|$)', re.IGNORECASE)
    by_line = [values for line in lines if (values := {a or b for a, b in marked.findall(line)})]
    if by_line:
        values = by_line[-1] if reasoning else set().union(*by_line)
    else:
        alone = re.compile(rf"[\s*_\"'`(\[]*({value})[\s*_\"'`)\].]*", re.IGNORECASE)
        matches = [alone.fullmatch(line) for line in lines]
        if not matches or matches[-1 if reasoning else 0] is None:
            return None
        values = {match[1] for match in (matches[-1:] if reasoning else matches) if match}
    distinct = {value.upper() for value in values}
    return distinct.pop() if len(distinct) == 1 else None
