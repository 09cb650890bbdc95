"""Sections and tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from prefzoo.report.data_summary import CLOSE, OPEN
from prefzoo.report.sections import Cells, Points, Section, Table, Text

NARROW = 100
"""Columns of text; a terminal of fewer shows no columns that decide little."""
DECIDES_LITTLE = ("tokens", "distinct-2")
ROW_STYLES = {"better": "green", "worse": "red", "FAILED": "red", "SKIPPED": "red"}
"""Of a row that ends with this verdict."""
MARKS = {"warnings": ("! ", "yellow"), "tuning": ("~ ", None), "believing": ("- ", None)}
"""Section -> what stands before each of its points, and their style."""


LEGEND = "wins: share of test prompts answered better than the start does; KL: to the start, nats a reply"


def print_sections(sections: Sequence[Section], console: Console) -> None:
    """Print the verdict, tables with their notes below them, and lists of sentences; how to read them is for larger
    media."""
    for section in sections:
        parts = section.shown("terminal")
        notes = [part.text for part in parts if isinstance(part, Text) and part.style == "note"]
        for part in parts:
            match part:
                case Table(cells, title=title):
                    console.print(_verdict_table(cells, title, "\n".join([*notes, LEGEND]), console.width))
                case Text(text, style="verdict"):
                    console.print(text, style="bold", markup=False, highlight=False)
                case Points(items):
                    mark, style = MARKS[section.id]
                    for item in items:
                        console.print(f"{mark}{item}", style=style, markup=False, highlight=False)


def _verdict_table(cells: Cells, title: str, caption: str, width: int) -> RichTable:
    headings, rows = cells
    if width < NARROW:
        shown = [i for i, heading in enumerate(headings) if heading not in DECIDES_LITTLE]
        headings, *rows = [[row[i] for i in shown] for row in (headings, *rows)]
    styles = [ROW_STYLES.get(row[-1], "") for row in rows]
    below = {"caption": RichText(caption), "caption_justify": "left", "caption_style": ""}
    return rich_table((headings, rows), title, styles, no_wrap=True, box=SIMPLE, padding=(0, 1, 0, 0), **below)


def rich_table(
    cells: Cells, title: str, row_styles: Sequence[str] = (), no_wrap: bool = False, **options: Any
) -> RichTable:
    """Return a table with its first column to the left and the others, which `no_wrap` keeps whole, to the right."""
    headings, rows = cells
    table = RichTable(title=title, title_justify="left", **options)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=no_wrap and i > 0)
    for i, row in enumerate(rows):
        table.add_row(*row, style=row_styles[i] if row_styles else None)
    return table


def training_examples(preflight: dict[str, Any]) -> list[RichText]:
    """Return a few training rows as the model sees them, what carries loss bold and green and in `OPEN` and `CLOSE`,
    and the rejected reply; prompts alone where nothing carries loss yet."""
    return [
        RichText.assemble(
            (f"{row['id']}\n", "dim"),
            row["untrained"],
            (f"{OPEN}{row['trained']}{CLOSE}" if row["trained"] else "", "bold green"),
            (f"\nrejected: {row['rejected']}" if "rejected" in row else "", "red"),
            "\n",
        )
        for row in preflight["examples"]
    ]
