"""The command line: a thin skin over the Python functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from prefzoo.errors import PrefzooError, unknown

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which preference-optimization algorithm should I use on my data? Train them all alike and see.",
)

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A path, or a name that `prefzoo ls` shows.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY.SUB=VALUE", help="Change a key of the recipe.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for everything [runs/RECIPE].")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="How many seeds.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Trials at a time.")]


def _load_plugins(files: list[Path] | None) -> list[Path]:
    from prefzoo.plugins import load_plugins

    load_plugins(files or [])
    return files or []


Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="A Python file that registers algorithms.", callback=_load_plugins),
]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a comparison.")]


@app.command()
def ls(plugins: Plugins = None) -> None:
    """List algorithms, with what each needs, and recipes."""
    from rich.table import Table
    from rich.text import Text

    from prefzoo import registry
    from prefzoo.comparison.recipe.files import shipped

    algorithms = Table("algorithm", "needs", "what it is", box=None, title="Algorithms", title_justify="left")
    for name in registry.names():
        try:
            cls = registry.load(name)
        except PrefzooError as error:
            algorithms.add_row(name, "", Text(str(error), style="red"))
            continue
        what = " ".join((cls.__doc__ or "").split("\n\n")[0].split()).partition(" (")[0].rstrip(".")
        algorithms.add_row(name, ", ".join(sorted(cls.needs)), what)
    recipes = Table("recipe", "what it is", box=None, title="Recipes", title_justify="left")
    for name, path in shipped().items():
        recipes.add_row(name, path.read_text(encoding="utf-8").split("\n")[0].lstrip("# "))
    Console().print(algorithms, *(Text(clash, style="red") for clash in registry.clashes()), "", recipes)


@app.command()
def validate(recipe: RecipeArgument, sets: Sets = None, plugins: Plugins = None) -> None:
    """Say every mistake in a recipe at once.

    Example: prefzoo validate my.yaml --set budget.prompts=500
    """
    from prefzoo.comparison.recipe.check import load

    checked = load(recipe, sets or [])
    print(f"{recipe}: sound ({', '.join(checked.algorithms)}; {len(checked.seeds)} seeds)")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors.

    Example: prefzoo schema > recipe.schema.json, and as the first line of a recipe:
    # yaml-language-server: $schema=recipe.schema.json
    """
    import json

    from prefzoo.comparison.recipe.json_schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=1))


@app.command()
def data(recipe: RecipeArgument, sets: Sets = None, out: Out = None) -> None:
    """Read and check only the data of a recipe: counts, lengths, leaks, and what is trained on.

    Example: prefzoo data my.yaml --set data.max_prompt_tokens=256
    """
    import json

    from prefzoo.comparison.compare import prepare_data
    from prefzoo.comparison.report.data import data_examples, data_facts, data_table

    folder = prepare_data(recipe, sets or [], out or Path("runs") / Path(recipe).stem)
    preflight, manifest = (json.loads((folder / f"{n}.json").read_text("utf-8")) for n in ("preflight", "manifest"))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(data_table(preflight, manifest))
    for fact in data_facts(preflight, manifest):
        console.print(f"- {fact}", markup=False, highlight=False)
    trained = any(example["trained"] for example in preflight["examples"])
    what, marked = ("rows", "; what is trained on is ⟦marked⟧") if trained else ("prompts", "")
    console.print(f"\nTraining {what} as the model sees them{marked}:\n", markup=False)
    for example in data_examples(preflight):
        console.print(example)
    console.print(str(folder), markup=False, highlight=False)


@app.command()
def compare(
    recipe: RecipeArgument,
    algorithms: Annotated[str | None, typer.Option(metavar="A,B", help="Only these labels or algorithms.")] = None,
    seeds: Seeds = None,
    sets: Sets = None,
    out: Out = None,
    workers: Workers = None,
    plugins: Plugins = None,
) -> None:
    """Train all algorithms of a recipe alike, measure them alike, and say which is better.

    Example: prefzoo compare quickstart --algorithms dpo,sft --seeds 5
    """
    chosen = [name.strip() for name in algorithms.split(",") if name.strip()] if algorithms is not None else None
    _compare_and_show(recipe, out, algorithms=chosen, seeds=seeds, sets=sets or [], workers=workers)


@app.command()
def plan(
    recipe: RecipeArgument,
    algorithms: Annotated[str | None, typer.Option(metavar="A,B", help="Only these labels or algorithms.")] = None,
    seeds: Seeds = None,
    sets: Sets = None,
    out: Out = None,
    workers: Workers = None,
    plugins: Plugins = None,
) -> None:
    """Say what a comparison will take on this machine, in time, memory and tokens, by trying a small part of it.

    Example: prefzoo plan quickstart --set budget.prompts=5000
    """
    from prefzoo.comparison.estimate.table import sentences, table
    from prefzoo.comparison.estimate.whole import estimate

    chosen = [name.strip() for name in algorithms.split(",") if name.strip()] if algorithms is not None else None
    try:
        found = estimate(recipe, algorithms=chosen, seeds=seeds, sets=sets or [], out=out, workers=workers)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table(found))
    for said in sentences(found):
        console.print(said, markup=False, highlight=False)
    for name, error in found.failed.items():
        console.print(f"{name} FAILED in the probe: {error}", style="red", markup=False, highlight=False)
    if found.failed:
        raise typer.Exit(1)


@app.command()
def run(
    recipe: RecipeArgument,
    algorithm: Annotated[str, typer.Option("--algorithm", metavar="NAME", help="A label or an algorithm.")],
    seeds: Seeds = 1,
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


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An algorithm that `prefzoo ls` shows.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the lab's data and of the first trial.")] = 0,
    plugins: Plugins = None,
) -> None:
    """Try in the lab whether an algorithm keeps what the interface promises; quick promises first, minutes in all.

    Example: prefzoo check mine --plugin mine.py
    """
    from prefzoo import registry
    from prefzoo.conformance.show import show

    if name not in registry.names():
        raise PrefzooError(unknown("algorithm", name, registry.names()))
    try:
        kept = show(name, seed, Console(stderr=True), Console())
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if not kept:
        raise typer.Exit(1)


@app.command()
def audit_judge(
    recipe: RecipeArgument,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="On how many held-out pairs.")] = 500,
    sets: Sets = None,
    out: Out = None,
) -> None:
    """Say how far the judge of a recipe is to be trusted: agreement, position and length bias, calibration.

    Example: prefzoo audit-judge my.yaml --pairs 200 --set judge.path=my-model
    """
    from prefzoo.comparison.auditing import audit_judge as run_audit
    from prefzoo.comparison.auditing import show

    folder = out or Path("runs") / Path(recipe).stem
    try:
        show(run_audit(recipe, pairs, sets or [], folder), folder)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="The folder of a comparison, or of several.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="For several: where the report goes.")
    ] = None,
) -> None:
    """Rebuild the report of a finished or partial run, or merge several comparable runs into one.

    Example: prefzoo report runs/monday runs/tuesday --out runs/both
    """
    if len(folders) == 1:
        if out is not None:
            raise PrefzooError(f"--out {out}: the report of one run is rebuilt where the run is")
        from prefzoo.comparison.compare import rebuild

        _show(rebuild(folders[0]), folders[0])
        return
    from prefzoo.comparison.merging import merge

    to = out or folders[0].parent / "+".join(folder.resolve().name for folder in folders)
    _show(merge(folders, to), to)


@app.command()
def power(
    pilot: Annotated[str, typer.Argument(metavar="RECIPE|DIR", help="A finished run, or the recipe it was of.")],
    difference: Annotated[float, typer.Option("--difference", metavar="D", help="In units of the deciding metric.")],
) -> None:
    """Say how many seeds and test prompts a difference to the start needs, from the variances of a finished run.

    Example: prefzoo power quickstart --difference 0.3
    """
    from prefzoo.comparison.planning import needed

    folder = Path(pilot) if Path(pilot).is_dir() else Path("runs") / Path(pilot).stem
    found = needed(folder, difference)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(*found.tables())
    print(
        f"After Holm for {len(found.power)} comparisons with the start. Variances are from {folder} "
        f"({found.pilot.seeds} seeds, {found.pilot.prompts} prompts); their own uncertainty is counted in."
    )


@app.command()
def sample(
    folder: RunFolder,
    prompt: Annotated[str, typer.Argument(help="What the user says.")],
    seed: Annotated[int | None, typer.Option(help="The policies of this seed [the first].")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    algorithms: Annotated[str | None, typer.Option(metavar="A,B", help="Only these labels.")] = None,
) -> None:
    """Show what each trained policy answers, side by side."""
    from rich.table import Table
    from rich.text import Text

    from prefzoo.comparison.answers import answer
    from prefzoo.comparison.running.quiet import quiet

    quiet()
    chosen = algorithms.split(",") if algorithms is not None else None
    shown = Table("policy", "answer", title=Text(prompt), title_justify="left", show_lines=True)
    for label, text in answer(folder, prompt, seed=seed, temperature=temperature, labels=chosen).items():
        shown.add_row(label, Text(text))  # what a model says is not markup
    Console().print(shown)


@app.command()
def export(
    folder: RunFolder,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="Which policy; `start` for the start.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to put it.")],
    seed: Annotated[int | None, typer.Option(help="The policy of this seed [the first].")] = None,
) -> None:
    """Write a policy as a plain transformers folder, adapter merged, that any tool loads."""
    from prefzoo.comparison.answers import open_policy
    from prefzoo.comparison.running.quiet import quiet
    from prefzoo.policies.language_model import LanguageModelPolicy

    quiet()
    policy = open_policy(folder, label, seed)
    if not isinstance(policy, LanguageModelPolicy):
        raise PrefzooError(f"{label} is not one model but a way of sampling; export its start and its reward instead")
    if to.exists() and any(to.iterdir()):
        raise PrefzooError(f"--to {to}: the folder is not empty")
    policy.export(to)
    print(to)


def _compare_and_show(recipe: str, out: Path | None, **more: Any) -> None:
    from prefzoo.comparison.compare import compare as run_comparison

    folder = out or Path("runs") / Path(recipe).stem
    try:
        found = run_comparison(recipe, out=folder, **more)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; the same command goes on where it stopped")
        raise typer.Exit(INTERRUPTED) from None
    _show(found, folder)
    if any(each.status != "ok" for each in found.algorithms.values()):
        raise typer.Exit(1)


def _show(found: Any, folder: Path) -> None:
    from prefzoo.comparison.report import page as reports
    from prefzoo.comparison.report import words

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to wrap at
        console = Console(width=160)
    console.print(reports.table(found, console.width))
    console.print(words.sentence(found), style="bold", markup=False)
    for sign in found.warnings:
        console.print(f"! {sign.text}", style="yellow", markup=False, highlight=False)
    for fact in reports.facts(found):
        console.print(f"- {fact}", markup=False, highlight=False)
    console.print("wins: share of test prompts answered better than the start does; KL: to the start, nats a reply")
    console.print(f"{folder / 'report.html'}, {folder / 'results.json'}", markup=False, highlight=False)


def main() -> None:
    """Run a command; a user's mistake is told in words and exits with 2, Ctrl-C with 130, a failed trial with 1."""
    try:
        app()
    except PrefzooError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
