"""What is logged to Weights & Biases, from what the stages left on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefzoo.report.render_pages import FIGURES
from prefzoo.report.replies_section import side_by_side
from prefzoo.report.report_files import all_sections
from prefzoo.report.sections import tables
from prefzoo.report.summary_text import sentence
from prefzoo.report.verdict_section import COLUMNS, facts, ranked
from prefzoo.results.results_schema import Results, SeedResult
from prefzoo.run.stage_graph import START

TRAIN = "train"


def log_curve(run: Any, name: str, points: Iterable[Mapping[str, float]]) -> None:
    """Log the points of a training curve under `name/`, with `name/step` as their x-axis."""
    run.define_metric(f"{name}/step")
    run.define_metric(f"{name}/*", step_metric=f"{name}/step")
    for point in points:
        run.log({f"{name}/{metric}": value for metric, value in point.items()})


def final(result: SeedResult) -> dict[str, Any]:
    """What a trial's run is summarized by: test metrics, what it used, what the algorithm reports."""
    return {
        "status": "ok",
        **{f"test/{name}": value for name, value in result.metrics.items()},
        **{f"ledger/{name}": value for name, value in result.ledger.items()},
        "details": result.details,
    }


def summary(run: Any, results: Results, out: Path) -> None:
    """The content of the report: its tables, charts and pictures, and what each policy answers to the same prompts."""
    import wandb

    metric = results.primary
    columns, rows = table(results)
    place = {column: i for i, column in enumerate(columns)}
    bars = wandb.Table(
        columns=["policy", metric], data=[[r[0], r[place[metric]]] for r in rows if r[place[metric]] is not None]
    )
    measured = [
        [label, int(seed), name, found["kl"], found[metric]]
        for label, each in results.algorithms.items()
        for seed, trial in each.seeds.items()
        for name, found in [*((m.name, m.metrics) for m in trial.milestones), ("final", trial.metrics)]
        if "kl" in found and metric in found
    ]
    frontier = wandb.Table(columns=["policy", "seed", "milestone", "kl", metric], data=measured)
    judged = [
        [v.metric, v.a, v.b, v.difference, *v.ci95, v.p_adjusted, v.verdict, v.effect_size, v.detectable]
        for v in results.verdicts
    ]
    headings: list[str | int] = ["metric", "a", "b", "a minus b", "low", "high", "p adjusted", "verdict"]
    headings += ["effect size", "detectable"]
    warnings = [[w.policy or "", w.text] for w in results.warnings]
    parts = [part for section in all_sections(results, out, drawn={}) for part in section.parts]
    logged = {
        "results": wandb.Table(columns=columns, data=rows),
        "verdicts": wandb.Table(columns=headings, data=judged),
        "reward": wandb.plot.bar(bars, "policy", metric, title=f"{metric} reward"),
        "frontier": wandb.plot.scatter(frontier, "kl", metric, title=f"{metric} reward against KL to the start"),
        "completions": completions(results, out),
        **{f"figures/{file.stem}": wandb.Image(str(file)) for file in sorted((out / FIGURES).glob("*.png"))},
        "warnings": wandb.Table(columns=["policy", "warning"], data=warnings),
        **{t.key: wandb.Table(columns=list(t.cells[0]), data=t.cells[1]) for t in tables(parts) if t.key},
    }
    run.log(logged)
    run.summary.update({"verdict": sentence(results), "facts": facts(results)})


def table(results: Results) -> tuple[list[str | int], list[list[Any]]]:
    """The final table in numbers: headings, and a row for each label, best first."""
    metric = results.primary
    others = [name for name in COLUMNS if name != metric]
    columns: list[str | int] = ["policy", "status", metric, f"{metric} low", f"{metric} high"]
    columns += ["over start", "over start low", "over start high", "p adjusted", "verdict", *others]
    verdicts = {v.a: v for v in results.verdicts if v.metric == metric and v.b == START}
    rows = []
    for label in ranked(results):
        each = results.algorithms[label]
        found = each.summary.get(metric)
        low, high = (found.ci95 if found else None) or (None, None)
        row = [label, each.status, found.mean if found else None, low, high]
        v = verdicts.get(label)
        row += [v.difference, *v.ci95, v.p_adjusted, v.verdict] if v else [None] * 5
        row += [each.summary[name].mean if name in each.summary else None for name in others]
        rows.append(row)
    return columns, rows


def completions(results: Results, out: Path) -> Any:
    """The first test prompts, and beside each the reply of every policy with its score."""
    import wandb

    prompts = side_by_side(results, out)
    labels = [label for label, *_ in prompts[0].replies] if prompts else []
    columns: list[str | int] = ["prompt", *[name for label in labels for name in (label, f"{label} {results.primary}")]]
    rows = [
        [each.prompt, *[cell for _, reply, score, _ in each.replies for cell in (reply, score)]] for each in prompts
    ]
    return wandb.Table(columns=columns, data=rows)
