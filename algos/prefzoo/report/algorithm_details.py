"""What algorithms report of themselves: facts by seed, and what each principle of a constitution did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prefzoo.report.sections import PROSE, Cells, Fold, Part, Section, Table, Text
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results
from prefzoo.trainers.recipe_deviations import SAMPLING, TRAININGS

MOST_FACTS = 60
"""Rows of one algorithm's facts that a report shows."""
SHOWN_ELSEWHERE = ("principles", "transcripts", TRAININGS, SAMPLING)
"""Facts of the section on the constitution, and those that a note holds where they depart from the recipe."""
PRINCIPLE_COLUMNS = {
    "revisions": "revisions",
    "unrevised": "came to nothing",
    "changed": "changed the reply",
    "gold": "gold",
    "reward": "reward",
    "comparisons": "comparisons",
}


def details_section(results: Results) -> Section:
    """Return the section of facts."""
    folds = [Fold(label, [Table(cells, f"what {label} reports")]) for label, cells in detail_cells(results).items()]
    return Section("details", "What the algorithms report", [*map(Text, single_reply_steps(results)), *folds])


def single_reply_steps(results: Results) -> list[str]:
    """Return a sentence for each label that learned from single replies, the same in all seeds: how many a step took,
    and their weights."""
    sentences = []
    for label, result in results.algorithms.items():
        facts = [trial.details["unpaired"] for trial in result.seeds.values() if "unpaired" in trial.details]
        if facts and all(each == facts[0] for each in facts):
            sentences.append(
                PROSE["single_replies"].format(label=label, pairs=facts[0]["replies_a_step"] // 2, **facts[0])
            )
    return sentences


def constitution_section(results: Results) -> Section:
    """Return the section on the constitution, which links to the transcripts; empty where no label followed one."""
    parts: list[Part] = []
    for label, cells in principle_cells(results).items():
        trials = results.algorithms[label].seeds.values()
        files = [trial.details["transcripts"] for trial in trials if "transcripts" in trial.details]
        table = Table(cells, f"what the principles of {label} did", key=f"constitution of {label}")
        parts += [Text(label, "heading"), table]
        if files:
            text = "Every critique, revision and comparison with the principle that caused it:"
            parts.append(Text(text, links=[(file, file) for file in files]))
    return Section("constitution", "The constitution", [*parts, Text(PROSE["constitution"])] if parts else [])


def detail_cells(results: Results) -> dict[str, Cells]:
    """Return for each label that reported something a row for each fact and a column for each seed."""
    tables = {}
    for label, result in results.algorithms.items():
        by_seed = {
            seed: dict(_flat({key: fact for key, fact in trial.details.items() if key not in SHOWN_ELSEWHERE}))
            for seed, trial in result.seeds.items()
        }
        names = list(dict.fromkeys(name for facts in by_seed.values() for name in facts))
        rows = [[name, *[facts.get(name, "-") for facts in by_seed.values()]] for name in names[:MOST_FACTS]]
        if len(names) > MOST_FACTS:
            rows.append([f"{len(names) - MOST_FACTS} more in results.json", *["" for _ in by_seed]])
        if rows:
            tables[label] = (["fact", *[f"seed {seed}" for seed in by_seed]], rows)
    return tables


def _flat(details: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested facts as pairs of a dotted name and a short text; items of a list are counted from 1."""
    if isinstance(details, Mapping):
        items = [(str(key), value) for key, value in details.items()]
    elif isinstance(details, list):
        items = [(str(i), value) for i, value in enumerate(details, 1)]
    else:
        yield name, f"{details:.4g}" if isinstance(details, float) else str(details)
        return
    for key, value in items:
        yield from _flat(value, f"{name}.{key}" if name else key)


def principle_cells(results: Results) -> dict[str, Cells]:
    """Return a table for each label that followed a constitution, with a row for each principle."""
    tables = {}
    for label, result in results.algorithms.items():
        by_seed = [trial.details["principles"] for trial in result.seeds.values() if "principles" in trial.details]
        names = sorted({name for principles in by_seed for name in principles})
        uses = {name: [principles[name] for principles in by_seed if name in principles] for name in names}
        columns = [c for c in PRINCIPLE_COLUMNS if any(c in use for of_name in uses.values() for use in of_name)]
        if by_seed:
            headings = ["principle", *[PRINCIPLE_COLUMNS[c] for c in columns]]
            tables[label] = headings, [[name, *[_cell(c, uses[name]) for c in columns]] for name in names]
    return tables


def _cell(column: str, uses: list[dict[str, Any]]) -> str:
    """Return the sum of a count over seeds, or the mean of another column over all revisions that came to something."""
    if column in ("revisions", "unrevised", "comparisons"):
        return str(sum(int(use[column]) for use in uses))
    weighed = [(use[column], use["revisions"] - use["unrevised"]) for use in uses if column in use]
    if not weighed:
        return ""
    mean = sum(value * count for value, count in weighed) / sum(count for _, count in weighed)
    return f"{100 * mean:.0f}%" if column == "changed" else fixed(mean, "+.2f")
