"""What small trainings of one algorithm left behind."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prefzoo.conformance.probe import ObservedTrial
from prefzoo.conformance.vary import Variations
from prefzoo.interface import Algorithm
from prefzoo.settings import Adapter, Budget, Generation, Training


@dataclass(frozen=True)
class Trials:
    """What small trainings of one algorithm left behind.

    Attributes:
        algorithm: the algorithm, with the hyper-parameters that it is tried with.
        adapter, budget, generation, training: the recipe's blocks of those names.
        first, other: a trial, and one with another seed.
        again: the first one once more, with other rows in the place of those that policies are measured by; the error
            where that failed.
        same: whether it ended with the same weights and answers as the first; where it did not, `repeated` says whether
            one more, with the rows in their place, did.
        policies: folders of the saved policies: of the first trial, of its repetition, of the other seed's.
        replies: what the first two saved policies answered to the test prompts; None where that failed.
        reloaded: the first policy's answers after loading it here, or the error that this ended with.
        start: the log-probabilities that the start gives to the replies asked for.
        hidden: prompts of the rows that policies are measured by.
        variations: what changed what is learned; the error where that could not be tried.
        resumed: of a training that was killed: `{"killed": whether it came so far, "same": whether it ended alike}`;
            the error where it did not end.
    """

    algorithm: Algorithm
    adapter: Adapter
    budget: Budget
    generation: Generation
    training: Training
    first: ObservedTrial
    other: ObservedTrial
    again: ObservedTrial | str
    same: bool
    policies: tuple[Path, Path, Path]
    replies: tuple[list[str] | None, ...]
    reloaded: dict[str, Any] | Exception
    start: list[list[float]]
    repeated: bool | None = None
    hidden: frozenset[str] = frozenset()
    variations: Variations | str = "not tried"
    resumed: Mapping[str, Any] | str = field(default_factory=lambda: {"killed": False, "same": True})


def furthest(a: list[list[float]], b: list[list[float]]) -> float:
    """The largest difference between two sets of log-probabilities; not a number if one of them is none."""
    return float(np.max(np.abs(np.subtract(np.concatenate(a), np.concatenate(b)))))


def weight_hashes(folder: Path) -> dict[str, str]:
    """Return a hash of each weight file of a saved policy."""
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*.safetensors")
    }
