"""Commands with people in the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prefzoo.cli.options import listed
from prefzoo.errors import PrefzooError


def label(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE", help="A finished run, a file of prompts and replies, or a store of questions."
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="compare, rank, rate, span, rewrite; ab, of a run: the start beside the others."
        ),
    ] = None,
    policies: Annotated[
        str | None, typer.Option(metavar="A,B", help="Of a run: whose replies; all by default.")
    ] = None,
    annotators: Annotated[str | None, typer.Option(metavar="ANNA,BEN", help="Who gets a link of their own.")] = None,
    overlap: Annotated[float, typer.Option(metavar="SHARE", help="Of the items, which everyone gets.")] = 0.2,
    rule: Annotated[
        str, typer.Option("--next", metavar="RULE", help="What comes first: uniform, uncertain, disagreement.")
    ] = "uniform",
    gold: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pairs of which the better one is known, to check annotators.")
    ] = None,
    dimensions: Annotated[
        str | None, typer.Option(metavar="A,B", help="In which a reply is rated; the recipe's by default.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where answers are kept; labels.sqlite in the run by default.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Serve nothing: write the answers as data, and say what they are."),
    ] = None,
    host: Annotated[str, typer.Option(help="Beyond loopback, annotators need their links.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8642,
    hostname: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name of a proxy with TLS before it; links have it.")
    ] = None,
    new_links: Annotated[
        bool, typer.Option("--new-links", help="Give annotators who have a link another; the old ones end.")
    ] = False,
) -> None:
    """Open a page on which people compare, rank, rate, mark and rewrite replies; or export what they said.

    Example: prefzoo label runs/quickstart --task ab --annotators anna,ben
    """
    from prefzoo.commands.label_server import export_all, require_people, said_so_far, serve
    from prefzoo.commands.labelling import LabelRequest, dimensions_of, open_store
    from prefzoo.feedback.store import FeedbackStore

    request = LabelRequest(source, task, listed(policies), gold, rule, overlap, listed(dimensions), store)
    console = Console(soft_wrap=True)

    def tell(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    if export is not None:
        if not request.file.is_file():
            raise PrefzooError(f"{request.file} is not there: nobody gave feedback yet, or it is elsewhere (--store)")
        kept = FeedbackStore(request.file)
        for line in (*export_all(kept, export), *said_so_far(kept)):
            tell(line)
        return
    require_people()
    opened, notes = open_store(request)
    for line in notes:
        tell(line)
    names = listed(annotators) or []
    for line in serve(
        opened, dimensions_of(request), names, host, port, hostname, new_links, source if request.of_run else None
    ):
        tell(line)
    for line in said_so_far(opened):
        tell(line)
