"""What each policy took: the compute ledger, estimates, scores at equal budgets, and the price of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefzoo.report.sections import PROSE, Cells, Figures, Part, Picture, Section, Table, Text
from prefzoo.results.cost_record import Estimate
from prefzoo.results.equal_budgets import FINAL
from prefzoo.results.number_format import fixed, with_error
from prefzoo.results.results_schema import EqualBudget, Results
from prefzoo.run.stage_graph import START

COLUMNS = {
    "prompts": "prompts",
    "trained_tokens": "trained tokens",
    "forward_tokens": "forward only",
    "sampled_tokens": "sampled in training",
    "inference_tokens": "sampled to answer",
    "reward_calls": "reward calls",
    "judge_calls": "judge calls",
    "flops": "FLOPs",
    "training_seconds": "seconds to train",
    "answering_seconds": "seconds to answer",
    "peak_memory_bytes": "peak memory",
}
ESTIMATE_NAMES = {"generated_tokens": "sampled tokens", "seconds": "seconds", **COLUMNS}
ESTIMATE_COLUMNS = ("seconds", "peak_memory_bytes", "generated_tokens", "trained_tokens", "judge_calls")
FREE_BLOCKS = ("algorithms", "seeds", "tracking")
"""Blocks of a recipe that may change after an estimate without making it one of something else."""
AXES = {"prompts": "prompts", "generated_tokens": "tokens sampled", "flops": "FLOPs", "seconds": "seconds"}


def cost_section(results: Results, out: Path, labels: list[str], pictures: Mapping[str, Picture]) -> Section:
    """Return the section on cost; `out` holds the estimate, where there is one."""
    parts: list[Part] = [Table(cost_cells(results), "what each policy took", key="cost"), Text(cost_legend(results))]
    if estimated := estimated_cells(results, out):
        table = Table(estimated, "what was estimated and what it really took")
        parts += [Text("Estimated and actual", "heading"), table, Text(PROSE["estimated"])]
    if budgets := budget_tables(results, labels):
        parts.append(Text(f"{results.primary.capitalize()} reward at equal budgets", "heading"))
        for axis, cells in budgets.items():
            parts.append(Table(cells, f"the policies at equal budgets of {axis}", key=f"at equal {axis}"))
        parts.append(Text(budget_legend(results)))
    if answers := answer_cells(results):
        table = Table(answers, "what an answer of each policy costs", key="answers")
        parts += [Text("What an answer costs", "heading"), table, Text(PROSE["answers"])]
    curves = [picture for name, picture in pictures.items() if name.startswith("cost_")]
    return Section("cost", "Cost", [*parts, Figures(curves, only=("html",))])


def cost_cells(results: Results) -> Cells:
    """Return the compute ledger: a row for each label with a result, then for each shared stage that cost anything;
    columns of zeros are left out."""
    ledgers = _mean_ledgers(results) | {
        f"{name}, made once": _split(ledger, ledger) for name, ledger in results.shared.items() if any(ledger.values())
    }
    columns = [c for c in COLUMNS if any(ledger.get(c) for ledger in ledgers.values())]
    rows = [[name, *[format_cost(c, ledger.get(c, 0)) for c in columns]] for name, ledger in ledgers.items()]
    return ["policy", *[COLUMNS[c] for c in columns]], rows


def _split(ledger: Mapping[str, float], training: Mapping[str, float]) -> dict[str, float]:
    """Return a ledger with the tokens and seconds of training, or of making, apart from those of answering."""
    seconds = training.get("seconds", 0.0)
    return {
        **ledger,
        "sampled_tokens": ledger["generated_tokens"] - ledger["inference_tokens"],
        "training_seconds": seconds,
        "answering_seconds": ledger["seconds"] - seconds,
        "training_flops": training.get("flops", 0.0),
    }


def cost_legend(results: Results) -> str:
    """Return how to read the table of costs."""
    counts = ", then ".join(map(str, results.workers))
    stages = f"stages that ran {counts} at a time" if counts else "stages that may have run side by side"
    return PROSE["cost"].format(stages=stages)


def _mean_ledgers(results: Results) -> dict[str, dict[str, float]]:
    """Return for each label with a result the mean of its trials' ledgers; of the peak memory, the largest."""
    means = {}
    for label, result in results.algorithms.items():
        if ledgers := [_split(trial.ledger, trial.training) for trial in result.seeds.values()]:
            means[label] = {name: sum(ledger[name] for ledger in ledgers) / len(ledgers) for name in ledgers[0]}
            means[label]["peak_memory_bytes"] = max(ledger["peak_memory_bytes"] for ledger in ledgers)
    return means


def format_cost(name: str, value: float) -> str:
    """Return an entry of a ledger as text, such as `1.2 G`, `3.5`, `0.25 GiB` or `1,500`."""
    if name == "flops":
        return format_number(value) if value else "0"
    if name.endswith("seconds"):
        return f"{value:,.1f}"
    if name == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB"
    return f"{value:,.0f}"


def format_number(value: float) -> str:
    """Return a number with a prefix, such as `1.2 G`."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(places=1)(value)


def estimated_cells(results: Results, out: Path) -> Cells | None:
    """Return estimate and actual value side by side for each label that was estimated with the settings it ran with;
    None where there is none."""
    estimate = Estimate.load(out)
    if estimate is None or any(estimate.recipe.get(k) != v for k, v in results.recipe.items() if k not in FREE_BLOCKS):
        return None
    settings = [recipe["algorithms"] for recipe in (estimate.recipe, results.recipe)]
    ledgers = {
        label: ledger
        for label, ledger in _mean_ledgers(results).items()
        if label in estimate.labels and settings[0].get(label) == settings[1].get(label)
    }
    names = [n for n in ESTIMATE_COLUMNS if any(ledger[n] or estimate.labels[k][n] for k, ledger in ledgers.items())]
    headings = [cell for n in names for cell in (f"{ESTIMATE_NAMES[n]}: estimated", "actual")]
    rows = [
        [label, *[format_cost(n, source[n]) for n in names for source in (estimate.labels[label], ledger)]]
        for label, ledger in ledgers.items()
    ]
    return (["policy", *headings], rows) if rows else None


def budget_tables(results: Results, labels: list[str]) -> dict[str, Cells]:
    """Return for each axis, by its name, a row for each policy and a column for each budget; empty where no two
    policies were measured on the way."""
    tables = {}
    for axis, name in AXES.items():
        columns = [column for column in results.equal_budgets if column.axis == axis]
        rows = [label for label in labels if any(label in column.policies for column in columns)]
        if rows:
            headings = ["policy", *[f"{format_cost(axis, column.budget)} {name}" for column in columns]]
            tables[name] = headings, [[label, *[_budget_cell(column, label) for column in columns]] for label in rows]
    return tables


def budget_legend(results: Results) -> str:
    """Return how to read those tables, and which policies are not in them, and why."""
    missing: dict[tuple[str, str], list[str]] = {}
    for column in results.equal_budgets:
        for policy in column.missing.items():
            axes = missing.setdefault(policy, [])
            axes += [AXES[column.axis]] if AXES[column.axis] not in axes else []
    all_axes = len({column.axis for column in results.equal_budgets})
    reasons = [
        f"{label} ({reason}{'' if len(axes) == all_axes else ': ' + ', '.join(axes)})"
        for (label, reason), axes in missing.items()
    ]
    return PROSE["equal_budgets"] + (f" Not in them: {'; '.join(reasons)}." if reasons else "")


def _budget_cell(column: EqualBudget, label: str) -> str:
    if label not in column.policies:
        return "-"
    mean, over = fixed(column.policies[label].mean), column.over_start[label]
    reached = set(column.reached.get(label, []))
    if reached == {START}:
        return f"{mean} (start)"
    return f"{mean} ({with_error(over.mean, over.ci95, '+')}){' final' if reached == {FINAL} else ''}"


def answer_cells(results: Results) -> Cells | None:
    """Return what one answer costs, a row for each policy; None where every policy but the start was trained."""
    ledgers = _mean_ledgers(results)
    training = {label: ledger["training_flops"] for label, ledger in ledgers.items()}
    answer = {label: (ledger["flops"] - training[label]) / results.test_prompts for label, ledger in ledgers.items()}
    recorded = [label for label in training if all(s.training for s in results.algorithms[label].seeds.values())]
    untrained = [label for label in recorded if not training[label] and answer[label]]
    if not untrained:
        return None
    headings = ["policy", "tokens an answer", "FLOPs an answer", "times the start's", "FLOPs to train"]
    headings += [f"{label} costs more after" for label in untrained]
    start = answer.get(START, 0.0)
    rows = [
        [
            label,
            f"{ledgers[label]['inference_tokens'] / results.test_prompts:.1f}",
            format_cost("flops", answer[label]),
            f"{answer[label] / start:.1f}" if start else "-",
            format_cost("flops", training[label]),
            *[_answers_until_dearer(training[label], answer[other] - answer[label]) for other in untrained],
        ]
        for label in training
    ]
    return headings, rows


def _answers_until_dearer(training: float, difference: float) -> str:
    """Return after how many answers, each dearer by `difference`, a training has been paid for."""
    return f"{training / difference:,.0f} answers" if training and difference > 0 else "-"
