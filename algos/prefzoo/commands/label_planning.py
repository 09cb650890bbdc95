"""How wide the interval of a win rate will be with so many answers of people, joined with a judge's verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from prefzoo.errors import PrefzooError, os_errors_told
from prefzoo.results import analysis
from prefzoo.results.results_file import load, load_groups, load_tables
from prefzoo.results.statistics import LabelPlan, wins
from prefzoo.run.stage_graph import START

LABELS = (20, 40, 60, 100, 200, 400, 800)


@dataclass(frozen=True)
class LabelPlanning:
    """The intervals to expect.

    Attributes:
        policy: whose win rate over the start varies most in the run.
        plan: what the run tells of it.
        labels: numbers of answers.
        correlation: of the judge's and people's verdicts.
        source: where that is from, in words.
    """

    policy: str
    plan: LabelPlan
    labels: list[int]
    correlation: float
    source: str

    def table(self) -> Table:
        """For a terminal."""
        title = f"Width of the 95% interval of the win rate of {self.policy} over the start"
        made = Table("answers", "people alone", "joined", "people alone, these trainings", "joined", title=title)
        for labels in self.labels:
            (alone, alone_here), (both, both_here) = (self.plan.widths(labels, r) for r in (0.0, self.correlation))
            made.add_row(str(labels), *(f"{width:.2f}" for width in (alone, both, alone_here, both_here)))
        return made

    def sentences(self) -> list[str]:
        """What the table rests on."""
        return [
            f"Of {self.plan.seeds} seeds and {self.plan.replies // self.plan.seeds} test prompts each; the correlation "
            f"of the judge's verdicts with people's is {self.correlation:.2f} ({self.source}). People are taken to "
            "differ between prompts and trainings as what decides in this run does. The first two widths cover other "
            "trainings, and more seeds make them narrower than more answers do, where seeds are few."
        ]


@os_errors_told("reading the run")
def plan_labels(folder: Path, labels: int, agreement: float | None = None) -> LabelPlanning:
    """Plan answers about a run like that in `folder`.

    Args:
        labels: a number of answers that is wanted in the table.
        agreement: how often the judge prefers the same reply as people; None takes what the run measured.

    Raises:
        PrefzooError: when the run has no win rates, or nothing tells how good the judge is.
    """
    if labels < 2:
        raise PrefzooError(f"--labels {labels}: at least 2 answers are needed")
    if agreement is not None and not 0.5 <= agreement <= 1:
        raise PrefzooError(
            f"--agreement {agreement:g}: a share from 0.5 (a coin) to 1; a judge that is wrong more often "
            "than not is a good one turned around"
        )
    if not (folder / "results.json").is_file():
        raise PrefzooError(
            f"{folder} holds no finished run to learn from; run a small one first: prefzoo compare RECIPE"
        )
    run = load(folder)
    tables = {label: load_tables(result, folder) for label, result in run.algorithms.items()}
    metric = analysis.primary_metric(tables)
    scores = {label: table[metric] for label, table in tables.items() if metric is not None and metric in table}
    start = scores.pop(START, None)
    if start is None or not scores:
        raise PrefzooError(f"{folder}: no algorithm was measured to the end, so that there are no win rates")
    groups = load_groups(run, folder).get(analysis.ALL)
    plans = {label: LabelPlan.of(wins(table, start), groups) for label, table in scores.items()}
    policy = max(plans, key=lambda label: plans[label].widths(labels, 0.0))
    measured = [pair.correlation for pair in run.human.pairs if pair.correlation is not None] if run.human else []
    if agreement is not None:
        correlation, source = 2 * agreement - 1, f"as of one that agrees with people in {agreement:.0%}, without ties"
    elif measured:
        correlation, source = sum(measured) / len(measured), "as measured in this run"
    else:
        raise PrefzooError(
            f"{folder} has no answers of people that would tell how far the judge agrees with them; say what you "
            "expect: --agreement 0.8"
        )
    plan = plans[policy]
    numbers = sorted({n for n in (*LABELS, labels) if n <= plan.replies})
    if labels > plan.replies:
        raise PrefzooError(f"--labels {labels}: there are only {plan.replies} pairs of test replies in {folder}")
    return LabelPlanning(policy, plan, numbers, correlation, source)
