"""The search beside the comparison: what both share, what a person sees, and whole ways in the lab."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import prefzoo
from conftest import SMALL
from played_search import RECIPE, checked, drive, play
from prefzoo.commands.tuning import Found, found_table
from prefzoo.data import splits
from prefzoo.errors import PrefzooError
from prefzoo.recipe import check_recipe as recipes
from prefzoo.recipe.tuning_space import tuned
from prefzoo.run.stage_graph import Stage, make_plan
from prefzoo.run.tuning_record import record, save, sentence
from prefzoo.run.tuning_search import Search


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


@pytest.mark.kills
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
