"""The search for settings: what is asked, in which order, for how much; trials are played, but for the last tests'."""

from __future__ import annotations

import io
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from rich.console import Console

import prefzoo
from conftest import SMALL
from prefzoo.commands.tuning import Found, found_table
from prefzoo.data import splits
from prefzoo.errors import DataError, PrefzooError
from prefzoo.recipe import check_recipe as recipes
from prefzoo.recipe.tuning_space import tuned
from prefzoo.run.executor import Outcome
from prefzoo.run.stage_graph import Stage, make_plan
from prefzoo.run.tuning_record import record, save, sentence
from prefzoo.run.tuning_search import Search

RECIPE: dict[str, Any] = {
    "algorithms": {"dpo": {"beta": 0.1}, "ppo": {}, "rejection_sampling": {"n": 4}, "best_of_n": {}},
    "budget": {"prompts": 400},
    "tuning": {"trials": 6},
}
PROMPTS = 32


def checked(**changes: Any) -> Any:
    """The recipe with other keys of `tuning`, or other blocks."""
    blocks = {key: changes.pop(key) for key in list(changes) if key not in TUNING_KEYS}
    return recipes.check({**RECIPE, "tuning": {**RECIPE["tuning"], **changes}, **blocks})


TUNING_KEYS = ("trials", "sampler", "equal", "prompts", "budget", "seeds", "objective", "kl_penalty", "seed")


def quality(stage: Stage) -> float:
    """The best beta is 0.5, the best kl_coefficient 0.2, the best rate 0.001; n helps."""
    settings = stage.settings or {}
    rate = settings.get("trainer", {}).get("learning_rate", 0.002)
    off = abs(math.log(rate / 0.001)) / 4 + abs(math.log(settings.get("beta", 0.5) / 0.5))
    return -off - abs(math.log(settings.get("kl_coefficient", 0.2) / 0.2)) + math.log(settings.get("n", 4))


def cost(stage: Stage) -> float:
    """Of training on all prompts: in proportion to epochs for PPO, to samples for rejection sampling, up to a tenth."""
    settings = stage.settings or {}
    of = {
        "dpo": 1.0,
        "sft": 6.0,
        "ppo": 2.0 + settings.get("epochs", 4),
        "rejection_sampling": 0.4 * settings.get("n", 4),
    }
    return of.get(str(stage.label), 0.0) * random.Random(json.dumps(settings)).uniform(0.9, 1.1)


def play(plan: Any, stage: Stage) -> None:
    """Leave what a stage would."""
    stage.folder.mkdir(parents=True)
    if stage.kind == "data":
        parts = {name: {"prompts": count} for name, count in (("train", 400), ("validation", 64), ("test", 64))}
        (stage.folder / "manifest.json").write_text(json.dumps({"splits": parts}))
    if stage.kind != "tune":
        return
    rng = random.Random(f"{stage.label} {stage.settings} {stage.seed}")
    rows = [
        {"prompt": i, "reply": "x", "length": 5, "kl": 1.0, "gold": quality(stage) + rng.gauss(0, 0.1), "proxy": 3.0}
        for i in range(PROMPTS)
    ]
    (stage.folder / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    share = 1.0 if stage.prompts is None else stage.prompts / 400
    measuring = 0.2
    whole = {"flops": share * cost(stage) + measuring, "seconds": 1.0, "generated_tokens": 7}
    (stage.folder / "ledger.json").write_text(json.dumps(whole))
    (stage.folder / "measuring.json").write_text(json.dumps({"flops": measuring}))


def drive(search: Search, order: int = 0, most: int = 10**6, job: Callable = play) -> list[str]:
    """Run a search's stages as a runner does, the ready ones in a random order, until so many have run; their names."""
    rng, outcomes, ran = random.Random(order), dict[str, Outcome](), list[str]()
    while True:
        waiting = [stage for name, stage in search.plan.stages.items() if name not in outcomes]
        for stage in [each for each in waiting if each.done]:
            outcomes[stage.name] = Outcome("ok")
            search.ended(stage, Outcome("ok"))
        ready = [s for s in waiting if s.name not in outcomes and all(need in outcomes for need in s.needs)]
        lost = [stage for stage in ready if any(outcomes[need].status != "ok" for need in stage.needs)]
        if lost:
            outcomes[lost[0].name] = Outcome("skipped", "a need failed")
            search.ended(lost[0], outcomes[lost[0].name])
        elif ready and len(ran) < most:
            stage = rng.choice(ready)
            ran.append(stage.name)
            try:
                job(search.plan, stage)
                outcomes[stage.name] = Outcome("ok")
            except ValueError as error:
                outcomes[stage.name] = Outcome("failed", str(error))
            search.ended(stage, outcomes[stage.name])
        elif not any(stage.done and stage.name not in outcomes for stage in search.plan.stages.values()):
            return ran


def searched(out: Path, order: int = 0, job: Callable = play, **changes: Any) -> dict[str, Any]:
    search = Search(checked(**changes), out)
    drive(search, order, job=job)
    save(search)
    return json.loads((out / "tuning.json").read_text())


def test_every_label_gets_the_same_trials_of_which_the_first_is_as_written(tmp_path) -> None:
    found = searched(tmp_path)
    assert found["not_tuned"] == {"best_of_n": "it has nothing to tune"}
    first = {label: each["trials"][0]["settings"] for label, each in found["labels"].items()}
    assert first == {
        "dpo": {"beta": 0.1, "trainer.learning_rate": 0.002},
        "ppo": {"kl_coefficient": 0.05, "epochs": 4, "trainer.learning_rate": 0.002},
        "rejection_sampling": {"n": 4, "trainer.learning_rate": 0.002},
    }
    for each in found["labels"].values():
        trials = each["trials"]
        assert [trial["number"] for trial in trials] == list(range(6))
        scores = [trial["score"] for trial in trials]
        assert each["best"] == scores.index(max(scores))
        for key, tried in each["space"].items():
            values = [trial["settings"][key] for trial in trials]
            assert all(tried["low"] <= value <= tried["high"] for value in values) and len(set(values)) > 1
    dpo = found["labels"]["dpo"]
    assert dpo["space"]["trainer.learning_rate"] | {"source": ""} == {
        "low": 0.0004, "high": 0.01, "log": True, "choices": None, "source": ""}  # fmt: skip
    best = dpo["trials"][dpo["best"]]
    assert dpo["winner"]["beta"] == best["settings"]["beta"] and dpo["untuned"] == "dpo-untuned"
    folder = tmp_path / best["folders"][0]
    gold = [json.loads(line)["gold"] for line in (folder / "replies.jsonl").read_text().splitlines()]
    assert best["score"] == pytest.approx(sum(gold) / PROMPTS)
    spread = sum((each - best["score"]) ** 2 for each in gold) / (PROMPTS - 1)
    assert best["standard_error"] == pytest.approx(math.sqrt(spread / PROMPTS))
    assert (best["kl"], best["length"], found["prompts"], found["seeds"]) == (1.0, 5.0, 64, [1000])
    study = optuna.load_study(
        study_name="dpo",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "tuning" / "journal.log"))
        ),
    )
    assert [trial.value for trial in study.trials] == [trial["score"] for trial in dpo["trials"]]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_what_is_tried_depends_on_no_order_and_no_interrupt(tmp_path, sampler) -> None:
    whole = searched(tmp_path / "whole", sampler=sampler)
    assert all(len(each["trials"]) == 6 for each in whole["labels"].values())
    for order in (1, 2):
        search = Search(checked(sampler=sampler), tmp_path / str(order))
        ran = drive(search, order, most=9)
        again = Search(checked(sampler=sampler), tmp_path / str(order))
        assert not again.complete
        ran += drive(again, order + 10)
        assert again.complete
        replayed = Search(checked(sampler=sampler), tmp_path / str(order))
        replayed.replay()
        assert replayed.complete and record(replayed) == record(again)
        assert len(set(ran)) == len(ran), "nothing runs twice"
        assert json.loads(json.dumps(record(again))) == whole
    other = searched(tmp_path / "other", sampler=sampler, seed=1)
    assert [t["settings"] for t in other["labels"]["dpo"]["trials"]] != [
        t["settings"] for t in whole["labels"]["dpo"]["trials"]
    ]


def test_the_search_finds_what_is_better_and_two_labels_of_one_algorithm_try_other_settings(tmp_path) -> None:
    labels = {"dpo": {"beta": 0.05}, "dpo-again": {"algorithm": "dpo", "beta": 0.05, "seed_offset": 100}}
    found = searched(tmp_path, algorithms=labels, trials=20)["labels"]
    for each in found.values():
        assert 0.3 < each["winner"]["beta"] < 0.9, each["winner"]
        drawn, sought = each["trials"][1:10], each["trials"][10:]
        means = [sum(trial["score"] for trial in part) / len(part) for part in (drawn, sought)]
        assert means[1] > means[0] + 0.3, "what is tried later is better, for it is learned from what was"
    first, second = ([trial["settings"] for trial in each["trials"][1:]] for each in found.values())
    assert first != second


def test_the_first_half_may_run_side_by_side_and_labels_wait_for_none(tmp_path) -> None:
    search = Search(checked(trials=7), tmp_path)
    asked = {name: len(each.trials) for name, each in search.labels.items()}
    assert asked == dict.fromkeys(search.labels, 4)
    data, *_ = search.plan.stages.values()
    play(search.plan, data)
    search.ended(data, Outcome("ok"))
    for number in range(4):
        stage = search.plan.stages[f"tune dpo trial {number} seed 1000"]
        play(search.plan, stage)
        new, told = search.ended(stage, Outcome("ok"))
        assert len(told) == 1 and len(new) == (number == 3)
    assert [stage.name for stage in new] == ["tune dpo trial 4 seed 1000"]


@pytest.mark.parametrize("unit", ["flops", "seconds"])
def test_labels_end_within_five_percent_where_they_get_the_same_cost(tmp_path, unit) -> None:
    found = searched(tmp_path, equal=unit)
    first = [each["trials"][0]["ledger"][unit] for each in found["labels"].values()]
    assert found["allowance"] == pytest.approx(6 * max(first))
    for label, each in found["labels"].items():
        spent = sum(trial["ledger"][unit] for trial in each["trials"])
        assert each["spent"][unit] == pytest.approx(spent)
        assert spent == pytest.approx(found["allowance"], rel=0.05), label
        assert all(trial["share"] == 1 for trial in each["trials"][:-3])
    if unit == "flops":
        assert len(found["labels"]["dpo"]["trials"]) > 3 * 6, "cheap trials are more"
    search = Search(checked(equal=unit), tmp_path)
    search.replay()
    assert search.complete and json.loads(json.dumps(record(search))) == found


@pytest.mark.parametrize("seed", [7, 8, 14, 23])
def test_no_dear_settings_at_the_end_overshoot_where_a_trial_needs_many_prompts(tmp_path, seed) -> None:
    """A batch is half of the prompts: on so many, 16 samples to each take a fifth of the allowance."""
    labels = {"sft": {}, "rejection_sampling": {"n": 4}}
    found = searched(tmp_path, equal="flops", trials=3, seed=seed, training={"batch_size": 200}, algorithms=labels)
    spent = found["labels"]["rejection_sampling"]["spent"]["flops"]
    assert spent == pytest.approx(found["allowance"], rel=0.05)


def test_a_trial_that_fails_is_counted_and_shown_and_a_label_whose_trials_all_fail_stays_as_written(tmp_path) -> None:
    def job(plan, stage: Stage) -> None:
        if stage.label == "ppo" or (stage.label == "dpo" and (stage.settings or {})["beta"] < 0.2):
            raise ValueError("training diverged")
        play(plan, stage)

    search = Search(checked(), tmp_path)
    drive(search, job=job)
    found = record(search)["labels"]
    states = [trial["state"] for trial in found["dpo"]["trials"]]
    assert states[0] == "failed" and len(states) == 6 and "complete" in states
    failed = found["dpo"]["trials"][0]
    assert (failed["score"], failed["error"]) == (None, "training diverged")
    assert {trial["state"] for trial in found["ppo"]["trials"]} == {"failed"}
    assert (found["ppo"]["best"], found["ppo"]["winner"], found["ppo"]["untuned"]) == (None, {}, None)
    assert "ppo" not in search.winners() and "dpo" in search.winners()
    flops = searched(tmp_path / "flops", job=job, equal="flops")["labels"]
    assert len(flops["ppo"]["trials"]) == 6 and flops["dpo"]["spent"]["flops"] > 0


def test_what_all_trials_need_and_is_not_there_ends_the_search_of_the_labels_that_need_it(tmp_path) -> None:
    def job(plan, stage: Stage) -> None:
        if stage.kind == "reward":
            raise ValueError("no pairs")
        play(plan, stage)

    found = searched(tmp_path, job=job)["labels"]
    assert {trial["state"] for trial in found["ppo"]["trials"]} == {"failed"}
    assert len(found["dpo"]["trials"]) == 6 and found["dpo"]["best"] is not None


def test_of_several_seeds_hopeless_trials_get_fewer_but_never_the_first(tmp_path) -> None:
    found = searched(tmp_path, seeds=3, order=3)
    trials = [trial for each in found["labels"].values() for trial in each["trials"]]
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned and all(len(trial["seed_scores"]) < 3 for trial in pruned)
    complete = [trial for trial in trials if trial["state"] == "complete"]
    assert all(len(trial["seed_scores"]) == 3 == len(trial["folders"]) for trial in complete)
    for each in found["labels"].values():
        assert each["trials"][0]["state"] == "complete"
        assert each["trials"][each["best"]]["state"] == "complete"
        best = max(trial["score"] for trial in each["trials"] if trial["state"] == "complete")
        assert all(trial["score"] < best for trial in each["trials"] if trial["state"] == "pruned")
    assert searched(tmp_path / "again", seeds=3, order=4) == found


def test_settings_that_come_again_are_not_trained_again(tmp_path) -> None:
    labels = {"dpo": {"tune": {"loss_type": ["sigmoid", "ipo"], "beta": False, "trainer.learning_rate": False}}}
    search = Search(checked(algorithms=labels, sampler="random"), tmp_path)
    ran = [name for name in drive(search) if "trial" in name]
    assert len(ran) == 2
    trials = record(search)["labels"]["dpo"]["trials"]
    assert len(trials) == 6 and {trial["settings"]["loss_type"] for trial in trials} == {"sigmoid", "ipo"}
    assert all(trial["score"] is not None and trial["ledger"]["flops"] > 0 for trial in trials)


def test_a_grid_has_the_ends_and_no_point_twice(tmp_path) -> None:
    one = {"dpo": {"tune": {"beta": [0.1, 1.0, "log"], "trainer.learning_rate": False}}}
    trials = searched(tmp_path / "one", algorithms=one, sampler="grid", trials=5)["labels"]["dpo"]["trials"]
    betas = [trial["settings"]["beta"] for trial in trials]
    assert betas[0] == 0.1 and sorted(betas) == pytest.approx([0.1 * 10 ** (i / 4) for i in range(5)], rel=1e-3)
    few = {"dpo": {"tune": {"beta": [0.1, 0.5, 0.7], "trainer.learning_rate": False}}}
    trials = searched(tmp_path / "few", algorithms=few, sampler="grid")["labels"]["dpo"]["trials"]
    assert sorted(trial["settings"]["beta"] for trial in trials) == [0.1, 0.5, 0.7], "there is no more to try"


def test_too_few_validation_prompts_are_refused_when_the_data_is_read(tmp_path) -> None:
    def job(plan, stage: Stage) -> None:
        play(plan, stage)
        if stage.kind == "data":
            parts = {name: {"prompts": 1} for name in splits.SPLITS}
            (stage.folder / "manifest.json").write_text(json.dumps({"splits": parts}))

    with pytest.raises(DataError, match=r"validation split.* has 1 prompts, and two are the least.*splits.validation"):
        searched(tmp_path, job=job)


@pytest.mark.parametrize(
    ("changes", "metric", "expected"),
    [
        ({}, "gold", None),
        ({"gold": "none"}, "reward", 3.0 - 0.05),
        ({"gold": "none", "kl_penalty": 0.5}, "reward", 3.0 - 0.5),
        ({"objective": "reward", "kl_penalty": 0.0}, "reward", 3.0),
    ],
)
def test_what_trials_are_scored_by(tmp_path, changes, metric, expected) -> None:
    found = searched(tmp_path, trials=2, **changes)
    assert found["objective"]["metric"] == metric
    first = found["labels"]["dpo"]["trials"][0]["score"]
    assert first == pytest.approx(expected) if expected is not None else first < 0
    assert found["start"]["length"] == 5.0


def test_a_policy_without_a_kl_has_no_penalized_reward(tmp_path) -> None:
    def job(plan, stage: Stage) -> None:
        play(plan, stage)
        if stage.label == "dpo":
            file = stage.folder / "replies.jsonl"
            file.write_text(file.read_text().replace('"kl"', '"other"'))

    trial = searched(tmp_path / "with", trials=1, objective="reward", job=job)["labels"]["dpo"]["trials"][0]
    assert trial["state"] == "failed" and "no KL to the start" in trial["error"] and trial["ledger"]["flops"] > 0
    free = searched(tmp_path / "without", trials=1, objective="reward", kl_penalty=0.0, job=job)["labels"]["dpo"]
    assert free["trials"][0]["score"] == 3.0 and free["trials"][0]["kl"] is None


def test_where_a_judge_decides_trials_wait_for_the_starts_replies(tmp_path) -> None:
    search = Search(checked(gold="judge", judge={"type": "random"}), tmp_path)
    assert search.metric == "win_rate"
    trials = [stage for stage in search.plan.stages.values() if stage.label == "dpo"]
    assert trials and all("tune start seed 1000" in stage.needs for stage in trials)


def test_the_comparison_shares_data_start_and_reward_with_the_search_and_has_what_was_written_beside_what_was_found(
    tmp_path,
) -> None:
    recipe = checked()
    search = Search(recipe, tmp_path)
    drive(search)
    found = tuned(recipe, search.winners())
    assert {"dpo"} <= search.winners().keys() <= set(search.labels)
    untuned = {f"{label}-untuned" for label in search.winners()}
    every = [each for label in recipe.algorithms for each in (label, f"{label}-untuned")]
    assert list(found.algorithms) == [label for label in every if label in {*recipe.algorithms, *untuned}]
    assert found.algorithms["dpo-untuned"] == {"algorithm": "dpo", "beta": 0.1, "tune": False}
    assert found.algorithm("dpo").beta == record(search)["labels"]["dpo"]["winner"]["beta"]
    plan = make_plan(found, tmp_path)
    shared = ["data", "start", "reward"]
    assert [plan.stages[name].folder for name in shared] == [search.plan.stages[name].folder for name in shared]
    again = recipes.check(found.model_dump(mode="json"))
    assert not Search(again, tmp_path / "again").labels, "what was found is not tuned again"
    untouched = make_plan(recipes.check({**RECIPE, "tuning": None}), tmp_path)
    kept = {name: stage.folder for name, stage in untouched.stages.items() if stage.label in ("best_of_n", "start")}
    assert kept and all(plan.stages[name].folder == folder for name, folder in kept.items())


def test_trials_need_what_the_trainings_of_the_comparison_need(tmp_path) -> None:
    shuffled = Search(checked(data={"shuffle_labels": True}), tmp_path).plan.stages
    assert "reward seed 1000" in shuffled["tune ppo trial 0 seed 1000"].needs, "labels are shuffled by each seed's coin"
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Is 2 even?"}\n')
    data = {"prompts": str(tmp_path / "prompts.jsonl"), "label_with": "judge"}
    recipe = checked(data=data, algorithms={"dpo": {}})
    search = Search(recipe, tmp_path).plan.stages
    assert search["tune dpo trial 0 seed 1000"].needs == ("data", "start", "label", "reward")
    comparison = make_plan(recipe, tmp_path).stages
    assert search["label"].folder == comparison["label"].folder


def test_what_a_person_sees_of_it(tmp_path) -> None:
    def job(plan, stage: Stage) -> None:
        if stage.label == "ppo":
            raise ValueError("training diverged")
        play(plan, stage)

    search = Search(checked(trials=3), tmp_path)
    drive(search, job=job)
    console = Console(width=200, file=io.StringIO())
    console.print(found_table(Found(save(search), make_plan(checked(), tmp_path))))
    rows = {line.split()[0]: line for line in console.file.getvalue().splitlines()[2:]}
    dpo, best = search.labels["dpo"], search.labels["dpo"].best
    assert best.number > 0 and f"{dpo.trials[0].score:.3g}" in rows["dpo"] and f"{best.score:.3g}" in rows["dpo"]
    assert f"beta {best.values['beta']:.3g}" in rows["dpo"] and "all failed" in rows["ppo"]
    first, second = (sentence(search, "dpo", trial) for trial in (dpo.trials[0], best))
    assert first.startswith("tuning dpo, trial 0 (of 3): as written: beta 0.1, learning_rate 0.002: gold ")
    assert ", KL 1" in first and second.endswith(", the best so far")
    assert sentence(search, "ppo", search.labels["ppo"].trials[0]).endswith(": failed")


def test_a_trial_cannot_read_the_test_split(tmp_path, lab_rows) -> None:
    splits.save_splits({"train": lab_rows[:2], "test": lab_rows[2:4]}, tmp_path)
    with splits.sealed_test_split("tune dpo trial 0 seed 1000"):
        assert splits.load_split(tmp_path, "train") == lab_rows[:2]
        with pytest.raises(PrefzooError, match="tune dpo trial 0 seed 1000 may not read the test split"):
            splits.load_split(tmp_path, "test")
    assert splits.load_split(tmp_path, "test") == lab_rows[2:4]


TINY = [*SMALL, "tuning.budget.prompts=32", "tuning.prompts=16", "training.batch_size=8", "judge.audit_pairs=0"]


def without_clocks(found: dict[str, Any]) -> dict[str, Any]:
    labels = {
        label: [{key: value for key, value in trial.items() if key != "ledger"} for trial in each["trials"]]
        for label, each in found["labels"].items()
    }
    flops = {label: each["spent"]["flops"] for label, each in found["labels"].items()}
    winners = {label: (each["winner"], each["untuned"]) for label, each in found["labels"].items()}
    return {"start": found["start"], "trials": labels, "flops": flops, "winners": winners}


@pytest.mark.slow
def test_a_search_and_the_comparison_that_goes_on_from_it_in_the_lab(tmp_path) -> None:
    """With poisoned test rows, too, which change nothing that is found."""
    labels = ["dpo", "best_of_n"]
    found = prefzoo.tune("quickstart", 3, labels, sets=TINY, out=tmp_path / "run")
    recipe = yaml.safe_load(found.recipe.read_text())
    assert recipe["tuning"] is None and recipe["algorithms"]["dpo"] == found.winners["dpo"]
    assert recipes.load(str(found.recipe)).tuning is None
    shutil.copytree(tmp_path / "run" / "stages", tmp_path / "poisoned" / "stages", symlinks=True)
    (test,) = (tmp_path / "poisoned" / "stages").glob("data-*/test.jsonl")
    test.write_text("no row\n")
    poisoned = prefzoo.tune("quickstart", 3, labels, sets=TINY, out=tmp_path / "poisoned")
    assert without_clocks(poisoned.record) == without_clocks(found.record)
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").glob("trials/tune-*/replies.jsonl")}
    assert len(made) == 4 and not list((tmp_path / "run").glob("trials/tune-*/policy"))
    sets = [each for each in TINY if not each.startswith("tuning.trials")]
    results = prefzoo.compare("quickstart", labels, seeds=1, sets=sets, out=tmp_path / "run", tune=3)
    assert {file: file.stat().st_mtime_ns for file in made} == made
    winner = found.record["labels"]["dpo"]
    beside = {"dpo-untuned"} if winner["untuned"] else set()
    assert set(results.algorithms) == {"start", "dpo", "best_of_n", *beside}
    assert {each.status for each in results.algorithms.values()} == {"ok"}
    assert results.recipe["algorithms"]["dpo"] == {**winner["winner"], "tune": False}
    replies = [json.loads(line)["prompt"] for line in next(iter(made)).read_text().splitlines()]
    rows = {name: next((tmp_path / "run" / "stages").glob(f"data-*/{name}.jsonl")) for name in splits.SPLITS}
    prompts = {
        name: [json.loads(line)["prompt"] for line in file.read_text().splitlines()] for name, file in rows.items()
    }
    assert all(reply in prompts["validation"] and reply not in prompts["test"] for reply in replies)


@pytest.mark.faults
def test_killed_and_interrupted_during_tuning_it_goes_on_to_the_same_winners_and_results(tmp_path) -> None:
    labels = "dpo,rejection_sampling"

    def command(out: Path) -> subprocess.Popen:
        sets = [part for each in TINY for part in ("--set", each)]
        code = "from prefzoo.cli import main; main()"
        call = [sys.executable, "-c", code, "compare", "quickstart", "--algorithms", labels, "--seeds", "1"]
        call += ["--tune", "3", "--workers", "2", "--out", str(out), *sets]
        log = (tmp_path / f"{out.name}.log").open("a")
        return subprocess.Popen(call, stdout=log, stderr=log, start_new_session=True)

    assert command(tmp_path / "whole").wait() == 0
    out = tmp_path / "killed"
    for trials, sent in ((1, signal.SIGKILL), (2, signal.SIGINT)):
        process = command(out)
        while process.poll() is None and len(list(out.glob("trials/tune-*/replies.jsonl"))) <= trials:
            time.sleep(0.1)
        os.killpg(process.pid, sent)
        assert process.wait() == (130 if sent is signal.SIGINT else -sent), (tmp_path / "killed.log").read_text()
    partial = prefzoo.load(out)
    assert {each.status for each in partial.algorithms.values()} != {"ok"}
    assert not json.loads((out / "tuning.json").read_text())["finished"]
    assert command(out).wait() == 0
    found, whole = (json.loads((tmp_path / name / "tuning.json").read_text()) for name in ("killed", "whole"))
    assert found["finished"] and without_clocks(found) == without_clocks(whole)
    results = [prefzoo.load(tmp_path / name) for name in ("killed", "whole")]
    first, second = ({label: each.summary for label, each in result.algorithms.items()} for result in results)
    assert first == second
