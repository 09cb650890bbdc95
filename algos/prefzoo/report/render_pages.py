"""Sections as one page without a network, light or dark, with a search through the replies; and as Markdown."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from prefzoo.report.figures import INK
from prefzoo.report.sections import Cells, Figures, Fold, Part, Picture, Points, Section, Table, Text
from prefzoo.report.verdict_section import summary_sections
from prefzoo.results.results_schema import Results

MARKDOWN = (
    "verdict",
    "reading",
    "warnings",
    "believing",
    "tuning",
    "cost",
    "pairs",
    "breakdown",
    "likelihood",
    "reward",
    "replies",
    "judge",
    "details",
)
"""The ids of the sections in Markdown, in order; of replies only what explains them; they, the data and the recipe have
files of their own."""
CODE = re.compile("`([^`\n]+)`")
UNPRINTABLE = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
FIGURES = "figures"
"""The folder of pictures beside the files."""


def render_html(sections: Sequence[Section]) -> str:
    """Return the page; the title of the first section is its title."""
    environment = _environment()
    assert environment.loader is not None
    script = environment.loader.get_source(environment, "filter.js")[0]
    shown: list[tuple[Section, Sequence[Part], str]] = []
    for section in sections:
        if parts := section.shown("html"):
            before = sum(section.id == other.id for other, *_ in shown)
            shown.append((section, parts, f"{section.id}-{before + 1}" if before else section.id))
    page = environment.get_template("report.html.jinja").render(
        sections=shown,
        links=[(anchor, section.title) for section, _, anchor in shown[1:]],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return _printable(page)


def render_summary(results: Results, picture: Picture | None, report: Path | None) -> str:
    """Return what a notebook shows: the verdict in words and as a table, a picture, and where the report is."""
    verdict, *_ = summary_sections(results, {})
    page = (
        _environment()
        .get_template("notebook.html.jinja")
        .render(
            title=verdict.title,
            parts=[part for part in verdict.shown("html") if isinstance(part, Table) or part.kind == "Text"],
            picture=picture,
            png=base64.b64encode(picture.png).decode() if picture else "",
            report=report,
        )
    )
    return _printable(page)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("prefzoo.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"inline": inline_svg, "code": code}
    return environment


def code(text: str) -> Markup:
    """Return a text for a page with what stands between backticks as code."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))


def _printable(text: str) -> str:
    """Replace what no page or terminal can show: NUL and other control characters, and lone surrogates."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


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
            blocks += [f"{'##' if blocks else '#'} {_plain(section.title)}", *_markdown(parts)]
    return _printable("\n\n".join(blocks) + "\n")


def _markdown(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        match part:
            case Text(text, style):
                yield f"**{_plain(text)}**" if style == "verdict" else _plain(text)
            case Points(items, terms):
                names = [f"**{_plain(term)}**: " for term in terms] or [""] * len(items)
                yield "\n".join(f"- {name}{_plain(item)}" for name, item in zip(names, items, strict=True))
            case Table(cells):
                yield _markdown_table(cells)
            case Figures(pictures) if pictures:
                yield "\n".join(f"![{picture.name}]({FIGURES}/{picture.name}.png)" for picture in pictures)
            case Fold(title, content):
                yield from (f"### {_plain(title)}", *_markdown(content))


def _markdown_table(cells: Cells) -> str:
    """Return a table in which no bar or end of a line within a cell breaks it."""
    headings, rows = cells
    plain = [[_plain(cell).replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in plain]
    return "\n".join([lines[0], "| --- " + "| ---: " * (len(headings) - 1) + "|", *lines[1:]])


def _plain(text: str) -> str:
    """Return a text in one line that Markdown shows as it is, but for what stands between backticks, which is code."""
    line = " ".join(text.split())
    parts = CODE.split(line)  # texts and pieces of code by turns
    parts[::2] = [_escaped(part) for part in parts[::2]]
    parts[1::2] = [f"`{part}`" for part in parts[1::2]]
    return re.sub(r"^(?=[#>+-]( |#)|\d+[.)] )(\d*)", r"\2\\", "".join(parts))  # no heading, quotation or list


def _escaped(text: str) -> str:
    """Escape what has a meaning in Markdown; a star behind a number at the end of a cell has none."""
    text = re.sub(r"([\\`]|\*(?!$)|(?<!\d)\*|~~|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:]))", r"\\\1", text)
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")
