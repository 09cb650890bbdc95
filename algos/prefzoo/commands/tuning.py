"""Tune: search the settings of every label alike, on validation prompts, before the comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefzoo.atomic_files import write_whole
from prefzoo.commands.held_comparison import go_on
from prefzoo.commands.run_folder import checked_recipe, locked_folder, refuse_failed, save_outcomes
from prefzoo.commands.stage_runner import Place, cluster_of, place_of
from prefzoo.errors import os_errors_told
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.recipe.tuning_space import tuned
from prefzoo.report.cost import format_cost
from prefzoo.run.executor import Outcome, add_worker_count
from prefzoo.run.progress_display import Watcher
from prefzoo.run.stage_graph import LABEL_STAGE, START, Plan, Stage, make_plan
from prefzoo.run.tuning_record import save, sentence
from prefzoo.run.tuning_search import Search

TUNED = "tuned.yaml"
"""The recipe with what was found, in the folder of a comparison."""


@dataclass(frozen=True, repr=False)
class Found:
    """What a search found.

    Attributes:
        record: what is in `tuning.json`.
        plan: of the comparison of what was found with the settings as written.
    """

    record: dict[str, Any]
    plan: Plan

    @property
    def recipe(self) -> Path:
        """The recipe with what was found, where `tune` wrote one."""
        return self.plan.out / TUNED

    @property
    def winners(self) -> dict[str, dict[str, Any]]:
        """Label -> its settings, as a recipe writes them."""
        return {label: found["winner"] for label, found in self.record["labels"].items()}

    def __repr__(self) -> str:
        return f"<the settings of {', '.join(self.winners) or 'no label'} were searched: {self.recipe}>"


@os_errors_told("tuning")
def tune(
    recipe: str | Mapping[str, Any],
    trials: int | None = None,
    algorithms: str | Iterable[str] | None = None,
    sets: Iterable[str] = (),
    out: str | Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
    on: str | Path | None = None,
) -> Found:
    """Search the settings of every label alike, on validation prompts, and write a recipe with what was found.

    A comparison with the same tuning in the same folder goes on from here. What is done already is not done again.

    Args:
        trials: of each label; None is as the recipe says, else 8.
        recipe, algorithms, sets, out, workers, console, on: as of `compare`.

    Raises:
        RecipeError: for a recipe that cannot run, before anything is loaded.
        PrefzooError: when the data or the start failed.
    """
    cluster, sets = cluster_of(on, workers), list(sets)
    chosen = [algorithms] if isinstance(algorithms, str) else algorithms
    checked = checked_recipe(recipe, chosen, None, sets, (), out, trials)
    if checked.tuning is None:
        checked = checked_recipe(recipe, chosen, None, [*sets, "tuning={}"], (), out)
    with locked_folder(recipe, out, cluster) as folder:
        console = console or Console(stderr=True)
        plan = make_plan(checked, folder)
        if note := go_on(plan):
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        found = search_settings(plan, place_of(cluster, workers, checked, folder), console)
        name = recipe if isinstance(recipe, str) and not sets and chosen is None else None
        _write_recipe(found, checked, name)
    return found


def search_settings(plan: Plan, place: Place, console: Console) -> Found:
    """Run the trials of tuning that are not done yet; of an interrupted search, `tuning.json` has what it has.

    Args:
        plan: the comparison of the settings as written.

    Raises:
        PrefzooError: when the data or the start failed, or there are too few validation prompts.
    """
    recipe, out = plan.recipe, plan.out
    search = Search(recipe, out)
    search.replay()
    if not search.complete:
        plan.save()
        search = Search(recipe, out)
        _run(search, place, console)
    elif search.labels:
        count = sum(len(each.trials) for each in search.labels.values())
        console.print(f"tuning: all {count} trials are there already", markup=False, highlight=False)
    search.finished = True
    record = save(search)
    return Found(record, replace(make_plan(tuned(recipe, search.winners()), out), written=recipe.algorithms))


def _run(search: Search, place: Place, console: Console) -> None:
    plan = search.plan
    if any(not stage.done for stage in plan.stages.values()):
        add_worker_count(plan.out, place.workers)
    with Watcher(len(plan.stages), place.workers, console) as watcher:

        def more(stage: Stage, outcome: Outcome) -> list[Stage]:
            stages, ended = search.ended(stage, outcome)
            for trial in ended:
                watcher.say(sentence(search, str(stage.label), trial))
            if ended:
                save(search)
            watcher.expect(search.left(runner.outcomes))
            return stages

        runner = place.runner(plan, watcher, more)
        watcher.expect(search.left({}))
        try:
            outcomes = runner.run()
        finally:
            save_outcomes(runner.outcomes, plan.out)
    refuse_failed(outcomes, [name for name in ("data", START, LABEL_STAGE) if name in plan.stages])


def found_table(found: Found) -> Table:
    """A row for each label that was tuned: the score as written and the best, its settings, and the cost."""
    metric = found.record["objective"]["metric"]
    shown = Table("policy", f"{metric} as written", "best", "with", "trials", "FLOPs", "time", box=None)
    shown.title = f"The best settings by {found.record['prompts']} validation prompts"
    for label, each in found.record["labels"].items():
        scores = [trial["score"] for trial in each["trials"]]
        best = each["trials"][each["best"]] if each["best"] is not None else None
        settings = best["settings"] if best is not None else {}
        values = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items())
        shown.add_row(
            Text(label),
            *(["failed" if score is None else f"{score:.3g}" for score in scores[:1]] or ["-"]),
            "all failed" if best is None else f"{best['score']:.3g}",
            Text("as written" if each["best"] == 0 else values),
            str(len(scores)),
            *(format_cost(name, each["spent"][name]) for name in ("flops", "seconds")),
        )
    return shown


def _write_recipe(found: Found, checked: Recipe, name: str | None) -> None:
    """Write the recipe with what was found: as what differs from the one that was given, or whole."""
    if name is not None:
        extended = str(Path(name).resolve()) if Path(name).is_file() else name
        content = {"extends": extended, "algorithms": found.winners, "tuning": None}
    else:
        recipe = checked.model_copy(update={"tuning": None, "algorithms": {**checked.algorithms, **found.winners}})
        content = recipe.model_dump(mode="json")
    tuning = found.record
    head = (
        f"# Settings found by `prefzoo tune` with {tuning['trials']} trials a label ({tuning['sampler']}) of "
        f"{tuning['budget']['prompts'] or 'all'} training prompts,\n# scored by {tuning['objective']['metric']} on "
        f"{tuning['prompts']} validation prompts; tuning.json has every trial.\n"
    )
    write_whole(found.recipe, head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
