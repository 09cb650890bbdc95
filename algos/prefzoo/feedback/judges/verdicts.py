"""Verdicts and grades out of the text of an answer. What is not clearly one is none: a guess would look like a fact."""

from __future__ import annotations

import re

_SIDE = r"(?:the\s+)?(?:(?:reply|response|answer|option|assistant|completion|candidate)\s+)?"
_LETTER = r"(?-i:[AB])"
_EVEN = r"(?:an?\s+)?(?:tie|draw)"
# After a letter: no second one to choose from, and no word that makes an article of "A".
_ENDS = (
    rf"(?![\w'-])(?!\s*(?:,|/|,?\s*(?:or|and|vs\.?)\b)\s*(?:verdict\s*:?\s*)?{_SIDE}(?:{_LETTER}|{_EVEN})\b)"
    r"(?![ \t]+(?!is\b|was\b|wins\b|because\b|since\b|as\b|for\b|by\b|over\b|with\b)(?-i:[a-z]))"
)
_STATED = re.compile(
    r"(?<!or )\b(?:verdict|answer|winner|choice|judge?ment|decision|preference|better\s+(?:reply|response|answer|one))"
    rf"(?:\s+(?:is|would\s+be))?\s*[:=-]*\s*{_SIDE}(?P<side>{_LETTER}|{_EVEN}|[ab](?=[.!]?\s*$)){_ENDS}",
    re.IGNORECASE | re.MULTILINE,
)
_CHOSEN = re.compile(
    rf"(?<!not )(?<!nt )\b(?:choose|pick|prefer|select|go\s+with)\s+{_SIDE}(?P<side>{_LETTER}){_ENDS}", re.IGNORECASE
)
_PRAISED = re.compile(
    rf"\b(?P<side>{_LETTER})\s+(?:wins\b|(?:is|was)\s+(?:(?:the|clearly|slightly|much|far|a\s+bit|overall)\s+)*"
    r"(?:better|best|winner|preferable|superior|preferred)\b)",
    re.IGNORECASE,
)
_EVENLY = re.compile(
    r"\b(?P<side>both\s+(?:\w+\s+)?are\s+equally|(?:it|this)\s+is\s+an?\s+(?:tie|draw)"
    r"|(?<!if )neither\s+(?:\w+\s+)?is\s+better)\b",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"\W*{_SIDE}(?P<side>[AB]|{_EVEN}|equal)\W*", re.IGNORECASE)
_LEADING = re.compile(rf"\W*{_SIDE}(?P<side>{_LETTER})(?=\s*[.,;\n-]|\s+(?:because|since|as)\b)", re.IGNORECASE)

_NUMBER = r"(?P<grade>\d{1,2}(?:\.\d+)?)(?![\w%]|[.,]\d|\s*-\s*\d|\s*(?:/|out\s+of)\s*(?!10\b)\d)"
_TENTHS = r"(?:\s*(?:/|out\s+of)\s*10\b)"
_GRADE_ALONE = re.compile(rf"\W*(?<![.,\w-]){_NUMBER}{_TENTHS}?\W*", re.IGNORECASE)
_GRADED = re.compile(
    rf"\b(?:grade|rating|score|mark|verdict|answer)(?:\s+(?:is|of|would\s+be))?\s*[:=]*\s*(?<![.,\w-]){_NUMBER}"
    rf"|(?<![.,\w-])(?P<tenths>\d{{1,2}}(?:\.\d+)?){_TENTHS}",
    re.IGNORECASE,
)


def read_verdict(text: str, reasoning: bool = False) -> float | None:
    """1 where an answer says A, 0 where it says B, one half where it says that they tie; None where it is not clear.

    Args:
        reasoning: whether the answer thinks aloud first. Then the last verdict counts; else several must agree.
    """
    said = _plain(text)
    lines = [line for line in said.splitlines() if line.strip()]
    if not lines:
        return None
    if alone := _ALONE.fullmatch(said.strip()):
        return _side(alone["side"])
    found = sorted((m for p in (_STATED, _CHOSEN) for m in p.finditer(said)), key=lambda match: match.start())
    explicit = [_side(match["side"]) for match in found]
    if last := _ALONE.fullmatch(lines[-1]):
        explicit.append(_side(last["side"]))
    if not reasoning and (first := _ALONE.fullmatch(lines[0]) or _LEADING.match(said)):
        explicit.append(_side(first["side"]))
    if not explicit:
        praise = sorted((m for p in (_PRAISED, _EVENLY) for m in p.finditer(said)), key=lambda match: match.start())
        explicit = [_side(match["side"]) for match in praise]
    return _decided(explicit, reasoning)


def read_grade(text: str, reasoning: bool = False) -> float | None:
    """The grade from 0 to 10 that an answer gives; None where it is not clear or outside.

    Args:
        reasoning: as in `read_verdict`.
    """
    said = _plain(text)
    lines = [line for line in said.splitlines() if line.strip()]
    if not lines:
        return None
    found = [float(match["grade"] or match["tenths"]) for match in _GRADED.finditer(said)]
    for line in lines[-1:] if reasoning else {lines[0], lines[-1]}:
        if alone := _GRADE_ALONE.fullmatch(line):
            found.append(float(alone["grade"]))
    grade = _decided(found, reasoning)
    return grade if grade is not None and grade <= 10 else None


def _decided(found: list[float], reasoning: bool) -> float | None:
    return found[-1] if found and (reasoning or len(set(found)) == 1) else None


def _side(said: str) -> float:
    return {"A": 1.0, "B": 0.0}.get(said.upper(), 0.5)


def _plain(text: str) -> str:
    """Without marks of emphasis, and without what a model wrote between `<think>` and `</think>`, which is for itself;
    a thought that was cut off has nothing after it."""
    said = text.rpartition("</think>")[2].partition("<think>")[0]
    said = re.sub("[\u2013\u2014]", "-", said)  # long dashes
    return re.sub("\\\\(?:boxed|text|mathbf)|[*_`#\"'\u2018\u2019\u201c\u201d$\\[\\](){}]", "", said)
