"""People as the judge: a round's pairs are questions in a store of feedback, and the round waits for their answers.

A round is closed when every pair that people are asked about has an answer. What they said until then is written down,
and is what the round goes by from then on, whatever is answered or taken back later.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import read_json, text_sha256, write_whole
from prefzoo.data.agreement import vote_agreement
from prefzoo.data.vote_aggregation import probabilities
from prefzoo.data.votes import Vote, VotedPair
from prefzoo.errors import WaitsForPeople
from prefzoo.feedback.feedback_types import Answer, Item
from prefzoo.feedback.store import FeedbackStore
from prefzoo.judges.judge import Judge
from prefzoo.types import Prompt

NOT_ASKED = float("nan")
"""P(the first is better) of a pair that people were not asked about."""
CHOICES = {"first": 0, "second": 1, "tie": None, "both_bad": None}


@dataclass(frozen=True)
class RoundAnswer:
    """An answer that a closed round goes by; `question` is the name of its pair (`_digest`)."""

    answer_id: str
    question: str
    annotator: str
    choice: str
    seconds: float

    @classmethod
    def of(cls, answer: Answer, question: str) -> RoundAnswer:
        return cls(answer.answer_id, question, answer.annotator, answer.value["choice"], answer.seconds)


class PeopleJudge(Judge):
    """Has people compare pairs, each call being a round.

    Args:
        store: the file of questions and answers, made where there is none.
        per_round: how many pairs of a round people are asked about; None is all.
        closed: folder of what closed rounds go by.
        asker: for whom, such as `iterative_dpo seed 0`; people do not see it.

    Attributes:
        rounds: of each call what was asked and said; see `report`.
    """

    pauses = True

    def __init__(self, store: Path, per_round: int | None, closed: Path, asker: str) -> None:
        super().__init__(_never_asked_in_order, name="people")
        self.store, self.per_round, self.closed, self.asker = store.expanduser(), per_round, closed, asker
        self.rounds: list[dict[str, Any]] = []
        self._said: list[tuple[list[str], list[RoundAnswer]]] = []

    def __call__(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> list[float]:
        """The share of votes for the first of each pair among those that prefer one, one half where none does;
        `NOT_ASKED` for a pair that nobody was asked about.

        Replies that are the same, or of which one is empty, are no question.

        Raises:
            WaitsForPeople: while not all have an answer. The questions are in the store then, each once.
            PrefzooError: when the store cannot be used.
        """
        pairs = list(zip(prompts, first, second, strict=True))
        names = {
            i: _digest(pair) for i, pair in enumerate(pairs) if pair[1] != pair[2] and all(map(str.strip, pair[1:]))
        }
        asked = sorted(set(names.values()))[: self.per_round]
        said = self._settled(asked, {names[i]: pairs[i] for i in names if names[i] in asked})
        voted = {name: VotedPair(name, [], "first", "second") for name in asked}
        for answer in said:
            voted[answer.question].votes.append(Vote(CHOICES[answer.choice], answer.annotator, answer.answer_id))
        shares = dict(zip(voted, probabilities(list(voted.values()), "majority")[0], strict=True))
        self._count(said, voted, shares, len(pairs), len(set(names.values())))
        self._said.append((asked, said))
        return [shares.get(names.get(i, ""), NOT_ASKED) for i in range(len(pairs))]

    def _settled(self, asked: list[str], pairs: Mapping[str, tuple[Prompt, str, str]]) -> list[RoundAnswer]:
        """What a round goes by: as it was when it was closed, else what people say now, if they answered everything."""
        file = self.closed / f"people-{text_sha256(json.dumps(asked))[:24]}.json"
        if file.is_file():
            return [RoundAnswer(**answer) for answer in read_json(file, list)]
        where = f"{self.asker} round {len(self.rounds) + 1}"
        with closing(FeedbackStore(self.store)) as store:
            ids = {store.item_id("people", name): name for name in asked}
            for item_id, name in sorted(ids.items()):  # an order that tells nothing
                prompt, *replies = pairs[name]
                shown = [{"text": text, "policy": None} for text in replies]
                store.add_items([Item(item_id, "compare", [dict(turn) for turn in prompt], shown, where)])
            live = [RoundAnswer.of(a, ids[a.item_id]) for a in store.answers("compare") if a.item_id in ids]
        if left := len(asked) - len({answer.question for answer in live}):
            raise WaitsForPeople(
                f"{where} waits for people: {len(asked) - left} of {len(asked)} pairs are answered. "
                f"`prefzoo label {self.store}` asks for the others; then give the same command again"
            )
        self.closed.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps([asdict(answer) for answer in live]))
        return live

    def _count(
        self,
        said: list[RoundAnswer],
        voted: Mapping[str, VotedPair],
        shares: Mapping[str, float],
        pairs: int,
        usable: int,
    ) -> None:
        choices = Counter(answer.choice for answer in said)
        agreement = vote_agreement([pair.votes for pair in voted.values()])
        self.rounds.append(
            {
                "pairs": pairs,
                "asked": len(voted),
                "not_asked": usable - len(voted),
                "answers": len(said),
                "annotators": len({answer.annotator for answer in said}),
                "ties": choices["tie"],
                "both_bad": choices["both_bad"],
                "median_seconds": statistics.median([answer.seconds for answer in said]) if said else None,
                "hours": sum(answer.seconds for answer in said) / 3600,
                "items_with_several": agreement["items_with_several"],
                "disagreed": agreement["disagreed"],
                "sha256": text_sha256(json.dumps(sorted([a.question, a.annotator, a.choice] for a in said))),
            }
        )
        counts = self.counts
        counts.pairs += len(voted)
        counts.questions += len(said)
        counts.ties += sum(share == 0.5 for share in shares.values())
        counts.first_preferred += choices["first"] + (choices["tie"] + choices["both_bad"]) / 2

    def report(self) -> dict[str, Any]:
        """As of any judge, and of each of the `rounds`: the pairs there were, how many people were `asked` about and
        not, what they answered (`median_seconds` and `hours` while the page was visible), a hash of that, and how many
        answers came `late`, or were `taken_back`, after it was closed, which changed nothing."""
        return {
            **super().report(),
            "rounds": [{**r, **after} for r, after in zip(self.rounds, self._later(), strict=True)],
        }

    def _later(self) -> list[dict[str, int]]:
        if not self._said:
            return []
        with closing(FeedbackStore(self.store)) as store:
            live = [(answer.answer_id, answer.item_id) for answer in store.answers("compare")]
            items = [{store.item_id("people", name) for name in asked} for asked, _ in self._said]
        later = []
        for own, (_, said) in zip(items, self._said, strict=True):
            then, now = {answer.answer_id for answer in said}, {name for name, item in live if item in own}
            later.append({"late": len(now - then), "taken_back": len(then - now)})
        return later

    def state(self) -> dict[str, Any]:
        said = [[asked, [asdict(answer) for answer in answers]] for asked, answers in self._said]
        return {**super().state(), "rounds": self.rounds, "said": said}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.rounds = list(state["rounds"])
        self._said = [(asked, [RoundAnswer(**answer) for answer in answers]) for asked, answers in state["said"]]


def _digest(pair: tuple[Prompt, str, str]) -> str:
    """A name of a question, in whose order the questions of a round are drawn."""
    return text_sha256(json.dumps(pair, sort_keys=True))


def _never_asked_in_order(*pairs: Any) -> list[float | None]:
    """In the place of a `CompareOnce`: people are asked by the page."""
    raise NotImplementedError("the page draws the order in which people see two replies")
