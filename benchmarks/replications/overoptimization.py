"""Over-optimization of a learned reward, seen (Gao et al. 2022, https://arxiv.org/abs/2210.10760).

PPO at several KL coefficients and best-of-n at several n learn from the same reward model; what the reward model says
(proxy) and what is true (gold) are plotted against the square root of the KL to the start. The proxy keeps rising; gold
rises, then falls. Best-of-n's KL is also measured, on replies drawn from the start, beside log n - (n - 1) / n.

    python benchmarks/replications/overoptimization.py --seeds 3      # some 25 minutes on 4 cores
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import prefzoo
from prefzoo.results.results_schema import Results

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COEFFICIENTS = (1.0, 0.3, 0.1, 0.03, 0.0)
CANDIDATES = (2, 4, 8, 16, 32)
DRAWS = 1024
"""Replies to a prompt from which best-of-n's KL is measured; many times the largest n."""
ALIKE = 50
"""The formula holds where no two draws are alike; a prompt counts as such where fewer than one pair in this many is."""


def recipe(prompts: int) -> dict[str, Any]:
    """PPO and best-of-n against one reward model. Every prompt is seen twice, so that PPO gets far."""
    ppo = {f"ppo-kl-{c:g}": {"algorithm": "ppo", "kl_coefficient": c} for c in COEFFICIENTS}
    best = {f"best-of-{n}": {"algorithm": "best_of_n", "n": n} for n in CANDIDATES}
    return {"extends": "base", "budget": {"prompts": prompts, "epochs": 2}, "algorithms": {**ppo, **best}}


def measured_kl(rewards: Mapping[str, float], drawn: Counter[str], n: int) -> float:
    """KL(best-of-n || start) in nats for one prompt, from draws of the start and the reward of each reply.

    Best-of-n gives a reply with the probability that the best of n draws is it: F(r)^n - F(below r)^n, shared among
    replies of equal reward. Where no reply is drawn often this is log n - (n - 1) / n up to 1 / draws; where some are,
    it is less.
    """
    total = drawn.total()
    below, kl = 0.0, 0.0
    for reward in sorted(set(rewards.values())):
        here = [drawn[text] / total for text in drawn if rewards[text] == reward]
        mass = sum(here)
        chosen = (below + mass) ** n - below**n
        kl += sum(chosen * p / mass * math.log(chosen / mass) for p in here if chosen > 0)
        below += mass
    return kl


def best_of_n_kl(found: Results, out: Path, prompts: int = 48) -> dict[str, dict[str, float]]:
    """For each n: the formula, the KL measured over all prompts, and over those to which replies vary: with fewer than
    one pair in `ALIKE` draws alike."""
    from prefzoo.commands.sample_policies import open_policy
    from prefzoo.data.row_views import views_of
    from prefzoo.data.splits import load_split
    from prefzoo.run.stage_graph import load_plan
    from prefzoo.settings import Generation

    policy: Any = open_policy(out, f"best-of-{CANDIDATES[0]}", None)
    asked = views_of(load_split(load_plan(out).stages["data"].folder, "test")).prompts[:prompts]
    drawn = policy.policy.sample(asked, Generation(**found.recipe["generation"]), seed=77, n=DRAWS)
    cases = []
    for prompt, each in zip(asked, drawn, strict=True):
        counts = Counter(reply.text for reply in each)
        scores = policy.reward([prompt] * len(counts), list(counts))  # each text once: the same text, the same reward
        alike = sum(count * (count - 1) for count in counts.values()) / (DRAWS * (DRAWS - 1))
        cases.append((dict(zip(counts, scores, strict=True)), counts, alike < 1 / ALIKE))
    varied = [case for case in cases if case[2]]
    result = {}
    for n in CANDIDATES:
        entry = {"formula": math.log(n) - (n - 1) / n, "prompts": float(len(cases)), "varied": float(len(varied))}
        entry["measured"] = float(np.mean([measured_kl(s, t, n) for s, t, _ in cases]))
        if varied:
            entry["measured_where_replies_vary"] = float(np.mean([measured_kl(s, t, n) for s, t, _ in varied]))
        result[str(n)] = entry
    return result


def points(found: Results, prefix: str) -> list[dict[str, float]]:
    """One point a label: KL, proxy and gold, each averaged over seeds, with gold's interval; in order of KL."""
    rows = []
    for label, each in found.algorithms.items():
        if label.startswith(prefix) or label == "start":
            summary = each.summary
            low, high = summary["gold"].ci95 or (math.nan, math.nan)
            rows.append(
                {
                    "label": label,
                    "kl": max(0.0, summary["kl"].mean),
                    "proxy": summary["proxy"].mean,
                    "gold": summary["gold"].mean,
                    "gold_low": low,
                    "gold_high": high,
                }
            )
    return sorted(rows, key=lambda row: row["kl"])


def draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Proxy and gold against the square root of KL, a panel for each way of optimizing."""
    figure, axes = plt.subplots(1, len(curves), figsize=(11, 4), sharey=True, constrained_layout=True)
    for axis, (name, rows) in zip(axes, curves.items(), strict=True):
        x = [math.sqrt(row["kl"]) for row in rows]
        axis.plot(x, [row["proxy"] for row in rows], "o--", color="tab:orange", label="proxy (reward model)")
        axis.plot(x, [row["gold"] for row in rows], "o-", color="tab:blue", label="gold (truth)")
        axis.fill_between(
            x, [r["gold_low"] for r in rows], [r["gold_high"] for r in rows], color="tab:blue", alpha=0.15, lw=0
        )
        for row, at in zip(rows, x, strict=True):
            axis.annotate(
                row["label"].rpartition("-")[2],
                (at, row["gold"]),
                fontsize=7,
                xytext=(3, -9),
                textcoords="offset points",
            )
        axis.set(title=name, xlabel="square root of KL to the start (nats per reply)")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("reward")
    axes[0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--out", type=Path, default=Path("runs/overoptimization"))
    arguments = parser.parse_args()
    found = prefzoo.compare(recipe(arguments.prompts), seeds=arguments.seeds, out=arguments.out)
    curves = {"PPO, by KL coefficient": points(found, "ppo"), "best of n, by n": points(found, "best-of")}
    kl = best_of_n_kl(found, arguments.out)
    draw(curves, arguments.out / "overoptimization.png")
    content = {"curves": curves, "best_of_n_kl": kl, "reward": found.reward, "versions": found.versions}
    (arguments.out / "overoptimization.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    for name, rows in curves.items():
        print(f"\n{name}\n{'':14}{'KL':>8}{'proxy':>8}{'gold':>8}")
        for row in rows:
            print(f"{row['label']:14}{row['kl']:8.2f}{row['proxy']:8.2f}{row['gold']:8.2f}")
    print(f"\n{'n':>4}{'formula':>9}{'measured':>10}{'where replies vary':>20}")
    for n, each in kl.items():
        varied = each.get("measured_where_replies_vary", math.nan)
        print(f"{n:>4}{each['formula']:9.3f}{each['measured']:10.3f}{varied:20.3f}")


if __name__ == "__main__":
    main()
