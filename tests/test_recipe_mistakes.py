"""Every mistake of a recipe in one go, each with its place, its value, what is allowed and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from prefzoo.errors import RecipeError
from prefzoo.recipe import check_recipe as recipes


def told(recipe: str | Path | Mapping, sets: list[str] | None = None, **more) -> list[str]:
    """The problems of a recipe; empty when it is sound."""
    try:
        recipes.load(recipe if isinstance(recipe, Mapping) else str(recipe), sets or [], **more)
    except RecipeError as error:
        return error.problems
    return []


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def put(text: str, name: str = "mine.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return put


EVERYTHING = """\
extends: base
modle: {path: lab}
budget: {prompts: many}
data:
  preferences: nowhere.jsonl
  splits: {train: 0.8, validation: 0.1, test: 0.2}
  columns: {promt: question}
training: {batch_size: 10, accumulation: 4}
algorithms:
  dpoo: {}
  dpo:
    bata: 0.1
    loss_type: sigmoyd
    trainer:
      seed: 3
      learning_rat: 1
      max_grad_norm: "1"
  a b: {algorithm: dpo}
  rejection_sampling: 5
seeds: [0, 0]
tracking: {report_to: [tensorbord]}
"""


def test_mistakes_of_every_kind_are_told_at_once_each_with_its_place(write) -> None:
    problems = told(write(EVERYTHING), ["foo.bar=1", "evaluation.prompts", "seeds.x=1", "judge=[1"])
    expected = {
        "mine.yaml:2: modle: unknown key 'modle'. Did you mean 'model'?",
        "mine.yaml:3: budget.prompts: must be a whole number (got 'many')",
        "mine.yaml:5: data.preferences: 'nowhere.jsonl' is neither a file",
        "mine.yaml:6: data.splits: train 0.8 + validation 0.1 + test 0.2 is 1.1; the shares must add up to 1",
        "mine.yaml:7: data.columns.promt: unknown column 'promt'. Did you mean 'prompt'?",
        "mine.yaml:8: training.accumulation: 4 does not divide training.batch_size 10",
        "mine.yaml:10: algorithms.dpoo: unknown algorithm 'dpoo'. Did you mean 'dpo'?",
        "mine.yaml:12: algorithms.dpo.bata: unknown key 'bata'. Did you mean 'beta'?",
        "mine.yaml:13: algorithms.dpo.loss_type: unknown value 'sigmoyd'. Did you mean 'sigmoid'?",
        "mine.yaml:15: algorithms.dpo.trainer.seed: cannot be set here (got 3); say `seeds`",
        "mine.yaml:16: algorithms.dpo.trainer.learning_rat: unknown key 'learning_rat'. Did you mean 'learning_rate'?",
        "mine.yaml:17: algorithms.dpo.trainer.max_grad_norm: must be float (got '1')",
        "mine.yaml:18: algorithms.a b: a label is letters",
        "mine.yaml:19: algorithms.rejection_sampling: must be a block of keys (got 5)",
        "mine.yaml:20: seeds: a seed is given twice in [0, 0]",
        "mine.yaml:21: tracking.report_to: unknown value 'tensorbord'. Did you mean 'tensorboard'?",
        "--set foo.bar: foo: unknown key 'foo'.",
        "--set 'evaluation.prompts': write key.sub=value",
        "--set seeds.x: 'seeds' holds the list [0, 0], which has no keys of its own",
        "--set judge: not readable as YAML",
    }
    missing = [start for start in expected if not any(problem.startswith(start) for problem in problems)]
    assert not missing, "\n".join(problems)
    assert len(problems) == len(expected), "\n".join(problems)
    places = [int(p.split(":")[1]) for p in problems if p.startswith("mine.yaml")]
    assert places == sorted(places)


def test_what_is_wrong_is_not_judged_by_the_default_that_takes_its_place() -> None:
    """The default of a wrong key would contradict what depends on it: of that nothing is said."""
    dpo = {"algorithms": {"dpo": {}}}
    for content in (
        {**dpo, "reward": {"type": "functoin", "path": "f.py:x"}},
        {**dpo, "data": {"preferenes": "a/b", "columns": {"prompt": "x"}}, "gold": "none"},
        {**dpo, "data": {"source": "lba"}, "gold": "lab"},
        {**dpo, "adapter": {"type": "qlra", "quant_type": "fp4"}},
        {**dpo, "training": {"batch_size": "8 rows", "accumulation": 32}},
        {"algorithms": {"dpo": {"seed_offset": -1}}, "seeds": ["five"]},
        {**dpo, "data": {"prompts": 5, "label_with": "gold"}},
    ):
        assert len(told(content)) == 1, told(content)


def test_one_mistake_in_a_block_does_not_hide_the_others_in_it() -> None:
    problems = told(
        {
            "algorithms": {"dpo": {}},
            "data": {
                "source": "lab",
                "preferences": "a/b",
                "splits": {"train": 2, "test": "x", "vaildation": 0.1},
                "pairs": "al",
                "max_prompt_tokens": 1,
            },
            "reward": {"type": "trained", "path": "x", "loss": "bradly_terry"},
            "adapter": {"type": "lora", "r": 0, "double_quant": False},
        }
    )
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        "adapter.double_quant",
        "adapter.r",
        "data.max_prompt_tokens",
        "data.pairs",
        "data.preferences",
        "data.splits.test",
        "data.splits.train",
        "data.splits.vaildation",
        "data.splits.validation",
        "reward.loss",
        "reward.path",
    ]


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"train": 0.5, "validation": 0.1, "test": 0.1}, "data.splits: train 0.5 + validation 0.1 + test 0.1 is 0.7"),
        ({"train": 70, "validation": 0, "test": 0.1}, "data.splits.train: must be a share of 1, such as 0.7 (got 70)"),
        ({"train": 0.9, "validation": 0.1, "test": 0}, "data.splits.test: must be above 0 (got 0)"),
        ({"train": 0.9, "validation": -0.1, "test": 0.2}, "data.splits.validation: must be at least 0 (got -0.1)"),
        ({"train": 0.7, "validation": 0.1, "tset": 0.2}, "data.splits.tset: unknown key 'tset'. Did you mean 'test'?"),
        ({"train": "70%", "validation": 0.1, "test": 0.2}, "data.splits.train: must be a number (got '70%')"),
    ],
)
def test_splits_name_the_value_and_not_the_block(splits, says: str) -> None:
    problems = told({"algorithms": {"dpo": {}}, "data": {"splits": splits}})
    assert any(problem.startswith(says) for problem in problems), problems
    assert not any("{" in problem for problem in problems)


def test_set_is_the_place_of_what_it_says_and_of_what_it_takes_away(write) -> None:
    recipe = write(
        "algorithms: {dpo: {beta: 0.1}}\njudge: {type: locl}\n"
        "data:\n  splits: {train: 0.7, validation: 0.1, test: 0.2}\n"
    )
    (problem,) = told(recipe, ["judge={type: glod}"])
    assert problem.startswith("--set judge: judge.type: unknown value 'glod'. Did you mean 'gold'?")
    (problem,) = told(recipe, ["judge.type=gold", "algorithms.dpo.bata=1"])
    assert problem.startswith("--set algorithms.dpo.bata: algorithms.dpo.bata: unknown key")
    (problem,) = told(recipe, ["judge.type=gold", "algorithms.new.beta=1"])
    assert problem.startswith("--set algorithms.new.beta: algorithms.new: unknown algorithm 'new'")
    (problem,) = told(recipe, ["judge.type=gold", "data.splits.train=0.9"])
    assert problem.startswith("mine.yaml:4, --set data.splits.train: data.splits: ")
    assert told(recipe, ["judge.type=gold"]) == []


def test_what_cannot_be_extended_is_told_with_its_place_and_beside_the_rest(write) -> None:
    write("budget: {prompts: 5}\n", "shared_data.yaml")
    (extends, other) = told(write("seeds: 2\nextends: shard_data\nalgorithms: {dpo: {bata: 1}}\n"))
    assert extends.startswith("mine.yaml:2: extends: no such file, and unknown recipe 'shard_data'.")
    assert "Did you mean 'shared_data'?" in extends and "quickstart" in extends and "mine" not in extends.split(".")[-2]
    assert other.startswith("mine.yaml:3: algorithms.dpo.bata")
    (problem,) = told(write("extends: bse\nbudget: {epochs: 2}\n"))
    assert "Did you mean 'base'?" in problem
    (problem,) = told(write("extends: [base]\nalgorithms: {dpo: {}}\n"))
    assert problem.startswith(
        "mine.yaml:1: extends: must be the name or the path of one recipe (got the list ['base'])"
    )
    (problem,) = told(write("extends: mine\nalgorithms: {dpo: {}}\n"))
    assert problem == "mine.yaml:1: extends: mine.yaml -> mine.yaml goes in a circle"
    write("budget: {prompts: 5\n", "shared_data.yaml")
    (problem,) = told(write("extends: shared_data\n"))
    assert problem.startswith("shared_data.yaml:2: not readable as YAML")
    (problem,) = told("shared_dta.yaml")
    assert "Did you mean 'shared_data.yaml'?" in problem


def test_a_stranger_among_the_chosen_algorithms_is_told_beside_the_rest(write) -> None:
    problems = told(write("budget: {prompts: 0}\nalgorithms: {dpo: {}}\n"), algorithms=["dpoo", "sft"])
    assert [problem.partition(": ")[0] for problem in problems] == ["--algorithms", "mine.yaml:1"]
    assert "Did you mean 'dpo'?" in problems[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "mine.yaml:1: algorithms: is missing; name at least one, such as"),
        ("algorithms:\n", "mine.yaml:1: algorithms: must be a block of keys (got nothing); name at least one"),
        ("algorithms: {}\n", "mine.yaml:1: algorithms: names none; name at least one"),
        ("algorithms: [dpo, sft]\n", "mine.yaml:1: algorithms: must be a block of keys (got the list ['dpo', 'sft'])"),
        ("seeds: 1\nalgorithms:\ndpo: {}\n", "mine.yaml:3: dpo: unknown key 'dpo'."),
        ("seeds: 1\nalgorithms:\n\tdpo: {}\n", "mine.yaml:3: not readable as YAML: found character '\\t'"),
        ("algorithms:\n  dpo: {}\n sft: {}\n", "mine.yaml:3: not readable as YAML: expected <block end>"),
        ("algorithms: {dpo: {}\nseeds: 1\n", "mine.yaml:2: not readable as YAML: expected ',' or '}'"),
        ("algorithms: {dpo: {}}\nseeds: 0\n", "mine.yaml:2: seeds: at least 1 seed is needed, not 0"),
        ("algorithms: {dpo: {}}\nseeds: three\n", "mine.yaml:2: seeds: must be how many seeds, or a list of them"),
        ("algorithms: {dpo: {}}\nseeds: []\n", "mine.yaml:2: seeds: must hold at least 1 (got the list [])"),
        ("algorithms: {dpo: {}}\nstart: dpo\n", "mine.yaml:2: start.algorithm: unknown start 'dpo'."),
        ("algorithms: {a: {algorithm: [dpo]}}\n", "mine.yaml:1: algorithms.a.algorithm: unknown algorithm ['dpo']"),
        ("algorithms: {dpo: {seed_offset: true}}\n", "mine.yaml:1: algorithms.dpo.seed_offset: must be a whole number"),
        ("algorithms: {dpo: {loss_type: 5}}\n", "mine.yaml:1: algorithms.dpo.loss_type: unknown value 5. Allowed: aot"),
        ("algorithms: {dpo: {loss_type: exo_pair}}\n", "mine.yaml:1: algorithms.dpo: loss_type 'exo_pair' needs"),
        (
            "algorithms: {best_of_n: {trainer: {seed: 1}}}\n",
            "mine.yaml:1: algorithms.best_of_n.trainer: has no meaning",
        ),
        (
            "algorithms: {dpo: {}}\ntracking: {report_to: tensorboard}\n",
            "mine.yaml:2: tracking.report_to: must be a list (got 'tensorboard'); say `[tensorboard]`",
        ),
        ("algorithms: {dpo: {}}\nseeds: [1, -2]\n", "mine.yaml:2: seeds: must be at least 0 (got -2)"),
        ("algorithms:\n  my/dpo: {algorithm: dpo}\n", "mine.yaml:2: algorithms.my/dpo: a label is letters"),
        ("algorithms:\n  1: {}\n", "mine.yaml:2: algorithms.1: unknown algorithm '1'"),
        (
            "algorithms: {dpo: {}}\nmodel: lab\n",
            "mine.yaml:2: model: must be a block of keys (got 'lab'); say `model: {",
        ),
        ("algorithms: {dpo: {}}\nprompts: 9\n", "mine.yaml:2: prompts: unknown key 'prompts'."),
        ("algorithms: {dpo: {beta: '0,1'}}\n", "mine.yaml:1: algorithms.dpo.beta: must be a number (got '0,1')"),
        (
            "algorithms: {dpo: {}}\ntraining: {learning_rate: .inf}\n",
            "mine.yaml:2: training.learning_rate: must be a fin",
        ),
        ("algorithms: {dpo: {}}\nseeds: 1\nseeds: 2\n", "mine.yaml:3: seeds: is given twice, first in line 2"),
        ("algorithms: {dpo: &a {trainer: *a}}\n", "mine.yaml:1: not readable as YAML: a block that contains itself"),
        ("- a list\n", "mine.yaml:1: a recipe is a block of keys (`key: value`), not the list ['a list']"),
        ("{}\n---\n{}\n", "mine.yaml:2: not readable as YAML: expected a single document"),
    ],
)
def test_realistic_slips_are_told_with_file_and_line(write, text: str, says: str) -> None:
    problems = told(write(text))
    assert any(problem.startswith(says) for problem in problems), problems


def test_a_key_that_lost_its_indentation_is_told_where_it_belongs(write) -> None:
    *_, problem = told(write("algorithms: {sft: }\ndpo: {}\n"))
    assert problem.endswith("It is a key of algorithms: is it indented as it should be?")
    *_, problem = told(write("algorithms: {sft: }\nlearning_rate: 1\n"))
    assert problem.endswith("It is a key of training: is it indented as it should be?")


def test_a_key_given_twice_hides_nothing(write) -> None:
    problems = told(write("budget:\n  prompts: 0\nalgorithms:\n  dpo: {}\n  dpo: {bata: 1}\n"))
    assert [p.partition(": ")[0] for p in problems] == ["mine.yaml:2", "mine.yaml:5", "mine.yaml:5"]


def test_columns_that_the_file_does_not_have_are_told_with_the_rest(write) -> None:
    write('{"question": "q", "good": "a", "bad": "b"}\n', "pairs.jsonl")
    recipe = write(
        "budget: {prompts: none}\ndata:\n  preferences: pairs.jsonl\n  columns: {prompt: quetsion, chosen: good}\n"
        "algorithms: {dpo: {}}\n"
    )
    problems = told(recipe)
    assert [p.partition(": ")[0] for p in problems] == ["mine.yaml:1", "mine.yaml:4"]
    assert "data.columns.prompt: unknown column 'quetsion'. Did you mean 'question'?" in problems[1]


def test_content_that_is_given_in_python_is_read_like_a_file() -> None:
    content = MappingProxyType({"algorithms": {"dpo": {5: 6}, 7: {"algorithm": "sft"}}, "seeds": (0, 1), 8: 9})
    assert [problem.partition(": ")[0] for problem in told(content)] == ["8", "algorithms.dpo.5"]
    assert recipes.check({"algorithms": {7: {"algorithm": "sft"}}, "seeds": (0, 1)}).seeds == [0, 1]


def test_lists_and_labels_are_told_like_blocks(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    content = {
        "model": {"path": str(tmp_path / "empty")},
        "reward": {"type": "sum", "of": [{"type": "trained"}, {"type": "random", "weigth": 2}]},
        "algorithms": {"dpo": {"seed_ofset": 3}, "ppo-strong": {"kl_coefficient": 0.1}},
    }
    with pytest.raises(RecipeError) as error:
        recipes.check(content)
    said = str(error.value)
    assert "reward.of.1.weigth: unknown key 'weigth'. Did you mean 'weight'?" in said
    assert "algorithms.dpo.seed_ofset: unknown key 'seed_ofset'. Did you mean 'seed_offset'?" in said
    assert "For a second ppo: `ppo-strong: {algorithm: ppo}`." in said
    assert "there is no config.json in it" in said
