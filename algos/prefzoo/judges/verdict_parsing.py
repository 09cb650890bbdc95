"""Verdicts and grades out of the text of an answer. What is not clearly one is none: a guess would look like a fact."""

from __future__ import annotations

import re

_SIDE = r"(?:the\s+)?(?:(?:reply|response|answer|option|assistant|completion|candidate)\s+)?"
_LETTER = r"(?-i:[AB])"
_EVEN = r"(?:(?:an?\s+)?(?:tie|draw)|tied|equal|neither(?!\s+is\s+(?!better\b)))"
# After a letter: no second one to choose from, and no word that makes an article of "A".
_ENDS = (
    rf"(?![\w'-])(?!\s*[<>=])(?!\s*(?:,|/|,?\s*(?:or|and|vs\.?)\b)\s*(?:(?:verdict|answer)\s*:?\s*)?"
    rf"{_SIDE}(?:{_LETTER}|{_EVEN})\b)"
    r"(?![ \t]+(?!is\b|was\b|wins\b|because\b|since\b|as\b|for\b|by\b|over\b|with\b)(?-i:[a-z]))"
)
# Where nothing before the letter says what it is: then the sentence ends, or a reason follows.
_STOPS = r"(?=\s*(?:[.!;]|$|-\s|,?\s*(?:because|since|as(?!\s+well)|for|by)\b))"
_VERY = r"(?:(?:the|clearly|slightly|much|far|a\s+bit|overall|definitely|a\s+little)\s+)*"
_STATED = re.compile(
    r"(?<!or )\b(?:verdict|answer|winner|choice|judge?ment|decision|preference|better(?=\s*[:=])"
    r"|better\s+(?:reply|response|answer|one))"
    rf"(?:\s+(?:is|would\s+be))?\s*[:=-]*\s*{_SIDE}(?P<side>{_LETTER}|{_EVEN}|[ab](?=[.!]?\s*$)){_ENDS}",
    re.IGNORECASE | re.MULTILINE,
)
_CHOSEN = re.compile(
    rf"\b(?:choose|pick|prefer|select|go\s+with)\s+{_SIDE}(?P<side>{_LETTER}){_ENDS}"
    r"|\b(?:(?:i\s+(?:think|believe|say|would\s+say)|id\s+say)(?:\s+that)?(?:\s+its|\s+it\s+is)?"
    r"|its|it\s+is|definitely|clearly|certainly|obviously|surely|probably|overall,?|sure,?|yes,?)\s+"
    rf"{_SIDE}(?P<said>{_LETTER}){_STOPS}",
    re.IGNORECASE | re.MULTILINE,
)
_COMPARED = re.compile(
    rf"\b{_SIDE}(?P<side>{_LETTER})\s*(?P<sign>>+|<+|=+|\bover\b|\bbeats\b)"
    rf"\s*{_SIDE}(?P<other>(?!(?P=side)){_LETTER})\b(?!\s*[<>=])",
    re.IGNORECASE,
)
_PRAISED = re.compile(
    rf"\b(?P<side>{_LETTER})\s+(?:wins\b|(?:is|was|would\s+be)\s+{_VERY}"
    r"(?:better|best|winner|preferable|superior|preferred)\b)"
    rf"|\b(?P<worse>{_LETTER})\s+(?:loses\b|(?:is|was)\s+{_VERY}worse"
    rf"(?=\s+than\s+{_SIDE}{_LETTER}\b|\s*[.!]?\s*$))",
    re.IGNORECASE | re.MULTILINE,
)
_EVENLY = re.compile(
    rf"\b(?P<side>(?:both|they|the\s+two|{_LETTER}\s+and\s+{_SIDE}{_LETTER})\s+(?:\w+\s+)?are"
    r"\s+(?:both\s+|about\s+)?(?:equal|equally|tied)"
    r"|theyre\s+(?:equal|equally|tied)|(?:it|this)\s+is\s+an?\s+(?:tie|draw)|its\s+an?\s+(?:tie|draw)"
    rf"|neither\s+(?:\w+\s+|{_SIDE}{_LETTER}\s+nor\s+{_SIDE}{_LETTER}\s+)?is\s+better)\b",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"\W*{_SIDE}(?P<side>[AB]|{_EVEN})\W*", re.IGNORECASE)
_LEADING = re.compile(
    rf"\W*{_SIDE}(?P<side>{_LETTER})(?=\s*[.,;\n-]|\s+(?:because|since|as(?!\s+well))\b)", re.IGNORECASE
)
_LISTED = re.compile(rf"(?:^|[.,;]\s*){_SIDE}(?P<side>{_LETTER})(?=\s*(?:[.,:;-]|$))", re.IGNORECASE | re.MULTILINE)
"""A letter that heads a part of the text, as where one reply is described after the other."""
_DENIED = re.compile(
    r"\b(?:not|no|never|(?:is|was|do|does|did|ca|wo|would|could|should|are|have)nt|cannot|doubt\w*|hesitate|whether|if"
    r"|unless|hardly|barely|neither|nor|unclear|unsure|false)\b",
    re.IGNORECASE,
)
"""Words that take back, or leave open, what follows in their clause."""
_TAKEN_BACK = re.compile(
    rf"(?:\s+(?:than|over)\s+{_SIDE}{_LETTER})?\s*,?\s*"
    r"(?:(?:only\s+)?(?:if|unless|when)\b|(?:is|was|would\s+be)\s+(?:not|false|wrong|untrue|doubtful|hard)\b)",
    re.IGNORECASE,
)

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

    Questions, and what is denied or said under a condition, are no verdicts.

    Args:
        reasoning: whether the answer thinks aloud first. Then the last verdict counts; else several must agree.
    """
    said = re.sub(r"[^.!?\n]*\?", " ", _plain(_tagged(text)))
    lines = [line for line in said.splitlines() if line.strip()]
    if not lines:
        return None
    if alone := _ALONE.fullmatch(said.strip()):
        return _side(alone["side"])
    explicit = _found(said, _STATED, _CHOSEN, _COMPARED)
    praise = _found(said, _PRAISED, _EVENLY)
    if last := _ALONE.fullmatch(lines[-1]):
        explicit.append(_side(last["side"]))
    if reasoning:
        return _decided(explicit or praise, reasoning)
    if first := _ALONE.fullmatch(lines[0]) or _LEADING.match(said):
        explicit.append(_side(first["side"]))
        explicit += [_side(match["side"]) for match in _LISTED.finditer(said)]
    return _decided([*explicit, *praise], reasoning)


def _found(said: str, *patterns: re.Pattern[str]) -> list[float]:
    """What the patterns find, in order, without what is denied or left open."""
    found = sorted((m for p in patterns for m in p.finditer(said)), key=lambda match: match.end())
    return [_meant(match) for match in found if not _open(said, match)]


def _open(said: str, match: re.Match[str]) -> bool:
    clause = re.split(r"[.!;:,\n]|\bbut\b", said[: match.start()])[-1]
    return bool(_DENIED.search(clause) or _TAKEN_BACK.match(said, match.end()))


def _meant(match: re.Match[str]) -> float:
    parts = match.groupdict()
    if parts.get("worse"):
        return 1 - _side(parts["worse"])
    if sign := parts.get("sign"):
        return 0.5 if "=" in sign else _side(parts["other"] if "<" in sign else parts["side"])
    return _side(parts.get("said") or parts["side"])


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


def _tagged(text: str) -> str:
    """What stands within marks that are made for an answer is called one; other tags are left out."""
    marks = r"<(?:answer|verdict|final_answer|choice|winner)>|\\boxed\s*\{"
    said = re.sub(marks, " Answer: ", text, flags=re.IGNORECASE)
    said = re.sub(r"</?(?!think\b)(?:[A-Za-z][\w-]+|[a-z])\s*/?>", " ", said)
    return re.sub(r"[ \t]+", " ", said)


def _plain(text: str) -> str:
    """Without marks of emphasis, and without what a model wrote between `<think>` and `</think>`, which is for itself;
    a thought that was cut off has nothing after it."""
    said = text.rpartition("</think>")[2].partition("<think>")[0]
    said = re.sub("[\u2013\u2014]", "-", said)  # long dashes
    return re.sub("\\\\(?:boxed|text|textbf|mathbf|mathrm)|[*_`#\"'\u2018\u2019\u201c\u201d$\\[\\](){}]", "", said)
