"""Planning of people's answers: how wide an interval they will leave, joined with a judge's verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from prefzoo.results.statistics.prediction_powered import half_widths, share_estimate
from prefzoo.results.statistics.prompt_groups import Groups, group_means
from prefzoo.results.statistics.two_way_anova import mean_squares


@dataclass(frozen=True)
class LabelPlan:
    """What a run tells of the answers that another one like it would take.

    Attributes:
        squares: mean squares of seeds, prompts (or groups of them) and noise of win rates.
        mean: the win rate.
        variance: of single verdicts.
        seeds, prompts: of the table, whose columns may be groups.
        replies: of all seeds to all prompts.
    """

    squares: tuple[float, float, float]
    mean: float
    variance: float
    seeds: int
    prompts: int
    replies: int

    @classmethod
    def of(cls, wins: np.ndarray, groups: Groups) -> LabelPlan:
        """Make one of a (seeds x prompts) table of wins, ties and defeats."""
        table = group_means(wins, groups)
        seeds, prompts = table.shape
        return cls(mean_squares(table), float(table.mean()), float(wins.var()), seeds, prompts, wins.size)

    def widths(self, labels: int, correlation: float) -> tuple[float, float]:
        """Return the expected widths of the joined interval over other seeds and prompts, and over other prompts alone.

        Args:
            labels: replies that people answer about.
            correlation: of a judge's verdicts and people's; 0 gives the widths of people alone.
        """
        left = self.replies / min(labels, self.replies) - 1
        noise = self.variance * (1 - correlation**2) * left * self.seeds * self.prompts / self.replies
        seeds, prompts, single = (square + noise for square in self.squares)
        df = max(1, self.seeds - 1)
        luck = special.chdtri(df, (np.arange(32) + 0.5) / 32) / df  # what seeds happen to differ by
        answered = min(labels, self.prompts)
        both, here = zip(
            *(half_widths((seeds * each, prompts, single), self.seeds, self.prompts, answered) for each in luck),
            strict=True,
        )
        estimates = [[share_estimate(self.mean, half) for half in of_kind] for of_kind in (both, here)]
        overall, of_prompts = (float(np.mean([e.high - e.low for e in of_kind])) for of_kind in estimates)
        return overall, of_prompts
