"""Arguments that several commands take, and how results are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A path, or a name that `prefzoo ls` shows.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY.SUB=VALUE", help="Change a key of the recipe.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for everything [runs/RECIPE].")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="How many seeds.")]


def _workers(value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(f"{value!r} is neither a number from 1 nor 'auto', which is one for each core or GPU.")
    return int(value)


Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N|auto", parser=_workers, help="Trials at a time [auto].")
]


def _load_plugins(files: list[Path] | None) -> list[Path]:
    from prefzoo.plugins import load_plugins

    load_plugins(files or [])
    return files or []


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE", help="A Python file that registers algorithms or policies.", callback=_load_plugins
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a comparison.")]


def wide_console() -> Console:
    """The terminal; a file or a pipe has no edge to wrap at."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def show(results: Any, folder: Path) -> None:
    """Print what a comparison found, and where the rest of it lies.

    Raises:
        typer.Exit: with 1, when a label failed or was skipped, or no policy was scored.
    """
    from prefzoo.report.render_terminal import print_sections
    from prefzoo.report.verdict_section import summary_sections

    console = wide_console()
    print_sections(summary_sections(results, {}, folder), console)
    console.print("wins: share of test prompts answered better than the start does; KL: to the start, nats a reply")
    console.print(f"{folder / 'report.html'}, {folder / 'results.json'}", markup=False, highlight=False)
    if not results.scored or any(result.status != "ok" for result in results.algorithms.values()):
        raise typer.Exit(1)
