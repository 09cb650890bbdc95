"""The section on rounds with people: what each round of answers bought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prefzoo.report import axes
from prefzoo.report.figures import draw
from prefzoo.report.sections import PROSE, Cells, Figures, Part, Picture, Points, Section, Table, Text
from prefzoo.results.analysis import NO_GROUPS, PromptGroups, Tables, prompt_groups, read_tables, summaries
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import AlgorithmResult, Results, Summary
from prefzoo.results.statistics import wins
from prefzoo.results.training_history import milestone_tables
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START

PICTURE = "rounds_with_people"
WIN_RATE = "win_rate"
METRICS = {"gold": "gold", "proxy": "proxy", WIN_RATE: "wins"}


@dataclass(frozen=True)
class Round:
    """What a label was after a round, over all its trainings.

    Attributes:
        labels: answers that a training had used up to its end, the mean.
        after: metric -> what the policy then had; `gain`, of the metric that decides, over the round before.
        asked: of each training what people were asked and said in it; see `PeopleJudge.report`.
    """

    labels: float
    after: Mapping[str, Summary]
    gain: Summary | None
    asked: Sequence[Mapping[str, Any]]

    def total(self, key: str) -> float:
        """A count over all trainings."""
        return sum(each[key] for each in self.asked)


def rounds_of(results: Results, out: Path) -> dict[str, list[Round]]:
    """Label -> its rounds, of those that people answered for and that were measured after each."""
    return {
        label: rounds
        for label, result in results.algorithms.items()
        if label != START and result.status == "ok" and (rounds := _rounds(results, result, out))
    }


def _rounds(results: Results, result: AlgorithmResult, out: Path) -> list[Round]:
    trials = list(result.seeds.values())
    asked = [trial.details.get("judge", {}).get("rounds", []) for trial in trials]
    if not all(asked) or len(set(map(len, asked))) > 1:
        return []
    final = [(out / trial.replies).parent for trial in trials]
    groups = _groups(final[0])
    policies = [_start_tables(results, result, out), *(tables for _, tables in milestone_tables(result, out))]
    policies = [*policies[: len(asked[0])], read_tables(final)]
    if len(policies) != len(asked[0]) + 1 or not all(policies):
        return []
    rounds = []
    for i, (before, after) in enumerate(pairwise(policies)):
        own = [of_trial[i] for of_trial in asked]
        measured = dict(after)
        if results.primary in after:
            measured[WIN_RATE] = wins(after[results.primary], policies[0][results.primary])
            measured["gain"] = after[results.primary] - before[results.primary]
        found = summaries({"": measured}, groups)[""]
        labels = float(np.mean([sum(r["answers"] for r in of_trial[: i + 1]) for of_trial in asked]))
        rounds.append(Round(labels, found, found.get("gain"), own))
    return rounds


def _start_tables(results: Results, result: AlgorithmResult, out: Path) -> Tables:
    of_start = results.algorithms[START].seeds
    folders = [(out / of_start[seed].replies).parent for seed in result.seeds if seed in of_start]
    return read_tables(folders) if len(folders) == len(result.seeds) else {}


def _groups(folder: Path) -> PromptGroups:
    return prompt_groups(read_records(folder)) or NO_GROUPS


def rounds_section(results: Results, out: Path, drawn: Mapping[str, Picture]) -> Section:
    """Return the section; empty where no label had rounds with people."""
    found = rounds_of(results, out)
    if not found:
        return Section("rounds", "", [])
    parts: list[Part] = [Table(round_cells(found), "what each round of answers bought", key="rounds")]
    parts += [Figures([drawn[PICTURE]])] if PICTURE in drawn else []
    after = sum(r.total("late") + r.total("taken_back") for rounds in found.values() for r in rounds)
    if after:
        parts.append(
            Points([f"{after:.0f} answers came late or were taken back, after their round; they changed nothing."])
        )
    return Section("rounds", "Rounds with people", [*parts, Text(PROSE["rounds"].format(metric=results.primary))])


def round_cells(found: Mapping[str, Sequence[Round]]) -> Cells:
    """Return a row for each round of each label."""
    metrics = [m for m in METRICS if any(m in r.after for rounds in found.values() for r in rounds)]
    heads = ["policy", "round", "answers so far", *(METRICS[m] for m in metrics), "bought [95%]"]
    heads += ["answers", "ties", "people", "disagreed", "hours"]
    rows = []
    for label, rounds in found.items():
        for i, each in enumerate(rounds, 1):
            several, gain = each.total("items_with_several"), each.gain
            bought = "-" if gain is None else fixed(gain.mean, "+.2f")
            bought += f" {interval(*gain.ci95)}" if gain is not None and gain.ci95 else ""
            row = [label, str(i), f"{each.labels:.0f}", *(_cell(each.after.get(m)) for m in metrics), bought]
            row += [f"{each.total('answers'):.0f}", f"{each.total('ties') + each.total('both_bad'):.0f}"]
            row += [str(max(r["annotators"] for r in each.asked))]
            row += [f"{each.total('disagreed'):.0f} of {several:.0f}", fixed(each.total("hours"))]
            rows.append(row)
    return heads, rows


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return "-"
    return fixed(summary.mean) + (f" {interval(*summary.ci95, sign='')}" if summary.ci95 else "")


def rounds_pictures(results: Results, out: Path) -> list[Picture]:
    """Draw the metric that decides against the answers spent; nothing where there were no such rounds."""
    found = {
        label: [(each.labels, each.after[results.primary]) for each in rounds]
        for label, rounds in rounds_of(results, out).items()
        if results.primary in rounds[0].after
    }
    if not found:
        return []
    start = results.algorithms[START].summary[results.primary]
    found = {label: [(0.0, start), *points] for label, points in found.items()}
    text = "; ".join(
        f"{label} " + ", ".join(f"{summary.mean:.2f} after {count:.0f}" for count, summary in points)
        for label, points in found.items()
    )
    drawing = partial(axes.by_answers, found=found, metric=results.primary)
    return [draw(PICTURE, PROSE["rounds_picture"].format(metric=results.primary), text, drawing, 3.2)]
