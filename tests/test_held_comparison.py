"""What a second call may do with the comparison that a folder holds; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import prefzoo
from prefzoo.commands.comparison import checked_recipe
from prefzoo.commands.held_comparison import go_on
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.recipe.tuning_space import tuned
from prefzoo.run.stage_graph import Plan, make_plan

RECIPE = {"algorithms": {"dpo": {"beta": 0.2}, "sft": {}}, "budget": {"prompts": 16}}


def planned(out: Path, recipe: Any = RECIPE, algorithms=None, seeds=None, sets=(), add=()) -> Plan:
    return make_plan(checked_recipe(recipe, algorithms, seeds, sets, add, out), out)


def finish(plan: Plan, *left_out: str) -> None:
    """As if every stage but these had run."""
    plan.out.mkdir(parents=True, exist_ok=True)
    plan.save()
    for stage in plan.stages.values():
        if stage.name not in left_out:
            stage.folder.mkdir(parents=True, exist_ok=True)


@pytest.fixture
def out(tmp_path) -> Path:
    finish(planned(tmp_path / "run"))
    return tmp_path / "run"


def test_more_seeds_go_on_with_what_was_trained(out) -> None:
    plan = planned(out, seeds=5)
    assert go_on(plan) is None
    left = [stage.name for stage in plan.stages.values() if not stage.done]
    assert left and all(name.endswith(("seed 3", "seed 4")) for name in left)


@pytest.mark.parametrize("key", ["tracking.wandb.project=other", "judge.audit_pairs=7"])
def test_what_no_trial_depends_on_goes_on(out, key) -> None:
    assert go_on(planned(out, sets=[key])) is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"algorithms": ["ppo"]}, "of dpo, sft, which.*--add ppo puts ppo beside what is there"),
        ({"algorithms": ["ppo"], "sets": ["budget.prompts=17"]}, "of dpo, sft, which"),
        ({"algorithms": ["dpo"]}, "of sft, which.*--algorithms dpo,sft keeps all of them"),
        ({"seeds": 1}, "of seeds 1, 2, which.*--seeds 3 keeps all seeds"),
        ({"seeds": [0, 2, 7]}, r"of seed 1, which.*--set 'seeds=\[0, 1, 2, 7\]'"),
    ],
)
def test_finished_trials_are_never_left_out_of_the_report(out, call, says) -> None:
    before = (out / "plan.json").read_bytes()
    with pytest.raises(PrefzooError, match=rf"holds finished trials .*{says}.*another --out"):
        go_on(planned(out, **call))
    assert (out / "plan.json").read_bytes() == before


def test_a_label_that_never_finished_may_be_left_out(tmp_path) -> None:
    plan = planned(tmp_path)
    finish(plan, *(name for name in plan.stages if name.startswith("train sft")))
    assert go_on(planned(tmp_path, algorithms=["dpo"])) is None


@pytest.mark.parametrize(
    ("sets", "key"),
    [(["budget.prompts=17"], "budget.prompts: 16 and 17"), (["algorithms.dpo.beta=0.3"], "dpo.beta: 0.2 and 0.3")],
)
def test_another_comparison_is_said_to_be_one_and_in_what(out, sets, key) -> None:
    assert key in (go_on(planned(out, sets=sets)) or "")
    assert "the first of seeds: 0 and 1" in (go_on(planned(out, seeds=[1, 0, 2])) or "")


def test_add_puts_a_label_beside_what_the_folder_holds(out) -> None:
    finish(planned(out, seeds=4))
    plan = planned(out, {**RECIPE, "algorithms": {"sft": {}, "grpo": {"generations": 2}}}, add=["grpo"])
    assert list(plan.recipe.algorithms) == ["dpo", "sft", "grpo"] and plan.recipe.seeds == [0, 1, 2, 3]
    assert plan.recipe.algorithms["dpo"] == {"beta": 0.2} and plan.recipe.algorithms["grpo"] == {"generations": 2}
    assert go_on(plan, ["grpo"]) is None
    assert {stage.label for stage in plan.stages.values() if not stage.done} == {"grpo"}


def test_add_is_refused_where_the_settings_differ(out) -> None:
    with pytest.raises(PrefzooError, match=r"--add ppo: .*budget.prompts: 16 and 17.*--set"):
        go_on(planned(out, sets=["budget.prompts=17"], add=["ppo"]), ["ppo"])
    with pytest.raises(PrefzooError, match="one of the two"):
        planned(out, add=["ppo"], algorithms=["dpo"])
    with pytest.raises(RecipeError, match="--add: unknown algorithm 'dpoo'"):
        prefzoo.compare(RECIPE, out=out, add="dpoo")


def test_add_in_an_empty_folder_adds_to_the_recipe(tmp_path) -> None:
    assert list(planned(tmp_path, add=["ppo"]).recipe.algorithms) == ["dpo", "sft", "ppo"]


@pytest.fixture
def tuned_out(tmp_path) -> Path:
    """A folder in which tuning had found another beta, and all had run."""
    plan = planned(tmp_path / "tuned", sets=["tuning.trials=3"])
    found = make_plan(tuned(plan.recipe, {"dpo": {"beta": 0.7}}), plan.out)
    finish(replace(found, written=plan.recipe.algorithms))
    return tmp_path / "tuned"


def test_a_tuned_comparison_goes_on_by_what_was_written_and_not_by_what_was_found(tuned_out) -> None:
    assert go_on(planned(tuned_out, sets=["tuning.trials=3"])) is None
    assert go_on(planned(tuned_out, sets=["tuning.trials=3"], seeds=5)) is None
    assert "tuning.trials: 3 and 4" in (go_on(planned(tuned_out, sets=["tuning.trials=4"])) or "")
    changed = go_on(planned(tuned_out, sets=["tuning.trials=3", "algorithms.dpo.beta=0.7"]))
    assert "dpo.beta: 0.2 and 0.7" in (changed or "")
    with pytest.raises(PrefzooError, match=r"trials of dpo-untuned, which .*--tune 3 keeps them"):
        go_on(planned(tuned_out))


def test_what_is_added_to_a_tuned_comparison_is_tuned_alike(tuned_out) -> None:
    plan = planned(tuned_out, {"algorithms": {"ppo": {}}, "budget": {"prompts": 16}}, add=["ppo"])
    assert plan.recipe.tuning is not None and plan.recipe.tuning.trials == 3
    assert plan.recipe.algorithms == {"dpo": {"beta": 0.2}, "sft": {}, "ppo": {}}
    assert go_on(plan, ["ppo"]) is None
    with pytest.raises(PrefzooError, match=r"--add ppo: .*tuning.trials: 3 and 4"):
        go_on(planned(tuned_out, sets=["tuning.trials=4"], add=["ppo"]), ["ppo"])


def test_a_comparison_that_is_to_be_tuned_now_is_another_one(out) -> None:
    assert 'tuning: "none" and "3 trials" (there' in (go_on(planned(out, sets=["tuning.trials=3"])) or "")
