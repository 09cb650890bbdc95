"""Scenes of the lab: a shop's fact sheet and one customer question, written as a prompt and read back from it.

Everything that gold needs is in the prompt's text, so gold is a pure function of two strings.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from prefzoo.lab.chinese import CHINESE
from prefzoo.lab.english import ENGLISH
from prefzoo.lab.language import KEYED, Intent, Language

LANGUAGES = {language.code: language for language in (ENGLISH, CHINESE)}
SLICES = {"benign": 0.55, "harmful": 0.25, "lookalike": 0.20}


@dataclass(frozen=True)
class Fact:
    """One entry of the sheet: its kind, the key it is about (empty where the kind has none) and its value."""

    kind: str
    key: str
    value: str

    def text(self, language: Language) -> str:
        """The entry as the sheet shows it."""
        return language.facts[self.kind].format(key=self.key, value=self.value)


@dataclass(frozen=True)
class Scene:
    """A prompt that was understood: what is asked (``intent``, ``key``) and what the sheet answers (``value``).

    ``value`` is empty where the intent needs no fact.
    """

    prompt: str
    intent: Intent
    key: str
    value: str
    facts: tuple[Fact, ...]
    language: Language


_KEYS: dict[str, Callable[[random.Random, Language], str]] = {
    "item": lambda rng, language: rng.choice(language.items),
    "name": lambda rng, language: rng.choice(language.names),
    "order": lambda rng, _: str(rng.randint(100, 999)),
}


def _street(rng: random.Random, language: Language) -> str:
    return language.street.format(number=rng.randint(1, 99), street=rng.choice(language.streets))


def _hours(rng: random.Random, language: Language) -> str:
    return language.hours.format(first=rng.randint(6, 11), last=rng.randint(15, 22))


_VALUES: dict[str, Callable[[random.Random, Language], str]] = {
    "price": lambda rng, _: str(rng.randint(10, 99)),
    "stock": lambda rng, _: str(rng.randint(2, 60)),
    "status": lambda rng, language: rng.choice(language.statuses),
    "hours": _hours,
    "refund": lambda rng, _: str(rng.randint(7, 60)),
    "delivery": lambda rng, _: str(rng.randint(2, 20)),
    "discount": lambda rng, _: str(rng.randint(2, 40)),
    "phone": lambda rng, _: str(rng.randint(100, 999)),
    "sale": lambda rng, language: rng.choice(language.days),
    "shop_address": _street,
    "own_address": lambda rng, language: rng.choice(language.channels),
    "receipt_copy": lambda rng, _: str(rng.randint(1, 30)),
    "cards": lambda rng, language: rng.choice(language.cards),
    "password_reset": lambda rng, language: rng.choice(language.channels),
    "lock": lambda rng, language: rng.choice(language.locks),
    "lives": _street,
}


def random_key(kind: str, rng: random.Random, language: Language = ENGLISH) -> str:
    """A key of one kind (``item``, ``name``, ``order``)."""
    return _KEYS[kind](rng, language)


def random_value(kind: str, rng: random.Random, language: Language = ENGLISH) -> str:
    """A value that a fact of ``kind`` may have."""
    return _VALUES[kind](rng, language)


def _random_fact(kind: str, rng: random.Random, language: Language) -> Fact:
    key = random_key(KEYED[kind], rng, language) if kind in KEYED else ""
    return Fact(kind, key, random_value(kind, rng, language))


def _sheet(intent: Intent, key: str, rng: random.Random, language: Language) -> tuple[Fact, ...]:
    """The needed fact, a rival of the same kind where kinds have keys, and others, four in all, in random order."""
    facts: list[Fact] = []
    kinds = rng.sample(list(language.facts), 5)
    if intent.fact is not None:
        value = random_value(intent.fact, rng, language)
        facts.append(Fact(intent.fact, key if intent.fact in KEYED else "", value))
        if intent.fact in KEYED:
            kinds.insert(0, intent.fact)
    elif intent.key == "item":
        facts.append(Fact("price", key, random_value("price", rng, language)))
    for kind in kinds:
        fact = _random_fact(kind, rng, language)
        if len(facts) < 4 and all((f.kind, f.key) != (fact.kind, fact.key) for f in facts):
            facts.append(fact)
    rng.shuffle(facts)
    return tuple(facts)


def random_prompt(rng: random.Random, language: Language = ENGLISH) -> str:
    """One prompt of the world, slices in the proportions of ``SLICES``."""
    slice_ = rng.choices(list(SLICES), list(SLICES.values()))[0]
    intent = rng.choice([intent for intent in language.intents if intent.slice == slice_])
    key = random_key(intent.key, rng, language) if intent.key else ""
    sheet = language.fact_joint.join(fact.text(language) for fact in _sheet(intent, key, rng, language))
    question = rng.choice(language.openers) + rng.choice(intent.questions).format(key=key)
    return language.prompt.format(sheet=sheet, question=question)


def _read_fact(text: str, language: Language) -> Fact | None:
    for kind, pattern in language.fact_patterns.items():
        if match := pattern.fullmatch(text):
            slots = match.groupdict()
            return Fact(kind, slots.get("key", ""), slots["value"])
    return None


def _read_question(text: str, language: Language) -> tuple[Intent, str] | None:
    for opener in language.openers[1:]:
        text = text.removeprefix(opener)
    for intent, pattern in language.question_patterns:
        if match := pattern.fullmatch(text):
            return intent, match.groupdict().get("key", "")
    return None


@lru_cache(maxsize=8192)
def read_prompt(prompt: str) -> Scene:
    """The scene that ``prompt`` describes, in the language that it is written in.

    Raises ``ValueError`` where the text is not a prompt of the lab: gold knows no other world.
    """
    unknown = f"prompt={prompt!r:.120} is not a prompt of the lab; allowed are those that prompts() makes"
    for language in LANGUAGES.values():
        if match := language.prompt_pattern.fullmatch(prompt):
            break
    else:
        raise ValueError(unknown)
    facts = [_read_fact(text, language) for text in match[1].split(language.fact_joint)]
    asked = _read_question(match[2], language)
    known = tuple(fact for fact in facts if fact is not None)
    if asked is None or len(known) < len(facts):
        raise ValueError(unknown)
    intent, key = asked
    fact_key = key if intent.fact in KEYED else ""
    values = [fact.value for fact in known if (fact.kind, fact.key) == (intent.fact, fact_key)]
    if intent.fact is not None and not values:
        raise ValueError(f"prompt={prompt!r:.120} asks for a fact ({intent.fact} {fact_key}) that its sheet lacks")
    return Scene(prompt, intent, key, values[0] if values else "", known, language)
