"""Are the verdicts to be trusted? Measured on resampled real evaluations.

A pool is made once: the start and three cheap trials (imitation, DPO, and DPO at a learning rate so high that its seeds
differ much) with 32 seeds and 512 test prompts each, the gold reward of every reply. From it comparisons are drawn as
they would be run, seeds and prompts at random, and judged by the code that judges (`analysis.verdict_family`):

- A/A: two policies are the same trial with other seeds. Any verdict but `inconclusive` is false.
- Intervals: of policies whose true difference is known, because the pool is all there is.
- Power: one comparison advertises a detectable difference; another, in which it is true, must find it.

Other intervals are measured beside the one in use, which is how it was chosen (docs/decisions/0007).

    python benchmarks/calibration.py pool --work /tmp/pool      # 227 stages, some 10 minutes on 4 cores
    python benchmarks/calibration.py measure                    # minutes; docs/calibration.md too
    python benchmarks/calibration.py hard                       # families, skew, rare shares, two seeds; minutes
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import calibration_hard_cases as hard_cases
import numpy as np
from calibration_intervals import intervals
from scipy import stats

from prefzoo.results import analysis, statistics
from prefzoo.results.statistics.two_way_anova import mean_squares

HERE = Path(__file__).parent
POOL = HERE / "results" / "calibration_pool.npz"
FOUND = HERE / "results" / "calibration.json"
PAGE = HERE.parent / "docs" / "calibration.md"
RECIPE = {
    "extends": "base",
    "budget": {"prompts": 300},
    "evaluation": {"prompts": 512},
    "reward": {"type": "random"},
    "tracking": {"wandb": {"mode": "disabled"}},
    "seeds": 32,
    "algorithms": {
        "sft": {},
        "dpo": {"beta": 0.5},
        "dpo-rough": {"algorithm": "dpo", "beta": 0.1, "trainer": {"learning_rate": 4e-3}},
    },
}
SIZES = ((3, 256), (5, 256), (3, 64), (1, 256))
SAME = ("sft", "dpo", "dpo-rough")
OTHER = (("sft", "start"), ("dpo", "start"), ("dpo", "sft"), ("dpo-rough", "dpo"))
TWO_SEEDS = (*[(label, label) for label in SAME], ("dpo", "start"), ("dpo", "sft"))
Pool = dict[str, np.ndarray]
Drawn = tuple[np.ndarray, np.ndarray, float]
"""Two (seeds x prompts) tables and the true difference of their means."""


def make_pool(work: Path) -> None:
    """Run the trials and keep the gold reward of every reply."""
    import prefzoo
    from prefzoo.run.evaluation_records import read_records

    found = prefzoo.compare(RECIPE, out=work)
    pool = {
        label: np.array(
            [[r["gold"] for r in read_records((work / t.replies).parent)] for t in each.seeds.values()], np.float32
        )
        for label, each in found.algorithms.items()
    }
    np.savez_compressed(POOL, **pool)


def read_pool() -> Pool:
    """label -> (seeds x prompts) gold rewards."""
    with np.load(POOL) as content:
        return {label: content[label].astype(float) for label in content.files}


def same(pool: Pool, label: str, seeds: int, prompts: int, rng: np.random.Generator) -> Drawn:
    """An A/A comparison: two sets of seeds of one label, none shared. One seed has no other to stand for: what its
    interval covers is the difference of these two trainings over all prompts."""
    table = pool[label]
    chosen = rng.permutation(len(table))[: 2 * seeds].reshape(2, seeds)
    columns = rng.integers(table.shape[1], size=prompts)
    truth = float(table[chosen[0]].mean() - table[chosen[1]].mean()) if seeds == 1 else 0.0
    return table[chosen[0]][:, columns], table[chosen[1]][:, columns], truth


def other(pool: Pool, a: str, b: str, seeds: int, prompts: int, rng: np.random.Generator) -> Drawn:
    """A comparison of two labels, paired by seed as the runs are; the truth is the whole pool's."""
    rows = rng.integers(len(pool[a]), size=seeds)
    columns = rng.integers(pool[a].shape[1], size=prompts)
    whole = pool[a] - pool[b]
    truth = float(whole[rows].mean() if seeds == 1 else whole.mean())
    return pool[a][rows][:, columns], pool[b][rows][:, columns], truth


def judged(a: np.ndarray, b: np.ndarray) -> analysis.Verdict:
    """The verdict on two tables, by the code that judges every comparison."""
    return analysis.verdict_family("calibration", [("gold", "a", "b")], {"a": {"gold": a}, "b": {"gold": b}})[0]


def covered(draw: Callable[[], Drawn], times: int) -> dict[str, Any]:
    """How often the interval covers the truth and how often a verdict is given."""
    inside, called, widths = 0, [], []
    for _ in range(times):
        a, b, truth = draw()
        found = judged(a, b)
        inside += found.ci95[0] <= truth <= found.ci95[1]
        called.append(found.verdict != "inconclusive")
        widths.append(found.ci95[1] - found.ci95[0])
    return {
        "coverage": share(inside, times),
        "called": share(sum(called), times),
        "called_of_first_200": share(sum(called[:200]), min(200, times)),
        "median_width": float(np.median(widths)),
    }


def found_at_advertised(draw: Callable[[], Drawn], times: int) -> dict[str, Any]:
    """How often a difference is found that is as large as another comparison of this size said to be detectable."""
    found, advertised = 0, []
    for _ in range(times):
        first, second = draw(), draw()
        size = judged(*first[:2]).detectable
        assert size is not None
        advertised.append(size)
        found += judged(second[0] - second[2] + size, second[1]).verdict == "better"
    return {"power": share(found, times), "median_detectable": float(np.median(advertised))}


def any_called(pool: Pool, label: str, seeds: int, prompts: int, rng: np.random.Generator, times: int) -> Any:
    """Four policies that are one trial with other seeds, all six pairs: how often any pair is called different."""
    called = 0
    for _ in range(times):
        rows = rng.permutation(len(pool[label]))[: 4 * seeds].reshape(4, seeds)
        columns = rng.integers(pool[label].shape[1], size=prompts)
        tables = {str(i): {"gold": pool[label][each][:, columns]} for i, each in enumerate(rows)}
        pairs = [("gold", *two) for two in combinations(tables, 2)]
        found = analysis.verdict_family("calibration", pairs, tables)
        called += any(each.verdict != "inconclusive" for each in found)
    return share(called, times)


def share(count: int, times: int) -> dict[str, float]:
    """A share with its exact 95% interval (Clopper and Pearson 1934)."""
    found = stats.binomtest(int(count), times).proportion_ci(0.95)
    return {"share": count / times, "low": float(found.low), "high": float(found.high), "times": times}


def alternatives(draw: Callable[[], Drawn], times: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """How often each interval covers, and how wide it is."""
    inside: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    for _ in range(times):
        a, b, truth = draw()
        for name, (low, high) in intervals(a - b, rng).items():
            inside.setdefault(name, []).append(bool(low <= truth <= high))
            widths.setdefault(name, []).append(high - low)
    return {
        name: {**share(sum(found), times), "median_width": float(np.median(widths[name]))}
        for name, found in inside.items()
    }


def aggregates(pool: Pool, seeds: int, prompts: int, rng: np.random.Generator, times: int) -> dict[str, Any]:
    """Coverage of the intervals that come from the bootstrap: of numbers that no verdict goes by."""
    labels = ("start", "dpo", "sft")
    tables = np.stack([pool[label] for label in labels])
    truth = {
        "interquartile mean of dpo": statistics.interquartile_mean(pool["dpo"]).mean,
        "win rate of dpo over sft": float(statistics.wins(pool["dpo"], pool["sft"]).mean()),
        "probability of improvement of dpo over sft": statistics.probability_of_improvement(
            pool["dpo"], pool["sft"]
        ).mean,
        "Bradley-Terry rating of dpo": statistics.bradley_terry_ratings(tables)[1].mean,
    }
    inside = dict.fromkeys(truth, 0)
    for _ in range(times):
        rows = rng.integers(tables.shape[1], size=seeds)
        columns = rng.integers(tables.shape[2], size=prompts)
        start, dpo, sft = tables[:, rows][:, :, columns]
        found = [
            statistics.interquartile_mean(dpo),
            statistics.estimate(statistics.wins(dpo, sft)),
            statistics.probability_of_improvement(dpo, sft),
            statistics.bradley_terry_ratings(np.stack([start, dpo, sft]))[1],
        ]
        for (name, value), each in zip(truth.items(), found, strict=True):
            inside[name] += each.low <= value <= each.high
    return {name: share(count, times) for name, count in inside.items()}


def measured(size: tuple[int, int], times: int, few: int, pool: Pool) -> dict[str, Any]:
    """All measurements of comparisons of one size, seeded.

    Args:
        size: seeds and prompts.
        times: comparisons drawn for each A/A and each known difference; at least 200.
        few: drawn where each draw takes longer (power, other intervals, bootstraps).
        pool: see `read_pool`.
    """
    seeds, prompts = size
    rng = np.random.default_rng(size)
    cases: dict[str, Callable[[], Drawn]] = {
        f"{label} and {label}": partial(same, pool, label, seeds, prompts, rng) for label in SAME
    } | {f"{a} and {b}": partial(other, pool, a, b, seeds, prompts, rng) for a, b in OTHER}
    found: dict[str, Any] = {
        "cases": {name: covered(draw, times) | found_at_advertised(draw, few) for name, draw in cases.items()}
    }
    if seeds > 1:
        found["any of six A/A pairs"] = {label: any_called(pool, label, seeds, prompts, rng, times) for label in SAME}
        found["other intervals"] = {name: alternatives(draw, few // 2, rng) for name, draw in cases.items()}
        found["bootstrapped"] = aggregates(pool, seeds, prompts, rng, few)
    return found


def described(pool: Pool) -> dict[str, Any]:
    """How much seeds, prompts and chance contribute in the pool: standard deviations of single values."""
    said = {}
    for name, table in {**pool, **{f"{a} minus {b}": pool[a] - pool[b] for a, b in OTHER}}.items():
        of_seeds, of_prompts, noise = mean_squares(table)
        said[name] = {
            "mean": float(table.mean()),
            "between_seeds": max(0.0, (of_seeds - noise) / table.shape[1]) ** 0.5,
            "between_prompts": max(0.0, (of_prompts - noise) / len(table)) ** 0.5,
            "noise": noise**0.5,
        }
    return said


def percent(found: dict[str, float]) -> str:
    return f"{found['share']:.1%} ({found['low']:.1%} to {found['high']:.1%})"


def tables(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    lines = ["| pool | mean gold | between seeds | between prompts | noise |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, each in found["pool"].items():
        numbers = " | ".join(f"{each[key]:.3f}" for key in ("mean", "between_seeds", "between_prompts", "noise"))
        lines.append(f"| {name} | {numbers} |")
    for name, size in found["sizes"].items():
        lines += ["", f"## {name.replace(' x ', ' seeds, ')} prompts".replace("1 seeds", "1 seed"), ""]
        lines += ["| drawn from | interval covers | called different | of the first 200 | found at the detectable | median detectable |"]  # fmt: skip  # noqa: E501
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
        for case, each in size["cases"].items():
            a, b = case.split(" and ")
            calls = [percent(each[key]) if a == b else "" for key in ("called", "called_of_first_200")]
            lines.append(
                f"| {case} | {percent(each['coverage'])} | {calls[0]} | {calls[1]} | {percent(each['power'])} "
                f"| {each['median_detectable']:.2f} |"
            )
        if "other intervals" in size:
            for label, each in size["any of six A/A pairs"].items():
                lines += ["", f"Any of the six pairs of four A/A policies ({label}) called different: {percent(each)}."]
            cases = list(size["other intervals"])
            lines += ["", "Share of intervals that cover (median width):", "", f"| interval | {' | '.join(cases)} |"]
            lines += ["| --- |" + " ---: |" * len(cases)]
            for method in size["other intervals"][cases[0]]:
                cells = [size["other intervals"][case][method] for case in cases]
                shown = " | ".join(f"{each['share']:.1%} ({each['median_width']:.2f})" for each in cells)
                lines.append(f"| {method} | {shown} |")
            lines += ["", "| from the bootstrap | interval covers |", "| --- | ---: |"]
            lines += [f"| {what} | {percent(each)} |" for what, each in size["bootstrapped"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pool", "measure", "hard"])
    parser.add_argument("--work", type=Path, default=Path("runs/calibration"), help="folder of the pool's run")
    parser.add_argument("--times", type=int, default=2000)
    parser.add_argument("--few", type=int, default=400)
    given = parser.parse_args()
    if given.what == "pool":
        make_pool(given.work)
        return
    pool = read_pool()
    if given.what == "hard":
        draws = {f"{a} and {b}": partial(same, pool, a) if a == b else partial(other, pool, a, b) for a, b in TWO_SEEDS}
        hard_cases.measure(draws, given.times, PAGE)
        return
    with ProcessPoolExecutor() as processes:
        each = processes.map(partial(measured, times=given.times, few=given.few, pool=pool), SIZES)
        sizes = {f"{seeds} x {prompts}": size for (seeds, prompts), size in zip(SIZES, each, strict=True)}
    found = {"pool": described(pool), "sizes": sizes}
    FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    before = PAGE.read_text(encoding="utf-8").partition("<!-- measured -->")[0]
    PAGE.write_text(f"{before}<!-- measured -->\n{tables(found)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
