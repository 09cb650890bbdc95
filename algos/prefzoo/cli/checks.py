"""Commands that try an algorithm or a judge by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prefzoo.cli.options import INTERRUPTED, Out, Plugins, RecipeArgument, Sets
from prefzoo.errors import PrefzooError

CheckSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A hyper-parameter, or a key of the recipe such as adapter.r."),
]


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An algorithm that `prefzoo ls` shows.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the lab's data and of the first trial.")] = 0,
    sets: CheckSets = None,
    plugins: Plugins = None,
) -> None:
    """Try in the lab whether an algorithm keeps what the interface promises; quick promises first, minutes in all.

    Example: prefzoo check mine --plugin mine.py --set beta=0.3 --set adapter.r=8 --set budget.epochs=2
    """
    from prefzoo import registry
    from prefzoo.validation_messages import unknown_algorithm

    if name not in registry.names():
        raise PrefzooError(unknown_algorithm(name, registry.names()))
    from prefzoo.conformance.show import show

    try:
        all_kept = show(name, seed, Console(stderr=True), Console(), sets or [])
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if not all_kept:
        raise typer.Exit(1)


def audit_judge(
    recipe: RecipeArgument,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="On how many held-out pairs.")] = 500,
    sets: Sets = None,
    out: Out = None,
    plugins: Plugins = None,
) -> None:
    """Say how far the judge of a recipe is to be trusted: agreement, position and length bias, calibration.

    Example: prefzoo audit-judge my.yaml --pairs 200 --set judge.path=my-model
    """
    from prefzoo.commands.audit_recipe_judge import audit_judge as run_audit
    from prefzoo.commands.audit_recipe_judge import show

    folder = out or Path("runs") / Path(recipe).stem
    show(run_audit(recipe, pairs, sets or [], folder), folder)
