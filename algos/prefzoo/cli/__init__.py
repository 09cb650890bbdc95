"""The command line: a thin skin over the Python functions."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer
from rich.console import Console

from prefzoo.cli import checks, people, recipes, run_commands, training
from prefzoo.cli.options import INTERRUPTED, WAITING
from prefzoo.errors import PrefzooError, WaitsForPeople, os_error_text
from prefzoo.run.subprocesses import print_anything
from prefzoo.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which preference-optimization algorithm should I use on my data? Train them all alike and see.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"prefzoo {__version__}")
        raise typer.Exit


@app.callback()
def _before_a_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Take what stands before a command."""


for command in (  # in the order in which `prefzoo --help` shows them
    recipes.ls,
    recipes.validate,
    recipes.schema,
    recipes.data,
    training.compare,
    training.tune,
    training.plan,
    training.run,
    checks.check,
    checks.audit_judge,
    run_commands.status,
    run_commands.report,
    run_commands.power,
    run_commands.sample,
    run_commands.explain,
    run_commands.export,
    run_commands.serve,
    people.label,
):
    app.command()(command)


def main() -> None:
    """Run a command; a user's mistake, or the system's, is told in words and exits with 2, Ctrl-C and SIGTERM with 130,
    results in which a label failed or was skipped with 1, those that wait for people with 3."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler ends us as Ctrl-C does
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print_anything()
    try:
        app()
    except (PrefzooError, OSError) as error:
        words = os_error_text(error, "doing this") if isinstance(error, OSError) else str(error)
        Console(stderr=True).print(words, style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(WAITING if isinstance(error, WaitsForPeople) else 2) from None
    except KeyboardInterrupt:
        pass  # said below, after the signals are off
    except SystemExit as end:
        # Typer turns Ctrl-C into this; a command that has said so itself leaves no KeyboardInterrupt as the cause.
        told = not isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt)
        if end.code != INTERRUPTED or told:
            raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the command is done; the interpreter takes a while to end
    print("interrupted", file=sys.stderr)
    raise SystemExit(INTERRUPTED) from None
