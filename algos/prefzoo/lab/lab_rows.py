"""The lab's data: prompts, demonstrations and preferences, split by prompt and reproducible from a seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from prefzoo.errors import unknown
from prefzoo.lab.clerk import ordinary_reply
from prefzoo.lab.simulated_annotators import POOL
from prefzoo.lab.world import LANGUAGES, Scene, random_prompt, read_prompt

SPLITS = {"train": 70, "validation": 10, "test": 20}  # percent of all prompts
MAX_ROWS = 1_000_000


def split_of(prompt: str) -> str:
    """The split of a prompt, from a hash of its text: no prompt can ever be in two splits."""
    bucket = int(hashlib.sha256(prompt.encode()).hexdigest()[:12], 16) % 100
    for split, share in SPLITS.items():
        if bucket < share:
            return split
        bucket -= share
    raise AssertionError("the shares of SPLITS add up to 100")


def _check(split: str, n: int, language: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; allowed: {', '.join(SPLITS)}")
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= MAX_ROWS:
        raise ValueError(f"n={n!r} is not a number of rows; allowed: an integer from 0 to {MAX_ROWS}")
    if language not in LANGUAGES:
        raise ValueError(unknown("language of the lab", language, LANGUAGES))


def _scenes(split: str, n: int, seed: int, language: str) -> Iterator[tuple[dict[str, Any], Scene, random.Random]]:
    """n distinct prompts of a split, each with its scene and a random generator of its own."""
    other = "" if language == "en" else f" {language}"
    rng = random.Random(f"prefzoo.lab {split} {seed}{other}")
    seen: set[str] = set()
    while len(seen) < n:
        prompt = random_prompt(rng, LANGUAGES[language])
        if prompt in seen or split_of(prompt) != split:
            continue
        seen.add(prompt)
        scene = read_prompt(prompt)
        name = hashlib.sha256(prompt.encode()).hexdigest()[:16]
        row = {"id": f"lab-{name}", "prompt": prompt, "slice": scene.intent.slice, "intent": scene.intent.name}
        yield row, scene, random.Random(f"prefzoo.lab {seed} {name}")


def prompts(split: str, n: int, seed: int = 0, language: str = "en") -> list[dict[str, Any]]:
    """n distinct prompts of ``split`` (train, validation or test): id, prompt (the user message), slice and intent.

    ``language`` is "en" or "zh". The first rows of a larger n are the rows of a smaller one. Raises ``ValueError`` for
    an unknown split or language, or a bad n.
    """
    _check(split, n, language)
    return [row for row, _, _ in _scenes(split, n, seed, language)]


def demonstrations(split: str, n: int, seed: int = 0, language: str = "en") -> list[dict[str, Any]]:
    """The rows of ``prompts`` with a ``completion`` by the ordinary clerk, which is of mixed quality."""
    _check(split, n, language)
    return [{**row, "completion": ordinary_reply(scene, rng)} for row, scene, rng in _scenes(split, n, seed, language)]


def preferences(split: str, n: int, seed: int = 0, language: str = "en") -> list[dict[str, Any]]:
    """The rows of ``prompts`` with ``chosen`` and ``rejected``, two different replies of the ordinary clerk, as
    labelled by one simulated ``annotator`` drawn from the pool (see ``simulated_annotators``), to whom the chosen one
    seems better by ``margin``."""
    _check(split, n, language)
    rows = []
    for row, scene, rng in _scenes(split, n, seed, language):
        first, second = distinct_replies(scene, rng)
        annotator = rng.choice(POOL)
        better, margin = annotator.compares(scene.prompt, first, second, rng)
        chosen, rejected = (first, second) if better else (second, first)
        rows.append(
            {**row, "chosen": chosen, "rejected": rejected, "annotator": annotator.name, "margin": round(margin, 3)}
        )
    return rows


def distinct_replies(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Two replies of the ordinary clerk that differ."""
    first = second = ordinary_reply(scene, rng)
    while second == first:
        second = ordinary_reply(scene, rng)
    return first, second
