"""The lab as a source of rows with a known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from prefzoo.data.formats import Row
from prefzoo.data.sources import RowRequest, Source
from prefzoo.lab.gold_reward import breakdown
from prefzoo.lab.lab_rows import demonstrations, preferences
from prefzoo.types import Prompt

TEST_ROWS = 600
VALIDATION_ROWS = 200


class LabSource(Source):
    """The help desk: annotators' preferences, the ordinary clerk's replies, and gold by attribute."""

    provides: ClassVar[frozenset[str]] = frozenset({"preferences", "demonstrations", "prompts"})
    has_gold: ClassVar[bool] = True

    def rows(self, request: RowRequest) -> Mapping[str, Sequence[Row]]:
        """See `Source.rows`. At least `TEST_ROWS` test rows, so that the reward's held-out accuracy is worth having."""
        sizes = {
            "train": request.train,
            "validation": max(request.validation, VALIDATION_ROWS),
            "test": max(request.test, TEST_ROWS),
        }
        return {split: labelled_rows(split, size, request.seed) for split, size in sizes.items()}

    def gold(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Mapping[str, float]]:
        """See `Source.gold`; the parts are the attributes of `gold_reward`."""
        parts = [breakdown(p[-1]["content"], c) for p, c in zip(prompts, completions, strict=True)]
        return [{"gold": sum(part.values()), **{f"gold/{k}": v for k, v in part.items()}} for part in parts]


def labelled_rows(split: str, size: int, seed: int) -> list[Row]:
    """The first `size` rows of a split, each with a pair and a demonstration."""
    imitated = {row["id"]: row["completion"] for row in demonstrations(split, size, seed)}
    return [
        Row(
            id=pair["id"],
            prompt=[{"role": "user", "content": pair["prompt"]}],
            chosen=pair["chosen"],
            rejected=pair["rejected"],
            demonstration=imitated[pair["id"]],
            slice=pair["slice"],
        )
        for pair in preferences(split, size, seed)
    ]
