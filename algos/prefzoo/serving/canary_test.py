"""A canary beside the main policy, read as an A/B test from what users said; imports neither torch nor FastAPI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefzoo.feedback.store import FeedbackStore
from prefzoo.results.statistics.confidence_sequence import confidence_sequence
from prefzoo.serving.traffic import SOURCE, split_conversations

WON = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5), "both_bad": (0.5, 0.5)}
"""What a comparison gives the first and the second reply."""
SUSPICIOUS = 4.0
"""Standard deviations of a share of conversations from what was drawn, above which something else divides them too."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Arm:
    """One policy of the test.

    Attributes:
        policy: its name.
        conversations: how many it was given.
        liked: the first thumb of each of its conversations that has one, by time: 1 up, 0 down.
        interval: for the share of thumbs up, 97.5%, however often one looks.
    """

    policy: str
    conversations: int
    liked: Sequence[float]
    interval: Interval


@dataclass(frozen=True)
class CanaryTest:
    """What users said of a canary and of the main policy.

    Attributes:
        main, canary: both arms. A conversation counts once, by its first thumb.
        difference: of their shares of thumbs up, canary less main; None until both have one.
        interval: of the difference, 95% however often one looks: that of each arm holds with 97.5%.
        won: of each comparison of the two side by side, by time, what the canary got: 1, 0, or 1/2 for neither.
        won_interval: of the mean of `won`, 95% however often one looks.
        imbalance: by how many standard deviations the canary has more conversations than its share.
    """

    main: Arm
    canary: Arm
    difference: float | None
    interval: Interval
    won: Sequence[float]
    won_interval: Interval
    imbalance: float

    @property
    def verdict(self) -> str:
        """Whether the canary is `better` or `worse` by thumbs, or that is `inconclusive`."""
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "inconclusive"


def canary_tests(path: Path) -> list[CanaryTest]:
    """The tests in a file of feedback, in the order in which they began; none where no canary was served.

    Raises:
        PrefzooError: when the file is none of ours.
    """
    if not path.is_file():
        return []
    split = split_conversations(path)
    if not split:
        return []
    store = FeedbackStore(path)
    items = {item.item_id: item for item in store.items()}
    first: dict[str, float] = {}
    pairs: dict[str, tuple[list[str], tuple[float, float]]] = {}
    for answer in store.answers():
        item = items[answer.item_id]
        if not item.source.startswith(SOURCE):
            continue
        if answer.kind == "thumb":
            first.setdefault(item.source.removeprefix(SOURCE), float(answer.value["liked"]))
        elif answer.kind == "compare":
            policies = [str(reply["policy"]) for reply in item.replies]
            pairs.setdefault(item.item_id, (policies, WON[answer.value["choice"]]))
    store.close()
    tests = []
    for (main, canary), conversations in split.items():
        arms = {}
        for policy in (main, canary):
            own = {name for name, (given, _) in conversations.items() if given == policy}
            liked = [value for name, value in first.items() if name in own]
            arms[policy] = Arm(policy, len(own), liked, confidence_sequence(liked, 0.025))
        one, other = arms[main], arms[canary]
        both = bool(one.liked and other.liked)
        difference = _mean(other.liked) - _mean(one.liked) if both else None
        interval = (other.interval[0] - one.interval[1], other.interval[1] - one.interval[0])
        won = [shares[ps.index(canary)] for ps, shares in pairs.values() if set(ps) == {main, canary}]
        drawn = [p if given == canary else 1 - p for given, p in conversations.values()]
        spread = math.sqrt(sum(p * (1 - p) for p in drawn)) or 1.0
        imbalance = (other.conversations - sum(drawn)) / spread
        tests.append(CanaryTest(one, other, difference, interval, won, confidence_sequence(won), imbalance))
    return tests


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
