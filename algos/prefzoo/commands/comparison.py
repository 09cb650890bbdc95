"""Compare algorithms: from a recipe to its results, and from a finished run to its report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from prefzoo.atomic_files import refuse_links, write_whole
from prefzoo.commands.comparison_results import ComparisonResults
from prefzoo.commands.held_comparison import go_on
from prefzoo.commands.merge_runs import merged_from, rebuild_merged
from prefzoo.commands.run_folder import checked_recipe, locked_folder, refuse_failed, save_outcomes
from prefzoo.commands.stage_runner import Place, cluster_of, place_of
from prefzoo.errors import PrefzooError, os_errors_told
from prefzoo.recipe.check_recipe import load
from prefzoo.report import report_files as report
from prefzoo.results import results_file
from prefzoo.results.collect import collect, damaged_bookkeeping
from prefzoo.results.results_schema import Results
from prefzoo.run.executor import Outcome, Runner, add_worker_count, read_outcomes
from prefzoo.run.progress_display import Watcher
from prefzoo.run.stage_graph import LABEL_STAGE, PLAN_FILE, START, Plan, Stage, load_plan, make_plan
from prefzoo.run.stages.run_stage import run_stage
from prefzoo.tracking.tracker import Tracker
from prefzoo.tracking.wandb_process import read_state


@os_errors_told("comparing")
def compare(
    recipe: str | Mapping[str, Any],
    algorithms: str | Iterable[str] | None = None,
    seeds: int | list[int] | None = None,
    sets: Iterable[str] = (),
    out: str | Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
    add: str | Iterable[str] = (),
    tune: int | None = None,
    on: str | Path | None = None,
) -> ComparisonResults:
    """Train every algorithm of a recipe from the same start on the same data, measure them alike, and judge.

    What is done already under `out` is not done again; a call that was interrupted goes on where it stopped.

    Args:
        recipe: a path, the name of a shipped recipe, or the content of one as a dictionary.
        algorithms: labels of the recipe to keep, or names of algorithms to run with their defaults.
        seeds: how many, or which.
        sets: `"key.sub=value"` assignments over the recipe.
        out: the folder for everything; `runs/<recipe>` by default.
        workers: how many trials run at a time; by default as many as there are cores for a small model on a CPU,
            else one.
        console: where progress goes; standard error by default, which gets the line that says where runs were logged
            too (`tracked` of what is returned).
        add: labels or names of algorithms to put beside those of the comparison that `out` holds; where it holds none,
            beside those of the recipe.
        tune: how many trials each label's settings are searched by first, on validation prompts; None is as the recipe
            says. What is found is compared beside the settings as written.
        on: a file of YAML that says on which cluster stages run as jobs (docs/clusters.md), or `ray` or `local`.

    Returns:
        What is in `results.json`; as the last value of a notebook's cell it is shown as a table. One algorithm's
        failure is in there; it does not stop the others.

    Raises:
        RecipeError: for a recipe that cannot run, before anything is loaded.
        PrefzooError: when the data or the start failed, without which nothing can be compared; or when finished trials
            in `out` would be left out of the report (see `held_comparison`).
    """
    added = [add] if isinstance(add, str) else list(add)
    chosen = [algorithms] if isinstance(algorithms, str) else algorithms
    cluster = cluster_of(on, workers)
    checked = checked_recipe(recipe, chosen, seeds, sets, added, out, tune)
    with locked_folder(recipe, out, cluster) as folder:
        plan, place = make_plan(checked, folder), place_of(cluster, workers, checked, folder)
        own_console, console = console is None, console or Console(stderr=True)
        if note := go_on(plan, added):
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        try:
            if checked.tuning is not None:
                from prefzoo.commands.tuning import search_settings  # Optuna is imported for a search alone

                plan = search_settings(plan, place, console).plan
        except KeyboardInterrupt:
            with contextlib.suppress(PrefzooError):  # nothing to report yet
                _report(*_finished(folder))
            raise
        results = _compare(plan, place, console)
    if results.tracked and own_console:
        console.print(results.tracked, markup=False, highlight=False, soft_wrap=True)
    return results


@os_errors_told("reading the data")
def prepare_data(
    recipe: str | Mapping[str, Any],
    sets: Iterable[str] = (),
    out: str | Path | None = None,
    console: Console | None = None,
) -> Path:
    """Run only the data stage of a recipe, where `compare` will find it done.

    Returns:
        The folder with the rows of each split, `preflight.json`, `manifest.json` and `dropped.jsonl`.

    Raises:
        RecipeError: for a recipe that cannot run, before anything is loaded.
        PrefzooError: when the data cannot be used.
    """
    checked = load(recipe, sets)
    with locked_folder(recipe, out) as folder:
        return run_alone(make_plan(checked, folder), "data", console or Console(stderr=True)).folder


@os_errors_told("writing the report")
def rebuild(out: Path) -> Results:
    """Make results, tables and pictures again, of a finished or partial run, or of the runs of a merged report.

    Raises:
        PrefzooError: when `out` holds no run, or nothing of it is finished.
    """
    refuse_links(out)
    if not (out / PLAN_FILE).is_file() and merged_from(out):
        return rebuild_merged(out)
    return _with_tracking_problems(_report(*_finished(out)), out)


@os_errors_told("reading the results")
def load_results(run: str | Path) -> ComparisonResults:
    """The results of a comparison, of one that is not finished as far as they are there; nothing is written.

    Args:
        run: its folder, or that of a merged report.

    Raises:
        PrefzooError: when the folder holds no run, or nothing of it is finished.
    """
    out = Path(run)
    results = results_file.load(out) if (out / results_file.RESULTS).is_file() else collect(*_finished(out))
    return ComparisonResults.of(results, out)


def _finished(out: Path) -> tuple[Plan, dict[str, Outcome]]:
    """The plan of the last comparison in a folder, and how each stage that began has ended."""
    plan = load_plan(out)
    ended = read_outcomes(out)
    outcomes = {name: ended[name] for name in plan.stages if name in ended and ended[name].status != "ok"}
    for stage in plan.stages.values():
        if stage.folder.is_dir():
            outcomes[stage.name] = Outcome("ok")
        elif stage.name in ended and stage.name not in outcomes:
            reason = f"{stage.folder} is gone, and was finished; compare again makes it anew"
            outcomes[stage.name] = Outcome("skipped", reason)
    if not _comparable(outcomes):
        raise PrefzooError(f"{out}: the data or the start is not finished, so that there is nothing to report yet")
    return plan, outcomes


def run_alone(plan: Plan, name: str, console: Console) -> Stage:
    """Run one stage and those that it needs, as far as they are not done, where `compare` will find them done.

    Raises:
        PrefzooError: when any of them fails.
    """
    wanted = [name]
    for other in wanted:
        wanted += [need for need in plan.stages[other].needs if need not in wanted]
    alone = replace(plan, stages={other: stage for other, stage in plan.stages.items() if other in wanted})
    with Watcher(len(alone.stages), 1, console) as watcher:
        watcher.expect([stage for stage in alone.stages.values() if not stage.done])
        outcomes = Runner(alone, run_stage, 1, watcher).run()
    refuse_failed(outcomes, outcomes)
    return alone.stages[name]


def _compare(plan: Plan, place: Place, console: Console) -> ComparisonResults:
    recipe, out = plan.recipe, plan.out
    plan.save()
    _write_resolved(plan)
    results_file.note_call(recipe, out)
    with Tracker(plan) as tracker:
        outcomes = _run(plan, place, console)
        _write_resolved(plan)  # with the lengths that were derived from the data
        results = _report(plan, outcomes)
        tracker.finish()
    return ComparisonResults.of(_with_tracking_problems(results, out), out, tracker.location)


def _write_resolved(plan: Plan) -> None:
    recipe = plan.with_lengths().recipe.model_dump(mode="json")
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    write_whole(plan.out / "recipe.resolved.yaml", text)


def _run(plan: Plan, place: Place, console: Console) -> dict[str, Outcome]:
    """Run the stages that are not done yet. An interrupted comparison reports what it has.

    Raises:
        PrefzooError: when the data or the start failed.
    """
    todo = [stage for stage in plan.stages.values() if not stage.done]
    if todo:
        add_worker_count(plan.out, place.workers)
    with Watcher(len(plan.stages), place.workers, console) as watcher:
        watcher.expect(todo)
        runner = replace(place, workers=min(place.workers, max(1, len(todo)))).runner(plan, watcher)
        try:
            outcomes = runner.run()
        except KeyboardInterrupt:
            save_outcomes(runner.outcomes, plan.out)
            if _comparable(runner.outcomes):
                _report(plan, runner.outcomes)
            raise
    refuse_failed(outcomes, [name for name in ("data", START, LABEL_STAGE) if name in plan.stages])
    save_outcomes(outcomes, plan.out)
    return outcomes


def _report(plan: Plan, outcomes: Mapping[str, Outcome]) -> Results:
    results = collect(plan, outcomes)
    results.notes.extend(damaged_bookkeeping(plan.out))
    report.write(results, plan.out)
    return results


def _with_tracking_problems(results: Results, out: Path) -> Results:
    """The results with a note of each failure of tracking, on which no number depends."""
    if problems := read_state(out)["problems"]:
        results.notes.extend(problems)
        report.write(results, out)
    return results


def _comparable(outcomes: Mapping[str, Outcome]) -> bool:
    return all(name in outcomes and outcomes[name].status == "ok" for name in ("data", START))
