"""Prompts that are too long, cut from the left."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator

from prefzoo.types import Message, Prompt

LETTERS = 64
"""More letters than a token of text has: where a turn's last so many for each token of the limit do not fit, the whole
prompt, however long, need not be made into tokens."""
CLUSTER = 1000
"""More code points than what looks like one letter is made of."""
WORD = 40
"""More letters than a word has, in scripts that put spaces between words."""


def shorten(prompt: list[Message], tokens: Callable[[Prompt], int], limit: int) -> list[Message] | None:
    """The end of a prompt that has at most `limit` tokens: without its oldest turns, but for the system's, and if its
    last turn alone is too long, without the beginning of that.

    A turn is cut where a word begins, or, in a script without spaces, between two letters; never within what looks
    like one letter (a grapheme cluster). None where not even one letter fits.
    """
    system = [turn for turn in prompt[:1] if turn["role"] in ("system", "developer")]
    last = prompt[-1]
    text = last["content"]

    def fits(turns: list[Message]) -> bool:
        return tokens(turns) <= limit

    def rest(begin: int) -> list[Message]:
        return [*system, {**last, "content": text[begin:]}]

    if len(text) <= LETTERS * limit or fits(rest(len(text) - LETTERS * limit)):
        if fits(prompt):
            return prompt
        starts = [i for i in range(len(system), len(prompt)) if prompt[i]["role"] == "user"]
        first = bisect_left(starts, True, key=lambda i: fits([*system, *prompt[i:]]))
        if first < len(starts):
            return [*system, *prompt[starts[first] :]]
    size, fitting = limit, len(text)
    while (longer := max(0, len(text) - size)) and fits(rest(longer)):
        size, fitting = 2 * size, longer
    begin = longer + bisect_left(range(longer, fitting), True, key=lambda start: fits(rest(start)))
    for letter in _letters(text, begin):
        space = re.compile(r"\s").search(text, letter, letter + WORD)
        word = space.end() if space and letter and not text[letter - 1].isspace() else letter
        for start in (word, letter):
            if text[start:].strip() and fits(rest(start)):
                return rest(start)
    return None


def _letters(text: str, begin: int) -> Iterator[int]:
    """Where the grapheme clusters from `begin` on begin."""
    import regex  # type: ignore[import-untyped]  # comes with transformers

    for cluster in regex.finditer(r"\X", text, pos=max(0, begin - CLUSTER)):
        if cluster.start() >= begin:
            yield cluster.start()
