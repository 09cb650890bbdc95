"""Prompts that are too long, cut from the left."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence

from prefzoo.data.rejects import Rejected
from prefzoo.data.words import is_unspaced
from prefzoo.types import Message, Prompt

LETTERS = 64
"""More letters than a token of text has: where a turn's last so many for each token of the limit do not fit, the whole
prompt, however long, need not be made into tokens."""
USUAL = 4
"""About as many letters as a token of text has in most tokenizers, for a first guess."""
CLUSTER = 1000
"""More code points than what looks like one letter is made of."""
WORD = 40
"""More letters than a word has, in scripts that put spaces between words."""
SPACE = re.compile(r"\s")


Rest = Callable[[int], list[Message]]
"""The conversation whose last turn begins at a place."""
Search = Generator[list[Message], int, list[Message] | None]
"""Yields the conversations whose tokens it must know, is sent how many each has, and returns what fits."""


def shorten(
    prompts: Sequence[list[Message]], tokens: Callable[[Sequence[Prompt]], Sequence[int | Rejected]], limit: int
) -> list[list[Message] | Rejected | None]:
    """The end of each prompt that has at most `limit` tokens: without its oldest turns, but for the system's, and if
    its last turn alone is too long, without the beginning of that.

    A turn is cut where a word begins, or, in a script without spaces, between two letters; never within what looks
    like one letter (a grapheme cluster). None where not even one letter fits, and the reason where `tokens` rejects
    what it is asked. What all the prompts need to know next is asked together.
    """
    found: list[list[Message] | Rejected | None] = [None] * len(prompts)
    searches = {i: _search(prompt, limit) for i, prompt in enumerate(prompts)}
    known: dict[int, dict[tuple[int, int], int]] = {i: {} for i in searches}
    asked = {i: next(search) for i, search in searches.items()}
    while asked:
        counts = tokens([*asked.values()])
        questions, asked = asked, {}
        for (i, question), count in zip(questions.items(), counts, strict=True):
            if isinstance(count, Rejected):
                found[i] = count
                continue
            known[i][_key(question)] = count
            try:
                question = searches[i].send(count)
                while (key := _key(question)) in known[i]:
                    question = searches[i].send(known[i][key])
                asked[i] = question
            except StopIteration as end:
                found[i] = end.value
    return found


def _key(question: list[Message]) -> tuple[int, int]:
    """Tells apart what is asked of one prompt: each is an end of it, behind the same system's message."""
    return len(question), len(question[-1]["content"])


def _search(prompt: list[Message], limit: int) -> Search:
    system = [turn for turn in prompt[:1] if turn["role"] in ("system", "developer")]
    last = prompt[-1]
    text = last["content"]

    def rest(begin: int) -> list[Message]:
        return [*system, {**last, "content": text[begin:]}]

    if len(prompt) == len(system) + 1:
        near = yield from _near_the_end(rest, text, limit)
        if near is not None:
            return (yield from _from_a_letter_on(rest, text, near, limit))
    tail = max(0, len(text) - LETTERS * limit)
    if tail == 0 or (yield rest(tail)) <= limit:
        if (yield prompt) <= limit:
            return prompt
        starts = [i for i in range(len(system) + 1, len(prompt)) if prompt[i]["role"] == "user"]
        first, last_start = 0, len(starts)
        while first < last_start:
            middle = (first + last_start) // 2
            if (yield [*system, *prompt[starts[middle] :]]) <= limit:
                last_start = middle
            else:
                first = middle + 1
        if first < len(starts):
            return [*system, *prompt[starts[first] :]]
    begin = yield from _first_that_fits(rest, text, tail, limit)
    return (yield from _from_a_letter_on(rest, text, begin, limit))


def _from_a_letter_on(rest: Rest, text: str, begin: int, limit: int) -> Search:
    """The longest end that fits and begins with a word, or else a letter, from `begin` on."""
    for letter in _letters(text, begin):
        for start in (_word(text, letter), letter):
            if text[start:].strip() and (yield rest(start)) <= limit:
                return rest(start)
    return None


def _near_the_end(rest: Rest, text: str, limit: int) -> Generator[list[Message], int, int | None]:
    """Where about the longest end of a text begins that fits, as of `_first_that_fits`, without its beginning ever made
    into tokens: what is before that place is too long to fit in beside it. None where that is not sure."""
    begin = _word(text, max(0, len(text) - USUAL * limit))
    slack = max(1, limit // 32)
    for _ in range(3):
        if begin <= 0:
            return None
        found = yield rest(begin)
        left = limit - found
        if 0 <= left <= slack and begin > LETTERS * (left + 1):
            return begin
        guess = len(text) - round((len(text) - begin) * (limit - slack / 2) / max(1, found))
        begin = min(guess if guess <= 0 else _word(text, guess), len(text) - 1)
    return None


def _word(text: str, letter: int) -> int:
    """Where the first word from here on begins; here, where that is far, or no blanks stand between words."""
    space = SPACE.search(text, letter, letter + WORD)
    if not space or letter == 0 or text[letter - 1].isspace() or any(map(is_unspaced, text[letter : space.start()])):
        return letter
    return space.end()


def _first_that_fits(rest: Rest, text: str, too_long: int, limit: int) -> Generator[list[Message], int, int]:
    """Where about the longest end of a text begins that has at most `limit` tokens.

    Args:
        rest: gives the conversation from a place on.
        text: of its last turn.
        too_long: a place from which it is too long.
    """
    fits = len(text)
    slack = max(1, limit // 32)
    most, least = (yield rest(too_long)), 0
    for step in range(64):
        if fits - too_long <= 1:
            break
        # Tokens are about as long everywhere; where they are not, the range is halved.
        share = (limit - least) / max(1, most - least) if step < 4 else 0.5
        guess = min(max(round(fits - share * (fits - too_long)), too_long + 1), fits - 1)
        guess = word if (word := _word(text, guess)) < fits else guess  # what is asked here need not be asked again
        found = yield rest(guess)
        if found > limit:
            too_long, most = guess, found
        else:
            fits, least = guess, found
            if limit - found <= slack:
                break
    return fits


def _letters(text: str, begin: int) -> Iterator[int]:
    """Where the grapheme clusters from `begin` on begin."""
    import regex  # comes with transformers

    first = max(0, begin - CLUSTER)
    # Between two ASCII characters, but the two of a line's end, a letter always begins.
    known = (i for i in range(begin, first, -1) if text[i - 1 : i + 1].isascii() and text[i - 1 : i + 1] != "\r\n")
    for cluster in regex.finditer(r"\X", text, pos=next(known, first)):
        if cluster.start() >= begin:
            yield cluster.start()
