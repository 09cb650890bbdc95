"""What a search found: in plain values for `tuning.json`, and in a line for each trial."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from prefzoo.atomic_files import write_whole
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.recipe.tuning_space import UNTUNED, with_values
from prefzoo.run.label_search import LabelSearch, Measured, Trial
from prefzoo.run.tuning_graph import TUNING_FILE, trial_prompts
from prefzoo.run.tuning_search import Search

JOURNAL = Path("tuning") / "journal.log"
"""What `tuning.json` says, for Optuna's dashboard."""


def save(search: Search) -> dict[str, Any]:
    """Write `tuning.json` and the journal, and return what is in the first."""
    content = record(search)
    (search.out / JOURNAL).parent.mkdir(parents=True, exist_ok=True)
    write_whole(search.out / JOURNAL, "".join(json.dumps(log) + "\n" for log in search.journal.logs))
    write_whole(search.out / TUNING_FILE, json.dumps(content, indent=1))
    return content


def record(search: Search) -> dict[str, Any]:
    """The search so far."""
    tuning, start = search.tuning, list(search.start.values())
    return {
        "objective": {
            "metric": search.metric,
            "kl_penalty": tuning.kl_penalty if search.metric == "reward" else None,
        },
        "sampler": tuning.sampler,
        "equal": tuning.equal,
        "allowance": search.allowance.amount if search.allowance is not None else None,
        "trials": tuning.trials,
        "seeds": search.seeds,
        "prompts": search.prompts,
        "budget": {
            "prompts": trial_prompts(search.recipe),
            "epochs": tuning.budget.epochs or search.recipe.budget.epochs,
        },
        "seed": tuning.seed,
        "finished": search.finished,
        "start": _summary(start) if start else None,
        "labels": {label: _of_label(each, search.recipe, search.out) for label, each in search.labels.items()},
        "not_tuned": search.not_tuned,
    }


def _of_label(search: LabelSearch, recipe: Recipe, out: Path) -> dict[str, Any]:
    trials = [
        {
            "number": trial.number,
            "settings": trial.values,
            "state": trial.state,
            **(_summary(trial.seeds) if trial.score is not None else {"kl": None, "length": None}),
            "score": trial.score,
            "seed_scores": [fmean(seed.scores) for seed in trial.seeds if seed.scores],
            "standard_error": trial.standard_error,
            "share": trial.share,
            "error": trial.error,
            "ledger": trial.ledger,
            "folders": [stage.folder.relative_to(out).as_posix() for stage in trial.stages],
        }
        for trial in search.trials[: search.told]
    ]
    settings = {key: value for key, value in recipe.algorithms[search.label].items() if key != "tune"}
    ledgers = [trial.ledger for trial in search.trials[: search.told]]
    return {
        "space": {
            key: {
                "low": None if tried.choices else tried.low,
                "high": None if tried.choices else tried.high,
                "log": tried.log,
                "choices": list(tried.choices) or None,
                "source": tried.source,
            }
            for key, tried in search.space.items()
        },
        "trials": trials,
        "best": search.best.number if search.best is not None else None,
        "winner": with_values(settings, search.winner),
        "untuned": UNTUNED.format(search.label) if search.winner else None,
        "search_sd": search.search_sd,
        "spent": {name: sum(each[name] for each in ledgers) for name in ("flops", "seconds", "generated_tokens")},
    }


def _summary(seeds: Iterable[Measured]) -> dict[str, Any]:
    """Means over seeds."""
    seeds = list(seeds)
    kls = [seed.kl for seed in seeds if seed.kl is not None]
    return {
        "score": fmean(fmean(seed.scores) for seed in seeds),
        "kl": fmean(kls) if len(kls) == len(seeds) else None,
        "length": fmean(seed.length for seed in seeds),
    }


def sentence(search: Search, label: str, trial: Trial) -> str:
    """One line about a trial that has ended."""
    of_label = search.labels[label]
    values = ", ".join(f"{key.removeprefix('trainer.')} {_shown(value)}" for key, value in trial.values.items())
    place = f"tuning {label}, trial {trial.number}"
    if search.allowance is None:
        place += f" (of {of_label.most})"
    elif search.allowance.amount:
        place += f" ({search.allowance.spent(of_label) / search.allowance.amount:.0%} of the {search.allowance.unit})"
    values = f"as written: {values}" if trial.number == 0 else values
    if trial.score is None:
        return f"{place}: {values}: failed"
    error = f" ± {trial.standard_error:.2g}" if trial.standard_error is not None else ""
    divergence = _summary(trial.seeds)["kl"]
    kl = f", KL {divergence:.2g}" if divergence is not None else ""
    fewer = f", on {trial.share:.0%} of the prompts" if trial.share < 1 else ""
    best = ", the best so far" if of_label.best is trial and trial.number > 0 else ""
    pruned = ", given up" if trial.state == "pruned" else ""
    return f"{place}: {values}: {search.metric} {trial.score:.3g}{error}{kl}{fewer}{best}{pruned}"


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
