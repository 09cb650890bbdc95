"""The lab as a source of rows with a known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from prefzoo.data.formats import Row
from prefzoo.data.sources import RowRequest, Source
from prefzoo.lab.gold_reward import breakdown
from prefzoo.lab.lab_rows import demonstrations, preferences
from prefzoo.lab.world import LANGUAGES
from prefzoo.types import Prompt

TEST_ROWS = 600
VALIDATION_ROWS = 200


class LabSource(Source):
    """The help desk: annotators' preferences, the ordinary clerk's replies, and gold by attribute."""

    provides: ClassVar[frozenset[str]] = frozenset({"preferences", "demonstrations", "prompts"})
    has_gold: ClassVar[bool] = True
    languages: ClassVar[tuple[str, ...]] = ("en",)
    trained_in: ClassVar[tuple[str, ...]] = ()
    """The languages of training and validation rows, where these are not all of `languages`."""

    def rows(self, request: RowRequest) -> Mapping[str, Sequence[Row]]:
        """See `Source.rows`. At least `TEST_ROWS` test rows, so that the reward's held-out accuracy is worth having."""
        sizes = {
            "train": request.train,
            "validation": max(request.validation, VALIDATION_ROWS),
            "test": max(request.test, TEST_ROWS),
        }
        return {split: self._rows(split, size, request.seed) for split, size in sizes.items()}

    def _rows(self, split: str, size: int, seed: int) -> list[Row]:
        """The languages' rows in turn, so that any part of them has as many of each."""
        languages = self._languages_of(split)
        each = -(-size // len(languages))
        by_language = [labelled_rows(split, each, seed, language) for language in languages]
        return [row for together in zip(*by_language, strict=True) for row in together][:size]

    def _languages_of(self, split: str) -> tuple[str, ...]:
        return self.languages if split == "test" or not self.trained_in else self.trained_in

    def gold(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Mapping[str, float]]:
        """See `Source.gold`; the parts are the attributes of `gold_reward`."""
        parts = [breakdown(p[-1]["content"], c) for p, c in zip(prompts, completions, strict=True)]
        return [{"gold": sum(part.values()), **{f"gold/{k}": v for k, v in part.items()}} for part in parts]


class ChineseLabSource(LabSource):
    """The Chinese half of the help desk."""

    languages = ("zh",)


class BilingualLabSource(LabSource):
    """Both halves, a row of each in turn; slices are named by language, as `Chinese/harmful`."""

    languages = ("en", "zh")

    def _rows(self, split: str, size: int, seed: int) -> list[Row]:
        names = [LANGUAGES[code].name for code in self._languages_of(split)]
        rows = super()._rows(split, size, seed)
        return [replace(row, slice=f"{names[i % len(names)]}/{row.slice}") for i, row in enumerate(rows)]


class EnglishTrainedLabSource(BilingualLabSource):
    """Trained on in English alone, and tested in both languages."""

    trained_in = ("en",)


class ChineseTrainedLabSource(BilingualLabSource):
    """Trained on in Chinese alone, and tested in both languages."""

    trained_in = ("zh",)


def labelled_rows(split: str, size: int, seed: int, language: str = "en") -> list[Row]:
    """The first `size` rows of a split, each with a pair and a demonstration."""
    imitated = {row["id"]: row["completion"] for row in demonstrations(split, size, seed, language)}
    return [
        Row(
            id=pair["id"],
            prompt=[{"role": "user", "content": pair["prompt"]}],
            chosen=pair["chosen"],
            rejected=pair["rejected"],
            margin=pair["margin"],
            demonstration=imitated[pair["id"]],
            slice=pair["slice"],
        )
        for pair in preferences(split, size, seed, language)
    ]
