"""Recipes: every mistake at once, extends, --set, and the numbers that YAML mistakes for text."""

from __future__ import annotations

import json

import cloudpickle
import jsonschema
import pytest
import yaml
from pydantic import BaseModel
from tools import zoo_page

from prefzoo import registry
from prefzoo.errors import RecipeError
from prefzoo.recipe import check_recipe as recipes
from prefzoo.recipe.json_schema import recipe_schema
from prefzoo.recipe.recipe_files import merge, read, shipped
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.run.stage_graph import make_plan


@pytest.mark.parametrize("name", [n for n in shipped() if n != "base"])
def test_shipped_recipes_are_sound(name: str) -> None:
    assert recipes.load(name).algorithms


def test_the_recipe_of_the_zoo_has_every_algorithm_of_this_package_and_the_page_too() -> None:
    every = {name for names in zoo_page.families().values() for name in names}
    assert set(recipes.load("zoo").algorithms) == every
    kept = json.loads(zoo_page.FOUND.read_text(encoding="utf-8")) if zoo_page.FOUND.is_file() else None
    assert zoo_page.PAGE.read_text(encoding="utf-8") == zoo_page.page(kept), "run python -m tools.zoo_page"


def test_the_first_recipe_has_the_settings_that_were_searched_on_other_rows() -> None:
    """benchmarks/tune_quickstart.py wrote them; a control samples as what it is the control of does."""
    found = json.loads((zoo_page.ROOT / "benchmarks" / "results" / "tuned_quickstart.json").read_text(encoding="utf-8"))
    recipe = recipes.load("quickstart")
    seeds = [found["data_seeds"]["search"], *found["data_seeds"]["finals"]]
    assert recipe.data.seed not in seeds and found["search"]["budget"]["prompts"] == recipe.budget.prompts
    for label, settings in found["winners"].items():
        assert recipe.algorithms[label] == settings, label
    control = {**recipe.algorithms["random_choice"]}
    assert (control.pop("algorithm"), control.pop("keep")) == ("rejection_sampling", "random")
    assert control == recipe.algorithms["rejection_sampling"]


def test_base_lists_the_defaults() -> None:
    """base.yaml says that every value in it is the default; so it must stay."""
    content = read("base").content
    given = recipes.check({**content, "algorithms": {"dpo": {}}})
    assert given == recipes.check({"algorithms": {"dpo": {}}})


def test_base_names_every_key_there_is() -> None:
    """Left out are only the keys whose default would not be one: `algorithms` has none, and that of `start` depends on
    the data. They stand there as comments."""
    text = shipped()["base"].read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    left_out = {key for key in Recipe.model_fields if key not in content}
    assert left_out == {"algorithms", "start"} and all(f"\n# {key}:" in text for key in left_out)

    def missing(block: type[BaseModel], given: dict, prefix: str) -> list[str]:
        found = [f"{prefix}{key}" for key in block.model_fields if key not in given]
        for key, field in block.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel) and key in given:
                found += missing(inner, given[key], f"{prefix}{key}.")
        return found

    assert set(missing(Recipe, content, "")) == left_out


def test_the_learning_rate_left_out_suits_model_and_adapter_and_is_written_down() -> None:
    dpo = {"algorithms": {"dpo": {}}}
    assert recipes.check(dpo).training.learning_rate == 2e-3
    assert recipes.check({**dpo, "model": {"path": "a/b"}, "adapter": {"type": "full"}}).training.learning_rate == 1e-5
    assert recipes.check({**dpo, "training": {"learning_rate": 0}}).training.learning_rate == 0


def test_all_mistakes_at_once_with_suggestions() -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.load(
            "quickstart",
            [
                "modle.path=lab",
                "budget.promts=10",
                "training.learning_rate=-1",
                "algorithms.dpo.bata=0.2",
                "algorithms.sft.trainer.learning_rat=1",
                "algorithms.dop={}",
                "seeds=0",
            ],
        )
    text = "\n".join(caught.value.problems)
    for meant in ("model", "prompts", "beta", "learning_rate", "dpo"):
        assert f"Did you mean '{meant}'" in text
    assert "training.learning_rate" in text and "seeds" in text
    assert len(caught.value.problems) == 7


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "algorithms: is missing"),
        ({"algorithms": {"dpo": {}}, " ": 1}, "' ': unknown key ' '"),
        ({"algorithms": {}}, "algorithms"),
        (
            {"algorithms": {"dpo": {}}, "model": {"path": "labb"}},
            r"model.path: 'labb' is no folder. Did you mean 'lab'\?",
        ),
        ({"algorithms": {"dpo": {}}, "model": {"path": "./nowhere"}}, "model.path: './nowhere' is no folder"),
        ({"algorithms": {"start": {"algorithm": "dpo"}}}, "names the start"),
        ({"algorithms": {"a b": {"algorithm": "dpo"}}}, "label"),
        ({"algorithms": {"dpo": {}}, "seeds": [1, 1]}, "twice"),
        ({"algorithms": {"dpo": {}}, "data": {"source": "lab", "preferences": "a/b"}}, "not both"),
        ({"algorithms": {"dpo": {}}, "data": {"preferences": "a/b"}, "gold": "lab"}, "gold"),
        ({"algorithms": {"dpo": {}}, "data": {"splits": {"train": 0.5, "test": 0.5}}}, "splits"),
        ({"algorithms": {"dpo": {}}, "data": {"preferences": "missing.jsonl"}}, "neither a file"),
        ({"algorithms": {"dpo": {}}, "reward": {"type": "function"}}, "path"),
        ({"algorithms": {"dpo": {}}, "gold": {"path": "missing.py:f"}}, "there is no file"),
        ({"algorithms": {"dpo": {}}, "gold": {"path": f"{__file__}:test_al"}}, "unknown function 'test_al'"),
        ({"algorithms": {"dpo": {}}, "reward": {"type": "function", "path": "f.py"}}, "FILE.py:NAME"),
        ({"algorithms": {"dpo": {}}, "reward": {"trainer": {"learning_rte": 1}}}, "learning_rate"),
        ({"algorithms": {"dpo": {}}, "start": {"algorithm": "dpo"}}, "start"),
        (
            {"algorithms": {"dpo": {}, "x": {"algorithm": "ppo"}, "grpo": {}}, "generation": {"temperature": 0}},
            "generation.temperature: 0 is greedy, and x, grpo must sample",
        ),
        ({"algorithms": {"dpo": {}}, "start": "none", "training": {"batch_size": 10, "accumulation": 4}}, "divide"),
        (
            {"algorithms": {"gspo": {"minibatches": 4}}, "budget": {"prompts": 60}},
            r"a rollout takes 64 prompts \(training.batch_size 16 x minibatches 4\), more than budget.prompts 60",
        ),
        ({"algorithms": {"dpo": {}}, "start": {"algorithm": "sft", "onn": "chosen"}}, "Did you mean 'on'"),
        ({"algorithms": {"dpo": {"seed_offset": "x"}}}, "seed_offset"),
        ({"algorithms": {"dpo": {"seed_offset": -1}}}, "negative"),
        (
            {"algorithms": {"dpo": {"beta": 1}, "again": {"algorithm": "dpo", "beta": 1, "seed_offset": 1}}},
            r"again\.seed_offset: with 1, 2 of 3 trainings are those of dpo \(seed 1, 2\), .* from 3 on all differ",
        ),
        ({"algorithms": {"a" * 101: {"algorithm": "dpo"}}}, r"at most 100 letters \(this one has 101\)"),
        ({"algorithms": {"rejection_sampling": {"n": 1, "keep": "top_k"}}}, "k is 2"),
        ({"algorithms": {"dpo": {"loss_type": "exo_pair"}}}, "label_smoothing"),
        ({"algorithms": {"dpo": {}}, "reward": {"type": "path", "path": "/no/such/dir"}}, "reward.path"),
    ],
)
def test_mistakes_are_named(content, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        recipes.check(content)


def test_seeds_that_are_moved_far_enough_or_are_of_other_settings_are_sound() -> None:
    far = {"dpo": {}, "again": {"algorithm": "dpo", "seed_offset": 3}, "same": {"algorithm": "dpo"}}
    assert recipes.check({"algorithms": {**far, "other": {"algorithm": "dpo", "beta": 0.7, "seed_offset": 1}}})
    assert recipes.check({"algorithms": {"a" * 100: {"algorithm": "dpo"}}})


def test_greedy_sampling_is_refused_only_to_who_learns_from_it() -> None:
    assert recipes.check({"algorithms": {"dpo": {}, "best_of_n": {}}, "generation": {"temperature": 0}})


def test_files_extend_each_other_but_not_in_a_circle(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\nbudget: {prompts: 5}\nalgorithms: {dpo: }\n")
    (tmp_path / "b.yaml").write_text("extends: base\nbudget: {epochs: 2, prompts: 9}\n")
    loaded = recipes.load(str(tmp_path / "a.yaml"))
    assert (loaded.budget.prompts, loaded.budget.epochs) == (5, 2)
    (tmp_path / "b.yaml").write_text("extends: a\n")
    with pytest.raises(RecipeError, match="circle"):
        recipes.load(str(tmp_path / "a.yaml"))


def test_yaml_surprises_are_caught(tmp_path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("training: {learning_rate: 1e-4}\nalgorithms: {dpo: {trainer: {adam_epsilon: 1e-6}}}\n")
    loaded = recipes.load(str(file))
    assert loaded.training.learning_rate == 1e-4
    assert loaded.algorithms["dpo"]["trainer"]["adam_epsilon"] == 1e-6
    file.write_text("algorithms: {dpo: {}}\nseeds: 1\nseeds: 2\n")
    with pytest.raises(RecipeError, match="twice"):
        recipes.load(str(file))
    file.write_text("- a list\n")
    with pytest.raises(RecipeError, match="block of keys"):
        recipes.load(str(file))


def test_set_reaches_every_key_and_says_when_it_cannot() -> None:
    loaded = recipes.load("quickstart", ["algorithms.dpo.trainer.learning_rate=1e-5", "seeds=[4, 9]"])
    assert loaded.algorithms["dpo"]["trainer"] == {"learning_rate": 1e-5}
    assert loaded.seeds == [4, 9]
    with pytest.raises(RecipeError, match=r"key\.sub=value"):
        recipes.load("quickstart", ["seeds"])
    with pytest.raises(RecipeError, match="no keys of its own"):
        recipes.load("quickstart", ["seeds.x=1"])


def test_merge_goes_block_by_block() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}


def test_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'quickstart'"):
        recipes.load("quikstart")


def test_mistakes_name_file_and_line_through_extends_and_set(tmp_path) -> None:
    (tmp_path / "below.yaml").write_text("# shared\nbudget:\n  prompts: 0\nseeds: 2\n")
    (tmp_path / "mine.yaml").write_text("extends: below\n\nalgorithms:\n  dpo:\n    bata: 0.1\nmodle: {path: lab}\n")
    with pytest.raises(RecipeError) as caught:
        recipes.load(str(tmp_path / "mine.yaml"), ["training.batch_size=0"])
    places = sorted(problem.split(": ")[0] for problem in caught.value.problems)
    assert places == ["--set training.batch_size", "below.yaml:3", "mine.yaml:5", "mine.yaml:6"]
    (tmp_path / "mine.yaml").write_text("extends: below\nbudget: {prompts: -1}\nalgorithms: {dpo: {}}\n")
    with pytest.raises(RecipeError, match=r"mine.yaml:2: budget.prompts"):
        recipes.load(str(tmp_path / "mine.yaml"))


def test_the_schema_takes_the_shipped_recipes_and_refuses_mistakes() -> None:
    validator = jsonschema.Draft202012Validator(recipe_schema())
    validator.check_schema(validator.schema)
    for path in shipped().values():
        assert not list(validator.iter_errors(yaml.safe_load(path.read_text()))), path
    for wrong in (
        {"modle": {"path": "lab"}},
        {"budget": {"prompts": 0}},
        {"seeds": 0},
        {"algorithms": {"dpo": {"bata": 0.1}}},
        {"algorithms": {"mine": {}}},
        {"algorithms": {"mine": {"algorithm": "dpo", "bata": 0.1}}},
        {"algorithms": {"dpo": {"trainer": {"learning_rat": 1}}}},
        {"algorithms": {"dpo": {"trainer": {"learning_rate": "fast"}}}},
        {"algorithms": {"a b": {"algorithm": "dpo"}}},
        {"reward": {"trainer": {"nonsense": 1}}},
        {"reward": {"trainer": {"seed": 1}}},
        {"algorithms": {"dpo": {"trainer": {"beta": 1}}}},
    ):
        assert list(validator.iter_errors(wrong)), wrong
    for right in (
        {"seeds": [3, 4], "start": "none", "algorithms": {"dpo": None}},
        {"algorithms": {"mine": {"algorithm": "dpo", "beta": 1, "seed_offset": 5, "trainer": {"max_steps": 3}}}},
    ):
        assert not list(validator.iter_errors(right)), right


def test_every_key_of_the_schema_is_described() -> None:
    schema = recipe_schema()
    bare = [name for name, each in schema["properties"].items() if not each.get("description")]
    for block, content in schema["$defs"].items():
        bare += [f"{block}.{n}" for n, each in content.get("properties", {}).items() if not each.get("description")]
    assert not bare
    fields = schema["$defs"]["algorithm:dpo"]["properties"]["trainer"]["properties"]
    assert all(each["description"] for each in fields.values())
    assert fields["max_steps"]["description"] != "See DPOConfig." != fields["loss_weights"]["description"]
    described = {name: each["properties"] for name, each in schema["$defs"].items() if "properties" in each}
    assert described["Adapter"]["r"]["description"] == "rank"  # of recipes/base.yaml
    assert described["RewardPart"]["members"]["description"].startswith("above 1: an ensemble")
    assert described["EndpointSettings"]["timeout"]["description"].startswith("seconds")  # of a docstring
    assert described["algorithm:dpo"]["beta"]["description"].endswith("The default is from: Rafailov et al. 2023.")


def test_on_is_a_word_and_true_a_truth_value(tmp_path) -> None:
    (tmp_path / "on.yaml").write_text(
        "start: {on: demonstrations}\nalgorithms: {sft: {on: chosen}}\ntraining: {bf16: true}\n"
    )
    loaded = recipes.load(str(tmp_path / "on.yaml"))
    assert loaded.start.parameters == {"on": "demonstrations"} and loaded.training.bf16 is True
    assert recipes.load("quickstart", ["start=sft"]).start.algorithm == "sft"
    assert recipes.load("quickstart", ["start.on=chosen"]).start.parameters == {"on": "chosen"}


def test_each_algorithm_of_a_recipe_is_built_once(monkeypatch, tmp_path) -> None:
    """By the check, the stage graph and all who ask later; a copy with other settings builds its own, and what goes to
    another process leaves them behind."""
    built: list[str] = []

    class Counted(registry.TypeAdapter):
        def validate_python(self, *args, **more):
            built.append(self._type.__name__)
            return super().validate_python(*args, **more)

    monkeypatch.setattr(registry, "TypeAdapter", Counted)
    control = {"algorithm": "rejection_sampling", "keep": "random"}
    labels = {"sft": {}, "dpo": {"beta": 0.5}, "rejection_sampling": {}, "random_choice": control, "best_of_n": {}}
    recipe = recipes.check({"algorithms": labels})
    plan = make_plan(recipe, tmp_path)
    assert sorted(built) == ["BestOfN", "DPO", "RejectionSampling", "RejectionSampling", "SFT", "SFT"]  # one: the start
    assert recipe.algorithm("dpo") is plan.recipe.algorithm("dpo") and recipe.algorithm("dpo").beta == 0.5
    assert len(built) == 6
    other = recipe.model_copy(update={"algorithms": {"dpo": {"beta": 2.0}}})
    assert other.algorithm("dpo").beta == 2 and recipe.algorithm("dpo").beta == 0.5
    sent = cloudpickle.loads(cloudpickle.dumps(recipe))
    assert sent == recipe and sent.model_dump() == recipe.model_dump() and "_built" not in vars(sent)
    assert sent.algorithm("dpo") == recipe.algorithm("dpo") is not sent.algorithm("dpo")
