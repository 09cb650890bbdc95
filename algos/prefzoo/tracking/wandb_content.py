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
from prefzoo.results.tuning_schema import Tuning, TuningTrial
from prefzoo.run.stage_graph import START

TRAIN = "train"
VERDICTS = ["metric", "a", "b", "a minus b", "low", "high", "p adjusted", "verdict", "effect size", "detectable"]


def log_curve(run: Any, name: str, points: Iterable[Mapping[str, float]]) -> None:
    """Log the points of a training curve under `name/`, with `name/step` as their x-axis."""
    run.define_metric(f"{name}/step")
    run.define_metric(f"{name}/*", step_metric=f"{name}/step")
    for point in points:
        run.log({f"{name}/{metric}": value for metric, value in point.items()})


def trial_summary(result: SeedResult) -> dict[str, Any]:
    """Return the summary of a trial's run: test metrics, what it used, what the algorithm reports."""
    return {
        "status": "ok",
        **{f"test/{name}": value for name, value in result.metrics.items()},
        **{f"ledger/{name}": value for name, value in result.ledger.items()},
        "details": result.details,
    }


def tuning_config(label: str, algorithm: str, trial: TuningTrial, tuning: Tuning) -> dict[str, Any]:
    """Return the config of a tuning trial's run; dotted settings are nested, as W&B shows them."""
    settings: dict[str, Any] = {}
    for name, value in trial.settings.items():
        *parents, last = name.split(".")
        place = settings
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    search = {"sampler": tuning.sampler, "objective": tuning.objective.model_dump(), "budget": tuning.budget}
    return {"label": label, "algorithm": algorithm, "trial": trial.number, "settings": settings, "search": search}


def tuning_summary(trial: TuningTrial, won: bool) -> dict[str, Any]:
    """Return the summary of a tuning trial's run: its score and what was measured on the validation prompts."""
    measured = trial.model_dump(include={"state", "score", "standard_error", "kl", "length", "share", "error"})
    known = {name: value for name, value in measured.items() if value is not None}
    return {**known, "won": won, **{f"ledger/{name}": value for name, value in trial.ledger.items()}}


def log_report(run: Any, results: Results, out: Path) -> None:
    """Log the report: its tables, charts and pictures, and what each policy answers to the same prompts."""
    import wandb

    def table(columns: list[str], rows: list[list[Any]]) -> Any:
        return wandb.Table(columns=list(columns), data=rows)

    metric = results.primary
    columns, rows = score_table(results)
    points = [
        [label, int(seed), name, metrics["kl"], metrics[metric]]
        for label, result in results.algorithms.items()
        for seed, trial in result.seeds.items()
        for name, metrics in [*((m.name, m.metrics) for m in trial.milestones), ("final", trial.metrics)]
        if "kl" in metrics and metric in metrics
    ]
    bars = table(["policy", metric], [[row[0], row[2]] for row in rows if row[2] is not None])
    frontier = table(["policy", "seed", "milestone", "kl", metric], points)
    verdicts = [
        [v.metric, v.a, v.b, v.difference, *v.ci95, v.p_adjusted, v.verdict, v.effect_size, v.detectable]
        for v in results.verdicts
    ]
    prompts = side_by_side(results, out)
    labels = [label for label, *_ in prompts[0].replies] if prompts else []
    replies = [[p.prompt, *[cell for _, text, score, _ in p.replies for cell in (text, score)]] for p in prompts]
    parts = [part for section in all_sections(results, out, drawn={}) for part in section.parts]
    run.log(
        {
            "results": table(columns, rows),
            "verdicts": table(VERDICTS, verdicts),
            "reward": wandb.plot.bar(bars, "policy", metric, title=f"{metric} reward"),
            "frontier": wandb.plot.scatter(frontier, "kl", metric, title=f"{metric} reward against KL to the start"),
            "completions": table(["prompt", *[n for label in labels for n in (label, f"{label} {metric}")]], replies),
            **{f"figures/{file.stem}": wandb.Image(str(file)) for file in sorted((out / FIGURES).glob("*.png"))},
            "warnings": table(["policy", "warning"], [[w.policy or "", w.text] for w in results.warnings]),
            **{part.key: table(*part.cells) for part in tables(parts) if part.key},
        }
    )
    run.summary.update({"verdict": sentence(results), "facts": facts(results)})


def score_table(results: Results) -> tuple[list[str], list[list[Any]]]:
    """Return the verdict table in numbers: headings, and a row for each label, best first."""
    metric = results.primary
    others = [name for name in COLUMNS if name != metric]
    columns = ["policy", "status", metric, f"{metric} low", f"{metric} high"]
    columns += ["over start", "over start low", "over start high", "p adjusted", "verdict", *others]
    verdicts = {v.a: v for v in results.verdicts if v.metric == metric and v.b == START}
    rows = []
    for label in ranked(results):
        result, v = results.algorithms[label], verdicts.get(label)
        score = result.summary.get(metric)
        low, high = (score.ci95 if score else None) or (None, None)
        row = [label, result.status, score.mean if score else None, low, high]
        row += [v.difference, *v.ci95, v.p_adjusted, v.verdict] if v else [None] * 5
        rows.append(row + [result.summary[name].mean if name in result.summary else None for name in others])
    return columns, rows
