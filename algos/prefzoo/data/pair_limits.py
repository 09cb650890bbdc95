"""How many replies to one prompt are paired with each other, and how many pairs a file makes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from prefzoo.data.rejects import Rejected

MOST_REPLIES = 256
"""To one prompt, where every two make a pair."""
MOST_PAIRS = 1_000_000
"""Of one file, where records make several each."""


@dataclass
class PairLimits:
    """Counts the pairs that a file makes."""

    pairs: int = 0

    def add(self, known: Collection[Any], replies: Collection[str], pairs: int | None = None) -> None:
        """Count the replies of a record.

        Args:
            known: the replies to its prompt so far.
            replies: of the record.
            pairs: what it makes; None: every two replies to its prompt of which one is new.

        Raises:
            Rejected: when there are too many; nothing is counted then.
        """
        new = set(replies).difference(known)
        if len(known) + len(new) > MOST_REPLIES:
            raise Rejected(f"more_than_{MOST_REPLIES}_replies_to_one_prompt")
        if pairs is None:
            pairs = len(new) * len(known) + len(new) * (len(new) - 1) // 2
        if self.pairs + pairs > MOST_PAIRS:
            raise Rejected(f"beyond_{MOST_PAIRS}_pairs")
        self.pairs += pairs
