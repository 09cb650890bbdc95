"""Commands about a finished run: its report, its variances and its policies."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prefzoo.cli.options import Plugins, RunCode, RunFolder, are_there, show, wide_console
from prefzoo.errors import PrefzooError


class Engine(str, Enum):
    """What generates the replies of a server."""

    transformers = "transformers"
    vllm = "vllm"


class Explanation(str, Enum):
    """How a reward is explained."""

    gradients = "gradients"
    ablation = "ablation"


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="The folder of a comparison, or of several.", callback=are_there),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Of several runs: where their report goes.")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Rebuild the report of a finished or partial run, or merge several comparable runs into one.

    Exits with 1, as `compare` does, when a label failed or was skipped; the report is written all the same.

    Example: prefzoo report runs/monday runs/tuesday --out runs/both
    """
    if len(folders) == 1:
        if out is not None:
            raise PrefzooError(f"--out {out}: the report of one run is rebuilt where the run is")
        from prefzoo.commands.comparison import rebuild

        show(rebuild(folders[0]), folders[0])
        return
    from prefzoo.commands.merge_runs import merge

    to = out or folders[0].parent / "+".join(folder.resolve().name for folder in folders)
    show(merge(folders, to), to)


def status(
    folder: RunFolder,
    log: Annotated[str | None, typer.Option("--log", metavar="STAGE", help="Show the end of this one's log.")] = None,
) -> None:
    """Say which stage runs where and for how long, what waits, and what failed.

    Example: prefzoo status runs/quickstart --log "train dpo seed 0"
    """
    from prefzoo.commands.run_status import log_lines, status_table
    from prefzoo.commands.run_status import status as find

    console = wide_console()
    if log is None:
        console.print(status_table(find(folder)))
        return
    for line in log_lines(folder, log):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def power(
    pilot: Annotated[str, typer.Argument(metavar="RECIPE|DIR", help="A finished run, or the recipe it was of.")],
    difference: Annotated[
        float | None, typer.Option("--difference", metavar="D", help="In units of the deciding metric.")
    ] = None,
    labels: Annotated[
        int | None,
        typer.Option("--labels", metavar="N", help="Instead: answers of people that shall correct the judge."),
    ] = None,
    agreement: Annotated[
        float | None,
        typer.Option(
            "--agreement", metavar="A", help="How often the judge and people agree; else as the run measured."
        ),
    ] = None,
) -> None:
    """Say how many seeds and test prompts a difference to the start needs, from the variances of a finished run; or how
    wide the interval of a win rate is with so many answers of people.

    Example: prefzoo power quickstart --difference 0.3
    """
    from prefzoo.commands.label_planning import plan_labels
    from prefzoo.commands.power_analysis import analyze_power, recipe_differences

    if (difference is None) == (labels is None):
        raise PrefzooError("power: give either --difference D, or --labels N (with --agreement A)")
    if agreement is not None and labels is None:
        raise PrefzooError(f"--agreement {agreement:g}: of a judge whom people correct; give --labels N with it")
    of_recipe = not Path(pilot).is_dir()
    folder = Path("runs") / Path(pilot).stem if of_recipe else Path(pilot)
    differing = recipe_differences(folder, pilot) if of_recipe else []
    console = wide_console()
    if labels is not None:
        planned = plan_labels(folder, labels, agreement)
        console.print(planned.table())
        print(f"From {folder}.", *planned.sentences(), *differing, sep="\n")
        return
    assert difference is not None
    analysis = analyze_power(folder, difference)
    console.print(*analysis.tables())
    print(f"From {folder}.", *analysis.sentences(), *differing, sep="\n")


def sample(
    folder: RunFolder,
    prompt: Annotated[str, typer.Argument(help="What the user says.")],
    seed: Annotated[int | None, typer.Option(help="The policies of this seed; the first by default.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    algorithms: Annotated[str | None, typer.Option(metavar="A,B", help="Only these labels.")] = None,
    run_code: RunCode = False,
    plugins: Plugins = None,
) -> None:
    """Show what each trained policy answers, side by side."""
    from rich.table import Table
    from rich.text import Text

    from prefzoo.commands.sample_policies import answer

    chosen = algorithms.split(",") if algorithms is not None else None
    shown = Table("policy", "answer", title=Text(prompt), title_justify="left", show_lines=True)
    asked = answer(folder, prompt, seed=seed, temperature=temperature, labels=chosen, run_code=run_code)
    for label, text in asked.items():
        shown.add_row(label, Text(text))  # what a model says is not markup
    Console().print(shown)


def explain(
    folder: RunFolder,
    label: Annotated[str | None, typer.Argument(metavar="[LABEL]", help="Of which policy; all by default.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="To so many prompts, as the report shows them first.")] = 8,
    method: Annotated[
        Explanation | None, typer.Option(help="How; by default gradients where the reward has any.")
    ] = None,
    run_code: RunCode = False,
    plugins: Plugins = None,
) -> None:
    """Say which words made the learned reward of replies, in explanations.jsonl and in the report.

    Example: prefzoo explain runs/quickstart ppo --prompts 20
    """
    from prefzoo.commands.comparison import rebuild
    from prefzoo.commands.explain_rewards import explain as explain_rewards
    from prefzoo.report.explained_replies import Explained

    console = Console(soft_wrap=True)
    lines = explain_rewards(folder, label, prompts, None if method is None else method.value, run_code)
    for line in lines:
        text = " ".join(Explained(line).sentences)
        console.print(f"{line['label']}: {line['reply']}\n  {text}", markup=False, highlight=False)
    rebuild(folder)
    console.print(f"{folder / 'explanations.jsonl'}, {folder / 'report.html'}", markup=False, highlight=False)


def export(
    folder: RunFolder,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="Which policy; `start` for the start.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to put it.")],
    seed: Annotated[int | None, typer.Option(help="The policy of this seed; the first by default.")] = None,
    run_code: RunCode = False,
    plugins: Plugins = None,
) -> None:
    """Write a policy as a plain transformers folder, adapter merged, that any tool loads; its README.md says how it was
    made.

    Example: prefzoo export runs/quickstart dpo --to my-policy --seed 1
    """
    from prefzoo.commands.export_policy import export as export_policy
    from prefzoo.run.stage_graph import START

    exported = export_policy(folder, label, to, seed, run_code)
    which = "" if label == START else f", seed {exported.seed} of {', '.join(map(str, exported.plan.recipe.seeds))}"
    Console(soft_wrap=True).print(f"{label}{which}: {to}", markup=False, highlight=False)


def serve(
    folder: RunFolder,
    labels: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LABEL]...", help="Which policies, the one that users talk to first; all by default."),
    ] = None,
    canary: Annotated[
        str | None,
        typer.Option("--canary", metavar="LABEL=SHARE", help="A second policy for a share of the conversations."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; on any other host a token is asked for.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any that is free.")] = 8000,
    feedback: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where feedback is kept; DIR/feedback.sqlite by default.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="What generates the replies.")] = Engine.transformers,
    vllm_python: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Interpreter with vllm; the run's generation.vllm.python by default."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The policies of this seed; the first by default.")] = None,
    run_code: RunCode = False,
    plugins: Plugins = None,
) -> None:
    """Serve policies of a finished run, or a plain model folder: OpenAI's chat completions, a chat page, feedback.

    Example: prefzoo serve runs/quickstart dpo --canary ppo=0.1
    """
    from prefzoo.commands.serve_policies import serve as serve_policies

    console = Console(soft_wrap=True)
    serve_policies(
        folder,
        labels or (),
        canary,
        seed,
        host,
        port,
        feedback,
        engine.value,
        vllm_python,
        run_code,
        lambda text: console.print(text, markup=False, highlight=False),
    )
