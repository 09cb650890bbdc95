"""Does tuning make verdicts too sure? Measured on resampled real trials.

A pool is made once: one algorithm (DPO) at its defaults and at settings drawn at random from its space, each trained
with several seeds, the gold reward of a reply to each of many prompts. Prompts and seeds are divided once: validation
prompts and tuning seeds choose, test prompts and other seeds decide. Comparisons of one algorithm under two labels
are drawn from the pool as they would be run: each label tries its own settings, the defaults first, keeps what scores
best on validation prompts, and is trained anew with seeds of its own. Measured are

- A/A: how often the verdict (`analysis.verdict_family`) is not `inconclusive`, with what other searches might have
  found in the interval (`label_search.winner_sd`), as verdicts have it, and without;
- the winner's curse: the winner's validation score, and its test score, less what the same settings score in the long
  run.

    python benchmarks/calibration_tuning.py pool --work /tmp/pool      # 320 stages, half an hour on 2 cores
    python benchmarks/calibration_tuning.py measure                    # a minute; docs/tuning.md too
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from calibration import percent, share

from prefzoo.results import analysis
from prefzoo.run.label_search import winner_sd

HERE = Path(__file__).parent
POOL = HERE / "results" / "calibration_tuning_pool.npz"
FOUND = HERE / "results" / "calibration_tuning.json"
PAGE = HERE.parent / "docs" / "tuning.md"
SETTINGS = 16
BETA, RATE = (0.05, 1.0), (4e-4, 1e-2)
"""What tuning tries of DPO in the lab, whose learning rate is 2e-3 by the rule for its size."""
TUNING_SEEDS, VALIDATION_PROMPTS = 4, 192
RECIPE: dict[str, Any] = {
    "extends": "base",
    "budget": {"prompts": 300},
    "evaluation": {"prompts": 512},
    "reward": {"type": "random"},
    "tracking": {"wandb": {"mode": "disabled"}},
    "seeds": TUNING_SEEDS + 6,
}


def settings(rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """A label for each of the pool's settings, the defaults first."""
    drawn = np.exp(rng.uniform(np.log([BETA[0], RATE[0]]), np.log([BETA[1], RATE[1]]), (SETTINGS - 1, 2)))
    labels = {"dpo-0": {"algorithm": "dpo"}}
    for i, (beta, rate) in enumerate(drawn.tolist(), 1):
        labels[f"dpo-{i}"] = {"algorithm": "dpo", "beta": beta, "trainer": {"learning_rate": rate}}
    return labels


def make_pool(work: Path) -> None:
    """Train and keep the gold reward of every reply: (settings, seeds, prompts)."""
    import prefzoo
    from prefzoo.run.evaluation_records import read_records

    labels = settings(np.random.default_rng(0))
    found = prefzoo.compare({**RECIPE, "algorithms": labels}, out=work)
    gold = [
        [
            [r["gold"] for r in read_records((work / trial.replies).parent)]
            for trial in found.algorithms[label].seeds.values()
        ]
        for label in labels
    ]
    np.savez_compressed(POOL, gold=np.array(gold, np.float32))


class Tuned:
    """One algorithm under a label, tuned and trained anew.

    Attributes:
        winner: which of the pool's settings won.
        validation: the score that it won by.
        search_sd: how far apart what such searches find is, by this one.
        test: (seeds, prompts) gold of what was trained anew.
    """

    def __init__(self, pool: np.ndarray, trials: int, prompts: int, seeds: np.ndarray, columns: np.ndarray, rng: Any):
        """Choose among the defaults and `trials` - 1 other settings by `prompts` validation prompts; then take the
        `seeds` and test prompts (`columns`) of the winner."""
        tried = np.append(0, 1 + rng.choice(len(pool) - 1, trials - 1, replace=False))
        on = rng.integers(VALIDATION_PROMPTS, size=prompts)
        scores = pool[tried, rng.integers(TUNING_SEEDS, size=trials)][:, on]
        self.winner, self.validation = int(tried[scores.mean(1).argmax()]), float(scores.mean(1).max())
        self.search_sd = winner_sd(scores)
        self.test = pool[self.winner, seeds][:, columns]


def measure(pool: np.ndarray, trials: int, times: int, rng: np.random.Generator) -> dict[str, Any]:
    """A/A comparisons of 3 seeds and 256 test prompts, tuned by 128 validation prompts."""
    validation = pool[:, :TUNING_SEEDS, :VALIDATION_PROMPTS].mean((1, 2))
    test = pool[:, TUNING_SEEDS:, VALIDATION_PROMPTS:].mean((1, 2))
    called, plain, errors, same, optimism, bias, gaps = [], [], [], 0, [], [], []
    for _ in range(times):
        seeds = TUNING_SEEDS + rng.permutation(pool.shape[1] - TUNING_SEEDS).reshape(2, -1)
        columns = VALIDATION_PROMPTS + rng.integers(pool.shape[2] - VALIDATION_PROMPTS, size=256)
        pair = [Tuned(pool, trials, 128, each, columns, rng) for each in seeds]
        tables = {label: {"gold": each.test} for label, each in zip("ab", pair, strict=True)}
        searched = {label: each.search_sd for label, each in zip("ab", pair, strict=True)}
        for verdicts, found in ((plain, {}), (called, searched)):
            (verdict,) = analysis.verdict_family("", [("gold", "a", "b")], tables, found)
            verdicts.append(verdict.verdict != "inconclusive")
        same += pair[0].winner == pair[1].winner
        gaps.append(abs(test[pair[0].winner] - test[pair[1].winner]))
        for each in pair:
            errors.append(each.search_sd)
            optimism.append(each.validation - validation[each.winner])
            bias.append(float(each.test.mean()) - test[each.winner])
    return {
        "trials": trials,
        "called": share(sum(called), times),
        "called_of_first_200": share(sum(called[:200]), min(200, times)),
        "called_without_searches": share(sum(plain), times),
        "search_sd": float(np.mean(np.square(errors)) ** 0.5),
        "same_winner": same / times,
        "mean_true_difference": float(np.mean(gaps)),
        "validation_above_the_long_run": mean_and_error(optimism),
        "test_above_the_long_run": mean_and_error(bias),
    }


def mean_and_error(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "standard_error": float(np.std(values) / len(values) ** 0.5)}


def table(found: list[dict[str, Any]]) -> str:
    lines = ["| trials | called different | of the first 200 | without what other searches find | same winner | winners truly differ by | winner's validation score is too high by | its test score by |"]  # fmt: skip  # noqa: E501
    lines.append("| ---: |" + " ---: |" * 7)
    for each in found:
        above = [each[key] for key in ("validation_above_the_long_run", "test_above_the_long_run")]
        shown = " | ".join(f"{one['mean']:+.3f} ± {1.96 * one['standard_error']:.3f}" for one in above)
        lines.append(
            f"| {each['trials']} | {percent(each['called'])} | {percent(each['called_of_first_200'])} "
            f"| {percent(each['called_without_searches'])} "
            f"| {each['same_winner']:.0%} | {each['mean_true_difference']:.2f} | {shown} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pool", "measure"])
    parser.add_argument("--work", type=Path, default=Path("runs/calibration_tuning"), help="folder of the pool's run")
    parser.add_argument("--times", type=int, default=2000)
    given = parser.parse_args()
    if given.what == "pool":
        make_pool(given.work)
        return
    with np.load(POOL) as content:
        pool = content["gold"].astype(float)
    found = [measure(pool, trials, given.times, np.random.default_rng(trials)) for trials in (4, 8, 12)]
    FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    before = PAGE.read_text(encoding="utf-8").partition("<!-- measured -->")[0]
    PAGE.write_text(f"{before}<!-- measured -->\n{table(found)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
