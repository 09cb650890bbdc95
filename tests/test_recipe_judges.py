"""Recipes that cannot work because of who judges or who learns from it: told before anything is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.util import find_spec

import pytest

from prefzoo import get
from prefzoo.errors import RecipeError, nearest
from prefzoo.judges import constitution
from prefzoo.lab import MODEL_DIR
from prefzoo.recipe import check_recipe as recipes
from prefzoo.recipe import cross_check

SERVED = {"type": "openai", "endpoint": {"base_url": "http://localhost:1/v1", "model": "m"}}


def told(content: Mapping) -> list[str]:
    """The problems of a recipe; empty when it is sound."""
    try:
        recipes.check({"algorithms": {"dpo": {}}, **content})
    except RecipeError as error:
        return error.problems
    return []


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder `mymodel` that holds a model, seen from where it lies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mymodel", "other"):
        shutil.copytree(MODEL_DIR, tmp_path / name)
    return tmp_path / "mymodel"


def test_a_judge_that_taught_is_known_however_its_folder_is_spelt(model) -> None:
    taught = {"gold": "judge", "algorithms": {"rlaif": {}}}
    for spelt in ("mymodel", "./mymodel", "mymodel/", "~/mymodel", "other/../mymodel", str(model)):
        problems = told({**taught, "judge": {"path": "mymodel"}, "evaluation": {"judge": {"path": spelt}}})
        assert len(problems) == 1 and "likes what it taught" in problems[0], (spelt, problems)
    assert told({**taught, "judge": {"path": "mymodel"}, "evaluation": {"judge": {"path": "other"}}}) == []
    (problem,) = told({**taught, "evaluation": {"judge": {"path": str(MODEL_DIR)}}})
    assert "likes what it taught" in problem
    assert told({**taught, "evaluation": {"judge": {"path": str(MODEL_DIR)}, "same_judge": True}}) == []
    assert told({**taught, "judge": {"path": "a/b"}, "evaluation": {"judge": {"path": "a/c"}}}) == []


def test_the_judge_that_decides_is_checked_like_the_other(model, monkeypatch) -> None:
    (model.parent / "bad.jinja").write_text("{{ frist }} {{ second }}")
    wrong = {
        "path": "lab",
        "verdict": "generated",
        "reasoning": True,
        "prompt": "bad.jinja",
        "grading_prompt": "nowhere",
    }
    for key, content in (("judge", {"judge": wrong}), ("evaluation.judge", {"evaluation": {"judge": wrong}})):
        problems = told({"gold": "judge", **content})
        starts = [f"{key}.prompt: 'bad.jinja'", f"{key}.grading_prompt: there is no such file"]
        starts += [f"{key}.reasoning: the lab's model", f"{key}.grading_prompt: the lab's model was never"]
        assert len(problems) == 4 and all(any(p.startswith(s) for p in problems) for s in starts), problems
    monkeypatch.setattr(cross_check, "find_spec", lambda name: None if name == "openai" else find_spec(name))
    (problem,) = told({"gold": "judge", "evaluation": {"judge": SERVED}})
    assert problem.startswith("evaluation.judge.type: 'openai' needs the package openai")


def test_the_paths_of_judges_are_checked_like_the_models(model) -> None:
    (model.parent / "empty").mkdir()
    for path, said in (("./nowhere", "is no folder"), ("empty", "is no model"), ("lba", "Did you mean 'lab'?")):
        (problem,) = told({"judge": {"path": path}})
        assert problem.startswith(f"judge.path: {path!r} ") and said in problem
        (problem,) = told({"gold": "judge", "evaluation": {"judge": {"path": path}}})
        assert problem.startswith(f"evaluation.judge.path: {path!r} ") and said in problem
    (model.parent / "empty" / "adapter_config.json").write_text("{}")
    for path in ("owner/name", "mymodel", "lab", "empty"):
        assert told({"judge": {"path": path}}) == []
    assert told({"model": {"path": "empty"}})[0].startswith("model.path: 'empty' is no model")


def test_a_wrong_judge_does_not_hide_a_wrong_constitution() -> None:
    problems = told({"judge": {"type": "locl"}, "constitution": "labb"})
    assert sorted(problem.partition(": ")[0] for problem in problems) == ["constitution", "judge.type"]


def test_a_greedy_policy_gives_a_judge_nothing_to_compare() -> None:
    def greedy(**settings) -> list[str]:
        return told({"generation": {"temperature": 0}, "algorithms": {"mine": settings}})

    for settings in (
        {"algorithm": "rlaif"},
        {"algorithm": "rlaif", "human_fraction": 0.5},
        {"algorithm": "rlaif", "mode": "direct", "learner": "grpo"},
        {"algorithm": "rlaif", "human_fraction": 1, "learner": "ppo"},
        {"algorithm": "constitutional_ai"},
        {"algorithm": "constitutional_ai", "phase": "preferences"},
    ):
        (problem,) = greedy(**settings)
        assert problem.startswith("generation.temperature: 0 is greedy, and mine must sample"), settings
    assert greedy(algorithm="constitutional_ai", phase="supervised") == []
    assert greedy(algorithm="rlaif", human_fraction=1) == []
    problems = told({"generation": {"temperature": 0}, "algorithms": {"rlaif": {}, "ppo": {}, "dpo": {}}})
    assert (
        len(problems) == 1 and "dpo" not in problems[0] and problems[0].count("ppo") == problems[0].count("rlaif") == 1
    )


def test_principles_need_a_place_for_their_question(model) -> None:
    (model.parent / "short.jinja").write_text("{{ prompt[-1].content }} A: {{ first }} B: {{ second }} Better?")
    for phase in ("both", "preferences"):
        content = {"judge": {"prompt": "short.jinja"}, "algorithms": {"constitutional_ai": {"phase": phase}}}
        (problem,) = told(content)
        assert problem.startswith("judge.prompt: 'short.jinja' does not show {{ question }}")
        assert "algorithms.constitutional_ai" in problem
    for algorithms in ({"rlaif": {}}, {"constitutional_ai": {"phase": "supervised"}}):
        assert told({"judge": {"prompt": "short.jinja"}, "algorithms": algorithms}) == []
    assert told({"judge": {"prompt": "pairwise-1"}, "algorithms": {"constitutional_ai": {}}}) == []


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("rlaif", {"mode": "direct", "learner": "ppo", "learner_settings": {"value_model": "reward"}}, "is a judge"),
        ("rlaif", {"mode": "direct", "learner": "best_of_n"}, "for which score 'comparison' has no reply"),
        ("rlaif", {"learner": "sft", "learner_settings": {"on": "demonstrations"}}, "Allowed: chosen."),
        ("constitutional_ai", {"learner": "sft", "learner_settings": {"on": "demonstrations"}}, "Allowed: chosen."),
        ("constitutional_ai", {"phase": "supervised", "learner": "ppo"}, "have no meaning with phase 'supervised'"),
        (
            "constitutional_ai",
            {"phase": "supervised", "learner_settings": {"beta": 0.2}},
            "have no meaning with phase 'supervised'",
        ),
    ],
)
def test_a_learner_that_the_feedback_does_not_reach_is_refused(name: str, settings: dict, said: str) -> None:
    (problem,) = told({"algorithms": {name: settings}})
    assert problem.startswith(f"algorithms.{name}: ") and said in problem


def test_learners_that_the_feedback_reaches_are_not() -> None:
    get("rlaif", learner="ppo", learner_settings={"value_model": "reward"})
    get("rlaif", learner="ppo", mode="direct", learner_settings={"value_model": "separate"})
    get("rlaif", learner="best_of_n")
    get("rlaif", learner="best_of_n", mode="direct", score="grade")
    get("rlaif", learner="sft", learner_settings={"on": "chosen"})
    get("constitutional_ai", phase="supervised", learner="dpo")


def test_without_preferences_the_rewards_that_need_none_are_named() -> None:
    prompts = {"data": {"prompts": "a/b"}, "start": "none", "gold": "judge", "evaluation": {"judge": {"path": "a/c"}}}
    (problem,) = told({**prompts, "algorithms": {"rlaif": {}}})
    assert problem.startswith("reward.type: 'trained' learns from preferences, and the data has none.")
    assert problem.endswith("Allowed without: judge, or random (nothing here learns from the reward).")
    assert told({**prompts, "algorithms": {"rlaif": {}}, "reward": {"type": "random"}}) == []
    (problem,) = told({**prompts, "algorithms": {"rlaif": {}, "grpo": {}}})
    assert problem.endswith("Allowed without: judge.")
    assert told({**prompts, "algorithms": {"rlaif": {}, "grpo": {}}, "reward": {"type": "judge"}}) == []


def test_among_equally_close_names_the_first_letter_decides() -> None:
    assert nearest("dpp", ["ppo", "dpo"]) == nearest("dpp", ["dpo", "ppo"]) == "dpo"
    assert nearest("dppo", ["ppo", "dpo"]) == "dpo"
    assert nearest("adpo", ["a2c", "dpo"]) == "dpo"  # a closer one wins whatever it begins with
    assert nearest("sft", ["ppo"]) is None and nearest("sft", []) is None


def test_text_of_a_constitution_that_is_empty_or_misspelt_is_told_as_that(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "critique_prompt: x\nrevision_prompt: x\nprinciples:\n  - {id: a b, critique: '', revision: 5, preference: z}\n"
    )
    said = [
        problem.removeprefix(f"constitution: {file}: principles.0.") for problem in constitution.problems(str(file))
    ]
    assert said[0].startswith("id: must match the regular expression ^[A-Za-z0-9]") and said[0].endswith("(got 'a b')")
    assert said[1:] == ["critique: must not be empty", "revision: must be text (got 5)"]
