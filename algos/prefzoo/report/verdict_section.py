"""What a reader sees first: the verdict on each policy, the warnings, and what to know before believing them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefzoo.report.data_summary import data_facts, data_in_brief
from prefzoo.report.sections import PROSE, Cells, Figures, Fold, Part, Picture, Points, Section, Table, Text
from prefzoo.report.summary_text import (
    column_notes,
    left_open,
    marked,
    open_note,
    people_note,
    power_note,
    search_note,
    seeds_note,
    sentence,
    setting,
    size,
    title,
)
from prefzoo.report.tuning_section import tuning_lines
from prefzoo.results.number_format import fixed, interval, with_error
from prefzoo.results.results_schema import Results, Summary
from prefzoo.run.stage_graph import START

COLUMNS = {
    "gold": "gold",
    "proxy": "proxy",
    "win_rate": "wins",
    "kl": "KL",
    "length": "tokens",
    "distinct_2": "distinct-2",
}
FIRST_PICTURES = ("score", "frontier")
"""The pictures beside the verdict."""
WARNS_OF_VERDICT = ("over_optimization", "slice", "length_explains")
"""Kinds of warnings about the difference to the start over all prompts, which has a verdict."""


def summary_sections(results: Results, pictures: Mapping[str, Picture], out: Path | None = None) -> list[Section]:
    """Return the sections that answer the question; without `pictures` they take no time to make. `out` is the
    folder of the comparison, which a command that they name is given."""
    headings, rows = verdict_cells(results)
    label = "the verdict on each policy"
    # a narrow screen shows the first columns alone, so that on a page the verdict stands beside the label
    turned = [[row[0], *row[:-3:-1], *row[1:-2]] for row in (headings, *rows)]
    verdict: list[Part] = [
        Text(sentence(results), "verdict"),
        Table((turned[0], turned[1:]), label, verdicts=True, only=("html",)),
        Table((headings, rows), label, title=size(results), only=("markdown", "terminal")),
    ]
    verdict += [Text(search_note(results, *search), "note") for search in results.searches.items()]
    verdict += [
        Text(note, "note")
        for note in (people_note(results), seeds_note(results), open_note(results), power_note(results, out))
        if note
    ]
    verdict += [Figures([pictures[name] for name in FIRST_PICTURES if name in pictures]), Text(setting(results))]
    notes = {COLUMNS.get(name, name): text for name, text in column_notes(results).items()}
    how_to_read, definitions = "How to read the table", Points([*notes.values()], [*notes])
    warnings = [Points(grouped_warnings(results)), Text(PROSE["warnings"], only=("html",))] if results.warnings else []
    believing = [
        Points(facts(results), only=("html", "markdown")),
        Points(facts(results, in_brief=True), only=("terminal",)),
        Fold(how_to_read, [definitions], only=("html",)),
    ]
    tuned = [Points(lines)] if (lines := tuning_lines(results)) else []
    return [
        Section("verdict", title(results), verdict),
        Section("reading", how_to_read, [definitions], only=("markdown",)),
        Section("warnings", "Warnings", warnings),
        Section("tuning", "Tuning", tuned, only=("terminal",)),
        Section("believing", "Read before believing", believing),
    ]


def verdict_cells(results: Results) -> Cells:
    """Return the first table: a row for each label, best first."""
    columns = [c for c in COLUMNS if any(c in result.summary for result in results.algorithms.values())]
    headings = ["policy", *[COLUMNS[c] for c in columns], "over start [95%]", "verdict"]
    verdicts = {v.a: v for v in results.verdicts if v.metric == results.primary and v.b == START}
    rows = []
    for label in ranked(results):
        result = results.algorithms[label]
        row = [label, *[_number(result.summary.get(c), with_interval=c == results.primary) for c in columns]]
        if result.status != "ok":
            row += ["", result.status.upper()]
        elif label in verdicts:
            v = verdicts[label]
            row += [f"{fixed(v.difference, '+.2f')} {interval(*v.ci95)}", marked(v)]
        else:
            row += ["", ""]
        rows.append(row)
    return headings, rows


def ranked(results: Results) -> list[str]:
    """Return the labels by the metric that decides, best first; those without a result last."""

    def place(label: str) -> tuple[bool, float]:
        score = results.algorithms[label].summary.get(results.primary)
        return (score is None, -score.mean if score else 0.0)

    return sorted(results.algorithms, key=place)


def grouped_warnings(results: Results) -> list[str]:
    """Return the sentences of all warnings in order, a sentence that holds for several policies once; one that the
    corrected verdict does not bear out says so."""
    unproven = {v.a: v for v in results.verdicts if v.metric == results.primary and v.b == START and left_open(v)}
    policies: dict[str, list[str]] = {}
    for warning in results.warnings:
        text = warning.text
        if warning.policy in unproven and warning.kind in WARNS_OF_VERDICT:
            v = unproven[warning.policy]
            text += (
                f" Corrected for {v.family_size} comparisons, the difference in {v.metric} reward over all prompts is "
                "not shown."
            )
        policy = warning.policy if warning.policy and text.startswith(f"{warning.policy}: ") else ""
        policies.setdefault(text.removeprefix(policy), []).append(policy)
    return [", ".join(dict.fromkeys(names)) + text for text, names in policies.items()]


def facts(results: Results, in_brief: bool = False) -> list[str]:
    """Return what a reader must know beside the table: failures, notes, the reward, the data (in a line or two where
    `in_brief`)."""
    failures: dict[tuple[str, str], list[str]] = {}
    for label, result in results.algorithms.items():
        if result.error:
            failures.setdefault((result.status, result.error), []).append(label)
    lines = [f"{', '.join(labels)} {status}: {error}" for (status, error), labels in failures.items()]
    of_data = (data_in_brief if in_brief else data_facts)(results.preflight, results.manifest)
    return [*lines, *results.notes, *_reward_facts(results), *of_data]


def _reward_facts(results: Results) -> list[str]:
    reward = results.reward
    if "label_auc" in reward:
        chance = (
            f"Reward ({reward['type']}): of {reward['labelled_replies']} held-out replies that were labelled one by "
        )
        by_labels = [f"{chance}one, a liked one scores above another with a chance of {reward['label_auc']:.3f}."]
    else:
        by_labels = []
    if reward.get("test_accuracy") is None:
        return by_labels
    low, high = reward["ci95"]
    text = f"Reward ({reward['type']}): {reward['test_accuracy']:.3f} of {reward['test_pairs']} held-out pairs right"
    text += f" (95% {low:.3f} to {high:.3f})"
    if "gold_correlation" in reward:
        low, high = reward["gold_correlation_ci95"]
        text += f"; correlation with gold {fixed(reward['gold_correlation'])} ({fixed(low)} to {fixed(high)})"
    policies = reward.get("on_policies", {})
    own = {label: each["own"] for label, each in policies.items() if label != START and "own" in each}
    worse = [f"{label} ({n['accuracy']:.2f})" for label, n in own.items() if n["ci95"][1] < reward["ci95"][0]]
    if worse:
        text += f". On two replies of the same policy it is right less often: {', '.join(worse)}"
    return [text + ".", *by_labels]


def _number(summary: Summary | None, with_interval: bool) -> str:
    if summary is None:
        return "-"
    if not with_interval:
        return fixed(summary.mean)
    return with_error(summary.mean, summary.ci95)
