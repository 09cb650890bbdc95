"""What is logged to Weights & Biases, from what the stages left on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefzoo.comparison.plan import START, Stage
from prefzoo.comparison.report import page as report
from prefzoo.comparison.results import Results, SeedResult

TRAIN = "train"
STEP = f"{TRAIN}/step"
CURVES = "curves.json"


def points(folder: Path, prefix: str = TRAIN) -> Iterator[Mapping[str, float]]:
    """The curve of a trial: one dictionary a logged step, the steps of several rounds counted on from one another."""
    try:
        rounds = json.loads((folder / CURVES).read_text(encoding="utf-8"))
    except FileNotFoundError:  # nothing is trained, or not yet
        return
    before = 0
    for entries in rounds:
        for entry in entries:
            if "train_loss" not in entry:  # that one is of the round as a whole
                numbers = {f"{prefix}/{name}": value for name, value in entry.items() if isinstance(value, int | float)}
                yield {**numbers, f"{prefix}/step": before + entry["step"]}
        before += entries[-1]["step"] if entries else 0


def final(result: SeedResult) -> dict[str, Any]:
    """What a trial's run is summarized by: test metrics, what it used, what the algorithm reports."""
    return {
        "status": "ok",
        **{f"test/{name}": value for name, value in result.metrics.items()},
        **{f"ledger/{name}": value for name, value in result.ledger.items()},
        "details": result.details,
    }


def shared_curve(run: Any, stage: Stage) -> None:
    """The curve of a training that all trials share, on an axis of its own."""
    prefix = stage.name.replace(" ", "_")
    run.define_metric(f"{prefix}/step")
    run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
    for point in points(stage.folder, prefix):
        run.log(dict(point))


def summary(run: Any, results: Results, out: Path) -> None:
    """The final table, the bar chart, reward against KL, and what each policy answers to the same prompts."""
    import wandb

    metric = results.primary
    columns, rows = table(results)
    place = {column: i for i, column in enumerate(columns)}
    bars = wandb.Table(
        columns=["policy", metric], data=[[r[0], r[place[metric]]] for r in rows if r[place[metric]] is not None]
    )
    trials = [
        [label, int(seed), trial.metrics["kl"], trial.metrics[metric]]
        for label, each in results.algorithms.items()
        for seed, trial in each.seeds.items()
        if "kl" in trial.metrics and metric in trial.metrics
    ]
    frontier = wandb.Table(columns=["policy", "seed", "kl", metric], data=trials)
    logged = {
        "results": wandb.Table(columns=columns, data=rows),
        "reward": wandb.plot.bar(bars, "policy", metric, title=f"{metric} reward"),
        "frontier": wandb.plot.scatter(frontier, "kl", metric, title=f"{metric} reward against KL to the start"),
        "completions": completions(results, out),
        "picture": wandb.Image(str(out / report.PICTURE)),
    }
    run.log(logged)
    run.summary.update({"verdict": report.sentence(results), "facts": report.facts(results)})


def table(results: Results) -> tuple[list[str | int], list[list[Any]]]:
    """The final table in numbers: headings, and a row for each label, best first."""
    metric = results.primary
    others = [name for name in report.COLUMNS if name != metric]
    columns: list[str | int] = ["policy", "status", metric, f"{metric} low", f"{metric} high"]
    columns += ["over start", "over start low", "over start high", "p adjusted", "verdict", *others]
    verdicts = {v.a: v for v in results.verdicts if v.metric == metric and v.b == START}
    rows = []
    for label in report.ranked(results):
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

    prompts = report.side_by_side(results, out)
    labels = [label for label, _, _ in prompts[0]["replies"]] if prompts else []
    columns: list[str | int] = ["prompt", *[name for label in labels for name in (label, f"{label} {results.primary}")]]
    rows = [[each["prompt"], *[cell for _, *pair in each["replies"] for cell in pair]] for each in prompts]
    return wandb.Table(columns=columns, data=rows)
