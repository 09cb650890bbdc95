"""Sections as Markdown, for a pull request or a paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prefzoo.report.sections import Cells, Figures, Fold, Heading, Part, Points, Section, Table, Text

FIGURES = "figures"
"""The folder of pictures beside the file."""
ORDER = ("verdict", "reading", "warnings", "believing", "cost", "pairs", "breakdown", "judge", "details")
"""The ids of the sections that the file holds. Replies, the data and the recipe have files of their own."""


def render_markdown(sections: Sequence[Section]) -> str:
    """Return the text of the file."""
    blocks = []
    for id in ORDER:
        for section in sections:
            if section.id == id and (parts := section.shown("markdown")):
                blocks += [f"{'##' if blocks else '#'} {section.title}", *_blocks(parts)]
    return "\n\n".join(blocks) + "\n"


def _blocks(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        match part:
            case Heading(text) | Text(text, style="quiet" | "note"):
                yield text
            case Text(text, style="verdict"):
                yield f"**{text}**"
            case Points(items, terms):
                names = [f"**{term}**: " for term in terms] or [""] * len(items)
                yield "\n".join(f"- {name}{item}" for name, item in zip(names, items, strict=True))
            case Table(cells):
                yield _grid(cells)
            case Figures(pictures) if pictures:
                yield "\n".join(f"![{picture.name}]({FIGURES}/{picture.name}.png)" for picture in pictures)
            case Fold(title, content):
                yield f"### {title}"
                yield from _blocks(content)


def _grid(cells: Cells) -> str:
    """Return a Markdown table; a bar or the end of a line within a cell would break it."""
    headings, rows = cells
    plain = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in plain]
    return "\n".join([lines[0], "| --- " + "| ---: " * (len(headings) - 1) + "|", *lines[1:]])
