"""Whether an algorithm learns in the lab, and learns nothing where there is nothing to learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from prefzoo.commands.comparison import compare
from prefzoo.conformance.findings import Finding
from prefzoo.recipe.check_recipe import load
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.results.results_schema import Results, Verdict
from prefzoo.run.stage_graph import START

LONG: dict[str, Any] = {
    "tracking": {"wandb": {"mode": "disabled"}},
    "budget": {"prompts": 800},
    "evaluation": {"prompts": 256},
    "training": {"learning_rate": 5e-4},
}
"""The rate is a quarter of the lab's own, at which DPO with its paper's beta over-optimizes: an algorithm is tried here
with its defaults, and is to be shown able to learn, not to be tuned."""
SEEDS, MORE = 3, 8
"""How many trainings, and how many in all where the first ones do not tell: three may spread too far."""
CHANCE = 0.01
"""A control is broken only by a rise less likely than this without any, and only such a rise is learning where it was
looked for a second time: suites are run often."""


def recipe_of(content: Mapping[str, Any], seed: int, sets: Iterable[str]) -> Recipe:
    """The recipe of a check; what `sets` says of hyper-parameters is said to every label."""
    blocks = {*Recipe.model_fields} - {"algorithms"}
    assignments = [f"seeds=[{seed}]"] if "seeds" not in content else []
    for text in sets:
        key = text.partition("=")[0]
        if key.partition(".")[0] in blocks and "." in key:
            assignments.append(text)
        else:
            assignments += [f"algorithms.{label}.{text}" for label in content["algorithms"]]
    return load(content, assignments)


def learning(
    name: str, seed: int, out: Path, console: Console | None = None, sets: Sequence[str] = ()
) -> Iterator[Finding]:
    """Gold rises over the start's, paired by seed and prompt; and does not in a negative control."""
    content: dict[str, Any] = {
        **LONG,
        "reward": {"type": "random"},
        "data": {"source": "lab", "seed": seed},
        "algorithms": {name: {}},
        "seeds": list(range(seed, seed + SEEDS)),
    }
    needs = recipe_of(content, seed, sets).algorithm(name).required
    content["reward"] = {"type": "trained" if "reward" in needs else "random"}
    recipe = recipe_of(content, seed, sets).model_dump(mode="json")
    seeds = SEEDS
    real = _over_start(compare(recipe, out=out, console=console), name)
    better = not isinstance(real, str) and real.verdict == "better"
    if not better and not isinstance(real, str) and real.ci95[1] > 0:
        seeds = MORE
        more = {**recipe, "seeds": list(range(seed, seed + seeds))}
        real = _over_start(compare(more, out=out, console=console), name)
        better = not isinstance(real, str) and real.difference > 0 and real.p_adjusted < CHANCE
    said = real if isinstance(real, str) else f"gold over the start, {seeds} seeds: {_numbers(real)}"
    yield Finding("learns", "kept" if better else "broken", said)
    control: list[str] = []
    if needs & {"preferences", "unpaired", "demonstrations"}:
        control.append("data.shuffle_labels=true")
    if "reward" in needs:
        control.append("reward.type=random")
    if "judge" in needs:
        control.append("judge.type=random")
    if not control:
        yield Finding("control", "untried", "it learns from neither preferences nor a reward nor a judge")
        return
    named = {"data": "shuffled labels", "reward": "a random reward", "judge": "a judge that tosses a coin"}
    what = " and ".join(named[key.partition(".")[0]] for key in control)
    null = _over_start(compare(recipe, sets=control, out=out, console=console), name)
    if isinstance(null, str):
        yield Finding("control", "broken", f"with {what}: {null}")
    else:
        rises = null.difference > 0 and null.p_adjusted < CHANCE
        yield Finding("control", "broken" if rises else "kept", f"with {what}, gold over the start: {_numbers(null)}")


def _over_start(results: Results, label: str) -> Verdict | str:
    """The verdict on gold against the start; the error when there is none."""
    if results.algorithms[label].status != "ok":
        return str(results.algorithms[label].error)
    return next(v for v in results.verdicts if (v.metric, v.a, v.b) == ("gold", label, START))


def _numbers(verdict: Verdict) -> str:
    low, high = verdict.ci95
    return f"{verdict.difference:+.2f} [{low:+.2f}, {high:+.2f}], p = {verdict.p_adjusted:.2g}"
