"""Every policy against every other one: win rates, ratings, and differences with the smallest that could be found."""

from __future__ import annotations

from dataclasses import replace

from prefzoo.report.sections import PROSE, Cells, Fold, Part, Section, Table, Text
from prefzoo.report.summary_text import marked
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import Results, Summary
from prefzoo.run.stage_graph import START

OPEN_ROWS = 12
"""A page shows up to this many differences without folding them away."""


def pairs_section(results: Results, labels: list[str]) -> Section:
    """Return the section on all pairs; `labels` in the order of the rows."""
    parts: list[Part] = []
    if win_rates := win_matrix(results, labels):
        parts += [win_rates, Text(PROSE["win_rates"])]
    if ratings := rating_cells(results, labels):
        parts += [Table(ratings, "ratings", key="ratings"), Text(PROSE["ratings"])]
    if differences := difference_cells(results):
        title = f"Differences in {results.primary} reward, all pairs"
        table = Table(differences, "differences of all pairs", verdicts=True)
        fold = Fold(title, [table], open=len(differences[1]) <= OPEN_ROWS, only=("html",))
        parts += [fold, replace(table, only=("markdown",)), Text(PROSE["differences"])]
    return Section("pairs", "All pairs", parts)


def win_matrix(results: Results, labels: list[str]) -> Table | None:
    """Return the win rates of rows over columns, warm above a half; None where no two policies were measured."""
    rates = {(pair.a, pair.b): pair.win_rate.mean for pair in results.pairs}
    rates |= {(b, a): 1 - rate for (a, b), rate in rates.items()}
    told_apart = {(v.a, v.b) for v in results.verdicts if v.metric == results.primary and v.verdict != "inconclusive"}
    labels = [label for label in labels if any(label in pair for pair in rates)]
    if not labels:
        return None

    def cell(a: str, b: str) -> str:
        star = "*" if (a, b) in told_apart or (b, a) in told_apart else ""
        return f"{rates[a, b]:.2f}{star}" if (a, b) in rates else ""

    rows = [[a, *[cell(a, b) for b in labels]] for a in labels]
    heat = [[2 * rates.get((a, b), 0.5) - 1 for b in labels] for a in labels]
    return Table((["policy", *labels], rows), "Win rates", "Win rates", heat, key="win matrix")


def rating_cells(results: Results, labels: list[str]) -> Cells | None:
    """Return a row for each policy with a rating, best first; None where there are none."""
    improves = {pair.b: pair.probability_of_improvement for pair in results.pairs if pair.a == START}
    rated = sorted(filter(results.ratings.__contains__, labels), key=lambda label: -results.ratings[label].mean)
    rows = [
        [
            label,
            _number(results.ratings[label]),
            _number(results.algorithms[label].interquartile_mean),
            _number(_complement(improves[label]) if label in improves else None),
        ]
        for label in rated
    ]
    return (["policy", "rating [95%]", "interquartile mean [95%]", "improves [95%]"], rows) if rows else None


def difference_cells(results: Results) -> Cells | None:
    """Return a row for each verdict on the metric that decides; None where there are none."""
    rows = [
        [
            f"{v.a} - {v.b}",
            marked(v),
            f"{fixed(v.difference, '+.2f')} {interval(*v.ci95)}",
            f"{v.p_adjusted:.3f}" if v.p_adjusted >= 0.001 else "< 0.001",
            "-" if v.effect_size is None else fixed(v.effect_size, "+.2f"),
            "-" if v.detectable is None else f"{v.detectable:.2f}",
        ]
        for v in results.verdicts
        if v.metric == results.primary
    ]
    headings = ["pair", "verdict", "difference [95%]", "p (Holm)", "effect size", "detectable (80%, Holm)"]
    return (headings, rows) if rows else None


def _complement(summary: Summary) -> Summary:
    """Return the probability of b over a, from that of a over b."""
    ends = summary.ci95 and (1 - summary.ci95[1], 1 - summary.ci95[0])
    return Summary(mean=1 - summary.mean, ci95=ends)


def _number(summary: Summary | None) -> str:
    if summary is None:
        return "-"
    return fixed(summary.mean) + (f" {interval(*summary.ci95, sign='')}" if summary.ci95 else "")
