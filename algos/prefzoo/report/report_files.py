"""The files of a report: its list of sections as a page and as Markdown, its pictures, and a table of numbers."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import yaml

from prefzoo.atomic_files import file_sha256, read_json, write_whole
from prefzoo.errors import PrefzooError
from prefzoo.report.algorithm_details import constitution_section, details_section
from prefzoo.report.breakdown import breakdown_sections
from prefzoo.report.canary_section import canary_sections
from prefzoo.report.cost import cost_section
from prefzoo.report.data_summary import data_section
from prefzoo.report.dimension_section import dimension_picture, dimension_section
from prefzoo.report.figures import pictures, training_curves
from prefzoo.report.human_section import human_pictures, human_section
from prefzoo.report.judge_section import judge_sections
from prefzoo.report.knowledge_section import knowledge_section
from prefzoo.report.likelihood_section import likelihood_section
from prefzoo.report.pairs import pairs_section
from prefzoo.report.render_pages import FIGURES, render_html, render_markdown
from prefzoo.report.replies_section import replies_section
from prefzoo.report.reward_section import reward_section
from prefzoo.report.rounds_section import rounds_pictures, rounds_section
from prefzoo.report.sections import Figures, Html, Part, Picture, Section, Text
from prefzoo.report.tuning_figures import tuning_pictures
from prefzoo.report.tuning_section import tuning_sections
from prefzoo.report.verdict_section import ranked, summary_sections
from prefzoo.results import results_file
from prefzoo.results.results_schema import Milestone, Results, SeedResult

WRITTEN = "written.json"
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
        human_section(results, drawn),
        rounds_section(results, out, drawn),
        *canary_sections(out),
        *tuning_sections(results, drawn),
        _curves_section(drawn),
        pairs_section(results, labels),
        cost_section(results, out, labels, drawn),
        *breakdown_sections(results, labels),
        dimension_section(results, labels, drawn),
        knowledge_section(results, labels, out),
        likelihood_section(results, labels, drawn),
        reward_section(results, labels),
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
    drawn = {picture.name: picture for picture in _all_pictures(results, out)}
    _save_pictures(drawn, out / FIGURES)
    sections = all_sections(results, out, drawn)
    write_whole(out / "report.html", render_html(sections))
    write_whole(out / "report.md", render_markdown(sections))


def _all_pictures(results: Results, out: Path) -> list[Picture]:
    by_dimension = dimension_picture(results, ranked(results))
    return [
        *pictures(results, training_curves(results, out)),
        *([by_dimension] if by_dimension is not None else []),
        *tuning_pictures(results),
        *human_pictures(results),
        *rounds_pictures(results, out),
    ]


def write_csv(results: Results, file: Path) -> None:
    """Write a row for each measured number: policy, seed, milestone (empty for the final policy), metric, value. What a
    trial used is in it as `ledger/<name>`."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(CSV_COLUMNS)
    writer.writerows(_csv_rows(results))
    write_whole(file, table.getvalue())


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
    """Write each as SVG and PNG, and remove those of an earlier report that these results do not have.

    `written.json` in the folder lists what was written, with its hash: what is not in it, or was changed since, is
    somebody else's and stays.
    """
    folder.mkdir(exist_ok=True)
    earlier: dict[str, str] = {}
    with contextlib.suppress(PrefzooError):
        earlier = read_json(folder / WRITTEN)
    files: dict[str, bytes] = {}
    for name, picture in drawn.items():
        files |= {f"{name}.svg": picture.svg.encode(), f"{name}.png": picture.png}
    for file, content in files.items():
        write_whole(folder / file, content)
    hashes = {file: sha256(content).hexdigest() for file, content in files.items()}
    write_whole(folder / WRITTEN, json.dumps(hashes, indent=1))
    for file in earlier.keys() - files.keys():
        old = folder / file
        if Path(file).name == file and old.is_file() and not old.is_symlink() and file_sha256(old) == earlier[file]:
            old.unlink()


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
