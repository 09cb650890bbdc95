"""What documents support and contradict of the policies' replies, and which sentences decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prefzoo.judges.fact_checking import METRIC, VERDICTS
from prefzoo.report.dimension_section import metric_cell
from prefzoo.report.sections import PROSE, Cells, Part, Section, Table, Text
from prefzoo.results.results_schema import Results
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START

EXAMPLES = 2
"""Of each verdict and policy."""
COUNTS = {
    "claims": "sentences that state something",
    "nothing_found": "without any sentence of the documents to check them by",
    "conflicts": "about which the documents contradict each other",
    "failures": "of which the checker's answer could not be read",
}


def knowledge_section(results: Results, labels: Sequence[str], out: Path) -> Section:
    """Return the section; empty where replies were not checked. `labels` in the order of the rows."""
    if METRIC + VERDICTS[0] not in results.algorithms[START].summary:
        return Section("knowledge", "", [])
    parts: list[Part] = [Table(knowledge_cells(results, labels), "facts by policy", key="knowledge")]
    parts.append(Text(PROSE["knowledge"].format(counts=_counts(results))))
    rows = list(_examples(results, list(dict.fromkeys([*labels, START])), out))
    if rows:
        headings = ["policy", "verdict", "the reply says", "the documents say", "document"]
        parts.append(Table((headings, rows), "sentences that decided", title="Sentences that decided", key="facts"))
    return Section("knowledge", "Facts", parts)


def knowledge_cells(results: Results, labels: Sequence[str]) -> Cells:
    """Return a row for each policy: the share of each verdict, its interval, and how it compares with the start."""
    verdicts = {(each.a, each.metric): each.verdict for each in results.verdicts if each.metric.startswith(METRIC)}
    rows = []
    for label in dict.fromkeys([*labels, START]):
        summary = results.algorithms[label].summary
        shares = [METRIC + name for name in VERDICTS]
        rows.append([label, *[metric_cell(summary.get(name), verdicts.get((label, name))) for name in shares]])
    return ["policy", *[name.replace("_", " ") for name in VERDICTS]], rows


def _counts(results: Results) -> str:
    """Return what was checked of all policies together."""
    total: Counter[str] = Counter()
    for result in results.algorithms.values():
        for trial in result.seeds.values():
            checked = trial.judging.get("knowledge", {})
            total.update({name: checked.get(name, 0) for name in COUNTS})
    return ", ".join(f"{total[name]} {text}" for name, text in COUNTS.items())


def _examples(results: Results, labels: Sequence[str], out: Path) -> Iterator[list[str]]:
    for label in labels:
        for trial in list(results.algorithms[label].seeds.values())[:1]:
            shown: Counter[str] = Counter()
            for record in read_records((out / trial.replies).parent):
                fact: dict[str, Any] = record.get("knowledge") or {}
                if fact.get("sentence") and shown[fact["verdict"]] < EXAMPLES:
                    shown[fact["verdict"]] += 1
                    conflict = " (the documents contradict each other)" if fact["conflict"] else ""
                    yield [label, fact["verdict"] + conflict, fact["claim"], fact["sentence"], fact["document"]]
