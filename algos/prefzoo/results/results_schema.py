"""What `results.json` holds: a documented, versioned contract (docs/results.schema.json). Types only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, Field

from prefzoo.results.human_schema import Human
from prefzoo.results.tuning_schema import Block, Tuning, VerdictName

Status = Literal["ok", "failed", "skipped", "waiting"]


class Summary(Block):
    """A number over all seeds and prompts, mostly the mean of a metric, and its 95% interval."""

    mean: float
    ci95: tuple[float, float] | None = Field(description="None where one number gives no interval")


class Verdict(Block):
    """a minus b on one metric, paired by seed and prompt; `p_adjusted` by Holm over its family. Higher is better, but
    of `knowledge/contradicted` lower is."""

    metric: str
    a: str
    b: str
    difference: float
    ci95: tuple[float, float]
    p_adjusted: float
    verdict: VerdictName
    family: str | None = Field(default=None, description="which verdicts Holm corrected together with this one")
    family_size: int | None = Field(default=None, description="how many those are, this one among them")
    effect_size: float | None = Field(
        default=None,
        description="Cohen's d of the paired differences (d_z): their mean over the standard deviation of single ones; "
        "None where all are equal",
    )
    detectable: float | None = Field(
        default=None,
        description="the difference that another comparison of this size finds with 80% probability, after Holm; "
        "it grows where few seeds leave the error itself uncertain",
    )
    skewness: float | None = Field(
        default=None,
        description="of the mean difference, from that of its prompts; where it is above 0.2 in size, p and the "
        "interval allow for it",
    )
    search_sd: float | None = Field(
        default=None,
        description="a standard error that p and the interval have beside that of seeds and prompts: of other settings "
        "that another search of a label might have found",
    )


class Pair(Block):
    """How often a is higher than b on the metric that decides; ties count half. Of b against a it is 1 minus this."""

    a: str
    b: str
    win_rate: Summary = Field(description="of the same seed on the same prompt")
    probability_of_improvement: Summary = Field(description="of any seed of a over any seed of b; Agarwal et al. 2021")


Axis = Literal["prompts", "generated_tokens", "flops", "seconds"]


class EqualBudget(Block):
    """The metric that decides, of the policies that one would have with the same spent on training at most."""

    axis: Axis
    budget: float = Field(description="what one of the trainings used in all: of the trials of its label, the most")
    policies: dict[str, Summary] = Field(
        description="of each trial its latest policy that had used no more, the start before its first; nothing is "
        "interpolated, and a training that ended before has its final policy"
    )
    over_start: dict[str, Summary] = Field(description="those scores minus the start's, paired by seed and prompt")
    reached: dict[str, list[str]] = Field(
        default={}, description="label -> which policy that is of each trial, in order: `start`, a milestone or `final`"
    )
    missing: dict[str, str] = Field(description="label -> why it is not among them")


Kind = Literal[
    "over_optimization",
    "past_peak",
    "slice",
    "length",
    "length_explains",
    "diversity",
    "entropy",
    "judge",
    "one_question",
    "cut_off",
]


@dataclass(frozen=True)
class Warning:
    """One warning.

    Attributes:
        kind: what it is about.
        policy: the label it is about; None for the judge who labelled the data.
        text: one sentence or two for people.
        value: the number it rests on, with its 95% interval.
    """

    kind: Kind
    policy: str | None
    text: str
    value: float
    ci95: tuple[float, float]


Interval = tuple[float, float]


@dataclass(frozen=True)
class LengthAdjusted:
    """A policy against the start, read at equal length.

    Attributes:
        difference: of the metric that decides, policy minus start, with its 95% interval; None where none is known.
        win_rate: share of prompts won, ties counted half, within 0 and 1, with its 95% interval.
        slope: how much of the metric one more token brings.
        tokens: how many tokens longer the policy's replies are in the mean.
    """

    difference: float
    difference_ci95: Interval | None
    win_rate: float
    win_rate_ci95: Interval | None
    slope: float
    tokens: float


class Call(Block):
    """What a recipe does not say of itself."""

    command: str = Field(description="the program and its arguments")
    folder: str = Field(description="where it ran, from which the recipe's relative paths start")
    registered: dict[str, str] = Field(
        description="algorithms of the recipe that are neither built in nor installed -> the file that registers each; "
        "empty where there is none"
    )
    plugins: list[str] = Field(description="those of these files that were given by `--plugin`")


class Milestone(Block):
    """A policy on the way to the final one."""

    name: str
    metrics: dict[str, float] = Field(description="as of the final policy, but for those of test pairs")
    ledger: dict[str, float] = Field(description="what the training had used by then")


class SeedResult(Block):
    """One trial: an algorithm with one seed."""

    metrics: dict[str, float] = Field(
        description="gold, gold/<attribute>, gold@<slice>, proxy, kl, length, pairs/<of test pairs>, .."
    )
    ledger: dict[str, float] = Field(description="what the trial used; see prefzoo.Ledger")
    training: dict[str, float] = Field(
        default={}, description="the part of the ledger that training used; answering the test prompts took the rest"
    )
    milestones: list[Milestone] = Field(default=[], description="policies on the way, in order")
    details: dict[str, Any] = Field(default={}, description="what the algorithm itself reports")
    judging: dict[str, Any] = Field(
        default={},
        description="where a judge decides: pairs and questions put to it about the test replies, `failures` to read "
        "an answer, `undecided` pairs that it judged in neither order, ..; see prefzoo.judges.judge.JudgeCounts",
    )
    policy: str | None = Field(default=None, description="folder of the trained policy, relative to results.json")
    replies: str = Field(description="file of every test reply with its measurements, relative to results.json")
    identity: dict[str, Any] = Field(
        default={}, description="what the trial has in common with all it may be compared with; see run.trial_identity"
    )


class Departure(Block):
    """A key of the recipe of which a label used another value, which its own settings do not say."""

    recipe: Any
    used: list[Any] = Field(description="each value once, over all trainings and seeds")


class AlgorithmResult(Block):
    """All trials of one label."""

    status: Status
    error: str | None = None
    algorithm: str
    settings: dict[str, Any]
    differs: dict[str, Any] = Field(description="training arguments that this label alone sets differently")
    departures: dict[str, Departure] = Field(
        default={}, description="what its trainings really used otherwise than the recipe says, whoever made it"
    )
    replies_per_row: int | None = Field(
        default=None, description="sequences that a row may contribute to an epoch, by the algorithm's own word"
    )
    seeds: dict[str, SeedResult]
    summary: dict[str, Summary]
    interquartile_mean: Summary | None = Field(
        default=None, description="of the metric that decides, over all seeds and prompts; Agarwal et al. 2021"
    )
    over_start: dict[str, Summary] = Field(
        default={},
        description="metric -> its difference to the start's, paired by seed and prompt; the intervals are not "
        "corrected for the number of policies or metrics",
    )
    length_adjusted: LengthAdjusted | None = Field(
        default=None, description="against the start at equal length; None where that is not known"
    )


class Results(Block):
    """The whole file."""

    schema_: Literal[1] = Field(1, alias="schema")
    recipe: dict[str, Any]
    manifest: dict[str, Any]
    versions: dict[str, str]
    algorithms: dict[str, AlgorithmResult]
    reward: dict[str, Any]
    judge: dict[str, Any] = Field({})
    preflight: dict[str, Any]
    slices: dict[str, int] = Field(default={}, description="test prompts of each slice")
    groups: int | None = Field(
        default=None,
        description="how many groups the test prompts are, whose members belong together; every mean is one over "
        "groups, each of which counts once. None where every prompt is its own group",
    )
    slice_groups: dict[str, int] = Field(default={}, description="the same of slices in which prompts belong together")
    shared: dict[str, dict[str, float]] = Field(description="ledgers of the stages that all trials share")
    notes: list[str] = Field(description="what a reader must know before believing the table")
    warnings: list[Warning] = Field(default=[], description="signs that a policy games its reward, or of a weak judge")
    verdicts: list[Verdict]
    pairs: list[Pair] = Field(default=[], description="the win matrix, each two labels once")
    equal_budgets: list[EqualBudget] = Field(
        default=[],
        description="policies with the same spent on training at most, at some budgets of each axis; where two or more "
        "were measured on their way",
    )
    workers: list[int] = Field(
        default=[], description="how many stages ran at a time, different numbers where several calls made the run"
    )
    human: Human | None = Field(default=None, description="people's answers, where the recipe names a file of them")
    ratings: dict[str, Summary] = Field(default={}, description="Bradley-Terry, in log-odds; the start has 0")
    power_difference: float | None = Field(
        default=None,
        description="half of the smallest difference to the start that could have been found where a verdict is "
        "inconclusive: what to ask `prefzoo power` about; None where there is none, and with one seed",
    )
    call: Call | None = Field(default=None, description="how the comparison was called last, where that is known")
    merged: dict[str, str] = Field(
        default={}, description="of a merged report: name -> folder of each run in it, relative to results.json"
    )
    tuning: Tuning | None = Field(default=None, description="the search for each label's settings, where there was one")
    merged_tuning: dict[str, Tuning] = Field(
        default={}, description="of a merged report: name -> search of each run that had one, under the labels here"
    )

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    @property
    def searches(self) -> dict[str, Tuning]:
        """The searches for settings by the name of their run; a run that is not merged has the name ''."""
        return self.merged_tuning or ({"": self.tuning} if self.tuning else {})

    @property
    def primary(self) -> str:
        """The metric that decides: gold where a truth is known, else the proxy reward."""
        return "gold" if any("gold" in result.summary for result in self.algorithms.values()) else "proxy"

    @property
    def scored(self) -> bool:
        """Whether any reply of a policy beside the start was measured by gold or by a reward."""
        return any(self.primary in each.summary for label, each in self.algorithms.items() if label != "start")

    @property
    def test_prompts(self) -> int:
        """How many test prompts each policy answered with each seed."""
        return min(self.recipe["evaluation"]["prompts"], self.manifest["splits"]["test"]["prompts"])
