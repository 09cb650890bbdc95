"""The answer for people: a table for the terminal, `report.md`, `report.html`, and a picture."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from rich.box import SIMPLE
from rich.table import Table

from prefzoo.comparison import results as results_module
from prefzoo.comparison.plan import START
from prefzoo.comparison.records import read_records
from prefzoo.comparison.report.constitution import LEGEND as PRINCIPLES
from prefzoo.comparison.report.constitution import principle_cells, transcripts
from prefzoo.comparison.report.cost import LEGEND, Cells, cost_cells, detail_cells
from prefzoo.comparison.report.data import CLOSE, OPEN, data_cells, data_facts
from prefzoo.comparison.report.figures import Panel, picture
from prefzoo.comparison.report.judge import judge_sections
from prefzoo.comparison.report.words import reading, sentence, setting, size, title
from prefzoo.comparison.results import Results, Summary

COLUMNS = {
    "gold": "gold",
    "proxy": "proxy",
    "win_rate": "wins",
    "kl": "KL",
    "length": "tokens",
    "distinct_2": "distinct-2",
}
PICTURE = "summary.png"


def write(results: Results, out: Path) -> None:
    """Write `results.json`, `report.md`, `report.html` and `summary.png` into `out`."""
    results_module.save(results, out)
    (out / PICTURE).write_bytes(picture(results))
    environment = Environment(loader=PackageLoader("prefzoo.comparison.report"), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.jinja").render(
        results=results,
        title=title(results),
        setting=setting(results),
        sentence=sentence(results),
        table=cells(results),
        pictures=_pictures(results),
        reading={COLUMNS.get(name, name): words for name, words in reading(results).items()},
        facts=facts(results),
        cost=cost_cells(results),
        legend=LEGEND,
        details=detail_cells(results),
        principles=principle_cells(results),
        principles_legend=PRINCIPLES,
        transcripts=transcripts(results),
        judges=judge_sections(results),
        replies=side_by_side(results, out),
        data=data_cells(results.preflight, results.manifest),
        marks=(OPEN, CLOSE),
    )
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "report.md").write_text(markdown(results), encoding="utf-8")


def _pictures(results: Results) -> list[dict[str, str]]:
    """The panels one by one, so that a narrow page can stack them, for light and for dark pages."""
    panels: dict[Panel, str] = {
        "score": f"{results.primary} reward of each policy with its 95% interval",
        "kl": f"{results.primary} reward of each policy against its KL to the start",
    }
    return [
        {
            "light": base64.b64encode(picture(results, [panel])).decode(),
            "dark": base64.b64encode(picture(results, [panel], dark=True)).decode(),
            "words": words,
        }
        for panel, words in panels.items()
    ]


def cells(results: Results, narrow: bool = False) -> Cells:
    """The table as text: headings, and a row for each label, best first; `narrow` leaves out what decides least."""
    columns = [c for c in COLUMNS if any(c in each.summary for each in results.algorithms.values())]
    if narrow:
        columns = [c for c in columns if c not in ("length", "distinct_2")]
    headings = ["policy", *[COLUMNS[c] for c in columns], "over start [95%]", "verdict"]
    verdicts = {v.a: v for v in results.verdicts if v.metric == results.primary and v.b == START}
    rows = []
    for label in ranked(results):
        each = results.algorithms[label]
        row = [label, *[_number(each.summary.get(c), interval=c == results.primary) for c in columns]]
        if each.status != "ok":
            row += ["", each.status.upper()]
        elif label in verdicts:
            v = verdicts[label]
            row += [f"{v.difference:+.2f} [{v.ci95[0]:+.2f}, {v.ci95[1]:+.2f}]", v.verdict]
        else:
            row += ["", ""]
        rows.append(row)
    return headings, rows


def ranked(results: Results) -> list[str]:
    """Labels by the metric that decides, best first; those without a result last."""

    def place(label: str) -> tuple[bool, float]:
        found = results.algorithms[label].summary.get(results.primary)
        return (found is None, -found.mean if found else 0.0)

    return sorted(results.algorithms, key=place)


def table(results: Results, width: int) -> Table:
    """The table for a terminal of this width."""
    headings, rows = cells(results, narrow=width < 100)
    made = Table(
        title=size(results),
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for i, heading in enumerate(headings):
        made.add_column(heading, justify="left" if i == 0 else "right", no_wrap=i > 0)
    styles = {"better": "green", "worse": "red", "FAILED": "red", "SKIPPED": "red"}
    for row in rows:
        made.add_row(*row, style=styles.get(row[-1]))
    return made


def markdown(results: Results) -> str:
    """The tables and the facts for a pull request or a paper."""
    lines = [f"# {title(results)}", "", f"**{sentence(results)}**", "", *_grid(cells(results))]
    lines += ["", f"![summary]({PICTURE})", "", setting(results), "", "## How to read the table", ""]
    lines += [f"- **{COLUMNS.get(name, name)}**: {words}" for name, words in reading(results).items()]
    lines += ["", "## Read before believing", "", *[f"- {fact}" for fact in facts(results)]]
    lines += ["", "## Cost", "", *_grid(cost_cells(results)), "", LEGEND]
    for judge in judge_sections(results):
        lines += ["", f"## {judge.title}", "", *[f"- {said}" for said in judge.sentences], "", *_grid(judge.table)]
    if details := detail_cells(results):
        lines += ["", "## What the algorithms report"]
        for label, found in details.items():
            lines += ["", f"### {label}", "", *_grid(found)]
    return "\n".join([*lines, ""])


def _grid(table: Cells) -> list[str]:
    """A Markdown table; a bar or a line's end within a cell would break it."""
    headings, rows = table
    plain = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in plain]
    return [lines[0], "| --- " + "| ---: " * (len(headings) - 1) + "|", *lines[1:]]


def facts(results: Results) -> list[str]:
    """What a reader needs beside the table: failures, notes, the reward, the data."""
    lines = [f"{label} {each.status}: {each.error}" for label, each in results.algorithms.items() if each.error]
    lines += results.notes
    reward = results.reward
    if reward.get("test_accuracy") is not None:
        low, high = reward["ci95"]
        text = (
            f"Reward ({reward['type']}): {reward['test_accuracy']:.3f} of {reward['test_pairs']} held-out pairs right"
        )
        text += f" (95% {low:.3f} to {high:.3f})"
        if "gold_correlation" in reward:
            low, high = reward["gold_correlation_ci95"]
            text += f"; correlation with gold {reward['gold_correlation']:.2f} ({low:.2f} to {high:.2f})"
        lines.append(text + ".")
    lines += data_facts(results.preflight, results.manifest)
    return lines


def side_by_side(results: Results, out: Path, most: int = 12) -> list[dict[str, Any]]:
    """The first test prompts with what each policy (first seed) answered."""
    answers: dict[str, Sequence[dict[str, Any]]] = {}
    for label, each in results.algorithms.items():
        if each.seeds:
            answers[label] = read_records((out / next(iter(each.seeds.values())).replies).parent)[:most]
    first = next(iter(answers.values()), [])
    return [
        {
            "prompt": "\n".join(turn["content"] for turn in record["prompt"]),
            "replies": [(label, rows[i]["reply"], rows[i].get(results.primary)) for label, rows in answers.items()],
        }
        for i, record in enumerate(first)
    ]


def _number(summary: Summary | None, interval: bool) -> str:
    if summary is None:
        return "-"
    if summary.ci95 is None or not interval:
        return f"{summary.mean:.2f}"
    return f"{summary.mean:.2f} ±{(summary.ci95[1] - summary.ci95[0]) / 2:.2f}"
