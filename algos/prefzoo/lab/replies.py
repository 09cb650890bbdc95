"""Reading replies: any text is split into sentences and each is matched against the grammar of a language."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from prefzoo.lab.english import ENGLISH
from prefzoo.lab.language import Language

CORES = ("answer", "evade", "refuse", "comply")


@dataclass(frozen=True)
class Sentence:
    """One sentence of a reply.

    ``kind``: answer, evade, refuse, comply, courtesy, rude, filler, pitch, or unknown where the grammar has no such
    sentence. ``intent`` and the slots are set for answers and compliance only.
    """

    text: str
    kind: str
    intent: str = ""
    key: str | None = None
    value: str | None = None
    language: Language = ENGLISH

    @property
    def words(self) -> list[str]:
        """The words (or signs, where no blanks are) and numbers of the sentence, without punctuation."""
        return self.language.words(self.text)

    @property
    def size(self) -> int:
        """Its length in words. What has no words, or endless ones, counts one for every eight characters."""
        words = self.language.size(self.text)
        return max(words, -(-len(self.text) // 8)) if self.kind == "unknown" else words


@lru_cache(maxsize=65536)
def _read_sentence(text: str, language: Language) -> Sentence:
    for kind, intent, pattern in language.sentence_patterns:
        if match := pattern.fullmatch(text):
            slots = match.groupdict()
            return Sentence(text, kind, intent, slots.get("key"), slots.get("value"), language)
    return Sentence(text, "unknown", language=language)


def read_reply(completion: str, language: Language = ENGLISH) -> list[Sentence]:
    """The sentences of any text, in order; an empty text has none. In another language all of them are unknown."""
    pieces = re.findall(language.sentence, completion)
    return [_read_sentence(piece.strip(), language) for piece in pieces if piece.strip()]
