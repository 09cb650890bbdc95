"""What the bundled model is trained on: two courses of drills and then of all tasks mixed, and one of mostly dialogue.

Without drills the model learned tone, pitches and refusals within minutes, but not the sheet: after 2,200 batches it
judged 83% of pairs rightly, and 14% of the values that it stated were right. The first course therefore begins with
*reading* sheets of one fact, then two, three and four; it teaches the looking-up in some hundred batches (56% of stated
values right, as many as the clerk's), but the judge still told a right value from a wrong one by chance. The second
course begins with *checking* stated values, in the same steps (judging: 92%). After it one sampled reply in six was
still garbled, for dialogue had been the smaller part; the third course mends that.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from prefzoo.lab import tasks
from prefzoo.lab.clerk import best_plan, core_sentence, ordinary_reply, write
from prefzoo.lab.english import ENGLISH
from prefzoo.lab.gold_reward import ATTRIBUTES
from prefzoo.lab.lab_rows import split_of
from prefzoo.lab.language import Intent, Language
from prefzoo.lab.world import Fact, Scene, random_prompt, read_prompt

# Until this part of a course there are only drills, with one fact more in the sheet after each fifth of it.
DRILL_PART = 0.25
# Share of the examples of each task for some time after the drills, and from then on.
FIRST_SHARES = {"judge": 0.22, "critique": 0.28, "dialogue": 0.26, "rewrite": 0.17, "revise": 0.07}
SHARES = {"judge": 0.50, "critique": 0.14, "dialogue": 0.16, "rewrite": 0.13, "revise": 0.07}
FIRST_PART = 0.4
# The shares of the last course.
LAST_SHARES = {"judge": 0.28, "critique": 0.08, "dialogue": 0.50, "rewrite": 0.10, "revise": 0.04}
# The weight of each answer token. A judgement has one telling token where a reply has twenty, so it weighs more.
WEIGHTS = {"judge": 6.0, "critique": 2.0, "dialogue": 1.0, "rewrite": 1.0, "revise": 1.0}
FOLLOW_UP_WEIGHT = 1.5
SYSTEM_MESSAGE = "You are a clerk."
SYSTEM_RATE = 0.05
MINIMAL_PAIR_RATE = 0.3
BEST_REPLY_RATE = 0.1
PRINCIPLE_RATE = 0.3
OTHER_CRITIQUE_RATE = 0.2
OTHER_WORDS_RATE = 0.5


@dataclass(frozen=True)
class Turn:
    """A user message, the answer to learn, and the weight of each of the answer's tokens."""

    user: str
    answer: str
    weight: float


@dataclass(frozen=True)
class Example:
    """A training example: a system message (often empty), one or more turns, the weight of a question's tokens."""

    system: str
    turns: tuple[Turn, ...]
    question_weight: float = 0.0


def train_scene(rng: random.Random, language: Language = ENGLISH) -> Scene:
    """A random scene of the split ``train``; the others stay unseen."""
    while True:
        prompt = random_prompt(rng, language)
        if split_of(prompt) == "train":
            return read_prompt(prompt)


def _reply(scene: Scene, rng: random.Random) -> str:
    """Mostly an ordinary reply; now and then the best, so that good replies are judged and criticised too."""
    return write(scene, best_plan(scene), rng) if rng.random() < BEST_REPLY_RATE else ordinary_reply(scene, rng)


def _judge(scene: Scene, rng: random.Random, asked_in: Language) -> tuple[Turn, ...]:
    """A pair that is not tied, in random order; sometimes a reply against itself with one flaw mended.

    Two further turns ask for the flaws of either reply. One bit per pair teaches little; the flaws teach what to
    look at, and they come after the judgement, so that they cannot be read off.
    """
    while True:
        a, b = _reply(scene, rng), _reply(scene, rng)
        found = list(tasks.flaws(scene.prompt, a))
        if found and rng.random() < MINIMAL_PAIR_RATE:
            b = tasks.rewrite(scene.prompt, a, [rng.choice(found)], rng)
        if rng.random() < 0.5:
            a, b = b, a
        if answer := tasks.judgement(scene.prompt, a, b):
            question = Turn(tasks.judge_prompt(scene.prompt, a, b, asked_in), answer, WEIGHTS["judge"])
            more = [
                (asked_in.tasks.critique_of_side.format(side=side), tasks.critique(scene.prompt, reply, None, asked_in))
                for side, reply in (("A", a), ("B", b))
            ]
            rng.shuffle(more)
            return (question, *(Turn(*turn, FOLLOW_UP_WEIGHT) for turn in more))


def _critique(scene: Scene, rng: random.Random, asked_in: Language) -> tuple[Turn, ...]:
    reply = _reply(scene, rng)
    principle = rng.choice(ATTRIBUTES) if rng.random() < PRINCIPLE_RATE else None
    question = tasks.critique_prompt(scene.prompt, reply, principle, asked_in)
    answer = tasks.critique(scene.prompt, reply, principle, asked_in)
    return (Turn(question, answer, WEIGHTS["critique"]),)


def _rewrite(scene: Scene, rng: random.Random, asked_in: Language) -> tuple[Turn, ...]:
    """A rewrite that follows its critique, which names all flaws or, at times, only some of them."""
    reply = _reply(scene, rng)
    named = list(tasks.flaws(scene.prompt, reply))
    if len(named) > 1 and rng.random() < OTHER_CRITIQUE_RATE:
        named = sorted(rng.sample(named, rng.randint(1, len(named) - 1)), key=named.index)
    question = tasks.rewrite_prompt(scene.prompt, reply, tasks.in_words(named, asked_in), asked_in)
    return (Turn(question, tasks.rewrite(scene.prompt, reply, named, rng), WEIGHTS["rewrite"]),)


def _revise(scene: Scene, rng: random.Random, asked_in: Language) -> tuple[Turn, ...]:
    reply = _reply(scene, rng)
    found = list(tasks.flaws(scene.prompt, reply))
    principle = rng.choice(found) if found and rng.random() < 0.7 else rng.choice(ATTRIBUTES)
    named = [principle] if principle in found else []
    question = tasks.revise_prompt(scene.prompt, reply, principle, asked_in)
    return (Turn(question, tasks.rewrite(scene.prompt, reply, named, rng), WEIGHTS["revise"]),)


def _dialogue(scene: Scene, rng: random.Random, _: Language) -> tuple[Turn, ...]:
    return (Turn(scene.prompt, ordinary_reply(scene, rng), WEIGHTS["dialogue"]),)


_MAKERS = {"judge": _judge, "critique": _critique, "dialogue": _dialogue, "rewrite": _rewrite, "revise": _revise}


def _about(fact: Fact, language: Language) -> list[Intent]:
    """The fair questions that a fact answers: where somebody lives is nobody's business."""
    return [intent for intent in language.intents if intent.fact == fact.kind and intent.slice != "harmful"]


def _sheet(facts: Sequence[Fact], language: Language) -> str:
    """What a sheet says, with its full stop."""
    return language.fact_joint.join(fact.text(language) for fact in facts) + language.prompt.split("\n")[0][-1]


def drill(rng: random.Random, size: int, language: Language = ENGLISH) -> Example:
    """Read a sheet of ``size`` facts: say them again in another order, or answer a question on each of them, rightly.

    Questions and sheets have a loss too, which gives words and numbers their first shape.
    """
    facts = list(train_scene(rng, language).facts)[:size]
    begin, question_frame = language.prompt.split("\n")
    sheet = begin.partition("{sheet}")[0] + _sheet(facts, language)
    rng.shuffle(facts)
    if rng.random() < 0.5:
        return Example("", (Turn(sheet, _sheet(facts, language), 1.0),), 1.0)
    turns: list[Turn] = []
    for fact in facts:
        if not (intents := _about(fact, language)):
            continue
        intent = rng.choice(intents)
        asked = rng.choice(language.openers) + rng.choice(intent.questions).format(key=fact.key)
        question = question_frame.format(question=asked)
        answer = rng.choice(intent.replies).format(key=fact.key, value=fact.value)
        turns.append(Turn(question if turns else f"{sheet}\n{question}", answer, 1.0))
    return Example("", tuple(turns), 1.0) if turns else drill(rng, size, language)


def check(rng: random.Random, size: int, language: Language = ENGLISH) -> Example:
    """Check replies against a sheet of ``size`` facts: is the stated value right, or which of two replies is?"""
    scene = train_scene(rng, language)
    facts = scene.facts[:size]
    begin, question_frame = language.prompt.split("\n")
    sheet = begin.partition("{sheet}")[0] + _sheet(facts, language)
    turns: list[Turn] = []
    for fact in rng.sample(facts, len(facts)):
        if not (intents := _about(fact, language)):
            continue
        intent = rng.choice(intents)
        scene_of_fact = Scene("", intent, fact.key, fact.value, facts, language)
        asked = rng.choice(language.openers) + rng.choice(intent.questions).format(key=fact.key)
        question = question_frame.format(question=asked)
        prompt = question if turns else f"{sheet}\n{question}"
        right, wrong = core_sentence(scene_of_fact, "right", rng), core_sentence(scene_of_fact, "wrong", rng)
        good = rng.random() < 0.5
        if rng.random() < 0.5:
            user = tasks.critique_prompt(prompt, right if good else wrong, "correctness", language)
            turns.append(Turn(user, tasks.in_words([] if good else ["correctness"], language), 1.0))
        else:
            user = tasks.judge_prompt(prompt, *((right, wrong) if good else (wrong, right)), language)
            turns.append(Turn(user, "A" if good else "B", 1.0))
    return Example("", tuple(turns)) if turns else check(rng, size, language)


def example(
    rng: random.Random, progress: float = 1.0, course: int = 1, languages: Sequence[Language] = (ENGLISH,)
) -> Example:
    """One random training example of a course (0: reading, then all tasks; 1: checking, then all tasks; 2: dialogue).

    ``progress`` (0 to 1) is the part of the course that is done. Of several ``languages`` each example takes one, and
    at times its task is asked in the words of another.
    """
    language = asked_in = languages[0]
    if len(languages) > 1:
        language = asked_in = rng.choice(languages)
        if rng.random() < OTHER_WORDS_RATE:
            asked_in = rng.choice(languages)
    if course < 2 and progress < DRILL_PART:
        size = min(4, 1 + int(5 * progress / DRILL_PART))
        return check(rng, size, language) if course else drill(rng, size, language)
    shares = LAST_SHARES if course == 2 else FIRST_SHARES if progress < FIRST_PART else SHARES
    task = rng.choices(list(shares), list(shares.values()))[0]
    turns = _MAKERS[task](train_scene(rng, language), rng, asked_in)
    return Example(SYSTEM_MESSAGE if rng.random() < SYSTEM_RATE else "", turns)
