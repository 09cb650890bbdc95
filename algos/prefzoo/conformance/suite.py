"""Run the comparisons that the promises are judged by, quick ones first."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from prefzoo import registry
from prefzoo.commands.comparison import compare
from prefzoo.conformance.findings import PROMISES, Finding
from prefzoo.conformance.probe import DETAILS, answers, probed
from prefzoo.conformance.promises import Trials, quick_findings
from prefzoo.results.results_schema import Results, Verdict
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START, Plan, load_plan
from prefzoo.types import Completion

QUICK: dict[str, Any] = {
    "tracking": {"wandb": {"mode": "disabled"}},
    "start": "none",
    "budget": {"prompts": 48},
    "evaluation": {"prompts": 16},
    "generation": {"max_new_tokens": 24},
}
LONG: dict[str, Any] = {
    "tracking": {"wandb": {"mode": "disabled"}},
    "budget": {"prompts": 800},
    "evaluation": {"prompts": 256},
    "training": {"learning_rate": 5e-4},
}
"""The rate is a quarter of the lab's own, at which DPO with its paper's beta over-optimizes: an algorithm is tried here
with its defaults, and is to be shown able to learn, not to be tuned."""
SEEDS = 3
CHANCE = 0.01
"""A control is broken only by a rise less likely than this without any: suites are run often."""


def check(name: str, seed: int = 0, console: Console | None = None) -> Iterator[Finding]:
    """Try every promise of an algorithm with its default hyper-parameters; yields findings as they come.

    The quick ones take well under a minute. Learning is tried only when they are all kept, and takes minutes: three
    seeds in the lab, and three more as a negative control.

    Args:
        name: an algorithm that `prefzoo.names()` has.
        seed: of the lab's data and of the first trial.
        console: where progress goes; standard error by default.

    Raises:
        KeyError, PrefzooError: for an unknown name, a package that cannot be loaded, or a default that is refused.
    """
    registry.get(name)
    out = Path(tempfile.mkdtemp(prefix=f"prefzoo-check-{name}-"))
    console = console or Console(stderr=True)
    broken = False
    try:
        for finding in quick(name, seed, out / "quick", console):
            broken = broken or finding.status == "broken"
            yield finding
        if broken:
            yield from _untried(("learns", "control"), "what is broken above comes first")
            return
        for finding in learning(name, seed, out / "learning", console):
            broken = broken or finding.status == "broken"
            yield finding
    finally:
        if broken:
            console.print(f"the trials, with their logs, are in {out}", markup=False, highlight=False)
        else:
            shutil.rmtree(out, ignore_errors=True)


def quick(name: str, seed: int, out: Path, console: Console | None = None) -> Iterator[Finding]:
    """Every promise but those about learning: three small trials, watched by the probe."""
    algorithm = registry.get(name)
    watched = f"{name}, watched"  # a name of its own, because a stage is known by it
    labels: dict[str, dict[str, Any]] = {"first": {}, "again": {}, "other": {"seed_offset": 1}}
    recipe: dict[str, Any] = {
        **QUICK,
        "reward": {"type": "trained" if "reward" in algorithm.required else "random"},
        "data": {"source": "lab", "seed": seed},
        "algorithms": {label: {"algorithm": watched, **more} for label, more in labels.items()},
    }
    registered = registry.registered()
    registry.register(watched)(probed(type(algorithm)))
    try:
        found = compare(recipe, seeds=[seed], out=out, console=console)
    finally:
        registry.restore(registered)
    plan = load_plan(out)
    folders = [plan.stages[f"train {label} seed {seed}"].folder for label in labels]
    rest = list(PROMISES)[2:-2]
    if missing := [label for label, folder in zip(labels, folders, strict=True) if not folder.is_dir()]:
        error = found.algorithms[missing[0]].error or ""
        unsaved = "saved no policy" in error
        yield Finding("trains", "kept", "it does") if unsaved else Finding("trains", "broken", error)
        if unsaved:
            yield Finding("saves", "broken", error)
        yield from _untried(rest if unsaved else ["saves", *rest], "there is no trained policy")
        return
    seen = [json.loads((folder / "details.json").read_text(encoding="utf-8"))[DETAILS] for folder in folders]
    if seen[0]["returned"] is None:
        yield Finding("trains", "broken", "`train` returned something that cannot sample; it must return the policy")
        yield from _untried(["saves", *rest], "there is no trained policy")
        return
    yield Finding("trains", "kept", f"three trials; a {seen[0]['returned']}")
    yield Finding("saves", "kept", ", ".join(sorted(f.name for f in (folders[0] / "policy").iterdir())))
    yield from quick_findings(_trials(plan, name, seen, folders, seed))


def _trials(plan: Plan, name: str, seen: list[dict[str, Any]], folders: list[Path], seed: int) -> Trials:
    from prefzoo.models.policy_kinds import load_policy
    from prefzoo.run.stages.start_stage import start_path, start_policy

    asked = seen[0]["answers"]
    prompts = asked["prompts"]
    completions = [Completion("", tuple(ids), True) for ids in asked["completions"]]
    reloaded: dict[str, Any] | Exception
    try:
        reloaded = answers(load_policy(folders[0] / "policy"), prompts, completions)
    except Exception as error:
        reloaded = error
    evaluated = [plan.stages[f"evaluate {label} seed {seed}"].folder for label in plan.recipe.algorithms]
    return Trials(
        algorithm=registry.get(name),
        adapter=plan.recipe.adapter,
        budget=plan.recipe.budget,
        first=seen[0],
        again=seen[1],
        other=seen[2],
        policies=(folders[0] / "policy", folders[1] / "policy", folders[2] / "policy"),
        replies=tuple([r["reply"] for r in read_records(f)] if f.is_dir() else None for f in evaluated),
        reloaded=reloaded,
        start=start_policy(plan.recipe, start_path(plan)).log_probabilities(prompts, completions),
    )


def learning(name: str, seed: int, out: Path, console: Console | None = None) -> Iterator[Finding]:
    """Gold rises over the start's, paired by seed and prompt; and does not in a negative control."""
    needs = registry.get(name).required
    recipe: dict[str, Any] = {
        **LONG,
        "reward": {"type": "trained" if "reward" in needs else "random"},
        "data": {"source": "lab", "seed": seed},
        "algorithms": {name: {}},
    }
    seeds = list(range(seed, seed + SEEDS))
    real = _over_start(compare(recipe, seeds=seeds, out=out, console=console), name)
    if isinstance(real, str):
        yield Finding("learns", "broken", real)
    else:
        better = real.verdict == "better"
        yield Finding("learns", "kept" if better else "broken", f"gold over the start: {_numbers(real)}")
    control: list[str] = []
    if needs & {"preferences", "demonstrations"}:
        control.append("data.shuffle_labels=true")
    if "reward" in needs:
        control.append("reward.type=random")
    if "judge" in needs:
        control.append("judge.type=random")
    if not control:
        yield Finding("control", "untried", "it learns from neither preferences nor a reward nor a judge")
        return
    named = {"data": "shuffled labels", "reward": "a random reward", "judge": "a judge that tosses a coin"}
    what = " and ".join(named[each.partition(".")[0]] for each in control)
    null = _over_start(compare(recipe, seeds=seeds, sets=control, out=out, console=console), name)
    if isinstance(null, str):
        yield Finding("control", "broken", f"with {what}: {null}")
    else:
        rises = null.difference > 0 and null.p_adjusted < CHANCE
        yield Finding("control", "broken" if rises else "kept", f"with {what}, gold over the start: {_numbers(null)}")


def _over_start(found: Results, label: str) -> Verdict | str:
    """The verdict on gold against the start; the error when there is none."""
    if found.algorithms[label].status != "ok":
        return str(found.algorithms[label].error)
    return next(v for v in found.verdicts if (v.metric, v.a, v.b) == ("gold", label, START))


def _numbers(verdict: Verdict) -> str:
    low, high = verdict.ci95
    return f"{verdict.difference:+.2f} [{low:+.2f}, {high:+.2f}], p = {verdict.p_adjusted:.2g}"


def _untried(promises: Any, why: str) -> Iterator[Finding]:
    for promise in promises:
        yield Finding(promise, "untried", why)
