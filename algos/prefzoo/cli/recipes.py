"""Commands about recipes: what there is, and what is wrong with one or with its data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prefzoo.cli.options import Out, Plugins, RecipeArgument, Sets, wide_console
from prefzoo.errors import PrefzooError


def ls(
    algorithm: Annotated[
        str | None, typer.Argument(metavar="ALGORITHM", help="Show every setting of this one.")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """List algorithms, with what each needs, and recipes; of one algorithm every setting.

    Example: prefzoo ls dpo
    """
    if algorithm is not None:
        _show_algorithm(algorithm)
        return
    from rich.table import Column, Table
    from rich.text import Text

    from prefzoo import registry
    from prefzoo.recipe.recipe_files import shipped

    algorithms = Table(
        Column("algorithm", no_wrap=True), "needs", "what it is", box=None, title="Algorithms", title_justify="left"
    )
    families: dict[str, list[tuple[str, str, str]]] = {}
    broken = []
    for name in registry.names():
        try:
            cls = registry.load(name)
        except PrefzooError as error:
            broken.append((name, str(error)))
            continue
        what = " ".join((cls.__doc__ or "").split("\n\n")[0].split()).partition(" (")[0].rstrip(".")
        families.setdefault(cls.family, []).append((name, ", ".join(sorted(cls.needs)), what))
    for family in sorted(families, key=registry.family_order):
        algorithms.add_row(Text(family, style="bold"))
        for row in families[family]:
            algorithms.add_row(f"  {row[0]}", *row[1:])
    for name, message in broken:
        algorithms.add_row(name, "", Text(message, style="red"))
    recipes = Table("recipe", "what it is", box=None, title="Recipes", title_justify="left")
    for name, path in shipped().items():
        recipes.add_row(name, path.read_text(encoding="utf-8").split("\n")[0].lstrip("# "))
    clashes = (Text(clash, style="red") for clash in registry.clashes())
    Console().print(algorithms, *clashes, "", recipes, "\nThe settings of one: prefzoo ls ALGORITHM")


def _show_algorithm(name: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from prefzoo import registry
    from prefzoo.recipe.key_descriptions import about, hyper_parameters
    from prefzoo.validation_messages import unknown_algorithm

    if name not in registry.names():
        raise PrefzooError(unknown_algorithm(name, registry.names()))
    cls = registry.load(name)
    console = wide_console()
    console.print(Text(f"{name}: needs {', '.join(sorted(cls.needs)) or 'nothing'}\n", style="bold"))
    for paragraph in about(cls).split("\n\n"):
        console.print(Text(paragraph if paragraph.startswith("- ") else " ".join(paragraph.split())), "")
    settings = Table("setting", "default", "allowed", "meaning", "the default is from", show_lines=True)
    settings.columns[0].no_wrap = True
    for each in hyper_parameters(cls):
        settings.add_row(*map(Text, each))
    console.print(settings)
    algorithm, _ = registry.build(cls, {})
    if tunable := algorithm.tunable if algorithm is not None else cls.space:
        tuning = Table("tuning tries of", "range", "the range is from", box=None)
        for key, tried in tunable.items():
            tuning.add_row(*map(Text, (key, str(tried), tried.source)))
        console.print("", tuning, "")
    console.print(Text(f"In a recipe: algorithms: {{{name}: {{SETTING: VALUE}}}}"))


def validate(recipe: RecipeArgument, sets: Sets = None, plugins: Plugins = None) -> None:
    """Say every mistake in a recipe at once.

    Example: prefzoo validate my.yaml --set budget.prompts=500
    """
    from prefzoo.recipe.check_recipe import load

    checked = load(recipe, sets or [])
    print(f"{recipe}: sound ({', '.join(checked.algorithms)}; {len(checked.seeds)} seeds)")
    if checked.derives:
        print(f"derived from the data, by `prefzoo data`: {', '.join(checked.derives)}")


def schema(plugins: Plugins = None) -> None:
    """Print the JSON schema of recipes, for editors.

    Example: prefzoo schema > recipe.schema.json, and as the first line of a recipe:
    # yaml-language-server: $schema=recipe.schema.json
    """
    import json

    from prefzoo.recipe.json_schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=1))


def data(recipe: RecipeArgument, sets: Sets = None, out: Out = None, plugins: Plugins = None) -> None:
    """Read and check only the data of a recipe: counts, lengths, leaks, and what is trained on.

    Example: prefzoo data my.yaml --set data.max_prompt_tokens=256
    """
    import json

    from prefzoo.commands.comparison import prepare_data
    from prefzoo.report.data_summary import LENGTHS, data_cells, data_facts
    from prefzoo.report.render_terminal import rich_table, training_examples

    folder = prepare_data(recipe, sets or [], out or Path("runs") / Path(recipe).stem)
    preflight, manifest = (json.loads((folder / f"{n}.json").read_text("utf-8")) for n in ("preflight", "manifest"))
    console = wide_console()
    console.print(rich_table(data_cells(preflight, manifest), LENGTHS))
    for fact in data_facts(preflight, manifest):
        console.print(f"- {fact}", markup=False, highlight=False)
    trained = any(example["trained"] for example in preflight["examples"])
    what, marked = ("rows", "; what is trained on is ⟦marked⟧") if trained else ("prompts", "")
    console.print(f"\nTraining {what} as the model sees them{marked}:\n", markup=False)
    for example in training_examples(preflight):
        console.print(example)
    console.print(str(folder), markup=False, highlight=False)
