"""The files of a report: its list of sections as a page and as Markdown, its pictures, and a table of numbers."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from prefzoo.report.algorithm_details import constitution_section, details_section
from prefzoo.report.breakdown import breakdown_sections
from prefzoo.report.cost import cost_section
from prefzoo.report.data_summary import data_section
from prefzoo.report.figures import pictures, training_curves
from prefzoo.report.judge_section import judge_sections
from prefzoo.report.pairs import pairs_section
from prefzoo.report.render_pages import FIGURES, render_html, render_markdown
from prefzoo.report.replies_section import replies_section
from prefzoo.report.sections import Figures, Html, Part, Picture, Section, Text
from prefzoo.report.verdict_section import ranked, summary_sections
from prefzoo.results import results_file
from prefzoo.results.results_schema import Milestone, Results, SeedResult

CSV_COLUMNS = ("policy", "seed", "milestone", "metric", "value")


def all_sections(results: Results, out: Path, drawn: Mapping[str, Picture]) -> list[Section]:
    """Return the sections of the report in the order of a page.

    Args:
        results: what to report.
        out: the folder that the paths in `results` start from.
        drawn: the pictures by name; without any the sections have none.
    """
    labels = ranked(results)
    return [
        *summary_sections(results, drawn, out),
        _curves_section(drawn),
        pairs_section(results, labels),
        cost_section(results, out, labels, drawn),
        *breakdown_sections(results, labels),
        replies_section(results, out),
        *judge_sections(results),
        details_section(results),
        constitution_section(results),
        data_section(results),
        _repeat_section(results),
    ]


def write(results: Results, out: Path) -> None:
    """Write `results.json`, `results.csv`, `report.md`, `report.html` and `figures/` into `out`."""
    results_file.save(results, out)
    write_csv(results, out / "results.csv")
    drawn = {picture.name: picture for picture in pictures(results, training_curves(results, out))}
    _save_pictures(drawn, out / FIGURES)
    sections = all_sections(results, out, drawn)
    (out / "report.html").write_text(render_html(sections), encoding="utf-8")
    (out / "report.md").write_text(render_markdown(sections), encoding="utf-8")


def write_csv(results: Results, file: Path) -> None:
    """Write a row for each measured number: policy, seed, milestone (empty for the final policy), metric, value. What a
    trial used is in it as `ledger/<name>`."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(CSV_COLUMNS)
        writer.writerows(_csv_rows(results))


def _csv_rows(results: Results) -> Iterator[tuple[str, str, str, str, float]]:
    for label, result in results.algorithms.items():
        for seed, trial in result.seeds.items():
            policies: list[tuple[str, Milestone | SeedResult]] = [(m.name, m) for m in trial.milestones]
            for name, policy in (*policies, ("", trial)):
                for metric, value in policy.metrics.items():
                    yield label, seed, name, metric, value
                for entry, amount in policy.ledger.items():
                    yield label, seed, name, f"ledger/{entry}", amount


def _save_pictures(drawn: Mapping[str, Picture], folder: Path) -> None:
    """Write each as SVG and PNG, and remove those that these results do not have."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.suffix in (".svg", ".png"):
            old.unlink()
    for name, picture in drawn.items():
        (folder / f"{name}.svg").write_text(picture.svg, encoding="utf-8")
        (folder / f"{name}.png").write_bytes(picture.png)


def _curves_section(drawn: Mapping[str, Picture]) -> Section:
    curves = [picture for name, picture in drawn.items() if name == "gold_proxy" or name.startswith("curve_")]
    parts: list[Part] = [Figures(curves)] if curves else [Text("Nothing was logged in training.", style="")]
    return Section("curves", "Curves", parts)


def _repeat_section(results: Results) -> Section:
    """Return the section on how to make the comparison again."""
    values = {
        "results": results,
        "plugins": [shlex.quote(file) for file in (results.call.plugins if results.call else [])],
        "runs": shlex.join(results.merged.values()),
        "recipe": yaml.safe_dump(results.recipe, sort_keys=False, allow_unicode=True),
    }
    return Section("repeat", "To repeat it", [Html("repeat.html.jinja", values)])
