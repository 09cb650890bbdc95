"""The whole way from a recipe to its results."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from rich.console import Console

from prefzoo.commands.merge_runs import merged_from, rebuild_merged
from prefzoo.errors import PrefzooError
from prefzoo.recipe.check_recipe import load
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.report import report_files as report
from prefzoo.results.collect import collect
from prefzoo.results.results_file import note_call
from prefzoo.results.results_schema import Results
from prefzoo.run import distributed
from prefzoo.run.executor import OUTCOMES, Outcome, Runner
from prefzoo.run.progress_display import Watcher
from prefzoo.run.resources import default_workers
from prefzoo.run.stage_graph import LABEL, PLAN_FILE, START, Plan, Stage, load_plan, make_plan
from prefzoo.run.worker_counts import note_workers
from prefzoo.tracking.tracker import Tracker
from prefzoo.tracking.wandb_process import read_state
from prefzoo.types import Progress

LOST = ("failed", "skipped")


def compare(
    recipe: str | Mapping[str, Any],
    algorithms: Iterable[str] | None = None,
    seeds: int | list[int] | None = None,
    sets: Iterable[str] = (),
    out: str | Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> Results:
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
        console: where progress goes; standard error by default.

    Returns:
        What is in `results.json`. One algorithm's failure is in there; it does not stop the others.

    Raises:
        RecipeError: for a recipe that cannot run, before anything is loaded.
        PrefzooError: when the data or the start failed, without which nothing can be compared.
    """
    if distributed.makes_room():
        raise SystemExit(0)
    sets = [*sets, *([f"seeds={json.dumps(seeds)}"] if seeds is not None else [])]
    name, checked = Path(recipe).stem if isinstance(recipe, str) else "recipe", load(recipe, sets, algorithms)
    with in_use(Path(out) if out is not None else Path("runs") / name) as folder:
        return _compare(checked, folder, workers or default_workers(checked), console or Console(stderr=True))


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
    name, checked = Path(recipe).stem if isinstance(recipe, str) else "recipe", load(recipe, sets)
    with in_use(Path(out) if out is not None else Path("runs") / name) as folder:
        whole = make_plan(checked, folder)
        return run_alone(whole, "data", console or Console(stderr=True)).folder


def run_alone(plan: Plan, name: str, console: Console) -> Stage:
    """Run one stage and what it needs, as far as that is not done, where `compare` will find it done.

    Raises:
        PrefzooError: when any of them fails.
    """
    wanted = [name]
    for each in wanted:
        wanted += [need for need in plan.stages[each].needs if need not in wanted]
    alone = replace(plan, stages={each: stage for each, stage in plan.stages.items() if each in wanted})
    with Watcher(len(alone.stages), 1, console) as watcher:
        watcher.expect([stage for stage in alone.stages.values() if not stage.done])
        outcomes = Runner(alone, run_stage, 1, watcher).run()
    for each, outcome in outcomes.items():
        if outcome.status != "ok":
            raise PrefzooError(f"{each}: {outcome.error}")
    return alone.stages[name]


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[Path]:
    """A comparison's folder, made if need be, while nobody else may use it.

    Raises:
        PrefzooError: when somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise PrefzooError(f"{folder} is in use by another prefzoo; wait for it, or choose another --out") from None
    try:
        yield folder
    finally:
        lock.release()


def _compare(recipe: Recipe, out: Path, workers: int, console: Console) -> Results:
    plan = make_plan(recipe, out)
    if _holds_another(plan):
        console.print(f"{out} holds another comparison: what fits is used again, and its report is replaced")
    plan.save()
    _note_call(recipe, out)
    with Tracker(plan, console) as tracker:
        outcomes = _run(plan, workers, console)
        found = collect(plan, outcomes)
        report.write(found, out)
        tracker.finish()
    return _with_problems(found, out)


def _run(plan: Plan, workers: int, console: Console) -> dict[str, Outcome]:
    """Run what is not done yet.

    Raises:
        PrefzooError: when the data or the start failed.
    """
    out = plan.out
    todo = [stage for stage in plan.stages.values() if not stage.done]
    if todo:
        note_workers(out, workers)
    with Watcher(len(plan.stages), workers, console) as watcher:
        watcher.expect(todo)
        runner = Runner(plan, run_stage, min(workers, max(1, len(todo))), watcher)
        try:
            outcomes = runner.run()
        except KeyboardInterrupt:
            _note_outcomes(runner.outcomes, out)
            if _comparable(plan, runner.outcomes):
                report.write(collect(plan, runner.outcomes), out)
            raise
    for name in (n for n in ("data", START, LABEL) if n in plan.stages):
        if outcomes[name].status != "ok":
            raise PrefzooError(f"{name}: {outcomes[name].error}")
    _note_outcomes(outcomes, out)
    return outcomes


def _with_problems(found: Results, out: Path) -> Results:
    """The results with what went wrong in tracking, which nothing measured depends on."""
    if problems := read_state(out)["problems"]:
        found.notes.extend(problems)
        report.write(found, out)
    return found


def _holds_another(plan: Plan) -> bool:
    """Whether the folder's last comparison was of another recipe."""
    file = plan.out / PLAN_FILE
    if not file.is_file():
        return False
    before = json.loads(file.read_text(encoding="utf-8"))["recipe"]
    return bool(before != plan.recipe.model_dump(mode="json"))


def rebuild(out: Path) -> Results:
    """Results, tables and pictures again, from a finished or partial run, or from the runs of a merged report.

    Raises:
        PrefzooError: when `out` holds no run, or nothing of it is finished.
    """
    if not (out / PLAN_FILE).is_file() and merged_from(out):
        return rebuild_merged(out)
    plan = load_plan(out)
    noted = json.loads((out / OUTCOMES).read_text(encoding="utf-8")) if (out / OUTCOMES).is_file() else {}
    outcomes = {name: Outcome(**noted[name]) for name in plan.stages if noted.get(name, {}).get("status") in LOST}
    outcomes |= {
        stage.name: Outcome("skipped", f"{stage.folder} is gone, and was finished; compare again makes it anew")
        for stage in plan.stages.values()
        if noted.get(stage.name, {}).get("status") == "ok" and not stage.folder.is_dir()
    }
    outcomes |= {stage.name: Outcome("ok") for stage in plan.stages.values() if stage.folder.is_dir()}
    if not _comparable(plan, outcomes):
        raise PrefzooError(f"{out}: the data or the start is not finished, so that there is nothing to report yet")
    found = collect(plan, outcomes)
    report.write(found, out)
    return _with_problems(found, out)


def run_stage(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """The job of a `Runner` that really does the stages' work."""
    from prefzoo.run.stages import jobs  # torch and TRL, which only the stages' own processes need

    jobs.run_stage(plan, stage, folder, progress)


def _note_outcomes(outcomes: Mapping[str, Outcome], out: Path) -> None:
    """Keep how each stage ended, so that a rebuilt report still says why something failed."""
    content = {name: asdict(outcome) for name, outcome in outcomes.items()}
    (out / OUTCOMES).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _comparable(plan: Plan, outcomes: Mapping[str, Outcome]) -> bool:
    return all(name in outcomes and outcomes[name].status == "ok" for name in ("data", START))


def _note_call(recipe: Recipe, out: Path) -> None:
    """Keep the recipe with everything resolved, and the command and versions that it ran with."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (out / "recipe.resolved.yaml").write_text(text, encoding="utf-8")
    note_call(recipe, out)
