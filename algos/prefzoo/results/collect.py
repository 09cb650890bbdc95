"""Collect what the stages of a comparison left into `Results`: metrics, differences, verdicts, warnings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefzoo.atomic_files import read_json
from prefzoo.errors import PrefzooError
from prefzoo.interface import MILESTONES
from prefzoo.judges.critique_revision import TRANSCRIPTS
from prefzoo.judges.judge_audit import AUDIT_FILE
from prefzoo.ledger import Ledger
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.results import analysis
from prefzoo.results.analysis import PromptGroups, Tables, prompt_groups
from prefzoo.results.caveats import (
    encoded_otherwise,
    group_notes,
    judge_notes,
    notes,
    power_difference,
    skew_notes,
    ungraded,
)
from prefzoo.results.cost_record import ESTIMATE_FILE
from prefzoo.results.equal_budgets import at_equal_budgets
from prefzoo.results.human_win_rates import human_notes, human_win_rates
from prefzoo.results.results_file import identities, last_call
from prefzoo.results.results_schema import AlgorithmResult, Departure, Milestone, Results, SeedResult, Status, Warning
from prefzoo.results.reward_on_policies import reward_on_policies
from prefzoo.results.training_history import milestone_tables, read_curves
from prefzoo.results.trial_metrics import (
    ACCURACIES,
    StartScores,
    column_means,
    finite_records,
    metric_columns,
    pair_columns,
    start_scores_of,
)
from prefzoo.results.tuning_results import (
    TUNING_FILE,
    explained,
    first_screen,
    found_tuning,
    read_tuning,
    search_sds,
)
from prefzoo.results.warnings import find_warnings
from prefzoo.run.evaluation_records import (
    DETAILS,
    JUDGING,
    PRINCIPLES,
    RECORDS,
    SAMPLED_BY,
    read_pair_likelihoods,
    read_records,
)
from prefzoo.run.executor import OUTCOMES, WORKER_COUNTS, Outcome, read_worker_counts
from prefzoo.run.integrity import refuse_edited, unsealed
from prefzoo.run.stage_graph import AUDIT, LABEL_STAGE, START, Plan
from prefzoo.run.trial_identity import IDENTITY, refuse_unequal
from prefzoo.trainers.recipe_deviations import SAMPLING, TRAININGS, expected_facts, find_deviations


def collect(plan: Plan, outcomes: Mapping[str, Outcome]) -> Results:
    """Collect what the stages left, compare it with the start, and judge.

    Raises:
        PrefzooError: when the trials are not alike in all that they must share (`trial_identity`), naming what differs.
    """
    plan = plan.with_lengths()
    recipe = plan.recipe
    refuse_edited(plan)
    tables: dict[str, Tables] = {}
    algorithms = {}
    start_scores: dict[int, StartScores] = {}
    for label in (START, *recipe.algorithms):
        algorithms[label], tables[label] = _algorithm(plan, outcomes, label, start_scores)
    refuse_unequal(identities(algorithms), str(plan.out))
    start = tables[START]
    groups = _prompt_groups(plan)
    of_all = groups.get(analysis.ALL)
    metric = analysis.primary_metric(tables) or "proxy"
    shares = [*ACCURACIES, *(("gold",) if recipe.final_judge is not None else ())]
    shares += [name for name in start if name.startswith(analysis.DIMENSION) and bool((start[name] == 0.5).all())]
    shares += [name for name in start if name.startswith(analysis.KNOWLEDGE)]
    analysis.summarize(algorithms, tables, groups, metric, shares)
    reward = _reward(plan, outcomes)
    if on_policies := reward_on_policies(tables, of_all):
        reward = {**reward, "on_policies": on_policies}
    preflight, manifest, judge = _data(plan)
    if recipe.audited:
        judge = {"type": recipe.judge.type, **judge, "audits": _audits(plan)}
    search = found_tuning(recipe, plan.out)
    verdicts = analysis.verdicts(tables, groups, search_sds(search))
    human = human_win_rates(plan, tables, groups)
    tuning = explained(search, verdicts, metric) if search is not None else None
    return Results(
        recipe=recipe.model_dump(mode="json"),
        manifest=manifest,
        versions=plan.versions,
        workers=read_worker_counts(plan.out),
        algorithms=algorithms,
        judge=judge,
        reward=reward,
        preflight=preflight,
        slices={
            name.partition("@")[2]: table.shape[1] for name, table in start.items() if name.startswith(f"{metric}@")
        },
        groups=int(of_all.max()) + 1 if of_all is not None else None,
        slice_groups={name: int(g.max()) + 1 for name, g in groups.items() if name != analysis.ALL and g is not None},
        shared=_shared(plan),
        notes=[
            *notes(recipe, algorithms, reward, manifest, tuning),
            *(first_screen(tuning) if tuning else ()),
            *group_notes(groups),
            *skew_notes(verdicts, metric),
            *judge_notes(plan, outcomes, judge),
            *human_notes(human),
            *ungraded(algorithms),
            *encoded_otherwise(algorithms),
            *unsealed(plan),
        ],
        warnings=_warnings(plan, algorithms, tables, groups, metric, judge),
        verdicts=verdicts,
        pairs=analysis.pairs(tables, groups),
        equal_budgets=at_equal_budgets(algorithms, tables, plan.out, groups),
        human=human,
        ratings=analysis.ratings(tables, groups),
        power_difference=power_difference(verdicts, metric, len(recipe.seeds)),
        call=last_call(plan.out),
        tuning=tuning,
    )


def _audits(plan: Plan) -> dict[str, Any]:
    """Return by judge what its audit found; None where that was not run."""
    stages = {name: plan.stages.get(AUDIT.format(name)) for name in plan.recipe.audited}
    return {
        name: read_json(stage.folder / AUDIT_FILE) if stage is not None and stage.folder.is_dir() else None
        for name, stage in stages.items()
    }


def _warnings(
    plan: Plan,
    algorithms: Mapping[str, AlgorithmResult],
    tables: Mapping[str, Tables],
    groups: PromptGroups,
    metric: str,
    judge: dict[str, Any],
) -> list[Warning]:
    """Return what looks wrong; cut replies are no sign of it where the recipe keeps them."""
    labels = plan.recipe.algorithms
    means = {label: analysis.group_tables(of_label, groups) for label, of_label in tables.items()}
    trials = {label: result.seeds.values() for label, result in algorithms.items()}
    judges: dict[str | None, list[Any]] = {None: [judge]}
    judges |= {label: [t.details["judge"] for t in ts if "judge" in t.details] for label, ts in trials.items()}
    warnings = find_warnings(
        {label: means[label] for label in labels if means[label]},
        means[START],
        metric,
        {label: result.length_adjusted for label, result in algorithms.items()},
        read_curves(plan.stages.values()),
        judges,
        {label: [trial.judging for trial in of_label] for label, of_label in trials.items()},
        {label: milestone_tables(algorithms[label], plan.out, groups) for label in labels},
        "prompts" if groups.get(analysis.ALL) is None else "groups of prompts",
    )
    keeps_cut = plan.recipe.generation.unfinished == "keep"
    return [warning for warning in warnings if warning.kind != "cut_off" or not keeps_cut]


def damaged_bookkeeping(out: Path) -> list[str]:
    """A note on the small files of a comparison that are there and cannot be read; what they hold is left out."""
    damaged = []
    for name, kind in ((OUTCOMES, dict), (WORKER_COUNTS, list), (ESTIMATE_FILE, dict)):
        if (out / name).exists():
            try:
                read_json(out / name, kind)
            except PrefzooError:
                damaged.append(name)
    try:
        read_tuning(out)
    except PrefzooError:
        damaged.append(TUNING_FILE)
    if not damaged:
        return []
    files = "1 file of this run is" if len(damaged) == 1 else f"{len(damaged)} files of this run are"
    return [f"{files} damaged, and what it held is left out: {', '.join(damaged)}. Comparing again writes them anew."]


def _prompt_groups(plan: Plan) -> PromptGroups:
    """Return the groups of the test prompts, as the start's evaluation has them; none where there is no such."""
    folders = [plan.stages[f"evaluate {START} seed {seed}"].folder for seed in plan.recipe.seeds]
    return next((prompt_groups(read_records(folder)) for folder in folders if (folder / RECORDS).is_file()), {})


def _algorithm(
    plan: Plan, outcomes: Mapping[str, Outcome], label: str, start_scores: dict[int, StartScores]
) -> tuple[AlgorithmResult, Tables]:
    recipe = plan.recipe
    status: Status = "ok"
    error = None
    seeds: dict[str, SeedResult] = {}
    columns: dict[str, list[np.ndarray]] = {}
    for seed in recipe.seeds:
        names = [n for n in (f"train {label} seed {seed}", f"evaluate {label} seed {seed}") if n in plan.stages]
        bad = [outcomes[n] for n in names if n in outcomes and outcomes[n].status != "ok"]
        missing = [n for n in names if n not in outcomes]
        if bad or missing:
            if status == "ok":
                status = bad[0].status if bad else "skipped"
                error = f"seed {seed}: {bad[0].error}" if bad else f"seed {seed}: was not run"
            continue
        try:
            seeds[str(seed)], values = seed_result(plan, label, seed, start_scores)
        except PrefzooError as unusable:
            status, error = "failed", f"seed {seed}: {unusable}"
            continue
        for metric, column in values.items():
            columns.setdefault(metric, []).append(column)
    tables = {m: np.array(rows) for m, rows in columns.items() if len(rows) == len(seeds)} if status == "ok" else {}
    settings = dict(recipe.algorithms.get(label, {}))
    settings.pop("tune", None)
    name = settings.pop("algorithm", label if label != START else recipe.start.algorithm)
    result = AlgorithmResult(
        status=status,
        error=error,
        algorithm=name,
        settings=recipe.start.parameters if label == START else settings,
        differs=dict(settings.get("trainer", {})),
        departures=_departures(recipe, seeds, recipe.start.parameters if label == START else settings),
        replies_per_row=_replies_per_row(recipe, label),
        seeds=seeds,
        summary={},
    )
    return result, tables


def _departures(recipe: Recipe, seeds: Mapping[str, SeedResult], settings: Mapping[str, Any]) -> dict[str, Departure]:
    """What the trainings of a label used otherwise than the recipe says, and than its own `trainer:` does."""
    expected = expected_facts(recipe.adapter, recipe.budget, recipe.generation, recipe.training)
    facts = [fact for trial in seeds.values() for name in (TRAININGS, SAMPLING) for fact in trial.details.get(name, ())]
    deviations = find_deviations(expected, facts, settings.get("trainer") or {})
    return {key: Departure(recipe=expected[key], used=used) for key, used in deviations.items()}


def _replies_per_row(recipe: Recipe, label: str) -> int | None:
    """By the algorithm's own word; None for one that trains nothing, or that is not registered here."""
    if label == START:
        return None
    try:
        algorithm = recipe.algorithm(label)
    except (KeyError, PrefzooError):  # a report of an earlier run, without its plug-in
        return None
    return algorithm.replies_per_row if algorithm.trains else None


def seed_result(
    plan: Plan, label: str, seed: int, start_scores: dict[int, StartScores] | None = None
) -> tuple[SeedResult, dict[str, np.ndarray]]:
    """Return one trial's result and its columns: metric -> a value for each prompt (or one for the whole).

    Args:
        start_scores: by seed, what was read of the start for other trials, to which this adds.

    Raises:
        PrefzooError: when a measurement of it, or of a milestone, is gone, infinite or not a number.
    """
    folder = plan.stages[f"evaluate {label} seed {seed}"].folder
    of_start = plan.stages[f"evaluate {START} seed {seed}"].folder
    start_scores = {} if start_scores is None else start_scores
    if seed not in start_scores:
        start_scores[seed] = start_scores_of(of_start)
    start = start_scores[seed]
    records = finite_records(folder)
    groups = prompt_groups(records)
    columns = metric_columns(records, start)
    columns |= pair_columns(read_pair_likelihoods(folder), None if label == START else read_pair_likelihoods(of_start))
    train = plan.stages.get(f"train {label} seed {seed}")
    training = read_json(train.folder / "ledger.json") if train else {}
    details_file = (train or plan.stages[START]).folder / DETAILS
    details = (
        read_json(details_file) if train or details_file.is_file() else {}
    )  # a start that is taken as it is has none
    if (folder / SAMPLED_BY).is_file():
        ways = details.setdefault(SAMPLING, [])
        ways += [way for way in read_json(folder / SAMPLED_BY, list) if way not in ways]
    if train and (folder / PRINCIPLES).is_file():
        details["principles"] = read_json(folder / PRINCIPLES)
        details["transcripts"] = os.path.relpath(train.folder / TRANSCRIPTS, plan.out)
    result = SeedResult(
        metrics=column_means(columns, groups),
        ledger=_total([read_json(folder / "ledger.json"), training]),
        training=_total([training]) if train else {},
        milestones=[
            Milestone(
                **read_json(path / "milestone.json"),
                metrics=column_means(metric_columns(finite_records(path), start), groups),
            )
            for path in sorted((folder / MILESTONES).glob("*"))
        ],
        details=details,
        judging=read_json(folder / JUDGING) if (folder / JUDGING).is_file() else {},
        policy=os.path.relpath(train.folder / "policy", plan.out) if train else None,
        replies=os.path.relpath(folder / RECORDS, plan.out),
        identity=read_json(folder / IDENTITY) if (folder / IDENTITY).is_file() else {},
    )
    return result, columns


def _total(ledgers: Sequence[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name in Ledger.__dataclass_fields__:
        values = [ledger.get(name, 0) for ledger in ledgers]
        total[name] = max(values) if name == "peak_memory_bytes" else sum(values)
    return total


def _data(plan: Plan) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the preflight, the manifest, and what the judge who labelled the pairs reports, where one did."""
    preflight, manifest = (read_json(plan.stages["data"].folder / f"{name}.json") for name in ("preflight", "manifest"))
    if LABEL_STAGE not in plan.stages or not plan.stages[LABEL_STAGE].folder.is_dir():
        return preflight, manifest, {}
    labels = preflight["labels"] = read_json(plan.stages[LABEL_STAGE].folder / "labels.json")
    manifest["labels"] = {name: part["sha256"] for name, part in labels["splits"].items()}
    return preflight, manifest, labels["judge"]


def _reward(plan: Plan, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Return the reward's report; of several (one a seed, with shuffled labels) the first, and all under `by_seed`."""
    reports = {}
    for stage in plan.stages.values():
        if stage.kind == "reward":
            if stage.folder.is_dir():
                reports[str(stage.seed)] = read_json(stage.folder / "report.json")
            else:
                outcome = outcomes.get(stage.name)
                reports[str(stage.seed)] = {"error": f"{outcome.status}: {outcome.error}" if outcome else "was not run"}
    first = next(iter(reports.values()))
    return {**first, "by_seed": reports} if len(reports) > 1 else first


def _shared(plan: Plan) -> dict[str, dict[str, float]]:
    shared = {}
    for stage in plan.stages.values():
        if stage.kind in ("start", "label") and stage.folder.is_dir():
            shared[stage.name] = _total([read_json(stage.folder / "ledger.json")])
        if stage.kind == "reward" and stage.folder.is_dir():
            shared[stage.name] = _total([read_json(stage.folder / "report.json").get("ledger", {})])
    return shared
