"""Constitutions and settings of AI feedback, checked before anything is loaded."""

from __future__ import annotations

import pytest

from prefzoo.errors import RecipeError
from prefzoo.judges import constitution
from prefzoo.recipe import check_recipe as recipes


@pytest.mark.parametrize("name", constitution.shipped())
def test_shipped_constitutions_are_sound(name: str) -> None:
    assert constitution.problems(name) == []


def test_every_mistake_of_a_constitution_is_told(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "critique_prompt: '{{ replly }}'\nrevision_prompt: '{{ principle.critque }}'\n"
        "principles:\n  - {id: a, critique: x, revision: y, preference: z, wheight: 2, where: '('}\n  - {id: a}\n"
    )
    said = "\n".join(constitution.problems(str(file)))
    for part in (
        "'replly'",
        "'reply'",
        "critque",
        "wheight",
        "weight",
        "no regular expression",
        "principles.1.critique",
    ):
        assert part in said, part
    with pytest.raises(RecipeError, match="Did you mean 'lab'"):
        recipes.check({"constitution": "labb", "algorithms": {"constitutional_ai": {}}})


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("rlaif", {"learner": "dpp"}, "Did you mean"),
        ("rlaif", {"learner": "rlaif"}, "needs judge"),
        (
            "rlaif",
            {"learner_settings": {"betta": 1}},
            "learner_settings.betta: unknown key 'betta'. Did you",
        ),
        ("rlaif", {"mode": "direct"}, "learns from a reward, not 'dpo'"),
        ("rlaif", {"mode": "direct", "learner": "ppo", "rounds": 2}, "rounds and human_fraction have no meaning"),
        ("rlaif", {"score": "grade"}, "must be 'direct'"),
        ("rlaif", {"learner": "best_of_n", "rounds": 2}, "trains nothing, and cannot go on"),
        ("constitutional_ai", {"learner": "best_of_n"}, "trains nothing, and cannot go on"),
        ("rlaif", {"human_fraction": 1.5}, "human_fraction"),
        ("constitutional_ai", {"phase": "supervised", "rounds": 2}, "rounds: 2 has no meaning"),
        ("constitutional_ai", {"phase": "preferences", "revisions": 2}, "have no meaning with phase 'preferences'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(name: str, settings: dict, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipes.check({"algorithms": {name: settings}})
    assert said in str(error.value)


def test_the_gold_judge_needs_a_truth() -> None:
    with pytest.raises(RecipeError, match=r"judge\.type: 'gold' needs a truth for algorithms.rlaif"):
        recipes.check({"judge": {"type": "gold"}, "gold": "none", "algorithms": {"rlaif": {}}})
