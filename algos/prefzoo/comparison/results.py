"""`results.json`: what a comparison found, as a documented, versioned contract (docs/results.schema.json)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from prefzoo.comparison.calls import Call
from prefzoo.comparison.findings import analysis
from prefzoo.comparison.findings.analysis import Block, Summary, Verdict
from prefzoo.comparison.findings.budgets import EqualBudget
from prefzoo.comparison.findings.hacking import Sign
from prefzoo.comparison.findings.length import LengthAdjusted
from prefzoo.errors import PrefzooError

Status = Literal["ok", "failed", "skipped"]


class Milestone(Block):
    """A policy on the way to the final one."""

    name: str
    metrics: dict[str, float] = Field(description="as of the final policy")
    ledger: dict[str, float] = Field(description="what the training had used by then")


class SeedResult(Block):
    """One trial: an algorithm with one seed."""

    metrics: dict[str, float] = Field(description="gold, gold/<attribute>, gold@<slice>, proxy, kl, length, ..")
    ledger: dict[str, float] = Field(description="what the trial used; see prefzoo.Ledger")
    training: dict[str, float] = Field(
        default={}, description="the part of the ledger that training used; answering the test prompts took the rest"
    )
    milestones: list[Milestone] = Field(default=[], description="policies on the way, in order")
    details: dict[str, Any] = Field(default={}, description="what the algorithm itself reports")
    judging: dict[str, Any] = Field(
        default={},
        description="where a judge decides: pairs and questions put to it about the test replies, `failures` to read "
        "an answer, `undecided` pairs that it judged in neither order, ..; see prefzoo.feedback.judges.judge.Asked",
    )
    policy: str | None = Field(default=None, description="folder of the trained policy, relative to results.json")
    replies: str = Field(description="file of every test reply with its measurements, relative to results.json")
    identity: dict[str, Any] = Field(
        default={}, description="what the trial has in common with all it may be compared with; see comparison/identity"
    )


class AlgorithmResult(Block):
    """All trials of one label."""

    status: Status
    error: str | None = None
    algorithm: str
    settings: dict[str, Any]
    differs: dict[str, Any] = Field(description="training arguments that this label alone sets differently")
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
    shared: dict[str, dict[str, float]] = Field(description="ledgers of the stages that all trials share")
    notes: list[str] = Field(description="what a reader must know before believing the table")
    warnings: list[Sign] = Field(default=[], description="signs that a policy games its reward, or of a weak judge")
    verdicts: list[Verdict]
    pairs: list[analysis.Pair] = Field(default=[], description="the win matrix, each two labels once")
    equal_budgets: list[EqualBudget] = Field(
        default=[],
        description="policies with the same spent on training at most, at some budgets of each axis; where two or more "
        "were measured on their way",
    )
    workers: list[int] = Field(
        default=[], description="how many stages ran at a time, different numbers where several calls made the run"
    )
    ratings: dict[str, Summary] = Field(default={}, description="Bradley-Terry, in log-odds; the start has 0")
    call: Call | None = Field(default=None, description="how the comparison was called last, where that is known")
    merged: dict[str, str] = Field(
        default={}, description="of a merged report: name -> folder of each run in it, relative to results.json"
    )

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    @property
    def primary(self) -> str:
        """The metric that decides: gold where a truth is known, else the proxy reward."""
        return "gold" if any("gold" in each.summary for each in self.algorithms.values()) else "proxy"

    @property
    def test_prompts(self) -> int:
        """How many test prompts each policy answered with each seed."""
        return min(self.recipe["evaluation"]["prompts"], self.manifest["splits"]["test"]["prompts"])


def identities(algorithms: Mapping[str, AlgorithmResult]) -> dict[str, dict[str, Any]]:
    """`LABEL seed SEED` -> what that trial recorded of itself."""
    return {
        f"{label} seed {seed}": trial.identity
        for label, each in algorithms.items()
        for seed, trial in each.seeds.items()
    }


def save(results: Results, out: Path) -> None:
    """Write `results.json` whole or not at all."""
    partial = out / "results.json.partial"
    partial.write_text(results.model_dump_json(by_alias=True, indent=1), encoding="utf-8")
    os.replace(partial, out / "results.json")


def load(out: Path) -> Results:
    """Read `results.json`.

    Raises:
        PrefzooError: when it is not what this version writes, naming what is wrong in it.
    """
    try:
        return Results.model_validate_json((out / "results.json").read_text(encoding="utf-8"))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}" for each in error.errors()]
        raise PrefzooError(
            f"{out / 'results.json'} is not what this version of prefzoo writes (first of {len(wrong)}: "
            f"{wrong[0]}); `prefzoo report {out}` makes it anew"
        ) from error
