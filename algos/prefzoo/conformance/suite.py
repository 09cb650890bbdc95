"""Run the trials that the promises are judged by, quick ones first."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from prefzoo import registry
from prefzoo.commands.comparison import run_stage
from prefzoo.conformance import probe
from prefzoo.conformance.findings import PROMISES, Finding
from prefzoo.conformance.learning import learning, recipe_of
from prefzoo.conformance.probe import DETAILS, ObservedTrial, answers, probed
from prefzoo.conformance.promises import quick_findings
from prefzoo.conformance.trials import Trials, weight_hashes
from prefzoo.conformance.vary import Variations, vary
from prefzoo.data import splits
from prefzoo.data.row_views import views_of
from prefzoo.run.executor import Outcome, Runner
from prefzoo.run.progress_display import Watcher
from prefzoo.run.resources import default_workers
from prefzoo.run.stage_graph import Plan, make_plan
from prefzoo.settings import Generation
from prefzoo.types import Completion, Prompt

QUICK: dict[str, Any] = {
    "tracking": {"wandb": {"mode": "disabled"}},
    "start": "none",
    "budget": {"prompts": 48},
    "evaluation": {"prompts": 16},
    "generation": {"max_new_tokens": 24, "engine": "transformers"},
}
TRIALS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "first": (probe.observe, {}),
    "other": (probe.observe, {"seed_offset": 1}),
    "resumed": (probe.resume, {}),
    "varied": (vary, {}),
    "again": (probe.observe, {}),
    "repeated": (probe.observe, {}),
}
"""Label of a quick trial -> how it is trained, and its settings. The last two run by themselves: `again` with other
test rows, and `repeated`, with the right ones, only where that changed something."""


def check(name: str, seed: int = 0, console: Console | None = None, sets: Sequence[str] = ()) -> Iterator[Finding]:
    """Try every promise of an algorithm; yields findings as they come.

    The quick ones take a minute or two. Learning is tried only when they are all kept, and takes minutes: three seeds
    in the lab at a quarter of its learning rate, where they do not tell three at its own, then eight; and three as a
    negative control.

    Args:
        name: an algorithm that `prefzoo.names()` has.
        seed: of the lab's data and of the first trial.
        console: where progress goes; standard error by default.
        sets: `"key=value"`: hyper-parameters (`beta=0.3`, `rounds=2`) or keys of the recipe (`adapter.r=8`,
            `budget.epochs=2`, `evaluation.milestones=2`) that it is tried with.

    Raises:
        KeyError, PrefzooError: for an unknown name, a package that cannot be loaded, or a setting that is refused.
    """
    registry.load(name)
    out = Path(tempfile.mkdtemp(prefix=f"prefzoo-check-{name}-"))
    console = console or Console(stderr=True)
    broken = False
    try:
        for finding in quick(name, seed, out / "quick", console, sets):
            broken = broken or finding.status == "broken"
            yield finding
        if broken:
            yield from _untried(("learns", "control"), "what is broken above comes first")
            return
        for finding in learning(name, seed, out / "learning", console, sets):
            broken = broken or finding.status == "broken"
            yield finding
    finally:
        if broken:
            console.print(f"the trials, with their logs, are in {out}", markup=False, highlight=False)
        else:
            shutil.rmtree(out, ignore_errors=True)


def quick(
    name: str, seed: int, out: Path, console: Console | None = None, sets: Sequence[str] = ()
) -> Iterator[Finding]:
    """Every promise but those about learning: small trials, watched by the probe."""
    registered = registry.registered()
    inner = registry.load(name)
    content: dict[str, Any] = {**QUICK, "reward": {"type": "random"}, "data": {"source": "lab", "seed": seed}}
    algorithms = {}
    for label, (train, more) in TRIALS.items():
        watched = f"{name}, {label}"  # a name of its own, because a stage is known by it
        registry.register(watched)(probed(inner, train))
        algorithms[label] = {"algorithm": watched, **more}
    try:
        recipe = recipe_of({**content, "algorithms": algorithms}, seed, sets)
        algorithm = recipe.algorithm("first")
        if "reward" in algorithm.required:
            recipe = recipe_of({**content, "algorithms": algorithms, "reward": {"type": "trained"}}, seed, sets)
        out.mkdir(parents=True, exist_ok=True)
        plan = make_plan(recipe, out)
        plan.save()
        yield from _quick(plan, seed, console or Console(stderr=True))
    finally:
        registry.restore(registered)


def _quick(plan: Plan, seed: int, console: Console) -> Iterator[Finding]:
    folders = {label: plan.stages[f"train {label} seed {seed}"].folder for label in TRIALS}
    outcomes = _run(plan, [f"train {label} seed {seed}" for label in ("first", "other", "resumed", "varied")], console)
    data = plan.stages["data"].folder
    if not data.is_dir():
        yield Finding("trains", "broken", outcomes["data"].error or "")
        yield from _untried(list(PROMISES)[1:-2], "there are no data")
        return
    rest = list(PROMISES)[2:-2]
    if missing := [label for label in ("first", "other") if not folders[label].is_dir()]:
        error = outcomes[f"train {missing[0]} seed {seed}"].error or ""
        unsaved = "saved no policy" in error
        yield Finding("trains", "kept", "it does") if unsaved else Finding("trains", "broken", error)
        if unsaved:
            yield Finding("saves", "broken", error)
        yield from _untried(rest if unsaved else ["saves", *rest], "there is no trained policy")
        return
    first = ObservedTrial(**_details(folders["first"]))
    if first.returned is None:
        yield Finding("trains", "broken", "`train` returned something that cannot sample; it must return the policy")
        yield from _untried(["saves", *rest], "there is no trained policy")
        return
    with _other_rows(data):
        again = _run(plan, [f"train again seed {seed}"], console)[f"train again seed {seed}"]
    same = again.status == "ok" and _alike(folders["first"], folders["again"])
    if not same:
        _run(plan, [f"train repeated seed {seed}"], console)
    yield Finding("trains", "kept", f"a {first.returned}")
    yield Finding("saves", "kept", ", ".join(sorted(f.name for f in (folders["first"] / "policy").iterdir())))
    yield from quick_findings(_trials(plan, folders, outcomes, again, same, seed))


def _trials(
    plan: Plan, folders: Mapping[str, Path], outcomes: Mapping[str, Outcome], again: Outcome, same: bool, seed: int
) -> Trials:
    from prefzoo.models.policy_kinds import load_policy
    from prefzoo.run.stages.start_stage import start_path, start_policy

    recipe = plan.recipe
    first = ObservedTrial(**_details(folders["first"]))
    assert first.answers is not None
    prompts = first.answers["prompts"]
    completions = [Completion("", tuple(ids), True) for ids in first.answers["completions"]]
    reloaded: dict[str, Any] | Exception
    try:
        reloaded = answers(load_policy(folders["first"] / "policy"), prompts, completions)
    except Exception as error:
        reloaded = error
    variations: Variations | str = _failed(outcomes, f"train varied seed {seed}")
    if not variations:
        variations = Variations(**_details(folders["varied"]))
    resumed: dict[str, Any] | str = _failed(outcomes, f"train resumed seed {seed}")
    if not resumed:
        alike = weight_hashes(folders["first"] / "policy") == weight_hashes(folders["resumed"] / "policy")
        resumed = {**_details(folders["resumed"]), "same": alike}
    hidden = [row for name in ("validation", "test") for row in splits.load_split(plan.stages["data"].folder, name)]
    test_prompts = views_of(hidden).prompts[-recipe.evaluation.prompts :]
    other_rows = (
        ObservedTrial(**_details(folders["again"])) if again.status == "ok" else f"its training fails: {again.error}"
    )
    repeated = "again" if same else "repeated"
    return Trials(
        algorithm=recipe.algorithm("first"),
        adapter=recipe.adapter,
        budget=recipe.budget,
        generation=recipe.generation,
        training=recipe.training,
        first=first,
        other=ObservedTrial(**_details(folders["other"])),
        again=other_rows,
        same=same,
        repeated=None if same else _alike(folders["first"], folders["repeated"]),
        policies=(folders["first"] / "policy", folders[repeated] / "policy", folders["other"] / "policy"),
        replies=tuple(
            _replies(folders[label] / "policy", test_prompts, recipe.generation) for label in ("first", repeated)
        ),
        reloaded=reloaded,
        start=start_policy(recipe, start_path(plan)).log_probabilities(prompts, completions),
        hidden=frozenset(row.prompt[-1]["content"] for row in hidden),
        variations=variations,
        resumed=resumed,
    )


def _replies(folder: Path, prompts: Sequence[Prompt], generation: Generation) -> list[str] | None:
    """What a saved policy answers; None where it cannot be asked."""
    from prefzoo.models.policy_kinds import load_policy

    with contextlib.suppress(Exception):  # that it does not load is the finding of another promise
        return [replies[0].text for replies in load_policy(folder).sample(prompts, generation, seed=10_000)]
    return None


def _run(plan: Plan, wanted: Sequence[str], console: Console) -> dict[str, Outcome]:
    """Run some stages and what they need, as far as that is not done."""
    names = list(wanted)
    for name in names:
        stage = plan.stages[name]
        names += [need for need in (*stage.needs, *stage.after) if need not in names]
    part = replace(plan, stages={name: stage for name, stage in plan.stages.items() if name in names})
    workers = default_workers(plan.recipe)
    with Watcher(len(part.stages), workers, console) as watcher:
        watcher.expect([stage for stage in part.stages.values() if not stage.done])
        return Runner(part, run_stage, workers, watcher).run()


@contextlib.contextmanager
def _other_rows(folder: Path) -> Iterator[None]:
    """For a while the test and validation rows of a data stage are others: in another order, each with the worse reply
    in the place of the better one."""
    files = [folder / f"{name}.jsonl" for name in ("validation", "test")]
    before = [file.read_bytes() for file in files]
    for file in files:
        rows = [
            {**asdict(row), "chosen": row.rejected, "rejected": row.chosen, "demonstration": row.rejected}
            for row in reversed(splits.load_split(folder, file.stem))
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    try:
        yield
    finally:
        for file, content in zip(files, before, strict=True):
            file.write_bytes(content)


def _alike(one: Path, other: Path) -> bool:
    """Whether two trials saved the same weights and returned policies that answer alike."""
    if not other.is_dir() or weight_hashes(one / "policy") != weight_hashes(other / "policy"):
        return False
    return bool(_details(one)["answers"] == _details(other)["answers"])


def _details(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "details.json").read_text(encoding="utf-8"))[DETAILS])


def _failed(outcomes: Mapping[str, Outcome], name: str) -> str:
    """Why a stage has no result; empty where it has one."""
    return "" if outcomes[name].status == "ok" else outcomes[name].error or "it failed"


def _untried(promises: Iterable[str], why: str) -> Iterator[Finding]:
    for promise in promises:
        yield Finding(promise, "untried", why)
