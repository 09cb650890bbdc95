"""Whether an algorithm learns in the lab, and learns nothing where there is nothing to learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
}
SLOWER = {"training": {"learning_rate": 5e-4}}
"""A quarter of the lab's own rate, at which DPO with its paper's beta over-optimizes, and which policy gradients need:
an algorithm is tried with its defaults at both, for it is to be shown able to learn, not to be tuned."""
SEEDS, MORE = 3, 8
"""How many trainings at each rate, and how many in all where they do not tell: three may spread too far."""
CHANCE = 0.01
"""A control is broken only by a rise less likely than this without any, and only such a rise is learning where it was
looked for again: suites are run often."""


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
    algorithm = recipe_of(content, seed, sets).algorithm(name)
    needs = algorithm.required
    content["reward"] = {"type": "trained" if "reward" in needs else "random"}
    own_rate = algorithm.trainer.get("learning_rate")
    at_rates = [
        recipe_of({**content, **rate}, seed, sets).model_dump(mode="json") for rate in ({} if own_rate else SLOWER, {})
    ]

    def gain(recipe: dict[str, Any], sets: Sequence[str] = ()) -> Verdict | str:
        return _over_start(compare(recipe, sets=sets, out=out, console=console), name)

    recipe, real, better = _learned_by(at_rates, gain)
    said = (
        real if isinstance(real, str) else f"gold over the start, {_seeds_and_rate(recipe, own_rate)}: {_numbers(real)}"
    )
    yield Finding("learns", "kept" if better else "broken", said)
    recipe = {**recipe, "seeds": content["seeds"]}
    control: list[str] = []
    if needs & {"preferences", "unpaired", "demonstrations"}:
        control.append("data.shuffle_labels=true")
    if "reward" in needs:
        control.append("reward.type=random")
    if "judge" in needs:
        control.append("judge.type=random")
    if "constitution" in needs:  # docs/log.md has what is learned from revisions that are asked to mend nothing
        yield Finding("control", "untried", "revisions teach what the model that writes them knows, without any judge")
        return
    if not control:
        yield Finding("control", "untried", "it learns from neither preferences nor a reward nor a judge")
        return
    named = {"data": "shuffled labels", "reward": "a random reward", "judge": "a judge that tosses a coin"}
    what = " and ".join(named[key.partition(".")[0]] for key in control)
    null = gain(recipe, control)
    if isinstance(null, str):
        yield Finding("control", "broken", f"with {what}: {null}")
    else:
        yield Finding(
            "control", "broken" if _rises(null) else "kept", f"with {what}, gold over the start: {_numbers(null)}"
        )


def _learned_by(
    at_rates: Sequence[dict[str, Any]], gain: Callable[[dict[str, Any]], Verdict | str]
) -> tuple[dict[str, Any], Verdict | str, bool]:
    """The recipe by which the algorithm learned, or was looked at last; what it gained, and whether it learns."""
    slower, own = at_rates
    real = gain(slower)
    if isinstance(real, str) or real.verdict == "better" or real.ci95[1] <= 0:  # more would not make that a rise
        return slower, real, not isinstance(real, str) and real.verdict == "better"
    looks = [(slower, real)]
    if own != slower:  # unless --set says a rate
        real = gain(own)
        if isinstance(real, str) or _rises(real):
            return own, real, not isinstance(real, str)
        looks.append((own, real))
    recipe, real = max(looks, key=lambda look: look[1].difference)
    if real.ci95[1] <= 0:
        return recipe, real, False
    first = recipe["seeds"][0]
    recipe = {**recipe, "seeds": list(range(first, first + MORE))}
    more = gain(recipe)
    return recipe, more, not isinstance(more, str) and _rises(more)


def _over_start(results: Results, label: str) -> Verdict | str:
    """The verdict on gold against the start; the error when there is none."""
    if results.algorithms[label].status != "ok":
        return str(results.algorithms[label].error)
    return next(v for v in results.verdicts if (v.metric, v.a, v.b) == ("gold", label, START))


def _rises(verdict: Verdict) -> bool:
    return verdict.difference > 0 and verdict.p_adjusted < CHANCE


def _seeds_and_rate(recipe: Mapping[str, Any], own_rate: float | None) -> str:
    return f"{len(recipe['seeds'])} seeds at a learning rate of {own_rate or recipe['training']['learning_rate']:g}"


def _numbers(verdict: Verdict) -> str:
    low, high = verdict.ci95
    return f"{verdict.difference:+.2f} [{low:+.2f}, {high:+.2f}], p = {verdict.p_adjusted:.2g}"
