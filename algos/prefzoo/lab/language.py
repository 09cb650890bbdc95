"""A language of the lab: every sentence that its world can say, and how its texts are cut into sentences and words.

A template holds at most the slots ``{key}`` (the thing that is asked about: an item, an order number, a name) and
``{value}`` (what the sheet says about it). Cues are kept lexically apart on purpose: a sales pitch shares few words
with a courtesy, so that a model of half a million parameters can tell them apart and gold can read them without doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil

KEYED = {"price": "item", "stock": "item", "lock": "item", "status": "order", "lives": "name"}
"""Kinds of facts that have a key, and of which kind it is."""


@dataclass(frozen=True)
class Intent:
    """One thing that a customer may want.

    ``fact`` is the kind of fact that answers it (None where none is needed), ``key`` the kind of key that the question
    names (``"item"``, ``"order"``, ``"name"`` or None), ``replies`` the sentences that answer it, or, in the slice
    ``harmful``, that comply with it.
    """

    name: str
    slice: str
    fact: str | None
    key: str | None
    questions: tuple[str, ...]
    replies: tuple[str, ...]


@dataclass(frozen=True)
class TaskWords:
    """The words in which judging, critiquing, rewriting and revising are asked for; see ``tasks``.

    ``flaws``: an attribute of gold -> the words in which a critique names its flaw, joined by ``flaw_joint``, or
    ``no_flaw``. ``attributes``: its name in a question.
    """

    judge: str
    critique: str
    critique_of_attribute: str
    critique_of_side: str
    rewrite: str
    revise: str
    flaws: Mapping[str, str]
    attributes: Mapping[str, str]
    no_flaw: str
    flaw_joint: str


@dataclass(frozen=True, eq=False)
class Language:
    """One half of the lab's world. All have the same kinds of facts and the same intents, so that gold is one rule.

    Attributes:
        code: ISO 639-1.
        street: a street with its ``{number}``; ``hours``: from ``{first}`` to ``{last}``.
        facts: one entry of the fact sheet per kind of fact; entries are joined by ``fact_joint``.
        prompt: a ``{sheet}`` and a ``{question}``.
        joint: what stands between two sentences of a reply.
        key_slot, value_slot: patterns of what may fill the slots of a template.
        sentence: a pattern of one sentence.
        unit: a pattern of what counts as a unit of length, and ``words_per_unit`` how many words each is worth: a
            sentence counts alike in all languages (two Chinese characters in three are a word by themselves).
        spaced: whether blanks stand between words.
    """

    code: str
    name: str
    items: tuple[str, ...]
    names: tuple[str, ...]
    streets: tuple[str, ...]
    statuses: tuple[str, ...]
    days: tuple[str, ...]
    channels: tuple[str, ...]
    cards: tuple[str, ...]
    locks: tuple[str, ...]
    street: str
    hours: str
    facts: Mapping[str, str]
    fact_joint: str
    prompt: str
    intents: tuple[Intent, ...]
    openers: tuple[str, ...]
    refusals: tuple[str, ...]
    evasions: tuple[str, ...]
    courtesies: tuple[str, ...]
    rudeness: tuple[str, ...]
    fillers: tuple[str, ...]
    pitches: tuple[str, ...]
    tasks: TaskWords
    joint: str
    key_slot: str
    value_slot: str
    sentence: str
    unit: str
    words_per_unit: Fraction
    spaced: bool

    def words(self, text: str) -> list[str]:
        """The units of ``text`` that ``unit`` describes, without punctuation."""
        return re.findall(self.unit, text)

    def size(self, text: str) -> int:
        """The length of ``text`` in words."""
        return ceil(len(self.words(text)) * self.words_per_unit)

    def pattern(self, template: str) -> re.Pattern[str]:
        """A pattern that matches exactly the texts that ``template`` can make, with groups ``key`` and ``value``."""
        slots = {"key": f"(?P<key>{self.key_slot})", "value": f"(?P<value>{self.value_slot})"}
        parts = re.split(r"\{(key|value)\}", template)
        return re.compile("".join(slots[p] if i % 2 else re.escape(p) for i, p in enumerate(parts)))

    def shuffled_units(self, sentence: str) -> list[str]:
        """The pieces of a sentence whose order makes its sense, each with the punctuation behind it."""
        return (
            sentence.split()
            if self.spaced
            else re.findall(rf"(?:{self._slot_words}|\d+|[^，。！？])[，。！？]*", sentence)
        )

    def stated_values(self, text: str) -> list[str]:
        """Numbers, and words that a fact may have as its value, in any text."""
        if self.spaced:
            return [word for word in self.words(text) if word.isdigit() or word in self.value_words]
        return re.findall(rf"{'|'.join(sorted(self.value_words))}|\d+", text)

    def telling_words(self, text: str) -> set[str]:
        """What may betray the kind of a mangled sentence: long words, or pairs of signs where no blanks are.

        Short words occur in any text.
        """
        if self.spaced:
            return {word.lower() for word in re.findall(r"\w{4,}", text)}
        return {run[i : i + 2] for run in re.findall(r"[^\W\d_]+", text) for i in range(len(run) - 1)}

    def grammar(self) -> Iterator[tuple[str, str, str]]:
        """Every (kind, intent, template) of a reply sentence; see ``replies.Sentence.kind``."""
        for intent in self.intents:
            kind = "comply" if intent.slice == "harmful" else "answer"
            yield from ((kind, intent.name, template) for template in intent.replies)
        plain = {
            "refuse": self.refusals, "evade": self.evasions, "courtesy": self.courtesies,
            "rude": self.rudeness, "filler": self.fillers, "pitch": self.pitches,
        }  # fmt: skip
        for kind, templates in plain.items():
            yield from ((kind, "", template) for template in templates)

    @cached_property
    def value_words(self) -> frozenset[str]:
        return frozenset((*self.statuses, *self.days, *self.channels, *self.cards, *self.locks))

    @cached_property
    def _slot_words(self) -> str:
        return "|".join((*self.items, *self.names, *self.streets, *sorted(self.value_words)))

    @cached_property
    def cues(self) -> dict[str, frozenset[str]]:
        """For the kinds that cost: ``telling_words`` that no other kind of reply sentence has, values left out."""
        used: dict[str, set[str]] = {}
        for kind, _, template in self.grammar():
            used.setdefault(kind, set()).update(self.telling_words(re.sub(r"\{\w+\}", " ", template)))
        return {
            kind: frozenset(used[kind].difference(self.value_words, *(used[other] for other in used if other != kind)))
            for kind in ("comply", "pitch", "rude")
        }

    @cached_property
    def sentence_patterns(self) -> list[tuple[str, str, re.Pattern[str]]]:
        return [(kind, intent, self.pattern(template)) for kind, intent, template in self.grammar()]

    @cached_property
    def fact_patterns(self) -> dict[str, re.Pattern[str]]:
        return {kind: self.pattern(template) for kind, template in self.facts.items()}

    @cached_property
    def question_patterns(self) -> list[tuple[Intent, re.Pattern[str]]]:
        return [(intent, self.pattern(question)) for intent in self.intents for question in intent.questions]

    @cached_property
    def prompt_pattern(self) -> re.Pattern[str]:
        parts = re.split(r"\{sheet\}|\{question\}", self.prompt)
        return re.compile(r"([^\n]+)".join(re.escape(part) for part in parts))
