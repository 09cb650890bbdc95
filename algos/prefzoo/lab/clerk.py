"""The clerk: makes replies of a wanted quality, and mends given flaws of a given reply."""

from __future__ import annotations

import random
from dataclasses import dataclass

from prefzoo.lab.language import Language
from prefzoo.lab.world import Scene, random_key, random_value

# How often the ordinary clerk takes each core, by slice. It leaves much room for improvement on purpose.
CORE_RATES: dict[str, dict[str, float]] = {
    "benign": {"right": 0.52, "wrong": 0.33, "refuse": 0.09, "evade": 0.06},
    "lookalike": {"right": 0.42, "wrong": 0.24, "refuse": 0.28, "evade": 0.06},
    "harmful": {"refuse": 0.42, "comply": 0.58},
}
COURTEOUS_RATE, RUDE_RATE = 0.38, 0.17
PITCH_RATE, FILLER_RATE, SECOND_COURTESY_RATE = 0.33, 0.30, 0.15
GARBLED_RATE = 0.03


@dataclass(frozen=True)
class ReplyPlan:
    """What a reply shall be like.

    ``core``: right, wrong, refuse, evade or comply (wrong and right need a fair request, comply a harmful one).
    ``courtesies``, ``fillers``, ``pitches``: how many such sentences; ``rude``: one rude sentence; ``garbled``: one
    sentence gets its words out of order.
    """

    core: str
    courtesies: int = 0
    fillers: int = 0
    pitches: int = 0
    rude: bool = False
    garbled: bool = False


def best_plan(scene: Scene) -> ReplyPlan:
    """The plan whose replies have the highest gold."""
    return ReplyPlan("refuse" if scene.intent.slice == "harmful" else "right", courtesies=1)


def ordinary_plan(scene: Scene, rng: random.Random) -> ReplyPlan:
    """A plan of the ordinary clerk, of mixed quality."""
    rates = CORE_RATES[scene.intent.slice]
    core = rng.choices(list(rates), list(rates.values()))[0]
    tone = rng.random()
    courtesies = 1 if tone < COURTEOUS_RATE else 0
    fillers, pitches = int(rng.random() < FILLER_RATE), int(rng.random() < PITCH_RATE)
    if courtesies and not fillers and rng.random() < SECOND_COURTESY_RATE:
        courtesies = 2
    rude = tone > 1 - RUDE_RATE
    return ReplyPlan(core, courtesies, fillers, pitches, rude, rng.random() < GARBLED_RATE)


def _wrong_slots(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Key and value of a wrong answer: half of the time what the sheet says of something else, else invented."""
    kind = scene.intent.fact or ""
    rivals = [f for f in scene.facts if f.kind == kind and f.key != scene.key]
    if scene.intent.name == "cancel":
        return (rng.choice(rivals).key if rivals else str(rng.randint(100, 999))), ""
    if rivals and rng.random() < 0.5:
        return scene.key, rng.choice(rivals).value
    return scene.key, random_value(kind, rng, scene.language)


def core_sentence(scene: Scene, core: str, rng: random.Random) -> str:
    """One sentence of the wanted core; see ``ReplyPlan.core``."""
    if core == "refuse":
        return rng.choice(scene.language.refusals)
    if core == "evade":
        return rng.choice(scene.language.evasions)
    template = rng.choice(scene.intent.replies)
    right = template.format(key=scene.key, value=scene.value)
    if core != "wrong":
        return right
    while True:
        key, value = _wrong_slots(scene, rng)
        wrong = template.format(key=key, value=value)
        if wrong != right:
            return wrong


def _garble(sentence: str, language: Language, rng: random.Random) -> str:
    words = language.shuffled_units(sentence)
    shuffled = words[:]
    while shuffled == words and len(words) > 1:
        rng.shuffle(shuffled)
    return language.joint.join(shuffled)


def write(scene: Scene, plan: ReplyPlan, rng: random.Random) -> str:
    """A reply to ``scene`` that follows ``plan``, in random words and order around the core."""
    core = core_sentence(scene, plan.core, rng)
    before: list[str] = []
    after: list[str] = []
    for courtesy in rng.sample(scene.language.courtesies, plan.courtesies):
        (before if rng.random() < 0.4 else after).append(courtesy)
    if plan.rude:
        (before if rng.random() < 0.5 else after).append(rng.choice(scene.language.rudeness))
    before += rng.sample(scene.language.fillers, plan.fillers)
    pitches = rng.sample(scene.language.pitches, plan.pitches)
    after += [pitch.format(key=random_key("item", rng, scene.language)) for pitch in pitches]
    rng.shuffle(after)
    if plan.garbled:
        core = _garble(core, scene.language, rng)
    return scene.language.joint.join([*before, core, *after])


def ordinary_reply(scene: Scene, rng: random.Random) -> str:
    """A reply of the ordinary clerk."""
    return write(scene, ordinary_plan(scene, rng), rng)
