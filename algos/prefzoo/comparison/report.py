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
from prefzoo.comparison.data_report import CLOSE, OPEN, data_cells, data_facts
from prefzoo.comparison.plan import START
from prefzoo.comparison.records import read_records
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
    draw(results, out / PICTURE)
    environment = Environment(loader=PackageLoader("prefzoo.comparison"), autoescape=True, trim_blocks=True)
    headings, rows = cells(results)
    picture = base64.b64encode((out / PICTURE).read_bytes()).decode()
    page = environment.get_template("report.html.jinja").render(
        results=results,
        sentence=sentence(results),
        headings=headings,
        rows=rows,
        picture=picture,
        alternative=f"{results.primary} reward of each policy with its 95% interval, and against KL to the start",
        facts=facts(results),
        replies=side_by_side(results, out),
        data=data_cells(results.preflight, results.manifest),
        marks=(OPEN, CLOSE),
    )
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "report.md").write_text(markdown(results), encoding="utf-8")


def sentence(results: Results) -> str:
    """The verdict in one sentence."""
    against = [v for v in results.verdicts if v.metric == results.primary and v.b == START]
    groups = {word: [v.a for v in against if v.verdict == word] for word in ("better", "worse", "inconclusive")}
    parts = []
    if groups["better"]:
        parts.append(f"better than the start in {results.primary} reward: {', '.join(groups['better'])}")
    if groups["worse"]:
        parts.append(f"worse: {', '.join(groups['worse'])}")
    if groups["inconclusive"]:
        parts.append(f"no difference shown: {', '.join(groups['inconclusive'])}")
    lost = [label for label, each in results.algorithms.items() if each.status != "ok"]
    if lost:
        parts.append(f"without a result: {', '.join(lost)}")
    text = "; ".join(parts) + "." if parts else "nothing was measured."
    return text[0].upper() + text[1:]


def cells(results: Results, narrow: bool = False) -> tuple[list[str], list[list[str]]]:
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
    seeds = len(results.recipe["seeds"])
    made = Table(
        title=f"{seeds} seed{'s' if seeds > 1 else ''}, {results.test_prompts} test prompts",
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
    """The table and the facts for a pull request or a paper."""
    headings, rows = cells(results)
    lines = ["# Comparison", "", sentence(results), ""]
    lines += ["| " + " | ".join(row) + " |" for row in (headings, ["---"] * len(headings), *rows)]
    lines += ["", f"![summary]({PICTURE})", "", *[f"- {fact}" for fact in facts(results)], ""]
    return "\n".join(lines)


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


def draw(results: Results, path: Path) -> None:
    """Left: the metric that decides with its intervals. Right: the same against KL to the start."""
    from matplotlib.figure import Figure

    metric = results.primary
    labels = [label for label in reversed(ranked(results)) if metric in results.algorithms[label].summary]
    figure = Figure(figsize=(10, 1.6 + 0.45 * max(4, len(labels))), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, label in enumerate(labels):
        found = results.algorithms[label].summary
        colour = "0.35" if label == START else f"C{sorted(labels).index(label) % 10}"
        for axes, x, y in ((left, found[metric].mean, i), (right, None, found[metric].mean)):
            interval = found[metric].ci95
            error = [[found[metric].mean - interval[0]], [interval[1] - found[metric].mean]] if interval else None
            if axes is left:
                axes.errorbar(x, y, xerr=error, fmt="o", color=colour, capsize=3)
            elif "kl" in found:
                axes.errorbar(found["kl"].mean, y, yerr=error, fmt="o", color=colour, capsize=3)
                place = (-6, -12) if label == START else (6, 5)
                axes.annotate(
                    label,
                    (found["kl"].mean, y),
                    xytext=place,
                    textcoords="offset points",
                    ha="right" if label == START else "left",
                    fontsize=8,
                )
    if START in labels:
        left.axvline(results.algorithms[START].summary[metric].mean, color="0.7", linewidth=1, zorder=0)
        right.axhline(results.algorithms[START].summary[metric].mean, color="0.7", linewidth=1, zorder=0)
    left.set_yticks(range(len(labels)), labels)
    left.set_xlabel(f"{metric} reward (mean, 95% interval)")
    right.set_xlabel("KL to the start (nats a reply)")
    right.set_ylabel(f"{metric} reward")
    right.margins(x=0.2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _number(summary: Summary | None, interval: bool) -> str:
    if summary is None:
        return "-"
    if summary.ci95 is None or not interval:
        return f"{summary.mean:.2f}"
    return f"{summary.mean:.2f} ±{(summary.ci95[1] - summary.ci95[0]) / 2:.2f}"
