"""The answer for people: a table for the terminal, `report.md`, `report.html`, pictures, and a table for programs."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader
from rich.box import SIMPLE
from rich.table import Table

from prefzoo.report import pairs
from prefzoo.report.breakdown import ADJUSTED, heat_maps, length_cells
from prefzoo.report.budget_tables import budget_tables, budget_words
from prefzoo.report.completions import MOST_PROMPTS, side_by_side
from prefzoo.report.cost import Cells, cost_cells, cost_words, detail_cells
from prefzoo.report.csv_export import write_csv
from prefzoo.report.data_summary import CLOSE, OPEN, data_cells, data_facts
from prefzoo.report.estimate_check import ESTIMATED, estimated_cells
from prefzoo.report.figures import Picture, pictures, training_curves
from prefzoo.report.grouped_warnings import warned
from prefzoo.report.inference_cost import ANSWERS, answer_cells
from prefzoo.report.judge_section import judge_sections
from prefzoo.report.pairs import difference_cells, matrix, rating_cells
from prefzoo.report.principles import LEGEND as PRINCIPLES
from prefzoo.report.principles import principle_cells, transcripts
from prefzoo.report.summary_text import marked, open_words, reading, sentence, setting, size, title
from prefzoo.results import results_file
from prefzoo.results.number_format import fixed, interval
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
FIGURES = "figures"
FIRST = ("score", "frontier")
"""The pictures beside the verdict."""


def write(results: Results, out: Path) -> None:
    """Write `results.json`, `results.csv`, `report.md`, `report.html` and `figures/` into `out`."""
    results_file.save(results, out)
    write_csv(results, out / "results.csv")
    drawn = {each.name: each for each in pictures(results, training_curves(results, out))}
    _save_pictures(list(drawn.values()), out / FIGURES)
    environment = Environment(
        loader=PackageLoader("prefzoo.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    assert environment.loader is not None
    script = environment.loader.get_source(environment, "filter.js")[0]
    page = environment.get_template("report.html.jinja").render(
        results=results,
        title=title(results),
        setting=setting(results),
        sentence=sentence(results),
        table=_verdict_first(cells(results)),
        open_words=open_words(results),
        warnings=warned(results),
        pictures=drawn,
        first=FIRST,
        reading={COLUMNS.get(name, name): words for name, words in reading(results).items()},
        facts=facts(results),
        matrix=matrix(results, ranked(results)),
        ratings=rating_cells(results, ranked(results)),
        differences=difference_cells(results),
        words=pairs,
        heat_maps=heat_maps(results, ranked(results)),
        lengths=length_cells(results),
        adjusted=ADJUSTED,
        cost=cost_cells(results),
        legend=cost_words(results),
        estimated=estimated_cells(results, out),
        estimated_legend=ESTIMATED,
        budgets=budget_tables(results, ranked(results)),
        equal=budget_words(results),
        answering=answer_cells(results),
        answers=ANSWERS,
        details=detail_cells(results),
        principles=principle_cells(results),
        principles_legend=PRINCIPLES,
        transcripts=transcripts(results),
        judges=judge_sections(results),
        replies=side_by_side(results, out, MOST_PROMPTS),
        fixed=fixed,
        data=data_cells(results.preflight, results.manifest),
        marks=(OPEN, CLOSE),
        plugins=[shlex.quote(file) for file in (results.call.plugins if results.call else [])],
        runs=shlex.join(results.merged.values()),
        recipe=yaml.safe_dump(results.recipe, sort_keys=False, allow_unicode=True),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "report.md").write_text(markdown(results, estimated_cells(results, out)), encoding="utf-8")


def _save_pictures(made: Sequence[Picture], folder: Path) -> None:
    """Write each as SVG and PNG, and remove those that these results do not have."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.suffix in (".svg", ".png"):
            old.unlink()
    for each in made:
        (folder / f"{each.name}.svg").write_text(each.svg, encoding="utf-8")
        (folder / f"{each.name}.png").write_bytes(each.png)


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
            row += [f"{fixed(v.difference, '+.2f')} {interval(*v.ci95)}", marked(v)]
        else:
            row += ["", ""]
        rows.append(row)
    return headings, rows


def _verdict_first(table: Cells) -> Cells:
    """The same with what decides beside the labels, where a narrow screen shows it."""
    headings, rows = table
    return [headings[0], *headings[:-3:-1], *headings[1:-2]], [[row[0], *row[:-3:-1], *row[1:-2]] for row in rows]


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


def markdown(results: Results, estimated: Cells | None = None) -> str:
    """The tables and the facts for a pull request or a paper; `estimated` as `estimated_cells` gives it."""
    lines = [f"# {title(results)}", "", f"**{sentence(results)}**", "", *_grid(cells(results))]
    lines += ["", left_open] if (left_open := open_words(results)) else []
    lines += ["", *_pictured(results), "", setting(results), "", "## How to read the table", ""]
    lines += [f"- **{COLUMNS.get(name, name)}**: {words}" for name, words in reading(results).items()]
    if signs := warned(results):
        lines += ["", "## Warnings", "", *[f"- {text}" for text in signs]]
    lines += ["", "## Read before believing", "", *[f"- {fact}" for fact in facts(results)]]
    lines += ["", "## Cost", "", *_grid(cost_cells(results)), "", cost_words(results)]
    lines += ["", "Estimated and actual", "", *_grid(estimated), "", ESTIMATED] if estimated else []
    if budgets := budget_tables(results, ranked(results)):
        lines += ["", f"{results.primary.capitalize()} reward at equal budgets"]
        lines += [line for cells in budgets.values() for line in ("", *_grid(cells))]
        lines += ["", budget_words(results)]
    if answering := answer_cells(results):
        lines += ["", "What an answer costs", "", *_grid(answering), "", ANSWERS]
    lines += ["", "## All pairs"] if results.pairs else []
    if won := matrix(results, ranked(results)):
        lines += ["", *_grid(won.cells), "", pairs.MATRIX]
    for told, text in (
        (rating_cells(results, ranked(results)), pairs.RATINGS),
        (difference_cells(results), pairs.DIFFERENCES),
    ):
        lines += ["", *_grid(told), "", text] if told else []
    for found in heat_maps(results, ranked(results)):
        lines += ["", f"## {found.title}", "", *_grid(found.cells)]
    if lengths := length_cells(results):
        lines += ["", "## At equal length", "", *_grid(lengths), "", ADJUSTED]
    for judge in judge_sections(results):
        lines += ["", f"## {judge.title}", "", *[f"- {said}" for said in judge.sentences], "", *_grid(judge.table)]
    if details := detail_cells(results):
        lines += ["", "## What the algorithms report"]
        for label, said in details.items():
            lines += ["", f"### {label}", "", *_grid(said)]
    return "\n".join([*lines, ""])


def _pictured(results: Results) -> list[str]:
    measured = any("kl" in each.summary for each in results.algorithms.values())
    return [f"![{name}]({FIGURES}/{name}.png)" for name in FIRST if measured or name != "frontier"]


def _grid(table: Cells) -> list[str]:
    """A Markdown table; a bar or a line's end within a cell would break it."""
    headings, rows = table
    plain = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in plain]
    return [lines[0], "| --- " + "| ---: " * (len(headings) - 1) + "|", *lines[1:]]


def facts(results: Results) -> list[str]:
    """What a reader needs beside the table: failures, notes, the reward, the data."""
    lines = [*_not_ok(results), *results.notes]
    reward = results.reward
    if reward.get("test_accuracy") is not None:
        low, high = reward["ci95"]
        text = (
            f"Reward ({reward['type']}): {reward['test_accuracy']:.3f} of {reward['test_pairs']} held-out pairs right"
        )
        text += f" (95% {low:.3f} to {high:.3f})"
        if "gold_correlation" in reward:
            low, high = reward["gold_correlation_ci95"]
            text += f"; correlation with gold {fixed(reward['gold_correlation'])} ({fixed(low)} to {fixed(high)})"
        lines.append(text + ".")
    lines += data_facts(results.preflight, results.manifest)
    return lines


def _not_ok(results: Results) -> list[str]:
    """Why policies have no result, those of one reason in one line."""
    alike: dict[tuple[str, str], list[str]] = {}
    for label, each in results.algorithms.items():
        if each.error:
            alike.setdefault((each.status, each.error), []).append(label)
    return [f"{', '.join(labels)} {status}: {error}" for (status, error), labels in alike.items()]


def _number(summary: Summary | None, interval: bool) -> str:
    if summary is None:
        return "-"
    if summary.ci95 is None or not interval:
        return fixed(summary.mean)
    return f"{fixed(summary.mean)} ±{(summary.ci95[1] - summary.ci95[0]) / 2:.2f}"
