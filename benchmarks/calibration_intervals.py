"""Intervals of the mean of a table of differences: the one in use, and those it was chosen among."""

from __future__ import annotations

import numpy as np
from scipy import stats

from prefzoo.results import statistics
from prefzoo.results.statistics.two_way_anova import mean_squares

DRAWS = 400
"""Of each bootstrap."""


def intervals(table: np.ndarray, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Every interval that was considered, of the mean of a (seeds x prompts) table: name -> (low, high)."""
    seeds, prompts = table.shape
    mean = float(table.mean())
    a, b, e = (square / table.size for square in mean_squares(table))

    def student(square: float, freedom: float) -> tuple[float, float]:
        half = float(stats.t.ppf(0.975, freedom)) * square**0.5
        return mean - half, mean + half

    found = statistics.estimate(table)
    df = (seeds - 1, prompts - 1)
    parts = (max(a - e, 0.0), b)
    by_seed, by_prompt = (rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n for n in (seeds, prompts))
    means = ((by_seed @ table) * by_prompt).sum(1)
    flips = rng.choice([-1.0, 1.0], (DRAWS, prompts)) @ (table.mean(0) - mean) / prompts
    flipped = float(np.quantile(np.abs(flips), 0.95))
    return {
        "two-way analysis of variance (in use)": (found.low, found.high),
        "both parts added (until 0.2)": student(a + b, (a + b) ** 2 / (a**2 / df[0] + b**2 / df[1])),
        "variance components, none below 0 (REML's)": student(
            sum(parts), sum(parts) ** 2 / (parts[0] ** 2 / df[0] + parts[1] ** 2 / df[1])
        ),
        "t over seeds' means": student(a, df[0]),
        "t over prompts' means": student(b, df[1]),
        "bootstrap of seeds and prompts, percentiles": tuple(np.quantile(means, [0.025, 0.975])),
        "the same, BCa": bias_corrected(table, means),
        "the same, studentized": studentized(table, rng),
        "permutation: signs of prompts' differences": (mean - flipped, mean + flipped),
    }


def bias_corrected(table: np.ndarray, means: np.ndarray) -> tuple[float, float]:
    """BCa (Efron 1987), its acceleration from leaving out each seed and each prompt."""
    mean = table.mean()
    influence = np.concatenate(
        [(table.mean(1) - mean) / (len(table) - 1), (table.mean(0) - mean) / (table.shape[1] - 1)]
    )
    below = np.clip((means < mean).mean(), 1 / DRAWS, 1 - 1 / DRAWS)
    bias = stats.norm.ppf(below)
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    z = bias + stats.norm.ppf([0.025, 0.975])
    low, high = np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def studentized(table: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Bootstrap-t: every draw's distance from the mean in units of its own standard error."""
    seeds, prompts = table.shape
    rows = rng.integers(seeds, size=(DRAWS, seeds, 1))
    columns = rng.integers(prompts, size=(DRAWS, 1, prompts))
    drawn = table[rows, columns]
    by_seed, by_prompt, mean = drawn.mean(2), drawn.mean(1), drawn.mean((1, 2))
    of_seeds, of_prompts = by_seed.var(1, ddof=1) / seeds, by_prompt.var(1, ddof=1) / prompts
    rest = drawn - by_seed[:, :, None] - by_prompt[:, None] + mean[:, None, None]
    noise = (rest**2).sum((1, 2)) / ((seeds - 1) * (prompts - 1)) / (seeds * prompts)
    error = np.sqrt(np.maximum(of_seeds + of_prompts - noise, np.sqrt((of_seeds**2 + of_prompts**2) / 2)))
    low, high = np.quantile((mean - table.mean()) / error, [0.025, 0.975])
    whole = statistics.estimate(table)
    return whole.mean - high * whole.error, whole.mean - low * whole.error
