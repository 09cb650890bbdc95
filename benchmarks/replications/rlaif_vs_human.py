"""Labels by a judge beside labels by people, as the judge's accuracy and the annotators' error vary (Lee et al. 2023,
https://arxiv.org/abs/2309.00267, found the two on a par; here the truth is known).

DPO learns from as many pairs each time. People label pairs of the shop's replies, as data sets have them; a judge
labels pairs of the start's own replies, as RLAIF does. On both, labels are wrong in a known share, at random; beside
these stand labels that are wrong for a reason: those of the lab's simulated annotators, who share a bias, and those of
the lab model as its own judge. What is compared is gold against how many labels are right.

    python benchmarks/replications/rlaif_vs_human.py --seeds 3      # some 30 minutes on 4 busy cores
"""

# The annotations below are no texts: a class of a script travels to the trials' processes by value, without what only
# a text names.
import argparse
import dataclasses
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import matplotlib

import prefzoo
from prefzoo import Algorithm, Bench, Policy, lab
from prefzoo.results.results_schema import Results

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAIRS = 400
ERRORS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
Pair = tuple[Any, str, str]


@prefzoo.register("labelled_dpo")
@dataclass(frozen=True)
class LabelledDpo(Algorithm):
    """DPO on `PAIRS` pairs that are labelled anew.

    Attributes:
        replies: whose replies are compared: those of the data, or two of the start's own to each prompt.
        by: `truth`, and then wrong with probability `error`; the lab's simulated `annotators`; the lab `model`.
        error: share of labels that are wrong at random.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences", "prompts"})

    replies: Literal["data", "own"] = "data"
    by: Literal["truth", "annotators", "model"] = "truth"
    error: float = 0.0

    def train(self, bench: Bench) -> Policy:
        rng = random.Random(f"labels {bench.seed}")
        drawn = self._pairs(bench)
        pairs = [pair for pair in drawn if gold(pair[0], pair[1]) != gold(pair[0], pair[2])][:PAIRS]
        truly = [gold(prompt, a) > gold(prompt, b) for prompt, a, b in pairs]
        said = self._labels(pairs, truly, rng, bench)
        bench.report["pairs"] = len(pairs)
        bench.report["right"] = sum(x == y for x, y in zip(said, truly, strict=True)) / len(pairs)
        made = [
            {"prompt": prompt, "chosen": turn(a if first else b), "rejected": turn(b if first else a)}
            for (prompt, a, b), first in zip(pairs, said, strict=True)
        ]
        return prefzoo.get("dpo").train(bench.replace(data=dataclasses.replace(bench.data, preferences=made)))

    def _pairs(self, bench: Bench) -> list[Pair]:
        """In an order that says nothing of which is better."""
        if self.replies == "data":
            given = [
                (p["prompt"], *(p[k][0]["content"] for k in ("chosen", "rejected"))) for p in bench.data.preferences
            ]
            return [(prompt, *sorted(pair)) for prompt, *pair in given]
        from prefzoo.models.language_model import LanguageModelPolicy

        start = LanguageModelPolicy.start_of(bench)
        drawn = bench.sample(start, bench.data.prompts, n=2, seed=bench.seed)
        answered = zip(bench.data.prompts, drawn, strict=True)
        return [(prompt, a.text, b.text) for prompt, (a, b) in answered if a.finished and b.finished]

    def _labels(self, pairs: Sequence[Pair], truly: Sequence[bool], rng: random.Random, bench: Bench) -> list[bool]:
        """Of each pair, whether its first reply is called the better one."""
        if self.by == "truth":
            return [true != (rng.random() < self.error) for true in truly]
        prompts, first, second = (list(column) for column in zip(*pairs, strict=True))
        if self.by == "annotators":
            from prefzoo.lab.simulated_annotators import POOL

            return [rng.choice(POOL).prefers_first(p[-1]["content"], a, b, rng) for p, a, b in pairs]
        from prefzoo.judges.local_judge import local_judge

        return [p > 0.5 for p in local_judge(str(lab.MODEL_DIR), True, bench.loading)(prompts, first, second)]


def gold(prompt: Any, reply: str) -> float:
    return lab.gold(prompt[-1]["content"], reply)


def turn(reply: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": reply}]


def recipe(prompts: int) -> dict[str, Any]:
    """One comparison: the same start, the same prompts, and a label for each way of labelling."""
    algorithms = {}
    for replies, who in (("data", "people"), ("own", "judge")):
        for error in ERRORS:
            algorithms[f"{who}-{100 * (1 - error):.0f}"] = {"replies": replies, "error": error}
        for by in ("annotators", "model"):
            algorithms[f"{replies}-by-{by}"] = {"replies": replies, "by": by}
    return {
        "extends": "base",
        "budget": {"prompts": prompts},
        "reward": {"type": "random"},
        "tracking": {"wandb": {"mode": "disabled"}},
        "algorithms": {label: {"algorithm": "labelled_dpo", **settings} for label, settings in algorithms.items()},
    }


def points(found: Results) -> list[dict[str, Any]]:
    """One point a label: how many labels were right, and gold with its interval; the best first."""
    rows = []
    for label, each in found.algorithms.items():
        score, trials = each.summary["gold"], each.seeds.values()
        row = {"label": label, "gold": score.mean, "gold_ci95": score.ci95, "kl": each.summary["kl"].mean}
        if label != "start":
            for fact in ("right", "pairs"):
                row[fact] = sum(trial.details[fact] for trial in trials) / len(trials)
            row |= {"replies": each.settings["replies"], "by": each.settings.get("by", "truth")}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["gold"])


def differences(found: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """Gold of a judge's labels less that of people's, paired by seed and prompt: judge's label -> people's label."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for each in found.verdicts:
        for one, other, sign in ((each.a, each.b, 1), (each.b, each.a, -1)):
            if each.metric == "gold" and one.startswith("judge-") and other.startswith("people-"):
                interval = sorted(sign * bound for bound in each.ci95)
                table.setdefault(one, {})[other] = {"difference": sign * each.difference, "ci95": interval}
    return table


LOOKS = {
    ("data", "truth"): ("tab:orange", "o-", "people, wrong at random, on pairs of the data"),
    ("own", "truth"): ("tab:blue", "s-", "a judge, wrong at random, on the start's own replies"),
    ("data", "annotators"): ("tab:orange", "*", "the lab's annotators on pairs of the data"),
    ("own", "annotators"): ("tab:blue", "*", "the lab's annotators on the start's own replies"),
    ("data", "model"): ("tab:orange", "D", "the lab model as its own judge on pairs of the data"),
    ("own", "model"): ("tab:blue", "D", "the lab model as its own judge on the start's own replies (RLAIF)"),
}


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Gold against the share of right labels."""
    figure, axes = plt.subplots(figsize=(8, 6.2), constrained_layout=True)
    for (replies, by), (colour, form, words) in LOOKS.items():
        held = [row for row in rows if (row.get("replies"), row.get("by")) == (replies, by)]
        held.sort(key=lambda row: row["right"])
        x, y = [row["right"] for row in held], [row["gold"] for row in held]
        if by == "truth":
            axes.plot(x, y, form, color=colour, label=words)
            bounds = [[row["gold_ci95"][i] for row in held] for i in (0, 1)]
            axes.fill_between(x, *bounds, color=colour, alpha=0.15, lw=0)
        else:
            errors = [
                [row["gold"] - row["gold_ci95"][0] for row in held],
                [row["gold_ci95"][1] - row["gold"] for row in held],
            ]
            axes.errorbar(x, y, yerr=errors, fmt=form, ms=10, mec="black", color=colour, capsize=3, label=words)
    start = next(row["gold"] for row in rows if row["label"] == "start")
    axes.axhline(start, color="0.5", lw=1, ls="--", label="the start")
    axes.set(xlabel="share of labels that are right", ylabel="gold reward of DPO (mean, 95% interval)")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=2)
    figure.savefig(path, dpi=130)


def write(found: Results, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """All figures as JSON, and as tables on the screen."""
    apart = differences(found)
    content = {"points": rows, "differences": apart, "seeds": found.recipe["seeds"], "versions": found.versions}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(f"{'':20}{'pairs':>7}{'right':>8}{'gold':>8}  95%{'':>13}{'KL':>6}")
    for row in rows:
        low, high = row["gold_ci95"]
        about = f"{row['pairs']:7.0f}{row['right']:8.3f}" if "right" in row else " " * 15
        print(f"{row['label']:20}{about}{row['gold']:8.2f}  {low:6.2f} to {high:5.2f}{row['kl']:6.2f}")
    judges, people = ([f"{who}-{100 * (1 - error):.0f}" for error in ERRORS] for who in ("judge", "people"))
    print("\ngold with a judge's labels less that with people's; * where the 95% interval is clear of 0")
    print(f"{'':10}" + "".join(f"{name:>12}" for name in people))
    for name in judges:
        held = [apart[name][other] for other in people]
        marks = ["*" if cell["ci95"][0] * cell["ci95"][1] > 0 else " " for cell in held]
        cells = zip(held, marks, strict=True)
        print(f"{name:10}" + "".join(f"{cell['difference']:+11.2f}{mark}" for cell, mark in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=640)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/rlaif_vs_human"))
    arguments = parser.parse_args()
    found = prefzoo.compare(
        recipe(arguments.prompts), seeds=arguments.seeds, out=arguments.out, workers=arguments.workers
    )
    rows = points(found)
    draw(rows, arguments.out / "rlaif_vs_human.png")
    write(found, rows, arguments.out / "rlaif_vs_human.json")


if __name__ == "__main__":
    main()
