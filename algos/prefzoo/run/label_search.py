"""The search for one label's settings: Optuna is asked what to try and told how it went, always in the same order.

Nothing of Optuna's is read again by a later call. That call asks anew, tells what the stages left, and so gets the same
answers: they depend neither on the order in which trials end, nor on how often the search was interrupted.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
import optuna

from prefzoo.ledger import CHARGES
from prefzoo.recipe.tuning_settings import Tuning
from prefzoo.run.stage_graph import Stage
from prefzoo.types import Range

optuna.logging.set_verbosity(optuna.logging.WARNING)

DIGITS = 4
"""Significant digits of a number that is tried, so that people can read and repeat it."""
SEARCHES = 2000
"""Searches that are drawn to see how much what they find differs."""


@dataclass(frozen=True)
class Measured:
    """What one seed of a trial, or the start, scored on the validation prompts.

    Attributes:
        scores: one a prompt.
        kl: mean nats a reply; None where the policy has none.
        length: mean tokens a reply.
        ledger: of training and measuring.
        measuring: the part of it that measuring took.
    """

    scores: Sequence[float]
    kl: float | None
    length: float
    ledger: Mapping[str, float]
    measuring: Mapping[str, float]


@dataclass
class Trial:
    """Settings that are tried.

    Attributes:
        number: counts the label's trials; 0 are the settings as written.
        values: by dotted setting.
        asked: what Optuna is told by; None for settings as written that are outside what is tried, and for others than
            were asked for.
        share: of a trial's training prompts, that it has.
        stages: one a seed, in order, as far as they were begun.
        measured: name of a stage -> what its seed scored.
        same_as: an earlier trial with the same settings, which counts for this one.
        costs: the ledger of a trial that failed, as far as it is known.
    """

    number: int
    values: dict[str, Any]
    asked: optuna.trial.Trial | None = None
    share: float = 1.0
    stages: list[Stage] = field(default_factory=list)
    measured: dict[str, Measured] = field(default_factory=dict)
    state: Literal["running", "complete", "pruned", "failed"] = "running"
    error: str | None = None
    same_as: Trial | None = None
    costs: Mapping[str, float] = field(default_factory=dict)

    @property
    def seeds(self) -> list[Measured]:
        """What the seeds that ended scored, in the order of the seeds."""
        return [self.measured[stage.name] for stage in self.stages if stage.name in self.measured]

    @property
    def score(self) -> float | None:
        """The mean over prompts and seeds; None where it failed."""
        return fmean(fmean(seed.scores) for seed in self.seeds) if self.seeds and self.state != "failed" else None

    @property
    def standard_error(self) -> float | None:
        """Of the score, over prompts."""
        if self.score is None or len(self.seeds[0].scores) < 2:
            return None
        means = [fmean(scores) for scores in zip(*(seed.scores for seed in self.seeds), strict=True)]
        return stdev(means) / math.sqrt(len(means))

    @property
    def ledger(self) -> dict[str, float]:
        """What it used, all seeds together; the peak is that of the largest."""
        used = [seed.ledger for seed in self.seeds] + ([self.costs] if self.costs else [])
        whole = {name: sum(ledger.get(name, 0) for ledger in used) for name in (*CHARGES, "seconds")}
        return {**whole, "peak_memory_bytes": max((ledger.get("peak_memory_bytes", 0) for ledger in used), default=0)}


class LabelSearch:
    """Asks and tells Optuna about one label.

    Args:
        label: in the recipe.
        space: what is tried of each dotted setting.
        written: the same settings as the recipe has them; None where that is not known.
        tuning: the recipe's block.
        journal: Optuna's storage, to which trials that have ended are written for people to look at.
        stage: `stage(trial, seed)` makes the stage of a trial with the seed of that number.
    """

    def __init__(
        self,
        label: str,
        space: Mapping[str, Range],
        written: Mapping[str, Any],
        tuning: Tuning,
        journal: optuna.storages.BaseStorage,
        stage: Callable[[Trial, int], Stage],
    ) -> None:
        self.label, self.space, self.written, self.tuning, self.stage = label, space, written, tuning, stage
        self.trials: list[Trial] = []
        self.told = 0
        self.stopped: str | None = None
        seed = int.from_bytes(hashlib.sha256(f"{tuning.seed} {label}".encode()).digest()[:4], "big")
        first = math.ceil(tuning.trials / 2)
        self.free = first if tuning.sampler == "tpe" else tuning.trials
        with warnings.catch_warnings():  # that the pruner, and TPE's being multivariate, may change in a later Optuna
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler, pruner = _sampler(tuning, first, seed), optuna.pruners.WilcoxonPruner()
        self.study = optuna.create_study(study_name=label, direction="maximize", sampler=sampler, pruner=pruner)
        self.journal = optuna.create_study(storage=journal, study_name=label, direction="maximize")
        self.distributions = {key: _distribution(tried) for key, tried in space.items()}
        self.queue: list[dict[str, Any]] | None = None
        if all(tried.holds(written[key]) for key, tried in space.items()):
            self.study.enqueue_trial(dict(written))
        if tuning.sampler == "grid":
            self.queue = _grid(space, written, tuning.trials - 1, seed)
            for values in self.queue:
                self.study.enqueue_trial(values)

    @property
    def most(self) -> int:
        """How many trials there are where each label has the same number of them."""
        return self.tuning.trials if self.queue is None else 1 + len(self.queue)

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score, the earlier of two; None where all failed."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return max(complete, key=lambda trial: (trial.score, -trial.number), default=None)

    @property
    def winner(self) -> dict[str, Any]:
        """The settings of the best trial that are not as they were written."""
        best = self.best.values if self.best is not None else {}
        return {key: value for key, value in best.items() if value != self.written[key]}

    @property
    def search_sd(self) -> float | None:
        """The standard deviation of what searches like this one find; None where no trial has a score."""
        scored = [trial for trial in self.trials[: self.told] if trial.score is not None]
        rows = [[fmean(each) for each in zip(*(s.scores for s in t.seeds), strict=True)] for t in scored]
        return winner_sd(np.array(rows)) if rows else None

    def ask(self, fit: Callable[[Mapping[str, Any]], tuple[dict[str, Any], float]]) -> tuple[Trial, list[Stage]]:
        """The next trial, and the stages that it begins with: none, where an earlier one had the same settings.

        Args:
            fit: makes of settings those that are tried, and the share of the training prompts that they get; of others
                than were asked for, Optuna is not told.
        """
        number = len(self.trials)
        if number == 0 and not all(tried.holds(self.written[key]) for key, tried in self.space.items()):
            trial = Trial(number, dict(self.written))
        else:
            asked = self.study.ask(self.distributions)
            rounded = {key: _rounded(value) for key, value in asked.params.items()}
            inside = {key: value for key, value in rounded.items() if number and self.space[key].holds(value)}
            trial = Trial(number, {**asked.params, **inside}, asked)
        values, trial.share = fit(trial.values)
        if values != trial.values:
            trial.values, trial.asked = values, None
        alike = [other for other in self.trials if (other.values, other.share) == (trial.values, trial.share)]
        self.trials.append(trial)
        if alike:
            trial.same_as = alike[0]
            return trial, []
        seeds = self.tuning.seeds if number == 0 else 1  # whether another one goes on is decided seed by seed
        return trial, [self._begin(trial) for _ in range(seeds)]

    def _begin(self, trial: Trial) -> Stage:
        stage = self.stage(trial, len(trial.stages))
        trial.stages.append(stage)
        return stage

    def fail(self, trial: Trial, error: str, costs: Mapping[str, float]) -> None:
        """Note that a seed of a trial failed."""
        trial.state, trial.error, trial.costs = "failed", trial.error or error, costs

    def tell(self) -> tuple[list[Trial], list[Stage]]:
        """Tell Optuna about trials that have ended, in their order; return these, and stages of further seeds."""
        ended, begun = [], []
        while self.told < len(self.trials):
            trial = self.trials[self.told]
            if trial.same_as is not None:
                same = trial.same_as
                trial.stages, trial.measured = same.stages, same.measured
                trial.state, trial.error, trial.costs = same.state, same.error, same.costs
            elif trial.state != "failed" and len(trial.seeds) < self.tuning.seeds:
                if len(trial.seeds) < len(trial.stages) or not trial.seeds:
                    break
                if not self._hopeless(trial):
                    begun.append(self._begin(trial))
                    break
                trial.state = "pruned"
            elif trial.state != "failed":
                trial.state = "complete"
            self._tell(trial)
            self.told += 1
            ended.append(trial)
        return ended, begun

    def _hopeless(self, trial: Trial) -> bool:
        """Whether Optuna would prune a trial by the seeds that it has."""
        if trial.asked is None:
            return False
        self._report(trial)
        return trial.asked.should_prune()

    def _report(self, trial: Trial) -> None:
        """Tell the pruner the score of each prompt, by which it pairs trials."""
        assert trial.asked is not None
        scores = [score for seed in trial.seeds for score in seed.scores]
        reported = len(self.study.trials[trial.asked.number].intermediate_values)
        for step in range(reported, len(scores)):
            trial.asked.report(scores[step], step)

    def _tell(self, trial: Trial) -> None:
        if trial.asked is None:
            return
        if trial.score is None:
            told = self.study.tell(trial.asked, state=optuna.trial.TrialState.FAIL)
        else:
            if self.tuning.seeds > 1:
                self._report(trial)
            told = self.study.tell(trial.asked, trial.score)
        self.journal.add_trial(told)


def winner_sd(scores: np.ndarray) -> float:
    """The standard deviation, from search to search, of what the winner scores.

    Other searches are drawn from one: its first trial, so many of the others, with replacement, and so many of the
    prompts by which one of them wins.

    Args:
        scores: (trials x prompts).
    """
    rng, (count, prompts) = np.random.default_rng(0), scores.shape
    drawn = rng.integers(min(1, count - 1), count, size=(SEARCHES, count))
    drawn[:, 0] = 0
    often = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=SEARCHES)  # each prompt
    won = np.take_along_axis(often @ scores.T, drawn, 1).argmax(1)
    return float(scores.mean(1)[drawn[np.arange(SEARCHES), won]].std())


def _sampler(tuning: Tuning, first: int, seed: int) -> optuna.samplers.BaseSampler:
    if tuning.sampler != "tpe":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(n_startup_trials=first, multivariate=True, constant_liar=False, seed=seed)


def _distribution(tried: Range) -> optuna.distributions.BaseDistribution:
    if tried.choices:
        return optuna.distributions.CategoricalDistribution(tried.choices)
    if tried.whole:
        return optuna.distributions.IntDistribution(int(tried.low), int(tried.high), log=tried.log)
    return optuna.distributions.FloatDistribution(tried.low, tried.high, log=tried.log)


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _grid(space: Mapping[str, Range], written: Mapping[str, Any], most: int, seed: int) -> list[dict[str, Any]]:
    """At most so many points of a grid, in an order drawn by the seed: all choices, and of each range as many points,
    its ends among them, as make the grid large enough. The point that is written is left out."""
    points = 1
    while True:
        points += 1
        axes = {key: _points(tried, points) for key, tried in space.items()}
        grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        grid = [values for values in grid if values != dict(written)]
        if len(grid) >= most or points > most + 1:
            random.Random(seed).shuffle(grid)
            return grid[:most]


def _points(tried: Range, points: int) -> list[Any]:
    if tried.choices:
        return list(tried.choices)
    low, high = (math.log(tried.low), math.log(tried.high)) if tried.log else (tried.low, tried.high)
    spread = [low + (high - low) * i / (points - 1) for i in range(points)]
    values = [math.exp(value) for value in spread] if tried.log else spread
    if tried.whole:
        return list(dict.fromkeys(round(value) for value in values))
    return [min(max(_rounded(float(value)), tried.low), tried.high) for value in values]
