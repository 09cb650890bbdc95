"""Runs in one table: only comparable ones, each trial once; and what is refused, by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest

from conftest import SMALL
from prefzoo.commands.comparison import rebuild
from prefzoo.commands.merge_runs import merge
from prefzoo.commands.power_analysis import analyze_power
from prefzoo.commands.sample_policies import answer, open_policy
from prefzoo.errors import PrefzooError
from prefzoo.recipe.check_recipe import load as load_recipe
from prefzoo.results.results_file import load
from prefzoo.run.integrity import seal
from prefzoo.run.stage_graph import load_plan
from prefzoo.run.trial_identity import differences, identity, teachers
from reported import searched


def change(out: Path, edit: Callable[[dict], None]) -> None:
    """Edit a run's results.json."""
    content = json.loads((out / "results.json").read_text())
    edit(content)
    (out / "results.json").write_text(json.dumps(content))


def reidentify(out: Path, edit: Callable[[dict], None], but: str = "") -> None:
    """Let every trial of a run, but those of one label, have been made with something else."""

    def edited(content: dict) -> None:
        trials = {label: each["seeds"].values() for label, each in content["algorithms"].items() if label != but}
        for trial in (trial for each in trials.values() for trial in each):
            edit(trial["identity"])

    change(out, edited)
    for file in set(out.glob("trials/evaluate-*/identity.json")) - set(out.glob(f"trials/evaluate-{but}-*/*.json")):
        content = json.loads(file.read_text())
        edit(content)
        file.write_text(json.dumps(content))
        seal(file.parent)


def keep(*labels: str) -> Callable[[dict], None]:
    def edit(content: dict) -> None:
        content["algorithms"] = {k: v for k, v in content["algorithms"].items() if k in ("start", *labels)}
        content["recipe"]["algorithms"] = {k: v for k, v in content["recipe"]["algorithms"].items() if k in labels}

    return edit


@pytest.fixture
def two(small_run, tmp_path) -> list[Path]:
    """Two runs that share the start and dpo, cut from one."""
    folders = [tmp_path / "monday", tmp_path / "tuesday"]
    for folder, labels in zip(folders, (("sft", "dpo"), ("dpo", "best_of_n")), strict=True):
        shutil.copytree(small_run[1], folder, symlinks=True)
        change(folder, keep(*labels))
    return folders


def test_the_union_of_labels_is_judged_as_one_run_would_be_and_equal_trials_count_once(
    two, small_run, tmp_path
) -> None:
    found = merge(two, tmp_path / "both")
    assert list(found.algorithms) == ["start", "sft", "dpo", "best_of_n"]
    whole = {(v.metric, v.a, v.b): v for v in small_run[0].verdicts}
    assert {(v.a, v.b) for v in found.verdicts if v.metric == "gold"} == {
        *(("sft", "start"), ("dpo", "start"), ("best_of_n", "start")),
        *(("sft", "dpo"), ("sft", "best_of_n"), ("dpo", "best_of_n")),
    }
    for v in found.verdicts:
        assert (v.difference, v.ci95) == (whole[v.metric, v.a, v.b].difference, whole[v.metric, v.a, v.b].ci95)
        assert v.family_size == 3
    again = load(tmp_path / "both")
    assert all((tmp_path / "both" / t.replies).is_file() for e in again.algorithms.values() for t in e.seeds.values())
    assert set(again.ratings) == set(again.algorithms) and len(again.pairs) == 6
    assert (tmp_path / "both" / "report.html").is_file()


def test_one_label_with_other_trials_is_kept_from_both(two, tmp_path) -> None:
    def other_settings(content: dict) -> None:
        content["algorithms"]["dpo"]["settings"] = {"beta": 9.0}

    change(two[1], other_settings)
    found = merge(two, tmp_path / "both")
    assert list(found.algorithms) == ["start", "sft", "dpo (monday)", "dpo (tuesday)", "best_of_n"]
    pair = next(v for v in found.verdicts if (v.a, v.b) == ("dpo (monday)", "dpo (tuesday)"))
    assert (pair.difference, pair.verdict) == (0.0, "inconclusive")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("manifest", "train"), "f" * 64),
        (("start",), "f" * 64),
        (("adapter", "r"), 8),
        (("generation", "temperature"), 0.7),
        (("training", "learning_rate"), 0.5),
        (("reward", "type"), "random"),
        (("final judge",), "another"),
        (("reward judge",), "another"),
    ],
)
def test_runs_that_differ_are_refused_by_the_name_of_what_differs(two, tmp_path, place, value) -> None:
    def edit(part: dict) -> None:
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value

    reidentify(two[1], edit)
    with pytest.raises(PrefzooError) as raised:
        merge(two, tmp_path / "both")
    said = str(raised.value)
    assert f"{'.'.join(place)}: " in said and "monday and tuesday" in said and len(said.splitlines()) == 2
    assert not (tmp_path / "both").exists()


def test_every_difference_is_said_at_once_and_what_matters_less_is_noted(two, tmp_path) -> None:
    def noted(identity: dict) -> None:
        identity["versions"]["trl"] = "9.9"
        identity["generation"]["batch_size"] = 7

    reidentify(two[1], noted)
    notes = " ".join(merge(two, tmp_path / "both").notes)
    assert 'versions.trl: "' in notes and "generation.batch_size: 128 and 7" in notes

    def worse(identity: dict) -> None:
        identity["adapter"]["r"], identity["gold"] = 8, "none"

    reidentify(two[1], worse)
    change(two[1], lambda content: content["recipe"].update(seeds=[0, 5]))
    with pytest.raises(PrefzooError, match=r"adapter\.r: 16 and 8[\s\S]*gold: [\s\S]*seeds: \[0, 1\] and \[0, 5\]"):
        merge(two, tmp_path / "other")


@pytest.mark.parametrize(
    ("pattern", "before", "after", "named"),
    [
        ("stages/data-*/train.jsonl", '"chosen": "', '"chosen": "Oh. ', "manifest.train"),
        ("stages/start-*/model/config.json", "{", "{ ", "start: the model"),
        ("trials/train-dpo-seed-1-*/policy/adapter_config.json", '"r": 16', '"r": 8', "adapter.r: 16 in the recipe"),
        ("trials/evaluate-dpo-seed-1-*/identity.json", '"temperature": 1.0', '"temperature": 0.5', "generation.temp"),
    ],
)  # fmt: skip
def test_editing_one_trial_or_what_it_came_from_makes_its_report_refuse(two, tmp_path, pattern, before, after, named):
    (file,) = two[0].glob(pattern)
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))
    if file.name == "identity.json":
        seal(file.parent)  # as of a run of an older version, which the hash of the file does not protect
    with pytest.raises(PrefzooError, match=named):
        rebuild(two[0])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("adapter.r=8", "adapter.r"),
        ("generation.temperature=0.5", "generation.temperature"),
        ("evaluation.prompts=17", "evaluation.prompts"),
        ("budget.epochs=2", "budget.epochs"),
        ("training.batch_size=4", "training.batch_size"),
        ("reward.members=2", "reward.members"),
        ("gold=none", "gold"),
        ("data.shuffle_labels=true", "data.shuffle_labels"),
        ("model.dtype=bfloat16", "model.dtype"),
    ],
)
def test_a_recipe_that_differs_is_another_identity(small_run, change, key) -> None:
    plan = load_plan(small_run[1])
    other = replace(plan, recipe=load_recipe("quickstart", [*SMALL, "seeds=2", change]))
    assert set(differences(identity(plan), identity(other))[0]) == {key}
    assert differences(identity(plan), identity(plan)) == ({}, {})


def test_searches_of_merged_runs_are_kept_each_by_itself_and_unequal_ones_are_noted(two, tmp_path) -> None:
    monday = searched({"dpo": [0.0, 1.0], "sft": [1.0, 0.5]}, not_tuned={"ppo": "tune: false"})

    def tuned_on_monday(content: dict) -> None:
        content["tuning"] = monday
        content["algorithms"]["dpo-untuned"] = {**content["algorithms"]["sft"], "settings": {"beta": 0.1}}
        content["recipe"]["algorithms"]["dpo-untuned"] = {"algorithm": "sft", "beta": 0.1}

    def other_settings(content: dict) -> None:
        content["algorithms"]["dpo"]["settings"] = {"beta": 9.0}

    change(two[0], tuned_on_monday)
    change(two[1], other_settings)
    found = merge(two, tmp_path / "both")
    assert found.tuning is None and list(found.merged_tuning) == ["monday"]
    search = found.merged_tuning["monday"]
    assert list(search.labels) == ["dpo (monday)", "sft"] and search.not_tuned == {"ppo": "tune: false"}
    assert search.labels["dpo (monday)"].untuned == "dpo-untuned"
    (folder,) = search.labels["sft"].trials[0].folders
    assert (tmp_path / "both" / folder).resolve() == (two[0] / "trials/tune-sft-0").resolve()
    note = "The settings of monday were searched, those of tuesday were not: their policies had not the same chance."
    assert note in found.notes
    text = (tmp_path / "both" / "report.md").read_text()
    assert "## Tuning of monday" in text and (tmp_path / "both/figures/tuning_monday_dpo_monday.png").is_file()
    change(two[1], lambda content: content.update(tuning={**monday, "labels": {}, "trials": 4}))
    both = merge(two, tmp_path / "both")
    assert list(both.merged_tuning) == ["monday", "tuesday"]
    assert any("searched differently (trials 2 and 4)" in note for note in both.notes)


def test_a_trial_counts_once_whether_or_not_its_label_was_to_be_tuned(two, small_run, tmp_path) -> None:
    plan = json.loads((two[0] / "plan.json").read_text())
    plan["recipe"]["algorithms"]["dpo"]["tune"] = False
    (two[0] / "plan.json").write_text(json.dumps(plan))
    assert "tune" not in rebuild(two[0]).algorithms["dpo"].settings
    assert list(merge(two, tmp_path / "both").algorithms) == list(small_run[0].algorithms)


def test_folders_that_cannot_be_merged_are_told(two, tmp_path) -> None:
    with pytest.raises(PrefzooError, match=r"no results\.json"):
        merge([two[0], tmp_path / "nowhere"], tmp_path / "both")
    with pytest.raises(PrefzooError, match="given twice"):
        merge([two[0], two[0]], tmp_path / "both")
    with pytest.raises(PrefzooError, match="would replace"):
        merge(two, two[1])


def test_a_pilot_says_how_much_a_difference_needs(two, tmp_path) -> None:
    found = analyze_power(two[0], 1.0)
    assert (found.metric, set(found.power), found.pilot.seeds, found.pilot.prompts) == ("gold", {"sft", "dpo"}, 2, 16)
    values = {(design.seeds, design.prompts): power for design, power in found.power["dpo"].items()}
    enough = found.prompts("dpo", 20)
    assert enough is None or values[20, enough] >= 0.8
    assert len(found.tables()[0].columns) == 3
    assert values[20, 2048] > values[2, 64] and all(0 <= each <= 1 for each in values.values())
    with pytest.raises(PrefzooError, match="run a small one first"):
        analyze_power(tmp_path, 1.0)
    with pytest.raises(PrefzooError, match="above 0"):
        analyze_power(two[0], 0.0)
    change(two[0], lambda content: [each["seeds"].pop("1") for each in content["algorithms"].values()])
    with pytest.raises(PrefzooError, match="at least 2 seeds"):
        analyze_power(two[0], 1.0)


def test_results_that_are_not_of_the_trials_beside_them_are_refused(two, tmp_path) -> None:
    (file,) = two[0].glob("trials/evaluate-dpo-seed-1-*/identity.json")
    file.write_text(file.read_text().replace('"temperature": 1.0', '"temperature": 0.5', 1))
    with pytest.raises(PrefzooError, match=r"identity\.json is not what was written"):
        merge(two, tmp_path / "both")
    seal(file.parent)
    with pytest.raises(PrefzooError, match=r"dpo seed 1: generation\.temperature: 1\.0 and 0\.5"):
        merge(two, tmp_path / "both")
    metrics = ("best_of_n", "seeds", "0", "metrics")

    def gold(value: float | None) -> None:
        change(two[1], lambda content: reduce(getitem, metrics, content["algorithms"]).update(gold=value))

    gold(9.0)
    with pytest.raises(PrefzooError, match=r"best_of_n seed 0: gold: 9 and -?\d"):
        merge([two[1], two[0]], tmp_path / "both")
    gold(None)
    with pytest.raises(PrefzooError, match=r"first of 1: algorithms\.best_of_n\..*metrics\.gold"):
        merge([two[1], two[0]], tmp_path / "both")


JUDGED = [*SMALL, "gold=judge", "reward={type: function, path: FILE.py:length}", "judge.audit_pairs=0"]


def test_who_decides_must_be_the_same_and_who_teaches_is_noted_by_label(small_run, tmp_path) -> None:
    plan = load_plan(small_run[1])
    scores = tmp_path / "scores.py"
    scores.write_text("def length(prompts, completions):\n    return [len(text) for text in completions]\n")

    def recipe(*sets: str):
        return load_recipe("quickstart", [each.replace("FILE.py", str(scores)) for each in sets], ["sft"])

    local, random = (identity(replace(plan, recipe=recipe(*JUDGED, f"judge.type={t}"))) for t in ("local", "random"))
    assert set(differences(local, random)[0]) == {"final judge.type"}
    judge = [*SMALL, "reward={type: judge}", "judge.audit_pairs=0"]
    local, random = (identity(replace(plan, recipe=recipe(*judge, f"judge.type={t}"))) for t in ("local", "random"))
    assert set(differences(local, random)[0]) == {"reward judge.type"}

    chosen = ["rlaif", "constitutional_ai", "sft"]
    one, other = (load_recipe("ai_feedback", [f"judge.type={t}"], chosen) for t in ("local", "random"))
    assert (set(teachers(one, "rlaif")), set(teachers(one, "constitutional_ai")), teachers(one, "sft")) == (
        {"judge"},
        {"judge", "constitution"},
        {},
    )
    assert differences({"taught by": teachers(one, "rlaif")}, {"taught by": teachers(other, "rlaif")}) == (
        {},
        {"taught by.judge.type": '"local" and "random"'},
    )


def test_labels_that_other_judges_taught_are_said_in_the_merged_report(two, tmp_path) -> None:
    for folder, judge in zip(two, ("local", "random"), strict=True):
        reidentify(
            folder, lambda identity, judge=judge: identity.update({"taught by": {"judge": {"type": judge}}}), "start"
        )
    found = merge(two, tmp_path / "both")
    assert not any("differ in taught by" in note for note in found.notes)
    assert 'sft and best_of_n were not taught by the same judge: judge.type: "local" and "random".' in found.notes
    assert {"dpo (monday)", "dpo (tuesday)"} < found.algorithms.keys(), "the same replies of other teachers"


def test_folders_of_one_name_are_told_apart_by_as_many_parents_as_it_takes(two, tmp_path) -> None:
    places = [tmp_path / "a" / "x" / "run", tmp_path / "b" / "x" / "run"]
    for folder, place in zip(two, places, strict=True):
        place.parent.mkdir(parents=True)
        folder.rename(place)
    assert f"Merged from {'a/x/run'}, {'b/x/run'}." in merge(places, tmp_path / "both").notes


def test_a_merged_report_is_rebuilt_and_merged_again_and_replaces_nothing_else(two, small_run, tmp_path) -> None:
    third = tmp_path / "wednesday"
    shutil.copytree(small_run[1], third, symlinks=True)
    change(third, keep("rejection_sampling"))
    both = merge(two, tmp_path / "both")
    assert rebuild(tmp_path / "both").verdicts == both.verdicts == merge(two, tmp_path / "both").verdicts
    found = merge([tmp_path / "both", third], tmp_path / "all")
    page = (tmp_path / "all" / "report.html").read_text()
    assert "prefzoo report ../monday ../tuesday ../wednesday --out FOLDER" in page and "recipe.yaml" not in page
    assert found.merged == {"monday": "../monday", "tuesday": "../tuesday", "wednesday": "../wednesday"}
    assert set(found.algorithms) == {"start", "sft", "dpo", "best_of_n", "rejection_sampling"}
    for ask in (lambda: answer(tmp_path / "both", "hi"), lambda: open_policy(tmp_path / "both", "dpo")):
        with pytest.raises(PrefzooError, match=f"merged report.*: {two[0]}, {two[1]}$"):
            ask()

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").touch()
    for taken in (third, mine):
        with pytest.raises(PrefzooError, match="something else than a merged report"):
            merge(two, taken)
    shutil.rmtree(two[0])
    with pytest.raises(PrefzooError, match="no longer there: monday"):
        rebuild(tmp_path / "both")


def test_the_deciding_judge_of_an_older_run_is_known_from_its_recipe(two, tmp_path) -> None:
    reidentify(two[0], lambda identity: identity.pop("final judge"))
    reidentify(two[1], lambda identity: identity.pop("final judge"))
    assert merge(two, tmp_path / "both")
    plan = json.loads((two[1] / "plan.json").read_text())
    plan["recipe"]["gold"] = "judge"
    (two[1] / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(PrefzooError, match=r"final judge\.type: null and \"local\""):
        merge(two, tmp_path / "other")
