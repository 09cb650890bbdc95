"""What `results.json` holds of the search for each label's settings (`tuning:` in a recipe). Types only."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

VerdictName = Literal["better", "worse", "inconclusive"]


class Block(BaseModel):
    """A block of `results.json`."""

    model_config = ConfigDict(extra="forbid")


class Objective(Block):
    """What trials are scored by, on validation prompts."""

    metric: Literal["gold", "win_rate", "reward"]
    kl_penalty: float | None = Field(
        default=None, description="of a reward: the score is reward - kl_penalty * KL, in nats a reply"
    )


class SearchedRange(Block):
    """Where a setting was searched: from `low` to `high`, or among `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Any] | None = None
    source: str | None = Field(default=None, description="who recommends it")


class TuningTrial(Block):
    """Settings that were trained with the tuning budget, and their score on validation prompts."""

    number: int = Field(description="0 has the settings as the recipe writes them")
    settings: dict[str, Any] = Field(description="dotted setting -> value, of what was searched")
    state: Literal["complete", "pruned", "failed"]
    score: float | None = Field(default=None, description="the mean over seeds and prompts; None where it failed")
    seed_scores: list[float] = []
    standard_error: float | None = Field(default=None, description="of the score, over prompts")
    kl: float | None = Field(default=None, description="to the start, in nats a reply")
    length: float | None = None
    share: float = Field(default=1.0, description="of the budget's prompts that it was trained on")
    error: str | None = None
    ledger: dict[str, float] = Field(default={}, description="training and measuring, over all seeds")
    folders: list[str] = Field(default=[], description="of its seeds, relative to results.json")


class TunedLabel(Block):
    """The search of one label."""

    space: dict[str, SearchedRange]
    trials: list[TuningTrial]
    best: int | None = Field(default=None, description="number of the trial with the highest score, of equal ones the "
                             "first; None where none has a score")  # fmt: skip
    winner: dict[str, Any] | None = Field(default=None, description="the label's settings, as a recipe writes them")
    untuned: str | None = Field(default=None, description="the label with the settings as written; None where they won")
    search_sd: float | None = Field(
        default=None,
        description="how far apart, as a standard deviation on the objective's scale, what searches like this one find "
        "is; by drawing trials and prompts again",
    )
    spent: dict[str, float] = Field(default={}, description="the ledger of all its trials")
    expected_best: list[float] = Field(
        default=[],
        description="the expected best score of 1, 2, .. trials, of which the first has the settings as written and "
        "the others are drawn from those that were tried; Dodge et al. 2019",
    )


class ChangedVerdict(Block):
    """A verdict against the start, on the test prompts, that differs between the settings as written and tuned."""

    label: str
    metric: str
    untuned: VerdictName
    tuned: VerdictName


class TuningNote(Block):
    """What a reader must know of a search."""

    kind: Literal["unfinished", "all_failed", "failed", "reward", "far_out", "edge", "kept", "shortened"]
    labels: list[str] = []
    text: str


class Tuning(Block):
    """The search for the settings of each label, each with the same budget."""

    objective: Objective
    sampler: str
    equal: Literal["trials", "flops", "seconds"]
    allowance: float | None = Field(
        default=None, description="FLOPs or seconds that each label had, where these are equal"
    )
    trials: int = Field(description="of each label; of `equal: flops` or `seconds`, as many as the dearest label has")
    seeds: list[int] = Field(description="with which each trial was trained; none of the comparison's")
    prompts: int = Field(description="validation prompts that a trial was scored on")
    budget: dict[str, Any] = Field(description="what a trial was trained on")
    seed: int = Field(description="of the sampler")
    finished: bool
    start: dict[str, float | None] | None = Field(description="score, kl and length of the start on the same prompts")
    labels: dict[str, TunedLabel]
    not_tuned: dict[str, str] = Field(default={}, description="label -> why it was not tuned")
    changed_verdicts: list[ChangedVerdict] = []
    notes: list[TuningNote] = []
