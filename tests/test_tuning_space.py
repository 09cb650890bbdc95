"""What tuning tries of each algorithm and label, and mistakes in what a recipe says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from typer.testing import CliRunner

import prefzoo
from prefzoo import registry
from prefzoo.cli import app
from prefzoo.errors import RecipeError
from prefzoo.interface import Algorithm
from prefzoo.recipe import check_recipe as recipes
from prefzoo.recipe.tuning_space import not_tuned, space_of, with_values
from prefzoo.types import Range


@pytest.mark.parametrize(
    ("label", "settings", "expected"),
    [
        ("dpo", {}, {"beta": (0.05, 1.0), "trainer.learning_rate": (0.0004, 0.01)}),
        ("dpo", {"beta": 0.01}, {"beta": (0.01, 1.0), "trainer.learning_rate": (0.0004, 0.01)}),
        ("dpo", {"tune": {"beta": [0.2, 3.0, "log"]}}, {"beta": (0.2, 3.0), "trainer.learning_rate": (0.0004, 0.01)}),
        ("dpo", {"trainer": {"learning_rate": 1e-3}, "tune": {"beta": False}}, {"trainer.learning_rate": (2e-4, 5e-3)}),
        ("dpo", {"tune": False}, {}),
        ("best_of_n", {}, {}),
        ("best_of_n", {"tune": {"n": [2, 8]}}, {"n": (2, 8)}),
        ("sft", {"tune": {"trainer": {"weight_decay": [0, 1]}}},
         {"trainer.learning_rate": (0.0004, 0.01), "trainer.weight_decay": (0.0, 1.0)}),
        ("ppo", {"kl_coefficient": 0.0}, {"epochs": (1, 4), "trainer.learning_rate": (0.0004, 0.01)}),
        ("rejection_sampling", {"keep": "top_k", "k": 5, "n": 20},
         {"n": (5, 20), "trainer.learning_rate": (0.0004, 0.01)}),
        ("rlaif", {}, {"learner_settings.beta": (0.05, 1.0), "learner_settings.trainer.learning_rate": (0.0004, 0.01)}),
        ("constitutional_ai", {}, {"trainer.learning_rate": (0.0004, 0.01), "learner_settings.beta": (0.05, 1.0),
                                   "learner_rate": (0.05, 1.0)}),
        ("constitutional_ai", {"phase": "supervised"}, {"trainer.learning_rate": (0.0004, 0.01)}),
        ("constitutional_ai", {"phase": "preferences"},
         {"learner_settings.beta": (0.05, 1.0), "learner_settings.trainer.learning_rate": (0.0004, 0.01)}),
    ],
)  # fmt: skip
def test_what_is_tried_of_a_label(label, settings, expected) -> None:
    space = space_of(recipes.check({"algorithms": {label: settings}}), label)
    assert {key: (tried.low, tried.high) for key, tried in space.items()} == {
        key: pytest.approx(ends) for key, ends in expected.items()
    }
    assert all(type(end) is type(tried.low) for tried in space.values() for end in (tried.low, tried.high))


def test_the_ends_of_every_declared_range_are_settings_that_the_algorithm_takes() -> None:
    recipe = recipes.check({"algorithms": {name: {} for name in prefzoo.names()}})
    for label in recipe.algorithms:
        for key, tried in space_of(recipe, label).items():
            for end in (tried.low, tried.high):
                prefzoo.get(label, **with_values({}, {key: end}))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"algorithms": {"dpo": {"tune": {"beta": [1, 0.1]}}}}, r"dpo.tune.beta: .* is empty"),
        ({"algorithms": {"dpo": {"tune": {"betta": [0.1, 1]}}}}, "Did you mean 'beta'"),
        ({"algorithms": {"dpo": {"tune": {"beta": [0, 1, "log"]}}}}, "needs a first number above 0"),
        ({"algorithms": {"dpo": {"tune": {"beta": 0.5}}}}, r"must say what to try \(got 0.5\)"),
        ({"algorithms": {"dpo": {"tune": {"loss_type": ["ipo", "ipo"]}}}}, "two different choices"),
        ({"algorithms": {"dpo": {"tune": {"loss_type": ["ipo", "no"]}}}}, "dpo.tune.loss_type: 'no' cannot be tried"),
        ({"algorithms": {"dpo": {"tune": {"trainer": [1, 2]}}}}, "is a block; say which setting"),
        ({"algorithms": {"dpo": {"tune": {"trainer": {"learning_rat": [1, 2]}}}}}, "Did you mean 'learning_rate'"),
        ({"algorithms": {"dpo": {"tune": 3}}}, "dpo.tune: must be false, or a block"),
        ({"algorithms": {"best_of_n": {"tune": {}}}}, "declares nothing to tune"),
        ({"algorithms": {"ppo": {"tune": {"epochs": [0, 4]}}}}, "ppo.tune.epochs: 0 cannot be tried.*at least 1"),
        ({"algorithms": {"rlaif": {"tune": {"learner_settings": {"bet": [0.1, 1]}}}}}, "learner_settings.bet: unknown"),
        ({"data": {"splits": {"train": 0.8, "validation": 0, "test": 0.2}}}, "splits.validation: 0 leaves no prompts"),
        ({"tuning": {"sampler": "grid", "equal": "flops"}}, "tuning.sampler: 'grid'"),
        ({"tuning": {"objective": "judge"}}, "tuning.objective: 'judge' needs a judge that decides"),
        ({"tuning": {"objective": "gold"}, "gold": "none"}, "tuning.objective: 'gold' is not known here"),
        ({"gold": "none", "reward": {"type": "random"}}, "the reward is random"),
        ({"tuning": {"trails": 3}}, "tuning.trails: unknown key 'trails'. Did you mean 'trials'"),
        ({"tuning": {"trials": 0}}, "tuning.trials: must be at least 1"),
        ({"seeds": [0, 1000]}, "seeds: 1000 trained the trials of tuning"),
        ({"algorithms": {"dpo": {}, "dpo-untuned": {"algorithm": "dpo", "beta": 1.0}}}, "dpo-untuned: is the name of"),
    ],
)  # fmt: skip
def test_mistakes_are_named(content, says) -> None:
    with pytest.raises(RecipeError, match=says):
        recipes.check({"algorithms": {"dpo": {}}, "tuning": {}, **content})


def test_what_is_tried_is_shown_as_a_recipe_writes_it() -> None:
    shown = CliRunner().invoke(app, ["ls", "dpo"], env={"COLUMNS": "200"}).output
    assert "[0.05, 1, log]" in shown and "[0.2, 5, log] times the recipe's" in shown
    assert "tuning tries" not in CliRunner().invoke(app, ["ls", "best_of_n"], env={"COLUMNS": "200"}).output
    assert str(Range(1, 4)) == "[1, 4]" and str(Range(choices=("a", 2))) == "[a, 2]"


def test_an_algorithm_of_ones_own_may_declare_nothing_or_a_space(monkeypatch) -> None:
    @dataclass(frozen=True)
    class Plain(Algorithm):
        strength: float = 2.0

        def train(self, bench):
            raise NotImplementedError

    @dataclass(frozen=True)
    class Declared(Plain):
        space: ClassVar[dict[str, Range]] = {"strength": Range(1.0, 10.0, log=True)}

    monkeypatch.setattr(registry, "_registered", {"plain": Plain, "declared": Declared})
    labels = {"plain": {}, "declared": {}, "other": {"algorithm": "plain", "tune": {"strength": [1, 3]}}}
    recipe = recipes.check({"algorithms": labels, "tuning": {}})
    assert [not_tuned(recipe, label) for label in labels] == ["it has nothing to tune", None, None]
    assert space_of(recipe, "declared")["strength"].holds(10.0)
    assert type(space_of(recipe, "other")["strength"].low) is float, "whole numbers in a recipe, for what is not whole"
