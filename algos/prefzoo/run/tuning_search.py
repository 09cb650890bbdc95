"""The search for the settings of all labels of a recipe: which trials to run next, and what they found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from prefzoo.atomic_files import partial_folder, read_json
from prefzoo.errors import DataError, PrefzooError
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.recipe.tuning_space import not_tuned, space_of, tuning_seeds, with_values, written
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.executor import Outcome
from prefzoo.run.label_search import LabelSearch, Measured, Trial
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.tuning_allowance import Allowance
from prefzoo.run.tuning_graph import MEASURING, SearchBuilder, metric_of, trial_prompts

NO_KL = (
    "its policy has no KL to the start, which tuning takes off the reward; give the policy one "
    "(docs/algorithms.md), or say tuning.kl_penalty: 0"
)


class _Journal(BaseJournalBackend):
    """Optuna's journal in memory, to be written whole now and then: its own file would be synced at every entry."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


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
        self.journal = _Journal()
        storage = JournalStorage(self.journal)
        self.labels = {label: self._label(label, storage) for label in recipe.algorithms if label not in self.not_tuned}
        self.running: dict[str, tuple[LabelSearch, Trial]] = {}
        self.start: dict[str, Measured] = {}
        self.finished = False
        self.prompts = self.tuning.prompts
        equal, batch = self.tuning.equal, recipe.training.batch_size
        self.allowance = Allowance(equal, least=batch) if equal != "trials" else None
        for search in self.labels.values():
            self._ask(search)

    @property
    def plan(self) -> Plan:
        """The stages so far."""
        return self.builder.plan

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run."""
        if not self.labels:
            return True
        asked = any(search.stopped is None and self._may_ask(search) for search in self.labels.values())
        return not self.running and not asked and len(self.start) == len(self.seeds)

    def replay(self) -> None:
        """Take in all that was done by earlier calls; nothing is run."""
        ended: set[str] = set()
        while done := [stage for name, stage in self.plan.stages.items() if name not in ended and stage.done]:
            for stage in done:
                ended.add(stage.name)
                self.ended(stage, Outcome("ok"))

    def _label(self, label: str, storage: Any) -> LabelSearch:
        algorithm, space = self.recipe.algorithm(label), space_of(self.recipe, label)
        settings = {key: value for key, value in self.recipe.algorithms[label].items() if key != "tune"}
        now: dict[str, Any] = {key: written(self.recipe, algorithm, key) for key in space}

        def stage(trial: Trial, seed: int) -> Stage:
            changed = {key: value for key, value in trial.values.items() if value != now[key]}
            tried = with_values(settings, changed)
            prompts = round(trial.share * self.allowance.prompts) if self.allowance and trial.share < 1 else None
            return self.builder.trial_stage(label, trial.number, tried, self.seeds[seed], prompts)

        return LabelSearch(label, space, now, self.tuning, storage, stage)

    def _ask(self, search: LabelSearch) -> list[Stage]:
        """Ask for the trials that may begin now."""
        begun: list[Stage] = []
        while search.stopped is None and self._may_ask(search):
            trial, stages = search.ask(self._fit(search))
            begun += stages
            self.running.update({stage.name: (search, trial) for stage in stages})
        return begun

    def _may_ask(self, search: LabelSearch) -> bool:
        asked, allowance = len(search.trials), self.allowance
        if allowance is None or asked == 0:
            return asked < search.most and (asked < search.free or search.told == asked)
        return search.told == asked and allowance.amount is not None and allowance.left(search) > 0

    def _fit(self, search: LabelSearch) -> Callable[[Mapping[str, Any]], tuple[dict[str, Any], float]]:
        """Makes of settings those that are tried, and the share of the training prompts that they get."""
        allowance = self.allowance
        if allowance is None or allowance.amount is None:
            return lambda values: (dict(values), 1.0)
        return lambda values: allowance.fit(search, values)

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
            trial.measured[stage.name] = measured = self._measured(stage)
            if not measured.scores:
                search.fail(trial, NO_KL, {})
        else:
            search.fail(trial, str(outcome.error), _read_ledger(partial_folder(stage.folder) / "ledger.json"))
            if outcome.status == "skipped":  # what all of its trials need is not there
                search.stopped = str(outcome.error)
        stages, trials = self._go_on(search)
        if self.allowance is not None and self.allowance.fix(list(self.labels.values()), self.tuning.trials):
            for each in self.labels.values():
                stages += self._go_on(each)[0]
        return stages, trials

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
            most = asked if search.stopped or self.allowance is not None else search.most
            for number in range(asked, most):
                known.append(Stage(f"tune {search.label} trial {number}", "tune", self.out, label=search.label))
        return known

    def _check_validation(self, folder: Path) -> None:
        manifest = read_json(folder / "manifest.json")["splits"]
        there = manifest["validation"]["prompts"]
        if there < 2:
            raise DataError(
                f"tuning: the validation split, by which settings are chosen, has {there} prompts, and two are the "
                "least; give more rows, or a larger data.splits.validation"
            )
        self.prompts = min(self.tuning.prompts, there)
        if self.allowance is not None:
            self.allowance.prompts = min(manifest["train"]["prompts"], trial_prompts(self.recipe) or math.inf)
            self.allowance.least = min(self.allowance.prompts, self.allowance.least)

    def _measured(self, stage: Stage) -> Measured:
        """What a stage left; no scores, where there is no KL to penalize."""
        records = read_records(stage.folder)
        kls = [record["kl"] for record in records if "kl" in record]
        kl = fmean(kls) if len(kls) == len(records) else None
        penalty = self.tuning.kl_penalty if self.metric == "reward" else 0.0
        measure = "proxy" if self.metric == "reward" else "gold"
        penalized = [record[measure] - penalty * record.get("kl", 0.0) for record in records]
        scores = penalized if kl is not None or not penalty else []
        length = fmean(record["length"] for record in records)
        ledger, measuring = (_read_ledger(stage.folder / name) for name in ("ledger.json", MEASURING))
        return Measured(scores, kl, length, ledger, measuring)

    def winners(self) -> dict[str, dict[str, Any]]:
        """Label -> the settings that were found, as far as they are not those that were written."""
        return {label: winner for label, search in self.labels.items() if (winner := search.winner)}


def _read_ledger(file: Path) -> dict[str, float]:
    """What a stage used; empty where it left nothing."""
    with suppress(PrefzooError):
        return read_json(file)
    return {}
