"""A report as data: a list of sections of prose, tables and figures, which every medium renders in its own way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Medium = Literal["html", "markdown", "terminal"]
Cells = tuple[list[str], list[list[str]]]
"""Headings, and rows of as many cells."""
INK = "#010203"
"""The colour of text and lines in a drawing; within a page it becomes the colour of the page's text."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a section.

    Attributes:
        only: the media that show it; empty: every medium that can.
    """

    only: tuple[Medium, ...] = ()

    @property
    def kind(self) -> str:
        """The name of the class, by which templates choose how to render it."""
        return type(self).__name__

    def is_for(self, medium: Medium) -> bool:
        """Return whether this medium shows it."""
        return not self.only or medium in self.only


@dataclass(frozen=True)
class Heading(Part):
    """A title within a section."""

    text: str


@dataclass(frozen=True)
class Text(Part):
    """A paragraph.

    Attributes:
        style: `verdict` (the sentence that answers the question), `note` (below the first table), `quiet` (how to
            read what stands above), or empty.
        links: name and address of files that are listed behind the text.
    """

    text: str
    style: str = "quiet"
    links: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Points(Part):
    """A list of sentences; with `terms` of the same length, a list of definitions."""

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
    """One drawing.

    Attributes:
        name: of its files.
        caption: a sentence that says what is drawn, and how.
        text: the same numbers as text, for a reader who does not see it.
        svg, png: the content of its files.
    """

    name: str
    caption: str
    text: str
    svg: str
    png: bytes

    @property
    def inline(self) -> str:
        """The SVG as part of a page: without addresses, with ids of its own, in the page's colour of text."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>|<title>.*?</title>", "", svg, flags=re.DOTALL)
        svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.name}-", svg)
        svg = re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)
        return svg.replace(INK, "currentColor").replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)


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
        id: its anchor in a page; sections of one id stand together, and the anchor is the first one's.
        title: its title; that of the first section is the report's.
        only: as of a part.
        linked: False keeps it out of a page's row of links.
    """

    id: str
    title: str
    parts: Sequence[Part]
    only: tuple[Medium, ...] = ()
    linked: bool = field(default=True, kw_only=True)

    def shown(self, medium: Medium) -> list[Part]:
        """Return the parts that this medium shows."""
        return [part for part in self.parts if part.is_for(medium)] if medium in (self.only or (medium,)) else []


def tables(parts: Sequence[Part]) -> Iterator[Table]:
    """Yield every table of these parts, those within folds too."""
    for part in parts:
        if isinstance(part, Fold):
            yield from tables(part.parts)
        elif isinstance(part, Table):
            yield part
