"""Audit a recipe's judge, without training anything that the audit does not need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prefzoo.atomic_files import write_whole
from prefzoo.commands.comparison import locked_folder, run_alone
from prefzoo.errors import RecipeError, os_errors_told
from prefzoo.judges.judge_audit import AUDIT_FILE, Audit
from prefzoo.judges.judge_audit_text import calibration_cells, cells, sentences
from prefzoo.recipe.check_recipe import load
from prefzoo.report.judge_section import calibration_picture
from prefzoo.run.stage_graph import AUDIT, make_plan

PICTURE = "judge_calibration.png"


@os_errors_told("auditing the judge")
def audit_judge(
    recipe: str | Mapping[str, Any],
    pairs: int = 500,
    sets: Iterable[str] = (),
    out: str | Path | None = None,
    console: Console | None = None,
) -> Audit:
    """Audit the judge of a recipe on held-out pairs, whether or not anything in the recipe uses it.

    Where the data has prompts alone and `data.label_with` makes the pairs, the start and these are made first. Writes
    `judge_audit.json` and, where a truth is known, `judge_calibration.png` into `out`.

    Args:
        recipe, sets, out, console: as for `compare`.
        pairs: on how many pairs, at most.

    Raises:
        RecipeError: for a recipe that cannot run, or whose data has no pairs.
        PrefzooError: when the data, or the judge, cannot be used.
    """
    name, checked = Path(recipe).stem if isinstance(recipe, str) else "recipe", load(recipe, sets)
    if "preferences" not in checked.provides:
        raise RecipeError(
            name,
            [
                "data: has no pairs of replies to audit a judge on. Give data.preferences, or data.label_with to make "
                "them of the start's own replies."
            ],
        )
    if checked.judge.type == "gold" and checked.gold_source in ("none", "judge"):
        raise RecipeError(name, ["judge.type: 'gold' needs a truth: give gold: {path: FILE.py:NAME}."])
    if checked.judge.type == "people":
        raise RecipeError(name, ["judge.type: people are not audited; `prefzoo label --gold FILE` checks them."])
    checked = checked.model_copy(update={"judge": checked.judge.model_copy(update={"audit_pairs": pairs})})
    with locked_folder(recipe, out) as folder:
        plan = make_plan(checked, folder, {"judge": checked.judge})
        stage = run_alone(plan, AUDIT.format("judge"), console or Console(stderr=True))
        text = (stage.folder / AUDIT_FILE).read_text(encoding="utf-8")
        result = Audit.model_validate_json(text)
        write_whole(folder / AUDIT_FILE, text)
        if result.calibration is not None:
            write_whole(folder / PICTURE, calibration_picture(result).png)
    return result


def show(audit: Audit, folder: Path) -> None:
    """Print an audit for a person, and where it was written."""
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to wrap at
        console = Console(width=160)
    for title, lines in ((f"Audit of {audit.judge}", cells(audit)), ("Calibration", calibration_cells(audit))):
        if lines is None:
            continue
        shown = Table(title=title, title_justify="left", box=None)
        for i, heading in enumerate(lines[0]):
            shown.add_column(heading, justify="left" if i == 0 else "right")
        for row in lines[1]:
            shown.add_row(*row)
        console.print(shown, "")
    verdict, *others = sentences(audit)
    console.print(verdict, style="bold", markup=False, highlight=False)
    for sentence in others:
        console.print(f"- {sentence}", markup=False, highlight=False)
    files = [AUDIT_FILE, *([PICTURE] if audit.calibration is not None else [])]
    console.print(", ".join(str(folder / name) for name in files), markup=False, highlight=False)
