"""The lab's other tasks: judging, critiquing, rewriting and revising, as user messages with target answers.

The bundled models are trained on exactly these formats, so whoever asks one for a judgement, a critique or a rewrite
has to ask in these words (``Language.tasks``). They may be of another language than the prompt's: ``asked_in`` is the
language of the question, and a critique answers in it; a rewrite stays in the prompt's. A *principle* is the name of
one gold attribute: it narrows a critique to that attribute, and a revision to mending it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection

from prefzoo.lab.clerk import core_sentence
from prefzoo.lab.english import ENGLISH
from prefzoo.lab.gold_reward import ATTRIBUTES, breakdown, gold
from prefzoo.lab.language import Language
from prefzoo.lab.replies import CORES, Sentence, read_reply
from prefzoo.lab.world import LANGUAGES, Scene, read_prompt


def _check_principle(principle: str | None) -> None:
    if principle is not None and principle not in ATTRIBUTES:
        raise ValueError(f"principle={principle!r} is unknown; allowed: None, {', '.join(ATTRIBUTES)}")


def judge_prompt(prompt: str, a: str, b: str, asked_in: Language = ENGLISH) -> str:
    """The user message that asks which of two replies is better; the answer is "A" or "B", one token each."""
    return asked_in.tasks.judge.format(prompt=prompt, a=a, b=b)


def judgement(prompt: str, a: str, b: str) -> str | None:
    """The target answer, "A" or "B" by gold, or None for a tie."""
    difference = gold(prompt, a) - gold(prompt, b)
    return None if difference == 0 else "A" if difference > 0 else "B"


def critique_prompt(prompt: str, reply: str, principle: str | None = None, asked_in: Language = ENGLISH) -> str:
    """The user message that asks for the flaws of a reply, or for the one flaw that ``principle`` is about.

    ``principle`` is one of ``ATTRIBUTES``; raises ``ValueError`` otherwise.
    """
    _check_principle(principle)
    if principle is None:
        return asked_in.tasks.critique.format(prompt=prompt, reply=reply)
    attribute = asked_in.tasks.attributes[principle]
    return asked_in.tasks.critique_of_attribute.format(prompt=prompt, reply=reply, attribute=attribute)


def flaws(prompt: str, reply: str) -> dict[str, float]:
    """Each flawed attribute and how much gold it costs, the worst first; empty for a perfect reply.

    Saying nothing of substance counts as ``helpfulness`` (no answer), not as a wrong value.
    """
    scene, parts = read_prompt(prompt), breakdown(prompt, reply)
    harmful = scene.intent.slice == "harmful"
    kinds = {s.kind for s in read_reply(reply, scene.language)}
    cost = {name: -value for name, value in parts.items()}
    cost["courtesy"] = 0.0 if "courtesy" in kinds and parts["courtesy"] >= 0 else 0.5 - parts["courtesy"]
    if harmful and parts["harmlessness"] == 0:
        cost["helpfulness"] = 2.5
    elif harmful:
        cost["harmlessness"] = 2.5 - parts["harmlessness"]
    else:
        cost["correctness"] = max(0.0, 2 - parts["correctness"]) if parts["correctness"] < 0 else 0.0
        missing = 2.0 if parts["correctness"] == 0 else 0.0
        cost["helpfulness"] = 0.5 - parts["helpfulness"] + missing if parts["helpfulness"] < 0 else 0.0
    costs = {name: cost[name] for name in ATTRIBUTES if cost[name] > 0}
    return dict(sorted(costs.items(), key=lambda item: -item[1]))


def critique(prompt: str, reply: str, principle: str | None = None, asked_in: Language = ENGLISH) -> str:
    """The target critique: the flaws in words, the worst first, or that there is none; see ``TaskWords``."""
    _check_principle(principle)
    return in_words([name for name in flaws(prompt, reply) if principle in (None, name)], asked_in)


def in_words(attributes: Collection[str], asked_in: Language = ENGLISH) -> str:
    """The critique that names these attributes, and no others."""
    words = asked_in.tasks
    return words.flaw_joint.join(words.flaws[name] for name in attributes) or words.no_flaw


def named_flaws(critique_text: str) -> list[str]:
    """The attributes that a critique of any language names, in its order; anything else in the text is passed over."""
    attributes = {flaw: name for language in LANGUAGES.values() for name, flaw in language.tasks.flaws.items()}
    parts = [part.strip(" .。") for part in re.split("[,，]", critique_text)]
    return list(dict.fromkeys(attributes[part] for part in parts if part in attributes))


def rewrite_prompt(prompt: str, reply: str, critique_text: str, asked_in: Language = ENGLISH) -> str:
    """The user message that asks to mend what the critique names (made with or without a principle)."""
    return asked_in.tasks.rewrite.format(prompt=prompt, reply=reply, critique=critique_text)


def revise_prompt(prompt: str, reply: str, principle: str, asked_in: Language = ENGLISH) -> str:
    """The user message that asks to mend one attribute without a critique.

    ``principle`` is one of ``ATTRIBUTES``; raises ``ValueError`` otherwise.
    """
    _check_principle(principle)
    return asked_in.tasks.revise.format(prompt=prompt, reply=reply, attribute=asked_in.tasks.attributes[principle])


def _mend_core(scene: Scene, sentences: list[Sentence], rng: random.Random) -> list[Sentence]:
    """Put one good core sentence where the first core was, and drop other cores and what is mangled."""
    good = "refuse" if scene.intent.slice == "harmful" else "right"
    kind = "refuse" if good == "refuse" else "answer"
    core = Sentence(core_sentence(scene, good, rng), kind, language=scene.language)
    replaced = (*CORES, "unknown")
    place = next((i for i, s in enumerate(sentences) if s.kind in replaced), 0)
    before = [s for s in sentences[:place] if s.kind not in replaced]
    return [*before, core, *(s for s in sentences[place:] if s.kind not in replaced)]


def _shorten(sentences: list[Sentence]) -> list[Sentence]:
    """Drop fillers, and all but the first core and the first courtesy."""
    shorter: list[Sentence] = []
    for sentence in sentences:
        kind = "core" if sentence.kind in CORES else sentence.kind
        earlier = {"core" if s.kind in CORES else s.kind for s in shorter}
        if kind != "filler" and not (kind in ("core", "courtesy") and kind in earlier):
            shorter.append(sentence)
    return shorter


def rewrite(prompt: str, reply: str, attributes: Collection[str], rng: random.Random) -> str:
    """The target rewrite: ``reply`` with the named attributes mended and everything else kept.

    ``attributes`` are names out of ``ATTRIBUTES``; with none the reply comes back as it is.
    """
    scene = read_prompt(prompt)
    sentences = read_reply(reply, scene.language)
    if "coherence" in attributes:
        sentences = [s for s in dict.fromkeys(sentences) if s.kind != "unknown"]
    lost = "coherence" in attributes and not any(s.kind in CORES for s in sentences)
    if lost or not {"correctness", "harmlessness", "helpfulness"}.isdisjoint(attributes):
        sentences = _mend_core(scene, sentences, rng)
    if "restraint" in attributes:
        sentences = [s for s in sentences if s.kind != "pitch"]
    if "brevity" in attributes:
        sentences = _shorten(sentences)
    if "courtesy" in attributes:
        sentences = [s for s in sentences if s.kind != "rude"]
        if not any(s.kind == "courtesy" for s in sentences):
            sentences.append(Sentence(rng.choice(scene.language.courtesies), "courtesy", language=scene.language))
    return scene.language.joint.join(s.text for s in sentences)
