"""Commands that train what a recipe names, or say what that will take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from prefzoo.cli.options import (
    INTERRUPTED,
    Add,
    Algorithms,
    On,
    Out,
    Plugins,
    RecipeArgument,
    Seeds,
    Sets,
    Trials,
    Workers,
    listed,
    show,
    wide_console,
)
from prefzoo.errors import PrefzooError


def compare(
    recipe: RecipeArgument,
    algorithms: Algorithms = None,
    add: Add = None,
    seeds: Seeds = None,
    tune: Trials = None,
    sets: Sets = None,
    out: Out = None,
    workers: Workers = None,
    on: On = None,
    plugins: Plugins = None,
) -> None:
    """Train all algorithms of a recipe alike, measure them alike, and say which is better.

    The same command again goes on where it stopped; with more seeds, or with --add, what is trained already counts.

    Example: prefzoo compare quickstart --algorithms dpo,sft --seeds 5 --out runs/two
    """
    given: dict[str, Any] = {"algorithms": listed(algorithms), "add": listed(add) or (), "seeds": seeds, "tune": tune}
    _compare_and_show(recipe, out, **given, sets=sets or [], workers=workers, on=on)


def tune(
    recipe: RecipeArgument,
    trials: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of each label; 8 by default.")] = None,
    algorithms: Algorithms = None,
    sets: Sets = None,
    out: Out = None,
    workers: Workers = None,
    on: On = None,
    plugins: Plugins = None,
) -> None:
    """Search the settings of every label alike, on validation prompts, and write a recipe with what was found.

    `compare --tune N` with the same recipe goes on from here, and compares what was found with the settings as written.

    Example: prefzoo tune quickstart --trials 8 --algorithms dpo,ppo
    """
    from prefzoo.commands.tuning import found_table
    from prefzoo.commands.tuning import tune as search

    folder = out or Path("runs") / Path(recipe).stem
    try:
        found = search(recipe, trials, listed(algorithms), sets or [], folder, workers, Console(stderr=True), on)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; the same command goes on where it stopped")
        raise typer.Exit(INTERRUPTED) from None
    console = wide_console()
    console.print(found_table(found))
    for label, why in found.record["not_tuned"].items():
        console.print(f"{label} stays as it is: {why}", markup=False, highlight=False)
    console.print(str(found.recipe), markup=False, highlight=False, soft_wrap=True)
    if any(label["best"] is None for label in found.record["labels"].values()):
        raise typer.Exit(1)


def plan(
    recipe: RecipeArgument,
    algorithms: Algorithms = None,
    add: Add = None,
    seeds: Seeds = None,
    tune: Trials = None,
    sets: Sets = None,
    out: Out = None,
    workers: Workers = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="NAME|GIB", help="On paper: what fits on a GPU such as H100, or 48.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", metavar="N", min=1, help="With --gpu: how many may train one trial.")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Say what a comparison will take on this machine, in time, memory and tokens, by trying a small part of it.

    With --gpu nothing is tried: memory and the least time on such a GPU are computed from the model's config.

    Example: prefzoo plan quickstart --set budget.prompts=5000

    Example: prefzoo plan hh_qlora --gpu A100-80 --gpus 8
    """
    given: dict[str, Any] = {"algorithms": listed(algorithms), "add": listed(add) or (), "seeds": seeds, "tune": tune}
    if gpu is not None:
        _plan_on_paper(recipe, gpu, gpus or 1, **given, sets=sets or [], out=out)
        return
    if gpus is not None:
        raise PrefzooError(f"--gpus {gpus} says how many there are of a GPU, and none is named; give --gpu NAME")
    from prefzoo.commands.cost_estimate import estimate, sentences, table

    estimated = estimate(recipe, **given, sets=sets or [], out=out, workers=workers)
    console = wide_console()
    console.print(table(estimated))
    for sentence in sentences(estimated):
        console.print(sentence, markup=False, highlight=False)
    for name, error in estimated.failed.items():
        console.print(f"{name} FAILED in the probe: {error}", style="red", markup=False, highlight=False)
    if estimated.failed:
        raise typer.Exit(1)


def _plan_on_paper(recipe: str, gpu: str, gpus: int, **given: Any) -> None:
    from prefzoo.commands.placement import placement
    from prefzoo.commands.placement_text import placement_sentences, placement_tables

    planned = placement(recipe, gpu, gpus, **given)
    console = wide_console()
    for table in placement_tables(planned):
        console.print(table)
    for sentence in placement_sentences(planned):
        console.print(sentence, markup=False, highlight=False)


def run(
    recipe: RecipeArgument,
    algorithm: Annotated[str, typer.Option("--algorithm", metavar="NAME", help="A label or an algorithm.")],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")] = 1,
    sets: Sets = None,
    out: Out = None,
    workers: Workers = None,
    plugins: Plugins = None,
) -> None:
    """Train and measure one algorithm of a recipe.

    Example: prefzoo run quickstart --algorithm dpo --set algorithms.dpo.beta=0.3
    """
    folder = out or Path("runs") / f"{Path(recipe).stem}-{algorithm}"  # a comparison of all keeps its own
    _compare_and_show(recipe, folder, algorithms=[algorithm], seeds=seeds, sets=sets or [], workers=workers)


def _compare_and_show(recipe: str, out: Path | None, **more: Any) -> None:
    from prefzoo.commands.comparison import compare as run_comparison

    folder = out or Path("runs") / Path(recipe).stem
    try:
        results = run_comparison(recipe, out=folder, console=Console(stderr=True), **more)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; the same command goes on where it stopped")
        raise typer.Exit(INTERRUPTED) from None
    show(results, folder, results.tracked)
