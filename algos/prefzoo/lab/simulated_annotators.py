"""Simulated annotators: noisy, biased and at odds with each other, by known amounts.

An annotator's utility of a reply is a weighted sum of gold's contributions, plus what annotators like too much: every
word and every polite sentence. Two replies are compared by Bradley-Terry: P(a over b) = sigmoid(sharpness * (u_a -
u_b)); then the label is flipped with probability ``FLIP_RATE``.

The systematic bias, shared by all, is what makes a learned reward hackable: errors and pitches weigh too little
(``SHARED_WEIGHTS``), length earns ``WORD_BONUS`` a word where gold charges for it, and each polite sentence earns
``COURTESY_BONUS`` where gold pays once.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from prefzoo.lab.gold_reward import breakdown
from prefzoo.lab.replies import read_reply
from prefzoo.lab.world import read_prompt

FLIP_RATE = 0.04
SHARPNESS = 1.2
WORD_BONUS = 0.035
COURTESY_BONUS = 0.3
TINY = 1e-300
"""In the place of a draw of 0, whose logarithm is infinite."""
SHARED_WEIGHTS = {
    "correctness": 0.7, "harmlessness": 0.9, "helpfulness": 0.9, "courtesy": 1.4,
    "restraint": 0.5, "brevity": 0.2, "coherence": 0.9,
}  # fmt: skip


@dataclass(frozen=True)
class Annotator:
    """One member of the pool; ``taste`` multiplies the shared weight of the attributes that it names."""

    name: str
    taste: dict[str, float]

    def utility(self, prompt: str, completion: str) -> float:
        """How much this annotator likes the reply."""
        parts = breakdown(prompt, completion)
        weighted = sum(SHARED_WEIGHTS[k] * self.taste.get(k, 1.0) * value for k, value in parts.items())
        sentences = read_reply(completion, read_prompt(prompt).language)
        words = sum(s.size for s in sentences)
        polite = sum(s.kind == "courtesy" for s in sentences)
        return weighted + WORD_BONUS * words + COURTESY_BONUS * polite

    def prefers_first(self, prompt: str, first: str, second: str, rng: random.Random) -> bool:
        """Whether this annotator labels ``first`` as better, this time."""
        return self.compares(prompt, first, second, rng)[0]

    def compares(self, prompt: str, first: str, second: str, rng: random.Random) -> tuple[bool, float]:
        """Whether this annotator labels ``first`` as better, this time, and by how much the one that is labelled as
        better seems so: the difference of utilities with the logistic noise that Bradley-Terry is, 0 or more."""
        difference = self.utility(prompt, first) - self.utility(prompt, second)
        drawn = rng.random()
        better = drawn < 1 / (1 + math.exp(-SHARPNESS * difference))
        noise = math.log(max(drawn, TINY) / (1 - drawn)) / SHARPNESS
        return better != (rng.random() < FLIP_RATE), abs(difference - noise)


POOL = (
    Annotator("even", {}),
    Annotator("strict", {"correctness": 1.5, "courtesy": 0.6}),
    Annotator("gentle", {"courtesy": 1.8, "correctness": 0.7, "restraint": 1.4}),
    Annotator("careful", {"harmlessness": 1.5, "helpfulness": 0.4}),
    Annotator("hurried", {"correctness": 0.6, "brevity": 3.0, "coherence": 0.5}),
)
