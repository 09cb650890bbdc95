"""Sections as one page without a network, light or dark, with a search through the replies; and as Markdown."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence

from jinja2 import Environment, PackageLoader

from prefzoo.report.figures import INK
from prefzoo.report.sections import Cells, Figures, Fold, Part, Picture, Points, Section, Table, Text

NOT_LINKED = "warnings"
"""The section that follows the page's row of links, which leaves it out."""
MARKDOWN = ("verdict", "reading", "warnings", "believing", "cost", "pairs", "breakdown", "judge", "details")
"""The ids of the sections in Markdown, in order; replies, the data and the recipe have files of their own."""
FIGURES = "figures"
"""The folder of pictures beside the files."""


def render_html(sections: Sequence[Section]) -> str:
    """Return the page; the title of the first section is its title."""
    environment = Environment(
        loader=PackageLoader("prefzoo.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["inline"] = inline_svg
    assert environment.loader is not None
    script = environment.loader.get_source(environment, "filter.js")[0]
    shown: list[tuple[Section, Sequence[Part], bool]] = []
    for section in sections:
        if parts := section.shown("html"):
            shown.append((section, parts, all(section.id != other.id for other, *_ in shown)))
    return environment.get_template("report.html.jinja").render(
        sections=shown,
        links=[section for section, _, is_first in shown[1:] if is_first and section.id != NOT_LINKED],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def inline_svg(picture: Picture) -> str:
    """Return an SVG as part of a page: without addresses, with ids of its own, in the page's colour of text."""
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<title>.*?</title>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{picture.name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)
    return svg.replace(INK, "currentColor").replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)


def render_markdown(sections: Sequence[Section]) -> str:
    """Return Markdown for a pull request or a paper."""
    blocks: list[str] = []
    for section in (section for name in MARKDOWN for section in sections if section.id == name):
        if parts := section.shown("markdown"):
            blocks += [f"{'##' if blocks else '#'} {section.title}", *_markdown(parts)]
    return "\n\n".join(blocks) + "\n"


def _markdown(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        match part:
            case Text(text, style):
                yield f"**{text}**" if style == "verdict" else text
            case Points(items, terms):
                names = [f"**{term}**: " for term in terms] or [""] * len(items)
                yield "\n".join(f"- {name}{item}" for name, item in zip(names, items, strict=True))
            case Table(cells):
                yield _markdown_table(cells)
            case Figures(pictures) if pictures:
                yield "\n".join(f"![{picture.name}]({FIGURES}/{picture.name}.png)" for picture in pictures)
            case Fold(title, content):
                yield from (f"### {title}", *_markdown(content))


def _markdown_table(cells: Cells) -> str:
    """Return a table in which no bar or end of a line within a cell breaks it."""
    headings, rows = cells
    plain = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in plain]
    return "\n".join([lines[0], "| --- " + "| ---: " * (len(headings) - 1) + "|", *lines[1:]])
