"""People's answers on which of two replies is better, from a store of feedback or an exported file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prefzoo.data.read_files import is_database
from prefzoo.data.read_rows import read_votes
from prefzoo.data.votes import Vote
from prefzoo.feedback.feedback_types import Answer, Item
from prefzoo.feedback.store import FeedbackStore
from prefzoo.views import prompt_key

COMPARING = ("compare", "ab")
"""Kinds of questions whose answer is which of two replies is better."""
CHOICES = {"first": 0, "second": 1, "tie": None, "both_bad": None}
OF_RUN = re.compile(r"^seed (\d+) test prompt \d+$")
"""Where an item of a run came from."""


@dataclass(frozen=True)
class ComparedPair:
    """Two replies that people compared.

    Attributes:
        prompt: its key (`views.prompt_key`).
        replies: both texts.
        policies: whose replies they are; None where that is not known.
        votes: on which of the two is better, one for each annotator.
        both_bad: how many of the votes for neither say that both are bad.
        weight: what one answer stands for, beside those that were drawn with equal chances.
        seed: of the trainings whose replies they are; None where that is not known.
    """

    prompt: str
    replies: tuple[str, str]
    policies: tuple[str | None, str | None] = (None, None)
    votes: tuple[Vote, ...] = ()
    both_bad: int = 0
    weight: float = 1.0
    seed: int | None = None


@dataclass
class HumanAnswers:
    """All that a file has.

    Attributes:
        pairs: in the order of their first answer.
        answers: every live answer in the file, of any kind.
        unused: reason -> how many answers are of no use here.
        weighting: how the chances of items to be asked enter, in words.
    """

    pairs: list[ComparedPair] = field(default_factory=list)
    answers: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    weighting: str = ""

    @property
    def sha256(self) -> str:
        """A hash of what people said, the same wherever and in whichever form it is kept."""
        said = [
            (p.prompt, p.replies, [(v.annotator, v.choice) for v in p.votes], p.both_bad, round(p.weight, 9))
            for p in self.pairs
        ]
        return hashlib.sha256(json.dumps(sorted(said, key=json.dumps)).encode()).hexdigest()


def read_answers(path: Path) -> HumanAnswers:
    """Read a store of feedback, or a file of `data: preferences` with votes.

    Raises:
        PrefzooError: when it cannot be read.
    """
    if not is_database(path):
        return _from_file(path)
    with contextlib.closing(FeedbackStore(path)) as store:
        return from_store(store.items(), store.answers())


def from_store(items: Sequence[Item], answers: Sequence[Answer]) -> HumanAnswers:
    """Take the live answers of a store (see `prefzoo.feedback`), in the order in which they were given."""
    by_id = {item.item_id: item for item in items if item.kind in COMPARING and item.gold is None}
    kinds = {item.item_id: item.kind for item in items}
    result = HumanAnswers(answers=len(answers))
    given: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.item_id in by_id:
            given.setdefault(answer.item_id, []).append(answer)
        elif kinds.get(answer.item_id) in COMPARING:
            result.unused["to a question that checks annotators"] += 1
        else:
            result.unused[f"no comparison of two replies ({kinds.get(answer.item_id)})"] += 1
    asked = [by_id[item_id] for item_id in given]
    weights = draw_weights([item.probability for item in asked], len(by_id))
    for item, weight in zip(asked, weights, strict=True):
        of_item = given[item.item_id]
        choices = [answer.value["choice"] for answer in of_item]
        votes = (Vote(CHOICES[c], a.annotator, a.answer_id) for c, a in zip(choices, of_item, strict=True))
        first, second = item.replies
        seed = OF_RUN.search(item.source)
        result.pairs.append(
            ComparedPair(
                prompt=prompt_key(item.prompt),
                replies=(first["text"], second["text"]),
                policies=(first.get("policy"), second.get("policy")),
                votes=tuple(votes),
                both_bad=choices.count("both_bad"),
                weight=weight,
                seed=int(seed[1]) if seed else None,
            )
        )
    uniform = all(weight == 1 for weight in weights)
    result.weighting = "drawn with equal chances" if uniform else "weighted by the inverse of each one's chance"
    return result


def draw_weights(probabilities: Sequence[float], all_items: int) -> list[float]:
    """Return what each answer stands for, of items that were drawn one after another, none twice.

    Each draw's probability is one among the items that were left, so that the inverse alone would not do: the weights
    are those of Farquhar, Gal and Rainforth (2021, https://arxiv.org/abs/2101.11665, eq. 12), under which means over
    the answers are unbiased for those over all items. They are all 1 where items were drawn uniformly, or all were.

    Args:
        probabilities: in the order of the draws; 1 says that the order was uniform.
        all_items: how many there were to draw from.
    """
    drawn = len(probabilities)
    weights = []
    for m, probability in enumerate(probabilities, 1):
        left = all_items - m + 1
        relative = 1.0 if probability >= 1 else 1 / (left * probability)
        weights.append(1 + (all_items - drawn) / (all_items - m) * (relative - 1) if all_items > m else 1.0)
    return weights


def _from_file(path: Path) -> HumanAnswers:
    pairs, read = read_votes(str(path))
    # A file has what was answered alone, and of a draw not how many were left.
    result = HumanAnswers(
        answers=read.read, weighting="all counted alike: a file does not say how its items were drawn"
    )
    result.unused.update(read.dropped.counts())
    result.pairs = [
        ComparedPair(prompt_key(pair.prompt), (pair.first, pair.second), votes=tuple(pair.votes)) for pair in pairs
    ]
    return result
