"""Where rows come from: the lab, sources of other packages by entry point, and a user's own files."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import ClassVar

from prefzoo.data.formats import Row
from prefzoo.errors import unknown
from prefzoo.types import Prompt

ENTRY_POINTS = "prefzoo.sources"
BUILT_IN = {
    "lab": "prefzoo.lab.lab_source:LabSource",
    "lab_chinese": "prefzoo.lab.lab_source:ChineseLabSource",
    "lab_bilingual": "prefzoo.lab.lab_source:BilingualLabSource",
    "lab_from_english": "prefzoo.lab.lab_source:EnglishTrainedLabSource",
    "lab_from_chinese": "prefzoo.lab.lab_source:ChineseTrainedLabSource",
}
PROVIDES = ("preferences", "ratings", "rankings", "demonstrations", "prompts")


@dataclass(frozen=True)
class RowRequest:
    """What a comparison asks of a source: how many prompts of each split at least, as far as it has them, and the
    seed (`data.seed`) that they are drawn with, where they are drawn."""

    train: int
    validation: int
    test: int
    seed: int


Wanted = RowRequest
"""The name by which sources of other packages know it."""


class Source(ABC):
    """A named origin of rows: `data: {source: NAME}`.

    Another package adds one by an entry point in the group `prefzoo.sources`, whose name is the recipe's and whose
    object is a subclass without arguments.

    Attributes:
        provides: which of `PROVIDES` its rows have.
        has_gold: whether `gold` knows how good a reply truly is. Such a truth decides the comparison unless the
            recipe names another one.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"preferences", "prompts"})
    has_gold: ClassVar[bool] = False

    @abstractmethod
    def rows(self, request: RowRequest) -> Mapping[str, Sequence[Row]] | Sequence[Row]:
        """Rows by split (`train`, `validation`, `test`), or rows that are split by their prompts as a file's are.

        `Row.slice` names parts of the prompts that are reported apart.
        """

    def gold(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Mapping[str, float]]:
        """The truth about each reply: `{"gold": score}`, higher is better, and any parts of it as `"gold/NAME"`."""
        raise NotImplementedError(f"{type(self).__name__} says that it has a gold reward and gives none")


def names() -> list[str]:
    """Every source that can be named."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def load(name: str) -> Source:
    """The source of a name.

    Raises:
        ValueError: when there is none, or it is not a sound one; the message says what is allowed.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(importlib.import_module(module), attribute)()
    for point in entry_points(group=ENTRY_POINTS, name=name):
        source = point.load()
        if not (isinstance(source, type) and issubclass(source, Source)):
            raise ValueError(f"{name!r} ({point.value}) is {source!r}; it must be a subclass of Source")
        if stray := sorted(source.provides - set(PROVIDES)):
            raise ValueError(f"{name!r} ({point.value}): {unknown('kind of data', stray[0], PROVIDES)}")
        return source()
    raise ValueError(unknown("source", name, names()))
