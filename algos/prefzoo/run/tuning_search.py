"""The search for the settings of all labels of a recipe: which trials to run next, and what they found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from prefzoo.atomic_files import partial_folder, read_json, write_whole
from prefzoo.errors import DataError, PrefzooError
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.recipe.tuning_space import UNTUNED, not_tuned, space_of, tuning_seeds, with_values, written
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.executor import Outcome
from prefzoo.run.label_search import LabelSearch, Measured, Trial
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.tuning_graph import TUNING_FILE, SearchBuilder, metric_of, trial_prompts

JOURNAL = Path("tuning") / "journal.log"
"""The same for Optuna's dashboard."""
LEDGER, MEASURING = "ledger.json", "measuring.json"


class Search:
    """Runs beside a `Runner`, which it gives stages to.

    Args:
        recipe: with `tuning`.
        out: the comparison's folder.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        assert recipe.tuning is not None
        self.recipe, self.out, self.tuning = recipe, out, recipe.tuning
        self.metric, self.seeds = metric_of(recipe), tuning_seeds(recipe)
        self.builder = SearchBuilder(recipe, out)
        self.not_tuned = {label: why for label in recipe.algorithms if (why := not_tuned(recipe, label)) is not None}
        journal = out / JOURNAL
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.unlink(missing_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        self.labels = {label: self._label(label, storage) for label in recipe.algorithms if label not in self.not_tuned}
        self.running: dict[str, tuple[LabelSearch, Trial]] = {}
        self.start: dict[str, Measured] = {}
        self.finished = False
        self.prompts = self.tuning.prompts
        for search in self.labels.values():
            self._ask(search)

    @property
    def plan(self) -> Plan:
        """The stages so far."""
        return self.builder.plan

    def _label(self, label: str, storage: Any) -> LabelSearch:
        algorithm, space = self.recipe.algorithm(label), space_of(self.recipe, label)
        settings = {key: value for key, value in self.recipe.algorithms[label].items() if key != "tune"}
        now: dict[str, Any] = {key: written(self.recipe, algorithm, key) for key in space}

        def stage(trial: Trial, seed: int) -> Stage:
            changed = {key: value for key, value in trial.values.items() if value != now[key]}
            return self.builder.trial_stage(label, trial.number, with_values(settings, changed), self.seeds[seed])

        return LabelSearch(label, space, now, self.tuning, storage, stage)

    def _ask(self, search: LabelSearch) -> list[Stage]:
        """Ask for the trials that may begin now."""
        begun: list[Stage] = []
        while search.stopped is None and self._may_ask(search):
            trial, stages = search.ask()
            begun += stages
            self.running.update({stage.name: (search, trial) for stage in stages})
        return begun

    def _may_ask(self, search: LabelSearch) -> bool:
        asked = len(search.trials)
        return asked < search.most and (asked < search.free or search.told == asked)

    def ended(self, stage: Stage, outcome: Outcome) -> tuple[list[Stage], list[Trial]]:
        """Take in how a stage ended.

        Returns:
            The stages that may run now, and the trials of its label that have ended.

        Raises:
            PrefzooError: when there are too few validation prompts.
        """
        if stage.name == "data" and outcome.status == "ok":
            self._check_validation(stage.folder)
        if stage.kind != "tune":
            return [], []
        if stage.name not in self.running:  # the start
            if outcome.status == "ok":
                self.start[stage.name] = self._measured(stage)
            return [], []
        search, trial = self.running.pop(stage.name)
        if outcome.status == "ok":
            trial.measured[stage.name] = self._measured(stage)
        else:
            search.fail(trial, str(outcome.error), _read_ledger(partial_folder(stage.folder) / LEDGER))
            if outcome.status == "skipped":  # what all of its trials need is not there
                search.stopped = str(outcome.error)
        return self._go_on(search)

    def _go_on(self, search: LabelSearch) -> tuple[list[Stage], list[Trial]]:
        stages, trials = [], []
        while True:
            ended, begun = search.tell()
            for each in begun:
                self.running[each.name] = (search, search.trials[search.told])
            new = [*begun, *self._ask(search)]
            stages += new
            trials += ended
            if not ended and not new:
                return stages, trials

    def left(self, ended: Mapping[str, Outcome]) -> list[Stage]:
        """The stages that are still to be run, those among them of trials that were not asked for yet."""
        known = [stage for stage in self.plan.stages.values() if stage.name not in ended]
        for search in self.labels.values():
            asked = len(search.trials)
            for number in range(asked, asked if search.stopped else search.most):
                known.append(Stage(f"tune {search.label} trial {number}", "tune", self.out, label=search.label))
        return known

    def _check_validation(self, folder: Path) -> None:
        there = read_json(folder / "manifest.json")["splits"]["validation"]["prompts"]
        if there < 2:
            raise DataError(
                f"tuning: the validation split, by which settings are chosen, has {there} prompts, and two are the "
                "least; give more rows, or a larger data.splits.validation"
            )
        self.prompts = min(self.tuning.prompts, there)

    def _measured(self, stage: Stage) -> Measured:
        records = read_records(stage.folder)
        kls = [record["kl"] for record in records if "kl" in record]
        kl = fmean(kls) if len(kls) == len(records) else None
        if self.metric == "reward":
            penalty = self.tuning.kl_penalty
            scores = [record["proxy"] - penalty * (record["kl"] if penalty else 0.0) for record in records]
        else:
            scores = [record["gold"] for record in records]
        length = fmean(record["length"] for record in records)
        ledger, measuring = (_read_ledger(stage.folder / name) for name in (LEDGER, MEASURING))
        return Measured(scores, kl, length, ledger, measuring)

    def winners(self) -> dict[str, dict[str, Any]]:
        """Label -> the settings that were found, as far as they are not those that were written."""
        return {label: winner for label, search in self.labels.items() if (winner := search.winner)}

    def save(self) -> dict[str, Any]:
        """Write `tuning.json`, and return what is in it."""
        content = self.record()
        write_whole(self.out / TUNING_FILE, json.dumps(content, indent=1))
        return content

    def record(self) -> dict[str, Any]:
        """The search so far, in plain values."""
        tuning, start = self.tuning, list(self.start.values())
        return {
            "objective": {
                "metric": self.metric,
                "kl_penalty": tuning.kl_penalty if self.metric == "reward" else None,
            },
            "sampler": tuning.sampler,
            "equal": tuning.equal,
            "trials": tuning.trials,
            "seeds": self.seeds,
            "prompts": self.prompts,
            "budget": {
                "prompts": trial_prompts(self.recipe),
                "epochs": tuning.budget.epochs or self.recipe.budget.epochs,
            },
            "seed": tuning.seed,
            "finished": self.finished,
            "start": _summary(start) if start else None,
            "labels": {label: self._of_label(search) for label, search in self.labels.items()},
            "not_tuned": self.not_tuned,
        }

    def _of_label(self, search: LabelSearch) -> dict[str, Any]:
        trials = [
            {
                "number": trial.number,
                "settings": trial.values,
                "state": trial.state,
                **(_summary(trial.seeds) if trial.seeds else {"score": None, "kl": None, "length": None}),
                "score": trial.score,
                "seed_scores": [fmean(seed.scores) for seed in trial.seeds],
                "standard_error": trial.standard_error,
                "share": trial.share,
                "error": trial.error,
                "ledger": trial.ledger,
                "folders": [stage.folder.relative_to(self.out).as_posix() for stage in trial.stages],
            }
            for trial in search.trials[: search.told]
        ]
        spent = {name: sum(t["ledger"][name] for t in trials) for name in ("flops", "seconds", "generated_tokens")}
        settings = {k: v for k, v in self.recipe.algorithms[search.label].items() if k != "tune"}
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
            "spent": spent,
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


def _read_ledger(file: Path) -> dict[str, float]:
    """What a stage used; empty where it left nothing."""
    with suppress(PrefzooError):
        return read_json(file)
    return {}


def sentence(search: LabelSearch, trial: Trial, metric: str) -> str:
    """One line about a trial that has ended."""
    values = ", ".join(f"{key.removeprefix('trainer.')} {_shown(value)}" for key, value in trial.values.items())
    place = f"tuning {search.label}, trial {trial.number + 1}"
    place += f" of {search.most}" if search.tuning.equal == "trials" else ""
    what = "as written: " if trial.number == 0 else ""
    if trial.score is None:
        return f"{place}: {what}{values}: failed"
    error = f" ± {trial.standard_error:.2g}" if trial.standard_error is not None else ""
    divergence = _summary(trial.seeds)["kl"]
    kl = f", KL {divergence:.2g}" if divergence is not None else ""
    best = ", the best so far" if search.best is trial and trial.number > 0 else ""
    pruned = ", given up" if trial.state == "pruned" else ""
    return f"{place}: {what}{values}: {metric} {trial.score:.3g}{error}{kl}{best}{pruned}"


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
