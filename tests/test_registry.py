"""Names, laziness, did-you-mean, registration."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

import prefzoo
from prefzoo import registry
from prefzoo.config_fields import config_fields, trainer_problems
from prefzoo.errors import RecipeError, nearest
from prefzoo.interface import NEEDS, Algorithm
from prefzoo.types import Range


def test_importing_and_listing_imports_no_torch() -> None:
    code = (
        "import sys, prefzoo; from prefzoo import registry; from prefzoo.config_fields import config_fields;"
        "[registry.load(n) for n in prefzoo.names()];"
        "config_fields('trl.trainer.dpo_config:DPOConfig');"
        "bad = {'torch', 'trl', 'transformers', 'peft', 'datasets'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_algorithm_says_what_it_is() -> None:
    for name in prefzoo.names():
        cls = registry.load(name)
        assert cls.__doc__ and "http" in cls.__doc__, f"{name} does not name its paper"
        assert set(cls.needs) <= set(NEEDS)
        assert dataclasses.is_dataclass(prefzoo.get(name))


@pytest.mark.parametrize(
    ("word", "allowed", "meant"),
    [
        ("simpo", ["ipo", "dpo"], None),
        ("orpo", ["ppo", "grpo"], "grpo"),
        ("dop", ["ppo", "dpo"], "dpo"),
        ("DPO", ["dpo", "ppo"], "dpo"),
        ("max_tokens", ["max_new_tokens", "temperature"], "max_new_tokens"),
        ("alpha", ["lora_alpha"], None),
        ("x", ["r"], None),
        ("", ["r"], None),
        ("['cosine']", ["cosine"], "cosine"),
        ("p" * 300, ["p" * 299], None),
    ],
)
def test_a_suggestion_is_near_in_spelling(word: str, allowed: list[str], meant: str | None) -> None:
    assert nearest(word, allowed) == meant


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("semi-online-dpo", "called 'online_dpo'"),
        ("tdpo", "not built in; docs/algorithms.md"),
        ("Robust-DPO", "called 'robust'"),
        ("Reinforce++", "called 'reinforce_plus_plus'"),
        ("raft", "called 'rejection_sampling'"),
    ],
)
def test_published_algorithms_that_are_not_here_are_said_not_to_be(name: str, says: str) -> None:
    with pytest.raises(KeyError) as caught:
        prefzoo.get(name)
    assert says in str(caught.value) and "Did you mean" not in str(caught.value)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="Did you mean 'dpo'"):
        prefzoo.get("dpoo")
    with pytest.raises(RecipeError, match="Did you mean 'beta'"):
        prefzoo.get("dpo", bata=0.1)
    with pytest.raises(RecipeError) as caught:
        prefzoo.get("dpo", beta=-1, loss_type="sigmoyd", trainer={"learning_rat": 1})
    assert len(caught.value.problems) >= 3


@pytest.mark.parametrize(
    "config",
    ["trl.trainer.dpo_config:DPOConfig", "trl.trainer.sft_config:SFTConfig", "trl.trainer.reward_config:RewardConfig"],
)
def test_config_fields_read_from_source_are_those_of_the_class(config: str) -> None:
    import trl

    cls = getattr(trl, config.partition(":")[2])
    assert set(config_fields(config)) == {f.name for f in dataclasses.fields(cls)}
    assert set(config_fields(f"trl:{cls.__name__}")) == set(config_fields(config))


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("learning_rate", [1e-4, 1], ["1e-4", True, None]),
        ("num_train_epochs", [2, 0.5], ["two"]),
        ("max_steps", [5], [5.5, "5"]),
        ("max_grad_norm", [0.5], ["much"]),
        ("loss_type", [["sigmoid", "sft"]], [5]),
        ("gradient_checkpointing", [True], ["yes", 1]),
        ("optim_args", [None, "x"], [3]),
    ],
)
def test_trainer_values_are_checked_against_the_annotation(key: str, good: list, bad: list) -> None:
    config = "trl.trainer.dpo_config:DPOConfig"
    assert [trainer_problems(config, {key: value}, "trainer.") for value in good] == [[] for _ in good]
    for value in bad:
        (problem,) = trainer_problems(config, {key: value}, "trainer.")
        assert problem.startswith(f"trainer.{key}: must be ") and repr(value) in problem


@pytest.mark.parametrize(
    ("key", "good", "bad", "meant"),
    [
        ("optim", "adamw_torch", "adamw_torhc", "adamw_torch"),
        ("lr_scheduler_type", "cosine", "cosin", "cosine"),
        ("logging_strategy", "no", "epohc", "epoch"),
    ],
)
def test_words_of_transformers_own_are_checked_too(key: str, good: str, bad: str, meant: str) -> None:
    config = "trl.trainer.dpo_config:DPOConfig"
    assert trainer_problems(config, {key: good}, "trainer.") == []
    (problem,) = trainer_problems(config, {key: bad}, "trainer.")
    assert problem.startswith(f"trainer.{key}: unknown value {bad!r}.") and f"Did you mean {meant!r}?" in problem


def test_our_list_of_dpo_losses_is_that_of_the_installed_trl() -> None:
    import inspect
    import re
    from typing import get_args

    from trl import DPOTrainer

    from prefzoo.zoo.dpo import Loss

    offered = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer)))
    assert offered == set(get_args(Loss))


def test_register_checks_the_class_and_the_name() -> None:
    @dataclass(frozen=True)
    class Sound(Algorithm):
        """A sound one."""

        needs: ClassVar[frozenset[str]] = frozenset({"prompts"})

        def train(self, bench):
            raise NotImplementedError

    with pytest.raises(ValueError, match="taken"):
        prefzoo.register("dpo")(Sound)
    with pytest.raises(ValueError, match="frozen"):
        prefzoo.register("x")(type("Loose", (Algorithm,), {"train": lambda self, bench: None}))
    for needs, kind in ((("prompts",), "tuple"), (["prompts"], "list"), ("prompts", "str")):
        with pytest.raises(ValueError, match=f"'x': needs is the {kind} .*frozenset of any of preferences, prompts"):
            prefzoo.register("x")(dataclass(frozen=True)(type("Odd", (Sound,), {"needs": needs})))
    with pytest.raises(ValueError, match="Did you mean 'prompts'"):
        prefzoo.register("x")(dataclass(frozen=True)(type("Odd", (Sound,), {"needs": frozenset({"promts"})})))
    prefzoo.register("sound")(Sound)
    assert isinstance(prefzoo.get("sound"), Sound)
    assert "sound" in prefzoo.names()
    registry._registered.pop("sound")


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"strenght": Range(0.1, 1.0)}, "Did you mean 'strength'"),
        ({"strength": Range(1.0, 0.1)}, r"space\['strength'\] must be a prefzoo.Range with low below high"),
        ({"strength": [0.1, 1.0]}, "must be a prefzoo.Range"),
    ],
)
def test_what_tuning_is_to_try_must_be_ranges_of_hyper_parameters(space, says) -> None:
    @dataclass(frozen=True)
    class Mine(Algorithm):
        strength: float = 1.0

        def train(self, bench):
            raise NotImplementedError

    Mine.space = space
    with pytest.raises(ValueError, match=says):
        registry.register("mine")(Mine)
    assert "mine" not in registry.names()
