"""A report as data: a list of sections of prose, tables and figures, which every medium renders in its own way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import yaml

Medium = Literal["html", "markdown", "terminal"]
Style = Literal["verdict", "note", "heading", "quiet", ""]
PROSE: dict[str, str] = yaml.safe_load(files("prefzoo.report").joinpath("prose.yaml").read_text("utf-8"))
"""How to read each table and picture."""
Cells = tuple[list[str], list[list[str]]]
"""Headings, and rows of as many cells."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a section. `only` names the media that show it; empty: every medium that can."""

    only: tuple[Medium, ...] = ()

    @property
    def kind(self) -> str:
        """The name of the class, by which templates choose how to render it."""
        return type(self).__name__


@dataclass(frozen=True)
class Text(Part):
    """A paragraph. In style `verdict` it answers the question, `note` belongs to the first table, `heading` stands
    above a part of a section, `quiet` says how to read what is above it. `links` are names and addresses behind it."""

    text: str
    style: Style = "quiet"
    links: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Points(Part):
    """A list of sentences; with as many `terms`, a list of definitions."""

    items: Sequence[str]
    terms: Sequence[str] = ()


@dataclass(frozen=True)
class Table(Part):
    """A table.

    Attributes:
        label: what it holds, for a reader who does not see it.
        title: the line above it.
        heat: for each cell but the first of a row a number from -1 (worst) through 0 to 1 (best), its colour.
        verdicts: True where the second cell of each row is a verdict, which has a colour.
        key: its name in Weights & Biases; without one it is not logged there.
    """

    cells: Cells
    label: str
    title: str = ""
    heat: Sequence[Sequence[float]] = ()
    verdicts: bool = False
    key: str = ""


@dataclass(frozen=True)
class Picture:
    """A drawing: the name of its files, a caption that says what is drawn and how, the same numbers as text for a
    reader who does not see it, and the content of its files."""

    name: str
    caption: str
    text: str
    svg: str
    png: bytes


@dataclass(frozen=True)
class Figures(Part):
    """Pictures side by side."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Fold(Part):
    """Parts under a title that a page folds away until the reader opens it."""

    title: str
    parts: Sequence[Part]
    open: bool = False


@dataclass(frozen=True)
class Html(Part):
    """What only a page can show: a file of `templates/` and the values for it."""

    template: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        id: its anchor in a page; of several sections with one id, which follow each other, the first has it.
        title: its title; that of the first section is the report's.
        only: as of a part.
    """

    id: str
    title: str
    parts: Sequence[Part]
    only: tuple[Medium, ...] = ()

    def shown(self, medium: Medium) -> list[Part]:
        """Return the parts that this medium shows."""
        if self.only and medium not in self.only:
            return []
        return [part for part in self.parts if not part.only or medium in part.only]


def tables(parts: Sequence[Part]) -> Iterator[Table]:
    """Yield every table of these parts, those within folds too."""
    for part in parts:
        if isinstance(part, Fold):
            yield from tables(part.parts)
        elif isinstance(part, Table):
            yield part
