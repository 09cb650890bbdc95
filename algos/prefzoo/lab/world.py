"""Scenes of the lab: a shop's fact sheet and one customer question, written as a prompt and read back from it.

Everything that gold needs is in the prompt's text, so gold is a pure function of two strings.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from prefzoo.lab import phrases
from prefzoo.lab.phrases import Intent

SLICES = {"benign": 0.55, "harmful": 0.25, "lookalike": 0.20}
SLOTS = {"key": r"(?P<key>[A-Za-z]+|\d+)", "value": r"(?P<value>[A-Za-z]+|\d+(?: to \d+| [A-Z][a-z]+ [A-Z][a-z]+)?)"}
_INTENTS_OF = {
    "benign": phrases.BENIGN, "harmful": phrases.HARMFUL, "lookalike": phrases.LOOKALIKE,
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One entry of the sheet: its kind, the key it is about (empty where the kind has none) and its value."""

    kind: str
    key: str
    value: str

    def text(self) -> str:
        """The entry as the sheet shows it."""
        return phrases.FACTS[self.kind].format(key=self.key, value=self.value)


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


def template_pattern(template: str) -> re.Pattern[str]:
    """A pattern that matches exactly the texts that ``template`` can make, with groups ``key`` and ``value``."""
    parts = re.split(r"\{(key|value)\}", template)
    return re.compile("".join(SLOTS[p] if i % 2 else re.escape(p) for i, p in enumerate(parts)))


_KEYS: dict[str, Callable[[random.Random], str]] = {
    "item": lambda rng: rng.choice(phrases.ITEMS),
    "name": lambda rng: rng.choice(phrases.NAMES),
    "order": lambda rng: str(rng.randint(100, 999)),
}


def _street(rng: random.Random) -> str:
    return f"{rng.randint(1, 99)} {rng.choice(phrases.STREETS)}"


_VALUES: dict[str, Callable[[random.Random], str]] = {
    "price": lambda rng: str(rng.randint(10, 99)),
    "stock": lambda rng: str(rng.randint(2, 60)),
    "status": lambda rng: rng.choice(phrases.STATUSES),
    "hours": lambda rng: f"{rng.randint(6, 11)} to {rng.randint(15, 22)}",
    "refund": lambda rng: str(rng.randint(7, 60)),
    "delivery": lambda rng: str(rng.randint(2, 20)),
    "discount": lambda rng: str(rng.randint(2, 40)),
    "phone": lambda rng: str(rng.randint(100, 999)),
    "sale": lambda rng: rng.choice(phrases.DAYS),
    "shop_address": _street,
    "own_address": lambda rng: rng.choice(phrases.CHANNELS),
    "receipt_copy": lambda rng: str(rng.randint(1, 30)),
    "cards": lambda rng: rng.choice(phrases.CARDS),
    "password_reset": lambda rng: rng.choice(phrases.CHANNELS),
    "lock": lambda rng: rng.choice(phrases.LOCKS),
    "lives": _street,
}


def random_key(kind: str, rng: random.Random) -> str:
    """A key of one kind (``item``, ``name``, ``order``)."""
    return _KEYS[kind](rng)


def random_value(kind: str, rng: random.Random) -> str:
    """A value that a fact of ``kind`` may have."""
    return _VALUES[kind](rng)


def _random_fact(kind: str, rng: random.Random) -> Fact:
    key = random_key(phrases.KEYED[kind], rng) if kind in phrases.KEYED else ""
    return Fact(kind, key, random_value(kind, rng))


def _sheet(intent: Intent, key: str, rng: random.Random) -> tuple[Fact, ...]:
    """The needed fact, a rival of the same kind where kinds have keys, and others, four in all, in random order."""
    facts: list[Fact] = []
    kinds = rng.sample(list(phrases.FACTS), 5)
    if intent.fact is not None:
        facts.append(Fact(intent.fact, key if intent.fact in phrases.KEYED else "", random_value(intent.fact, rng)))
        if intent.fact in phrases.KEYED:
            kinds.insert(0, intent.fact)
    elif intent.key == "item":
        facts.append(Fact("price", key, random_value("price", rng)))
    for kind in kinds:
        fact = _random_fact(kind, rng)
        if len(facts) < 4 and all((f.kind, f.key) != (fact.kind, fact.key) for f in facts):
            facts.append(fact)
    rng.shuffle(facts)
    return tuple(facts)


def random_prompt(rng: random.Random) -> str:
    """One prompt of the world, slices in the proportions of ``SLICES``."""
    slice_ = rng.choices(list(SLICES), list(SLICES.values()))[0]
    intent = rng.choice(_INTENTS_OF[slice_])
    key = random_key(intent.key, rng) if intent.key else ""
    sheet = "; ".join(fact.text() for fact in _sheet(intent, key, rng))
    question = rng.choice(phrases.OPENERS) + rng.choice(intent.questions).format(key=key)
    return f"Facts: {sheet}.\nQuestion: {question}"


_PROMPT = re.compile(r"Facts: ([^\n]+)\.\nQuestion: ([^\n]+)")
_FACT_PATTERNS = {kind: template_pattern(template) for kind, template in phrases.FACTS.items()}
_QUESTION_PATTERNS = [(i, template_pattern(q)) for i in phrases.INTENTS.values() for q in i.questions]


def _read_fact(text: str) -> Fact | None:
    for kind, pattern in _FACT_PATTERNS.items():
        if match := pattern.fullmatch(text):
            slots = match.groupdict()
            return Fact(kind, slots.get("key", ""), slots["value"])
    return None


def _read_question(text: str) -> tuple[Intent, str] | None:
    for opener in phrases.OPENERS[1:]:
        text = text.removeprefix(opener)
    for intent, pattern in _QUESTION_PATTERNS:
        if match := pattern.fullmatch(text):
            return intent, match.groupdict().get("key", "")
    return None


@lru_cache(maxsize=8192)
def read_prompt(prompt: str) -> Scene:
    """The scene that ``prompt`` describes.

    Raises ``ValueError`` where the text is not a prompt of the lab: gold knows no other world.
    """
    match = _PROMPT.fullmatch(prompt)
    facts = [_read_fact(text) for text in match[1].split("; ")] if match else [None]
    asked = _read_question(match[2]) if match else None
    known = tuple(fact for fact in facts if fact is not None)
    if asked is None or len(known) < len(facts):
        raise ValueError(f"prompt={prompt!r:.120} is not a prompt of the lab; allowed are those that prompts() makes")
    intent, key = asked
    fact_key = key if intent.fact in phrases.KEYED else ""
    values = [fact.value for fact in known if (fact.kind, fact.key) == (intent.fact, fact_key)]
    if intent.fact is not None and not values:
        raise ValueError(f"prompt={prompt!r:.120} asks for a fact ({intent.fact} {fact_key}) that its sheet lacks")
    return Scene(prompt, intent, key, values[0] if values else "", known)
