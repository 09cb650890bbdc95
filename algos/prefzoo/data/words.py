"""Words in any script: what stands between blanks, and each sign of a script that writes none."""

from __future__ import annotations

import re

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Signs of scripts without blanks between words (Thai, Lao, Burmese, Khmer, Japanese, Chinese), for a character class
of a pattern."""
_WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")
_SIGN = re.compile(f"[{UNSPACED}]")


def words(text: str) -> list[str]:
    """The words of a text; each sign of an unspaced script counts as one."""
    return _WORD.findall(text)


def is_unspaced(letter: str) -> bool:
    """Whether a letter is of a script without blanks between words."""
    return _SIGN.match(letter) is not None
