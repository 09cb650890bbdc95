"""Cases in which Student's t, taken over prompts, was too sure: simulated, and judged by the code that judges.

Prompts in families, skewed scores, rare shares and two seeds. Beside what is in use stands what it was before, or what
it was chosen among.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from prefzoo.results import statistics
from prefzoo.results.statistics.two_way_anova import estimate_from_mean_squares, mean_squares

FOUND = Path(__file__).parent / "results" / "calibration_hard_cases.json"
Row = dict[str, Any]
FAMILIES = {
    "20 of 10": [10] * 20,
    "40 of 5": [5] * 40,
    "100 of 1, one of 100": [100] + [1] * 100,
    "36 of 1 to 23": [round(1.15**i) for i in range(1, 24)] + [2] * 13,
}
SEEDS = (1, 3, 5)


def cases() -> Iterator[Callable[[int], Row]]:
    """What measures each case, by so many draws; a seed for each, so that one can be drawn again alone."""
    for name, sizes in FAMILIES.items():
        for seeds in SEEDS:
            yield partial(families, name, sizes, seeds)
    for spread in (0.5, 1.0, 1.5, 2.0):
        for seeds, prompts in ((1, 64), (1, 256), (3, 64), (3, 256), (5, 256)):
            yield partial(skew, spread, seeds, prompts)
    for share in (0.01, 0.02, 0.05, 0.2):
        for seeds, prompts in ((1, 200), (3, 64), (3, 200), (5, 200)):
            yield partial(shares, share, seeds, prompts)
    for spread in (0.0, 0.05, 0.1, 0.3, 1.0):
        yield partial(seeds_apart, spread)


def judged(difference: np.ndarray) -> statistics.Estimate:
    """What a verdict rests on, of a (seeds x groups) table of differences."""
    return statistics.paired_difference(difference, np.zeros_like(difference))


def t_alone(table: np.ndarray) -> statistics.Estimate:
    """The two-way analysis of variance without what is done for skewed means and for shares."""
    return estimate_from_mean_squares(float(table.mean()), mean_squares(table), *table.shape)


def families(name: str, sizes: list[int], seeds: int, times: int) -> Row:
    """Equal policies whose replies to the prompts of a family are alike: half of the variance is the family's."""
    rng = np.random.default_rng([1, seeds, len(sizes)])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    called = dict.fromkeys(("in use", "over prompts", "mean over prompts, errors by family"), 0)
    for _ in range(times):
        family = rng.normal(0, 0.7, (1, len(sizes))) + rng.normal(0, 0.7, (seeds, len(sizes)))
        table = family[:, groups] + rng.normal(0, 1, (seeds, len(groups)))
        means = statistics.group_means(table, groups)
        weighed = table.mean() + (means - table.mean()) * np.bincount(groups) / np.bincount(groups).mean()
        called["in use"] += judged(means).p < statistics.ALPHA
        called["over prompts"] += t_alone(table).p < statistics.ALPHA
        called["mean over prompts, errors by family"] += t_alone(weighed).p < statistics.ALPHA
    return {"kind": "families", "case": name, "seeds": seeds, "prompts": len(groups), **_shares(called, times)}


def skew(spread: float, seeds: int, prompts: int, times: int) -> Row:
    """A true difference of 0 that is lognormal over prompts: one loses a little on most and gains much on few."""
    rng = np.random.default_rng([2, int(10 * spread), seeds, prompts])
    called, told, mean = dict.fromkeys(("in use", "t alone"), 0), 0, np.exp(spread**2 / 2)
    for _ in range(times):
        of_prompts = (rng.lognormal(0, spread, (1, prompts)) - mean) / mean
        table = of_prompts + rng.normal(0, 0.3 if seeds > 1 else 0.0, (seeds, prompts))
        verdict = judged(table)
        called["in use"] += verdict.p < statistics.ALPHA
        called["t alone"] += t_alone(table).p < statistics.ALPHA
        told += verdict.skewed
    found = _shares({**called, "told in the report": told}, times)
    return {"kind": "skew", "case": f"lognormal {spread:g}", "seeds": seeds, "prompts": prompts, **found}


def shares(share: float, seeds: int, prompts: int, times: int) -> Row:
    """Shares of replies, half of whose variance between prompts is the prompts' own."""
    rng = np.random.default_rng([3, int(1000 * share), seeds, prompts])
    covers, below, called = dict.fromkeys(("in use", "symmetric"), 0), 0, 0
    for _ in range(times):
        p = rng.beta(share, 1 - share, (1, prompts)) if seeds > 1 else share
        p = np.where(rng.random((1, prompts)) < 0.5, p, share)
        table, other = ((rng.random((seeds, prompts)) < p) * 1.0 for _ in range(2))
        plain = t_alone(table)
        found = statistics.proportion(statistics.estimate(table), table)
        covers["in use"] += found.low <= share <= found.high
        covers["symmetric"] += plain.low <= share <= plain.high
        below += plain.low < 0
        called += judged(table - other).p < statistics.ALPHA
    found = _shares({**covers, "symmetric, below 0": below, "equal shares called different": called}, times)
    return {"kind": "shares", "case": f"{share:.0%}", "seeds": seeds, "prompts": prompts, **found}


def seeds_apart(spread: float, times: int) -> Row:
    """Equal policies of 256 prompts whose seeds differ, by so much of the noise of a single reply."""
    rng = np.random.default_rng([4, int(100 * spread)])
    counts = dict.fromkeys(("two seeds", "two seeds, t over their means", "three seeds"), 0)
    for _ in range(times):
        for seeds, name in ((2, "two seeds"), (3, "three seeds")):
            table = rng.normal(0, 1, (seeds, 256)) + rng.normal(0, 0.3, (1, 256)) + rng.normal(0, spread, (seeds, 1))
            counts[name] += judged(table).p < statistics.ALPHA
            if seeds == 2:
                counts["two seeds, t over their means"] += stats.ttest_1samp(table.mean(1), 0).pvalue < statistics.ALPHA
    return {"kind": "seeds", "case": f"{spread:g}", "seeds": 2, "prompts": 256, **_shares(counts, times)}


def seeds_of_pool(case: str, draw: Callable[[int, int, np.random.Generator], Any], times: int) -> Row:
    """Two trials of the pool: equal ones, or how often a true difference is found."""
    rng = np.random.default_rng([5, len(case)])
    counts = dict.fromkeys(("two seeds", "two seeds, t over their means", "three seeds"), 0)
    for _ in range(times):
        for seeds, name in ((2, "two seeds"), (3, "three seeds")):
            first, second, _ = draw(seeds, 256, rng)
            counts[name] += judged(first - second).p < statistics.ALPHA
            if seeds == 2:
                p = stats.ttest_1samp((first - second).mean(1), 0).pvalue
                counts["two seeds, t over their means"] += p < statistics.ALPHA
    return {"kind": "seeds", "case": case, "seeds": 2, "prompts": 256, **_shares(counts, times)}


def _shares(counts: dict[str, int], times: int) -> dict[str, float]:
    return {name: count / times for name, count in counts.items()}


def measure(draws: Mapping[str, Callable[..., Any]], times: int, page: Path) -> None:
    """Measure all cases, keep what was found, and write it into a part of the page of its own.

    Args:
        draws: what draws two trials of the pool, by name (see `seeds_of_pool`).
    """
    every = [*cases(), *[partial(seeds_of_pool, name, draw) for name, draw in draws.items()]]
    with ProcessPoolExecutor() as processes:
        found = [each.result() for each in [processes.submit(case, times) for case in every]]
    FOUND.write_text(json.dumps({"times": times, "rows": found}, indent=1) + "\n", encoding="utf-8")
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- hard cases -->")
    after = rest.partition("<!-- measured -->")[2]
    text = f"{before}<!-- hard cases -->\n{tables(found)}\n<!-- measured -->{after}"
    page.write_text(text, encoding="utf-8")


TITLES = {
    "families": "Prompts in families: equal policies called different",
    "skew": "Skewed differences whose true mean is 0: called different",
    "shares": "Rare shares: intervals that cover, and equal shares called different",
    "seeds": "Two seeds: called different",
}


def tables(found: list[Row]) -> str:
    """The measurements as Markdown."""
    lines: list[str] = []
    for kind, title in TITLES.items():
        of_kind = [row for row in found if row["kind"] == kind]
        names = [name for name in of_kind[0] if name not in ("kind", "case", "seeds", "prompts")]
        sizes = [] if kind == "seeds" else ["seeds", "prompts"]
        lines += [f"### {title}", "", f"| {' | '.join(['case', *sizes, *names])} |"]
        lines.append("| --- |" + " ---: |" * (len(sizes) + len(names)))
        for row in of_kind:
            cells = [row["case"], *[str(row[size]) for size in sizes], *[f"{row[name]:.1%}" for name in names]]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
