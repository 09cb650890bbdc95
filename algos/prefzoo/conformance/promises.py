"""From what was seen to findings, one function for each promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefzoo.atomic_files import file_sha256
from prefzoo.conformance.findings import Finding
from prefzoo.interface import Algorithm
from prefzoo.settings import Adapter, Budget

TOLERANCE = 1e-4
"""Log-probabilities (nats a token) that differ by less are the same; batches of other shapes round differently."""


@dataclass(frozen=True)
class Trials:
    """What three small trials of one algorithm left behind.

    Attributes:
        algorithm: the algorithm, with its default hyper-parameters.
        adapter, budget: what the trials were given.
        first, again, other: what the probe saw: a trial, the same one once more, and one with another seed.
        policies: their saved policies' folders, in that order.
        replies: what the saved policies answered to the test prompts, in that order; None where that failed.
        reloaded: the first policy's answers after loading it here, or the error that this ended with.
        start: the log-probabilities that the start gives to the replies asked for.
    """

    algorithm: Algorithm
    adapter: Adapter
    budget: Budget
    first: dict[str, Any]
    again: dict[str, Any]
    other: dict[str, Any]
    policies: tuple[Path, Path, Path]
    replies: tuple[list[str] | None, ...]
    reloaded: dict[str, Any] | Exception
    start: list[list[float]]


def quick_findings(trials: Trials) -> Iterator[Finding]:
    """All findings that small trials allow."""
    for judge in (reloads, repeats, seed, budget, ledger, base, changes):
        yield judge(trials)


def reloads(trials: Trials) -> Finding:
    if isinstance(trials.reloaded, Exception):
        error = trials.reloaded
        return Finding("reloads", "broken", f"the saved policy does not load: {type(error).__name__}: {error}")
    before, after = trials.first["answers"], trials.reloaded
    if "log_probabilities" in before:
        gap = furthest(before["log_probabilities"], after["log_probabilities"])
        if not gap <= TOLERANCE:
            said = f"log-probabilities of the loaded policy are up to {gap:.3g} nats a token from the returned one's"
            return Finding("reloads", "broken", said)
        return Finding("reloads", "kept", f"log-probabilities within {gap:.1g} nats a token")
    if before["replies"] != after["replies"]:
        return Finding(
            "reloads", "broken", "with the same seed, the loaded policy answers otherwise than the returned one"
        )
    return Finding("reloads", "kept", f"the same {len(before['replies'])} replies under a seed")


def repeats(trials: Trials) -> Finding:
    first, again = trials.first["answers"], trials.again["answers"]
    weights, once_more = (_weights(folder) for folder in trials.policies[:2])
    if weights != once_more:
        names = sorted(n for n in {*weights, *once_more} if weights.get(n) != once_more.get(n))
        return Finding("repeats", "broken", f"two trainings with one seed saved other weights ({', '.join(names)})")
    if first != again:
        return Finding("repeats", "broken", "two trainings with one seed returned policies that answer differently")
    if trials.replies[0] != trials.replies[1]:
        return Finding("repeats", "broken", "two trainings with one seed gave other replies to the test prompts")
    return Finding("repeats", "kept", f"{len(weights)} weight files and all replies are equal")


def seed(trials: Trials) -> Finding:
    if not trials.algorithm.trains:
        return Finding("seed", "untried", "nothing is trained")
    if _weights(trials.policies[0]) == _weights(trials.policies[2]):
        return Finding("seed", "broken", "trainings with two seeds saved the same weights: `bench.seed` is not used")
    return Finding("seed", "kept", "the weights differ")


def budget(trials: Trials) -> Finding:
    seen, epochs = trials.first, trials.budget.epochs
    per_row = trials.algorithm.replies_per_row if trials.algorithm.trains else 0
    allowed = seen["rows"] * per_row * epochs
    how = f"{seen['rows']} rows x {per_row} replies a row x {epochs:g} epochs"
    if seen["sequences"] > allowed:
        said = f"{seen['sequences']} sequences were trained on; the budget allows {allowed:g} ({how})"
        return Finding("budget", "broken", said)
    if seen["strangers"]:
        said = f"sequences hold no prompt of bench.data, for example {seen['strangers'][0]!r}"
        return Finding("budget", "broken", said)
    return Finding("budget", "kept", f"{seen['sequences']} sequences of {allowed:g} ({how})")


def ledger(trials: Trials) -> Finding:
    seen, charged = trials.first, trials.first["charged"]
    missing = [
        f"{seen[what]} {what.replace('_', ' ')} were seen, {charged[what]} charged"
        for what in ("trained_tokens", "generated_tokens", "reward_calls")
        if charged[what] < seen[what]
    ]
    if missing:
        return Finding("ledger", "broken", "; ".join(missing))
    return Finding("ledger", "kept", ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in charged.items()))


def base(trials: Trials) -> Finding:
    if not trials.first["start_untouched"]:
        return Finding("base", "broken", "the files in bench.start were changed; all trials share them")
    answers = trials.first["answers"]
    if trials.algorithm.trains and "adapted" in answers and trials.adapter.type != "full" and not answers["adapted"]:
        said = f"the recipe's adapter is {trials.adapter.type!r}, but the policy is a whole model without one"
        return Finding("base", "broken", said)
    reloaded = {} if isinstance(trials.reloaded, Exception) else trials.reloaded
    for which, policy in (("returned", answers), ("loaded", reloaded)):
        if "adapter_off" in policy and not (gap := furthest(policy["adapter_off"], trials.start)) <= TOLERANCE:
            said = f"with its adapter off, the {which} policy is up to {gap:.3g} nats a token from the start"
            return Finding("base", "broken", said)
    off = "; with the adapter off the policy is the start" if "adapter_off" in answers else ""
    return Finding("base", "kept", f"the start's files are the same{off}")


def changes(trials: Trials) -> Finding:
    answers = trials.first["answers"]
    if not trials.algorithm.trains:
        if trials.first["sequences"] or trials.first["charged"]["trained_tokens"]:
            return Finding("changes", "broken", "it declares `trains = False`, but trained on something")
        return Finding("changes", "untried", "it declares that nothing is trained, and nothing was")
    if "log_probabilities" not in answers:
        return Finding("changes", "untried", "the policy gives no log-probabilities")
    gap = furthest(answers["log_probabilities"], trials.start)
    if gap <= TOLERANCE:
        return Finding(
            "changes", "broken", "the policy gives every reply the start's log-probability: nothing was trained"
        )
    return Finding("changes", "kept", f"log-probabilities moved by up to {gap:.2g} nats a token")


def furthest(a: list[list[float]], b: list[list[float]]) -> float:
    """The largest difference between two sets of log-probabilities; not a number if one of them is none."""
    return float(np.max(np.abs(np.subtract(np.concatenate(a), np.concatenate(b)))))


def _weights(folder: Path) -> dict[str, str]:
    """Weight files of a policy and what they hold."""

    return {str(f.relative_to(folder)): file_sha256(f) for f in folder.rglob("*.safetensors")}
