"""The search for settings: what is asked, in which order, for how much. Trials are played."""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest

from played_search import PROMPTS, checked, drive, play, searched
from prefzoo.data import splits
from prefzoo.errors import DataError
from prefzoo.run.executor import Outcome
from prefzoo.run.label_search import LabelSearch, Measured, Trial
from prefzoo.run.stage_graph import Stage
from prefzoo.run.tuning_record import record
from prefzoo.run.tuning_search import Search


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


def of_scores(out: Path, *trials: list[float]) -> LabelSearch:
    """A search whose trials scored so on each prompt."""
    (search,) = Search(checked(algorithms={"dpo": {"beta": 0.1}}, trials=len(trials)), out).labels.values()
    search.trials = []
    for number, scores in enumerate(trials):
        stage = Stage(f"{number}", "tune", out)
        measured = {stage.name: Measured(scores, 1.0, 5.0, {}, {})}
        search.trials.append(Trial(number, {}, stages=[stage], measured=measured, state="complete"))
    return search


def test_how_far_apart_searches_find_is_worked_out_by_drawing_trials_again(tmp_path) -> None:
    """Of trials that score 0 (as written), 1 and 2 on all prompts, two draws of the last two find 2 in 3 of 4 cases and
    else 1: the standard deviation is the root of 3 / 16."""
    search = of_scores(tmp_path, *([score] * PROMPTS for score in (0.0, 1.0, 2.0)))
    assert search.search_sd is None
    search.told = 1
    assert search.search_sd == 0.0
    search.told = 3
    assert search.search_sd == pytest.approx(math.sqrt(3 / 16), abs=0.02)


def test_a_winner_by_luck_may_lose_another_search(tmp_path) -> None:
    """Two settings, each right on the other half of the prompts, differ by 1 / 32: about every second search finds
    either."""
    one = [float(i % 2) for i in range(PROMPTS)]
    search = of_scores(tmp_path, one, [1.0 - score + (0.25 if i < 4 else 0.0) for i, score in enumerate(one)])
    search.told = 2
    assert search.search_sd == pytest.approx(0.5 / 32, abs=0.5 / 320)


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
