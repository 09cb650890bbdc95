"""From what was seen to findings, one function for each promise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefzoo.conformance.findings import Finding
from prefzoo.conformance.probe import ObservedTrial, is_alike, plain
from prefzoo.conformance.trials import Trials, furthest, weight_hashes
from prefzoo.conformance.vary import Variations
from prefzoo.interface import Algorithm
from prefzoo.trainers.recipe_deviations import expected_facts, find_deviations

TOLERANCE = 1e-4
"""Log-probabilities (nats a token) that differ by less are the same; batches of other shapes round differently."""
SLACK = 0.98
"""A ledger may hold a little less than was seen: how weights and padding are counted is a matter of definition."""
FIXED = 8
"""So many sampled replies, or more, that two seeds have in common were drawn by one."""


def quick_findings(trials: Trials) -> Iterator[Finding]:
    """All findings that small trials allow."""
    for promise in (
        reloads,
        repeats,
        seed,
        unseen,
        budget,
        recipe,
        sampling,
        settings,
        ledger,
        base,
        changes,
        resumes,
    ):
        yield promise(trials)


def reloads(trials: Trials) -> Finding:
    if isinstance(trials.reloaded, Exception):
        error = trials.reloaded
        return _broken_finding("reloads", f"the saved policy does not load: {type(error).__name__}: {error}")
    before, after = trials.first.answers or {}, trials.reloaded
    if "log_probabilities" in before:
        gap = furthest(before["log_probabilities"], after["log_probabilities"])
        if not gap <= TOLERANCE:
            return _broken_finding(
                "reloads",
                f"log-probabilities of the loaded policy are up to {gap:.3g} nats a token from the returned one's",
            )
        return _kept_finding("reloads", f"log-probabilities within {gap:.1g} nats a token")
    if before["replies"] != after["replies"]:
        return _broken_finding(
            "reloads", "with the same seed, the loaded policy answers otherwise than the returned one"
        )
    return _kept_finding("reloads", f"the same {len(before['replies'])} replies under a seed")


def repeats(trials: Trials) -> Finding:
    if not trials.same:
        if trials.repeated:
            return _kept_finding("repeats", "with all rows in their place two trainings came out alike")
        weights, once_more = (weight_hashes(folder) for folder in trials.policies[:2])
        names = sorted(n for n in {*weights, *once_more} if weights.get(n) != once_more.get(n))
        if names:
            return _broken_finding("repeats", f"two trainings with one seed saved other weights ({', '.join(names)})")
        return _broken_finding("repeats", "two trainings with one seed returned policies that answer differently")
    if trials.replies[0] != trials.replies[1]:
        return _broken_finding("repeats", "two trainings with one seed gave other replies to the test prompts")
    return _kept_finding("repeats", f"{len(weight_hashes(trials.policies[0]))} weight files and all replies are equal")


def seed(trials: Trials) -> Finding:
    if not trials.algorithm.trains:
        return Finding("seed", "untried", "nothing is trained")
    if weight_hashes(trials.policies[0]) == weight_hashes(trials.policies[2]):
        return _broken_finding("seed", "trainings with two seeds saved the same weights: `bench.seed` is not used")
    both = zip(trials.first.trainings, trials.other.trainings, strict=False)
    if fixed := [one["trainer"] for one, other in both if "seed" in one and one["seed"] == other.get("seed")]:
        return _broken_finding("seed", f"{fixed[0]} had the same seed in trainings with two: `bench.seed` is not used")
    return _kept_finding("seed", "the weights differ")


def unseen(trials: Trials) -> Finding:
    opened = sorted({file for trial in (trials.first, trials.again) for file in getattr(trial, "opened", ())})
    if opened:
        names = ", ".join("/".join(Path(file).parts[-2:]) for file in opened[:3])
        return _broken_finding("unseen", f"it opened files that no training may read: {names}")
    known = {plain(prompt) for prompt in trials.hidden}
    if measured := [text for text in trials.first.foreign_sequences if any(prompt in text for prompt in known)]:
        return _broken_finding(
            "unseen", f"a prompt that policies are measured by passed through a model: {measured[0]!r}"
        )
    if not trials.same:
        if trials.repeated:
            how = trials.again if isinstance(trials.again, str) else "it learns something else"
            return _broken_finding("unseen", f"with other rows in the place of the test and validation rows: {how}")
        return Finding("unseen", "untried", "a training does not repeat even with the same rows")
    return _kept_finding("unseen", "other test and validation rows change nothing")


def budget(trials: Trials) -> Finding:
    trial, epochs = trials.first, trials.budget.epochs
    per_row = trials.algorithm.replies_per_row if trials.algorithm.trains else 0
    allowed = trial.rows * per_row * epochs
    how = f"{trial.rows} rows x {per_row} replies a row x {epochs:g} epochs"
    if trial.sequences > allowed:
        return _broken_finding(
            "budget", f"{trial.sequences} sequences were trained on; the budget allows {allowed:g} ({how})"
        )
    beyond, many = trial.excess_passes
    if many:
        return _broken_finding(
            "budget",
            f"{many} sequences of the data passed up to {beyond} times more often than the {epochs:g} epochs of the "
            "recipe, whatever `replies_per_row` says: that is for what an algorithm samples",
        )
    if longer := [t["budget.epochs"] for t in trial.trainings if t["budget.epochs"] > epochs * (1 + 1e-6)]:
        return _broken_finding("budget", f"a trainer was given {max(longer):g} epochs, and the recipe has {epochs:g}")
    if trial.foreign_sequences:
        return _broken_finding(
            "budget", f"sequences hold no prompt of bench.data, for example {trial.foreign_sequences[0]!r}"
        )
    usual = 2 if {"preferences", "unpaired"} & trials.algorithm.needs else 1
    own = (
        f"; it allows itself {per_row} a row, where {usual} is usual, and the report says so" if per_row > usual else ""
    )
    if (models := trials.algorithm.models_on_data) > 1:
        own += f"; {models} models learn from the data's rows"
    return _kept_finding("budget", f"{trial.sequences} sequences of {allowed:g} ({how}{own})")


def recipe(trials: Trials) -> Finding:
    if not trials.algorithm.trains:
        return Finding("recipe", "untried", "nothing is trained")
    expected = expected_facts(trials.adapter, trials.budget, trials.generation, trials.training)
    facts = [*trials.first.trainings, trials.first.adapter]
    problems, admitted = [], []
    for key, values in find_deviations(expected, facts, trials.algorithm.trainer).items():
        wanted, used = expected[key], ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        if name := _explained(trials.algorithm, key, wanted, values):
            admitted.append(f"{key} is {used} by its setting {name}")
        else:
            problems.append(f"{key} is {wanted} in the recipe, and {used} was used")
    variations = trials.variations
    if isinstance(variations, Variations) and variations.repeatable:
        problems += _ignored(variations, "adapter.", "training.", "budget.")
        if not variations.milestones:
            problems.append("no policy was kept on the way where two milestones were asked for")
    if problems:
        return _broken_finding("recipe", "; ".join(problems))
    tried = ", ".join(
        k for k in getattr(variations, "with_effect", ()) if k.startswith(("adapter.", "training.", "budget."))
    )
    parts = [f"trainings that are as the recipe says: {len(trials.first.trainings)}", *admitted]
    return _kept_finding("recipe", "; ".join([*parts, *([f"what is learned changes with {tried}"] if tried else [])]))


def sampling(trials: Trials) -> Finding:
    trial, generation = trials.first, trials.generation
    own = [batch for batch in trial.batches if not batch["by_assistant"]]
    unlike = [batch for batch in own if batch["sampling"] and not is_alike(batch, generation)]
    problems = []
    if unlike:
        names = ("temperature", "max_new_tokens", "top_p", "top_k")
        how = ", ".join([*(f"{name} {unlike[0][name]}" for name in names), *unlike[0]["altered"]])
        wanted_settings = (
            f"temperature {generation.temperature}, max_new_tokens {generation.max_new_tokens}, and no truncation"
        )
        problems.append(f"it sampled with {how}; the recipe says {wanted_settings}")
    if trial.learned_greedily:
        problems.append(f"{trial.learned_greedily} replies that it trained on were not sampled as the recipe says")
    if _drawn_by_one_seed(trial, trials.other):
        problems.append("it sampled the same replies with two seeds: `bench.seed` is not used")
    if isinstance(trials.variations, Variations) and trials.variations.repeatable:
        problems += _ignored(trials.variations, "generation.")
    if problems:
        return _broken_finding("sampling", "; ".join(problems))
    if not own and not trial.generated_digests:
        return Finding("sampling", "untried", "nothing is sampled in training")
    return _kept_finding("sampling", f"{sum(len(batch['rows']) for batch in own)} replies, others with another seed")


def settings(trials: Trials) -> Finding:
    variations = trials.variations
    if isinstance(variations, str):
        return Finding("settings", "untried", variations)
    if not variations.repeatable:
        return Finding("settings", "untried", "two trainings in one process came out differently")
    own = {f"{name}": values for name, values in variations.without_effect.items() if "." not in name}
    if own:
        shown = "; ".join(f"{name} ({', '.join(map(_shown, values))})" for name, values in own.items())
        return _broken_finding("settings", f"other values change nothing, alone or beside other settings: {shown}")
    changed = [name for name in variations.with_effect if "." not in name]
    untried = f"; not tried: {', '.join(variations.untried)}" if variations.untried else ""
    if not changed:
        return Finding("settings", "untried", f"it has none that could be varied{untried}")
    return _kept_finding("settings", f"{', '.join(changed)}{untried}")


def ledger(trials: Trials) -> Finding:
    seen, charged = trials.first.seen, trials.first.charged
    missing = [
        f"{seen[name]:.6g} {name.replace('_', ' ')} were seen, {charged[name]:.6g} charged"
        for name in seen
        if charged[name] < seen[name] * (1.0 if name.endswith("_calls") else SLACK)
    ]
    if trials.first.prompts_charged < trials.first.prompts_seen:
        missing.append(f"{trials.first.prompts_seen} prompts were taken up, {trials.first.prompts_charged} charged")
    if missing:
        return _broken_finding("ledger", "; ".join(missing))
    return _kept_finding("ledger", ", ".join(f"{n:.6g} {name.replace('_', ' ')}" for name, n in charged.items()))


def base(trials: Trials) -> Finding:
    if not trials.first.start_untouched:
        return _broken_finding("base", "the files in bench.start were changed; all trials share them")
    answers = trials.first.answers or {}
    if trials.algorithm.trains and "adapted" in answers and trials.adapter.type != "full" and not answers["adapted"]:
        return _broken_finding(
            "base", f"the recipe's adapter is {trials.adapter.type!r}, but the policy is a whole model without one"
        )
    reloaded = {} if isinstance(trials.reloaded, Exception) else trials.reloaded
    for which, policy in (("returned", answers), ("loaded", reloaded)):
        if "adapter_off" in policy and not (gap := furthest(policy["adapter_off"], trials.start)) <= TOLERANCE:
            return _broken_finding(
                "base", f"with its adapter off, the {which} policy is up to {gap:.3g} nats a token from the start"
            )
    off = "; with the adapter off the policy is the start" if "adapter_off" in answers else ""
    return _kept_finding("base", f"the start's files are the same{off}")


def changes(trials: Trials) -> Finding:
    answers = trials.first.answers or {}
    if not trials.algorithm.trains:
        if trials.first.sequences or trials.first.charged["trained_tokens"]:
            return _broken_finding("changes", "it declares `trains = False`, but trained on something")
        return Finding("changes", "untried", "it declares that nothing is trained, and nothing was")
    if "log_probabilities" not in answers:
        return Finding("changes", "untried", "the policy gives no log-probabilities")
    gap = furthest(answers["log_probabilities"], trials.start)
    if gap <= TOLERANCE:
        return _broken_finding(
            "changes", "the policy gives every reply the start's log-probability: nothing was trained"
        )
    return _kept_finding("changes", f"log-probabilities moved by up to {gap:.2g} nats a token")


def resumes(trials: Trials) -> Finding:
    resumed = trials.resumed
    if isinstance(resumed, str):
        return _broken_finding("resumes", f"a training that was killed did not go on: {resumed}")
    if not resumed["killed"]:
        return Finding("resumes", "untried", "no optimizer made as many steps as a training is killed after")
    if not trials.same and not trials.repeated:
        return Finding("resumes", "untried", "a training does not repeat even if it is not killed")
    if not resumed["same"]:
        return _broken_finding(
            "resumes", "a training that was killed midway ended with other weights than one that was not"
        )
    how = "it went on from a checkpoint" if resumed.get("checkpoint_files") else "it began anew"
    return _kept_finding("resumes", f"{how}, to the same weights")


def _explained(algorithm: Algorithm, key: str, wanted: Any, values: list[Any]) -> str | None:
    """The hyper-parameter that a training argument is, or by which the recipe's is multiplied; it stands in the recipe
    beside the label, so that a reader sees it."""
    if not key.startswith("training."):
        return None
    own = {f.name: getattr(algorithm, f.name) for f in dataclasses.fields(algorithm) if f.name != "trainer"}
    for name, value in own.items():
        if isinstance(value, float) and isinstance(wanted, int | float):
            meant = (value, wanted * value)
            if all(any(math.isclose(used, candidate, rel_tol=1e-6) for candidate in meant) for used in values):
                return name
    return None


def _ignored(variations: Variations, *blocks: str) -> list[str]:
    return [
        f"{key} changes nothing (tried: {', '.join(map(_shown, values))}): it is not used"
        for key, values in variations.without_effect.items()
        if key.startswith(blocks)
    ]


def _drawn_by_one_seed(first: ObservedTrial, other: ObservedTrial) -> bool:
    """Whether all replies of a call, or all that were trained on and are not the data's, are the other seed's too."""
    drawn = {row for batch in other.batches for row in batch["rows"]}
    calls = [set(b["rows"]) for b in first.batches if b["sampling"] and not b["by_assistant"]]
    if any(len(rows) >= FIXED and rows <= drawn for rows in calls):
        return True
    return len(first.generated_digests) >= FIXED and set(first.generated_digests) == set(other.generated_digests)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kept_finding(promise: str, message: str) -> Finding:
    return Finding(promise, "kept", message)


def _broken_finding(promise: str, message: str) -> Finding:
    return Finding(promise, "broken", message)
