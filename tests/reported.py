"""Results made by hand, for tests of what a person reads of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefzoo.ledger import Ledger
from prefzoo.recipe.check_recipe import load
from prefzoo.results.caveats import notes
from prefzoo.results.results_schema import AlgorithmResult, Results, SeedResult, Summary, Verdict

LEDGERS = {
    "start": [Ledger(generated_tokens=10, inference_tokens=10, seconds=1.0)] * 2,
    "dpo": [
        Ledger(generated_tokens=10, inference_tokens=10, trained_tokens=1000, flops=2e9, seconds=3.0),
        Ledger(30, inference_tokens=30, trained_tokens=3000, flops=4e9, seconds=5.0, peak_memory_bytes=2**30),
    ],
    "rejection_sampling": [Ledger(generated_tokens=110, inference_tokens=10, reward_calls=24, seconds=2.0)] * 2,
}  # fmt: skip
MEANS = {"start": 0.0, "dpo": 1.5, "rejection_sampling": 0.5}
SPLIT = {
    "unaligned": 0,
    "prompt_tokens": {"median": 1, "p95": 2, "max": 3},
    "trained_tokens": 7,
    "shortened": 0,
    "replies": 1,
}


def trial(out: Path, label: str, seed: int, gold: bool) -> SeedResult:
    folder = out / f"{label}-{seed}"
    folder.mkdir(parents=True)
    record = {"prompt": [{"role": "user", "content": "<b>?"}], "reply": "a|b <script>", "proxy": 0.5}
    (folder / "replies.jsonl").write_text(json.dumps(record | ({"gold": 0.25} if gold else {})) + "\n")
    return SeedResult(
        metrics={"finished": 1.0, "proxy": 0.5},
        ledger=asdict(LEDGERS[label][seed]),
        details={"rounds": [{"kept": 3 + seed, "share": 1 / 3}], "note": "x|y"} if label == "dpo" else {},
        replies=f"{label}-{seed}/replies.jsonl",
    )


def made(out: Path, gold: bool = True) -> Results:
    """Three policies, two seeds, the middle one not better with certainty."""
    recipe = load(
        "quickstart",
        ["seeds=2", "evaluation.prompts=256", *([] if gold else ["gold=none"])],
        ["dpo", "rejection_sampling"],
    )
    metric = "gold" if gold else "proxy"
    algorithms = {
        label: AlgorithmResult(
            status="ok",
            algorithm=label,
            settings={},
            differs={},
            seeds={str(seed): trial(out, label, seed, gold) for seed in (0, 1)},
            summary={
                metric: Summary(mean=mean, ci95=(mean - 0.25, mean + 0.25)),
                "win_rate": Summary(mean=0.5, ci95=None),
                "kl": Summary(mean=mean / 10, ci95=None),
            },
        )
        for label, mean in MEANS.items()
    }
    verdicts = [
        Verdict(metric=metric, a=a, b="start", difference=MEANS[a], ci95=(-1, 1), p_adjusted=0.5, verdict=verdict)
        for a, verdict in (("dpo", "better"), ("rejection_sampling", "inconclusive"))
    ]
    sealed = {name: {"rows": 1, "prompts": 300} for name in ("train", "validation", "test")}
    reward = {"type": "trained", "test_accuracy": 0.75, "ci95": [0.7, 0.8], "test_pairs": 600}
    return Results(
        recipe=recipe.model_dump(mode="json"),
        manifest={"sha256": "0" * 64, "splits": sealed},
        versions={"prefzoo": "0"},
        algorithms=algorithms,
        reward=reward,
        preflight={
            "read": 3, "used": 3, "made": 3, "kept": 3, "dropped_records": {}, "dropped_after": {}, "dropped": {},
            "dropped_rows": {}, "unpaired": {}, "unread_columns": {}, "rated": {}, "label_with": None,
            "annotators": {}, "repeated": [],
            "shortened_prompt_count": 0, "beyond_budget": 0, "examples": [],
            "splits": {name: {**SPLIT, "chosen_tokens": SPLIT["prompt_tokens"]} for name in sealed},
            "near_duplicates": {name: {"count": 0, "prompts": 1, "examples": []} for name in sealed},
        },
        shared={"start": asdict(Ledger(trained_tokens=500, seconds=9.0)), "reward": asdict(Ledger())},
        notes=notes(recipe, algorithms, reward, {"splits": sealed}),
        verdicts=verdicts,
    )  # fmt: skip


def searched(scores: Mapping[str, Sequence[float | None]], metric: str = "gold", **more: Any) -> dict[str, Any]:
    """What a search leaves in `tuning.json`: label -> the score of each trial in order, None where it failed; `beta` of
    trial i is 0.1 * 2 ** i. What is in `more` replaces what is in it."""
    labels: dict[str, Any] = {}
    for label, of_label in scores.items():
        trials = [
            {
                "number": i,
                "settings": {"beta": 0.1 * 2**i, "trainer.learning_rate": 1e-3 / (i + 1)},
                "state": "failed" if score is None else "complete",
                "score": score,
                "seed_scores": [] if score is None else [score],
                "standard_error": None if score is None else 0.1,
                "kl": None if score is None else 1.5 + i,
                "length": None if score is None else 20.0,
                "share": 1.0,
                "error": "loss is nan" if score is None else None,
                "ledger": {"flops": 1e9, "seconds": 2.0, "generated_tokens": 100},
                "folders": [f"trials/tune-{label}-{i}"],
            }
            for i, score in enumerate(of_label)
        ]
        known = [score for score in of_label if score is not None]
        best = of_label.index(max(known)) if known else None
        labels[label] = {
            "space": {
                "beta": {"low": 0.05, "high": 2.0, "log": True, "choices": None, "source": "Rafailov et al. 2023"},
                "trainer.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "choices": None, "source": None},
            },
            "trials": trials,
            "best": best,
            "winner": None,
            "untuned": f"{label}-untuned" if best else None,
            "spent": {"flops": 1e9 * len(trials), "seconds": 2.0 * len(trials), "generated_tokens": 100 * len(trials)},
        }
    return {
        "objective": {"metric": metric, "kl_penalty": 0.05 if metric == "reward" else None},
        "sampler": "tpe",
        "equal": "trials",
        "trials": max(map(len, scores.values())),
        "seeds": [1000],
        "prompts": 128,
        "budget": {"prompts": 400, "epochs": None},
        "seed": 0,
        "finished": True,
        "start": {"score": -0.2, "kl": 0.0, "length": 18.0},
        "labels": labels,
        "not_tuned": {"best_of_n": "it has nothing to tune"},
        **more,
    }
