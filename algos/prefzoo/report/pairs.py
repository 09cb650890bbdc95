"""Every policy against every other one: win rates, ratings, differences with what could have been seen of them."""

from __future__ import annotations

from prefzoo.report.breakdown import HeatMap
from prefzoo.report.cost import Cells
from prefzoo.report.summary_text import OPEN, marked
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import Results, Summary
from prefzoo.run.stage_graph import START

MATRIX = (
    "How often the policy of a row scores higher than that of a column, on the same prompt with the same seed, ties "
    "counted half. A star: their difference is told from chance at the 5% level after Holm's correction."
)
RATINGS = (
    "Rating: Bradley-Terry, in log-odds of winning, with the start at 0. Interquartile mean: of the middle half of all "
    "scores, which a few extreme replies do not move. Improves: the probability that a policy with any seed scores "
    "higher on a prompt than the start with any seed (both after Agarwal et al. 2021). All with 95% intervals that are "
    "not corrected for the number of policies: one that leaves out the start's number (0, or one half) is no verdict."
)
DIFFERENCES = (
    "The verdict and p are corrected for the number of comparisons (Holm; those with the start are one family, those "
    f"between policies another), the intervals are not: {OPEN} marks what one alone would have shown. Effect "
    "size: the mean of the paired differences over their standard deviation (Cohen's d of pairs). Detectable: the "
    "smallest true difference that another comparison of this size would find with 80% probability after that "
    "correction. It is wider than the interval, the more so the fewer seeds there are, whose luck it has to allow for; "
    "where nothing was shown, smaller differences are not ruled out."
)


def matrix(results: Results, labels: list[str]) -> HeatMap | None:
    """Win rates of rows over columns, warm above a half; None where no two policies were measured."""
    rates = {(pair.a, pair.b): pair.win_rate.mean for pair in results.pairs}
    rates |= {(b, a): 1 - rate for (a, b), rate in rates.items()}
    shown = {(v.a, v.b) for v in results.verdicts if v.metric == results.primary and v.verdict != "inconclusive"}
    labels = [label for label in labels if any(label in pair for pair in rates)]
    rows = []
    for a in labels:
        cells = []
        for b in labels:
            star = "*" if (a, b) in shown or (b, a) in shown else ""
            cells.append((f"{rates[a, b]:.2f}{star}", 2 * rates[a, b] - 1) if (a, b) in rates else ("", 0.0))
        rows.append((a, cells))
    return HeatMap("Win rates", ["policy", *labels], rows) if rows else None


def rating_cells(results: Results, labels: list[str]) -> Cells | None:
    """A row for each policy with a rating, best first; None where there are none."""
    improves = {pair.b: pair.probability_of_improvement for pair in results.pairs if pair.a == START}
    rows = []
    for label in sorted((each for each in labels if each in results.ratings), key=lambda x: -results.ratings[x].mean):
        turned = _turned(improves[label]) if label in improves else None
        middle = results.algorithms[label].interquartile_mean
        rows.append([label, _number(results.ratings[label]), _number(middle), _number(turned)])
    return (["policy", "rating [95%]", "interquartile mean [95%]", "improves [95%]"], rows) if rows else None


def difference_cells(results: Results) -> Cells | None:
    """A row for each verdict on the metric that decides; None where there are none."""
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


def _turned(summary: Summary) -> Summary:
    """The same of b over a."""
    ends = summary.ci95 and (1 - summary.ci95[1], 1 - summary.ci95[0])
    return Summary(mean=1 - summary.mean, ci95=ends)


def _number(summary: Summary | None) -> str:
    if summary is None:
        return "-"
    return fixed(summary.mean) + (f" {interval(*summary.ci95, sign='')}" if summary.ci95 else "")
