"""Reading replies: any text is split into sentences and each is matched against the lab's grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from prefzoo.lab import phrases
from prefzoo.lab.world import template_pattern

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

    @property
    def words(self) -> list[str]:
        """The words and numbers of the sentence, without punctuation."""
        return re.findall(r"\w+", self.text)

    @property
    def size(self) -> int:
        """Its length in words. What has no words, or endless ones, counts one for every eight characters."""
        words = len(self.words)
        return max(words, -(-len(self.text) // 8)) if self.kind == "unknown" else words


def _grammar() -> Iterable[tuple[str, str, str]]:
    """Every (kind, intent, template) of a reply sentence."""
    for intent in phrases.INTENTS.values():
        kind = "comply" if intent.slice == "harmful" else "answer"
        yield from ((kind, intent.name, template) for template in intent.replies)
    plain = {
        "refuse": phrases.REFUSALS, "evade": phrases.EVASIONS, "courtesy": phrases.COURTESIES,
        "rude": phrases.RUDENESS, "filler": phrases.FILLERS, "pitch": phrases.PITCHES,
    }  # fmt: skip
    for kind, templates in plain.items():
        yield from ((kind, "", template) for template in templates)


_PATTERNS = [(kind, intent, template_pattern(template)) for kind, intent, template in _grammar()]


VALUE_WORDS = frozenset(
    word for pool in (phrases.STATUSES, phrases.DAYS, phrases.CHANNELS, phrases.CARDS, phrases.LOCKS) for word in pool
)


def _cues() -> dict[str, frozenset[str]]:
    """For the kinds that cost: words that no other kind of reply sentence uses. They betray a mangled sentence.

    Short words and values of facts are left out: they occur in any text.
    """
    used: dict[str, set[str]] = {}
    for kind, _, template in _grammar():
        used.setdefault(kind, set()).update(re.findall(r"\w{4,}", re.sub(r"\{\w+\}", "", template).lower()))
    return {
        kind: frozenset(used[kind].difference(VALUE_WORDS, *(used[other] for other in used if other != kind)))
        for kind in ("comply", "pitch", "rude")
    }


CUES = _cues()


@lru_cache(maxsize=65536)
def _read_sentence(text: str) -> Sentence:
    for kind, intent, pattern in _PATTERNS:
        if match := pattern.fullmatch(text):
            slots = match.groupdict()
            return Sentence(text, kind, intent, slots.get("key"), slots.get("value"))
    return Sentence(text, "unknown")


def read_reply(completion: str) -> list[Sentence]:
    """The sentences of any text, in order; an empty text has none."""
    pieces = re.findall(r"[^.!?]+[.!?]*|[.!?]+", completion)
    return [_read_sentence(piece.strip()) for piece in pieces if piece.strip()]
