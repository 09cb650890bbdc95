"""How much each label's search may use where labels get the same FLOPs or seconds, not the same number of trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from prefzoo.run.label_search import LabelSearch, Trial

CLOSE = 0.05
"""Labels end within this share of the allowance: less than that pays for no further trial."""


@dataclass
class Allowance:
    """What every label may use.

    Attributes:
        unit: `flops` or `seconds`, by the ledger of trials.
        amount: `trials` times what the first trial of the dearest label took; None until all first trials have ended.
        prompts: training prompts of a whole trial.
        least: training prompts without which nothing can be trained.
    """

    unit: str
    amount: float | None = None
    prompts: int = 1
    least: int = 1

    def fix(self, searches: Sequence[LabelSearch], trials: int) -> bool:
        """Set the amount, if it is not set and all first trials have ended; True when it was set now."""
        if self.amount is not None or not all(search.told or search.stopped for search in searches):
            return False
        self.amount = trials * max(self._cost(search.trials[0]) for search in searches)
        return True

    def spent(self, search: LabelSearch) -> float:
        """What a label's trials that have ended took."""
        return sum(self._cost(trial) for trial in search.trials[: search.told])

    def left(self, search: LabelSearch) -> float:
        """What a label may still use; 0 where that is too little for a trial, or its trials all fail."""
        assert self.amount is not None
        left = self.amount - self.spent(search)
        known = _whole_trials(search)
        failed = sum(trial.state == "failed" for trial in search.trials)
        if left <= CLOSE * self.amount or failed >= search.tuning.trials:
            return 0.0
        # Of a trial on too few prompts, measuring alone may take more than twice what is left.
        cheapest = min((self._at(trial, self.least / self.prompts) for trial in known), default=0.0)
        return left if cheapest <= 2 * left else 0.0

    def fit(self, search: LabelSearch, values: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """The share of a trial's training prompts that what is left pays for: 1, or the last trials' less.

        Settings that would be too dear on the fewest prompts, too, get the whole numbers of the cheapest trial so far.

        Returns:
            The settings and the share.
        """
        assert self.amount is not None
        left = self.left(search)
        most = left + CLOSE / 2 * self.amount
        whole, measuring = self._expected(search, values)
        if whole <= most:
            return dict(values), 1.0
        values = dict(values)
        if measuring + self.least / self.prompts * (whole - measuring) > most:
            cheapest = min(_whole_trials(search), key=self._cost)
            values |= {key: cheapest.values[key] for key in _numbers(search)}
            whole, measuring = self._cost(cheapest), self._measuring(cheapest)
        affordable = (left - measuring) / max(whole - measuring, 1e-9)
        return values, min(self.prompts, max(self.least, math.floor(affordable * self.prompts))) / self.prompts

    def _expected(self, search: LabelSearch, values: Mapping[str, Any]) -> tuple[float, float]:
        """What a whole trial with these settings takes at most, and the part of it that measuring takes.

        By trials that have ended: as much as those with the same whole numbers (epochs, replies to a prompt), or more
        in proportion to each that is larger. Other settings hardly change what a training takes.
        """
        numbers = _numbers(search)
        alike: dict[tuple[Any, ...], list[Trial]] = {}
        for trial in _whole_trials(search):
            alike.setdefault(tuple(trial.values[key] for key in numbers), []).append(trial)
        expected = [
            (
                fmean(map(self._cost, trials))
                * math.prod(max(1.0, values[key] / max(1, before)) for key, before in zip(numbers, known, strict=True)),
                fmean(map(self._measuring, trials)),
            )
            for known, trials in alike.items()
        ]
        return min(expected, default=(0.0, 0.0))

    def _cost(self, trial: Trial) -> float:
        return trial.ledger[self.unit]

    def _measuring(self, trial: Trial) -> float:
        return sum(seed.measuring.get(self.unit, 0.0) for seed in trial.seeds)

    def _at(self, trial: Trial, share: float) -> float:
        """What a trial would have taken on a share of its prompts."""
        measuring = self._measuring(trial)
        return measuring + share * (self._cost(trial) - measuring)


def _numbers(search: LabelSearch) -> list[str]:
    """The settings on which the cost of a trial depends: those of whole numbers."""
    return [key for key, tried in search.space.items() if tried.whole and not tried.choices]


def _whole_trials(search: LabelSearch) -> list[Trial]:
    return [t for t in search.trials[: search.told] if t.state == "complete" and t.share == 1]
