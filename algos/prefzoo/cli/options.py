"""Arguments that several commands take, and how results are shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from prefzoo.errors import PrefzooError

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
WAITING = 3
"""The exit code of a comparison that goes on when people have answered."""

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A path, or a name that `prefzoo ls` shows.")]
Algorithms = Annotated[str | None, typer.Option("--algorithms", metavar="A,B", help="Only these labels or algorithms.")]
Add = Annotated[
    str | None, typer.Option("--add", metavar="A,B", help="These too, beside those that the folder holds already.")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY.SUB=VALUE", help="Change a key of the recipe.")]
Trials = Annotated[
    int | None,
    typer.Option(
        "--tune", metavar="N", min=1, help="First search the settings of each label in N trials, on validation prompts."
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The comparison's folder; runs/RECIPE by default.")
]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="How many seeds; as the recipe says by default.")]


def listed(names: str | None) -> list[str] | None:
    """The names in `A,B`; None where nothing was said."""
    return [name.strip() for name in names.split(",") if name.strip()] if names is not None else None


def _workers(value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(f"{value!r} is neither a number from 1 nor 'auto', which is one for each core or GPU.")
    return int(value)


Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N|auto",
        parser=_workers,
        help="Trials at a time; auto by default: one a GPU, or for a small model one a core.",
    ),
]


On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="FILE", help="Run stages as jobs: a file that names a cluster (docs/clusters.md), ray or local."
    ),
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
RunCode = Annotated[
    bool,
    typer.Option("--run-code", help="Run code that the folder names: a model's own, a reward's function."),
]


def are_there(folders: Path | list[Path]) -> Path | list[Path]:
    """Refuse a folder that is not there, before anything is imported that takes a while."""
    for folder in folders if isinstance(folders, list) else [folders]:
        if not os.path.isdir(folder):  # False, too, where the system cannot tell
            raise PrefzooError(f"{folder} holds no prefzoo run: there is no such folder")
    return folders


RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a comparison.", callback=are_there)]


def wide_console() -> Console:
    """The terminal; a file or a pipe has no edge to wrap at."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def show(results: Any, folder: Path, tracked: str = "") -> None:
    """Print what a comparison found: what to know first, the verdict in words and as a table, where the rest of it
    lies, and where it was logged.

    Raises:
        typer.Exit: with 3, when a label waits for people; with 1, when one failed or was skipped, or no policy was
            scored.
    """
    from prefzoo.report.canary_section import canary_sections
    from prefzoo.report.render_terminal import print_sections
    from prefzoo.report.verdict_section import summary_sections

    console = wide_console()
    verdict, *others = summary_sections(results, {}, folder)
    print_sections([*others, *canary_sections(folder), verdict], console)
    console.print(f"{folder / 'report.html'}, {folder / 'results.json'}", markup=False, highlight=False, soft_wrap=True)
    if tracked:
        console.print(tracked, markup=False, highlight=False, soft_wrap=True)
    if any(result.status == "waiting" for result in results.algorithms.values()):
        raise typer.Exit(WAITING)
    if not results.scored or any(result.status != "ok" for result in results.algorithms.values()):
        raise typer.Exit(1)
