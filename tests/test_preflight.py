"""What is told of the data before anything is trained, and sources of other packages."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase
from typer.testing import CliRunner

import prefzoo
from conftest import SMALL
from prefzoo.data import preflight, sources, splits
from prefzoo.data.formats import Row
from prefzoo.data.near_duplicates import near_duplicates
from prefzoo.errors import DataError, RecipeError
from prefzoo.lab import MODEL_DIR
from prefzoo.recipe import check_recipe as recipes
from prefzoo.report.data_summary import _length_facts, data_cells, data_facts
from prefzoo.report.render_terminal import training_examples
from prefzoo.run.stage_graph import make_plan
from prefzoo.run.stages import token_lengths
from prefzoo.run.stages.data_stage import prepare
from prefzoo.run.stages.token_lengths import Tokens


class Letters:
    """One token a letter; the template puts `>` before the reply and `.` after it."""

    def prompt(self, prompt) -> list[int]:
        return [ord(c) for turn in prompt for c in turn["content"]] + [ord(">")]

    def whole(self, prompt, reply) -> list[int]:
        return [*self.prompt(prompt), *map(ord, reply), ord(".")]

    def prompts(self, prompts) -> list[list[int]]:
        return [self.prompt(prompt) for prompt in prompts]

    def wholes(self, prompts, replies, begun=None) -> list[list[int]]:
        return [self.whole(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]

    def text(self, ids) -> str:
        return "".join(map(chr, ids))


def row(prompt: str, chosen: str | None = None, demonstration: str | None = None, name: str = "r") -> Row:
    rejected = "no" if chosen else None
    return Row(f"{name} {prompt}", [{"role": "user", "content": prompt}], chosen, rejected, demonstration)


def test_trained_tokens_are_counted_by_hand() -> None:
    splits = {
        "train": [row("ab", "yes"), row("abcd", "y")],
        "validation": [],
        "test": [row("x", demonstration="four")],
    }
    found = preflight.examine(splits, ["r ab"], Letters())
    train = found["splits"]["train"]
    assert train["trained_tokens"] == len("yes.") + len("y.")
    assert train["prompt_tokens"] == {"median": 5, "p95": 5, "max": 5}
    assert train["chosen_tokens"] == {"median": 4, "p95": 4, "max": 4}
    assert (train["shortened"], found["splits"]["test"]["trained_tokens"]) == (1, 5)
    assert found["splits"]["validation"]["trained_tokens"] == 0
    assert found["examples"][0] == {"id": "r ab", "untrained": "ab>", "trained": "yes.", "rejected": "no."}
    # Chosen replies have 4 and 2 tokens, the rejected one 3.
    assert train["rejected_tokens"] == {"median": 3, "p95": 3, "max": 3}
    assert train["length_bias"] == {"pairs": 2, "chosen": 3.0, "rejected": 3.0, "longer": 0.5, "shorter": 0.5}
    assert "length_bias" not in found["splits"]["test"] and "rejected_tokens" not in found["splits"]["validation"]


def test_chosen_and_rejected_lengths_stand_apart_in_the_report() -> None:
    splits = {"train": [row("ab", "quite long"), row("cd", "y"), row("ef", "yes")], "validation": [], "test": []}
    found = preflight.examine(splits, [], Letters())
    manifest = {"splits": {name: {"rows": 0, "prompts": 0} for name in splits}}
    near = {name: {"count": 0, "prompts": 0, "examples": []} for name in splits}
    headings, (train, validation, _) = data_cells({**found, "near_duplicates": near}, manifest)
    assert dict(zip(headings, train, strict=True))["chosen length"] == "4 / 11 / 11"
    assert dict(zip(headings, train, strict=True))["rejected length"] == "3 / 3 / 3"
    assert dict(zip(headings, validation, strict=True))["rejected length"] == "-"
    (said,) = _length_facts(found["splits"]["train"])
    assert said == (
        "Chosen replies have 5.7 tokens in the mean, rejected ones 3.0; of 3 train pairs the chosen one is longer in "
        "67% and shorter in 33%."
    )
    assert "rejected: no." in "".join(example.plain for example in training_examples(found))


def test_no_prompt_is_rendered_twice() -> None:
    class Counting(Letters):
        asked = 0

        def prompt(self, prompt) -> list[int]:
            self.asked += 1
            return super().prompt(prompt)

    counting = Counting()
    remembered = preflight.RememberedPrompts(counting, 5)
    prompts = [each.prompt for each in (row("ab", "x"), row("cd", "y"), row("ab", "z"), row("too long", "x"))]
    assert [*remembered.prompts(prompts[:3]), *remembered.prompts(prompts[3:])] == Letters().prompts(prompts)
    assert remembered.prompts(prompts) == Letters().prompts(prompts)
    assert counting.asked == 4
    remembered.forget(but=[prompts[0]])
    assert remembered.prompts(prompts[:2]) == Letters().prompts(prompts[:2])
    assert counting.asked == 5


def test_a_template_that_changes_the_prompt_is_told() -> None:
    class Shifted(Letters):
        def whole(self, prompt, reply) -> list[int]:
            return [ord("!"), *super().whole(prompt, reply)] if reply == "off" else super().whole(prompt, reply)

    splits = {"train": [row("ab", "on"), row("cd", "off")], "validation": [], "test": [row("x", "on")]}
    found = preflight.examine(splits, [], Shifted())
    assert [found["splits"][name]["unaligned"] for name in ("train", "test")] == [1, 0]


def test_no_trained_token_is_an_error() -> None:
    class Mute(Letters):
        def whole(self, prompt, reply) -> list[int]:
            return self.prompt(prompt)

    splits = {"train": [row("ab", "yes")], "validation": [], "test": [row("x", "yes")]}
    with pytest.raises(DataError, match="not one token of the 1 train replies"):
        preflight.examine(splits, [], Mute())


def test_what_is_marked_is_what_the_trainers_train_on(lab_rows, make_bench, monkeypatch) -> None:
    """The same count as the labels of TRL's own batches."""
    from trl import SFTTrainer

    counted = []
    original = SFTTrainer.train

    def train(self, *arguments, **more):
        counted.extend(int((batch["labels"] != -100).sum()) for batch in self.get_train_dataloader())
        return original(self, *arguments, **more)

    monkeypatch.setattr(SFTTrainer, "train", train)
    prefzoo.get("sft", trainer={"max_steps": 1}).train(make_bench())
    splits = {"train": lab_rows, "validation": [], "test": []}
    found = preflight.examine(splits, [], Tokens(str(MODEL_DIR), False))
    assert found["splits"]["train"]["trained_tokens"] == sum(counted) > 0


LONG = "the quick brown fox jumps over the lazy dog and then runs far away over the green hills to its old den"


def test_near_duplicates_are_found_and_others_are_not() -> None:
    splits = {
        "train": [row(LONG), row(LONG + " again", name="s"), row("something else entirely, with other words in it")],
        "validation": [row("nothing like any of these was ever asked before now")],
        "test": [row(LONG.replace("old den", "old burrow")), row("short"), row("the quick brown fox eats")],
    }
    found = near_duplicates(splits).by_split
    assert {name: part["count"] for name, part in found.items()} == {"train": 1, "validation": 0, "test": 1}
    assert found["train"]["examples"][0][:2] == [f"s {LONG} again", f"r {LONG}"]
    assert found["test"]["examples"][0][2:] == [LONG.replace("old den", "old burrow"), LONG]
    assert found["test"]["prompts"] == 3


def test_sixty_thousand_rows_are_examined_in_reasonable_time() -> None:
    """A tenth of them, in a tenth of half a minute."""
    import random
    import time

    rng = random.Random(0)
    rows = [row(" ".join(f"w{rng.randrange(3000)}" for _ in range(60))) for _ in range(6000)]
    began = time.perf_counter()
    found = near_duplicates({"train": rows[:5000], "validation": [], "test": rows[5000:]}).by_split
    assert found["test"]["count"] == 0
    assert time.perf_counter() - began < 6


def test_prefzoo_data_shows_the_data_and_compare_uses_it_again(tmp_path, monkeypatch) -> None:
    from prefzoo.cli import app

    records = [{"prompt": f"question {i} of the day", "chosen": "good", "rejected": "bad"} for i in range(60)]
    records += [{"prompt": "empty", "chosen": "", "rejected": "bad"}]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"data: {{preferences: {file}}}\nalgorithms: {{dpo: }}\n")
    shown = CliRunner().invoke(app, ["data", str(recipe), "--out", str(tmp_path / "run")])
    assert shown.exit_code == 0, shown.output
    assert "⟦good<|end|>⟧" in shown.output and "question" in shown.output and "empty reply: 1" in shown.output
    assert "rejected: bad<|end|>" in shown.output
    train = next(line for line in shown.output.splitlines() if "train" in line and "│" in line)
    made = make_plan(recipes.load(str(recipe)), tmp_path / "run").stages["data"]
    assert made.done
    rows = splits.load_split(made.folder, "train")
    assert str(len(rows)) in train
    assert not (tmp_path / "run" / "plan.json").exists()  # a comparison in that folder keeps its own


def test_the_report_has_the_data(small_run) -> None:
    results, out = small_run
    page = (out / "report.html").read_text()
    assert "The data" in page and "trained tokens" in page and "<mark>" in page
    assert results.preflight["splits"]["train"]["trained_tokens"] > 0
    facts = data_facts({**results.preflight, "annotators": {"preferences": {"items": 5, "judgements": 10, "items_with_several": 4, "disagreed": 3}}}, results.manifest)  # fmt: skip  # noqa: E501
    assert "Annotators (preferences): 10 judgements of 5 items; they disagree on 3 of the 4 that several judged (75%)." in facts  # fmt: skip  # noqa: E501


class Capitals(sources.Source):
    """A source as another package would write it."""

    provides = frozenset({"preferences", "prompts"})
    has_gold = True

    def rows(self, request: sources.RowRequest) -> list[Row]:
        return [
            row(f"which capital has number {i}?", "PARIS", name=str(i)) for i in range(request.train + request.test)
        ]

    def gold(self, prompts, completions):
        return [{"gold": float(sum(c.isupper() for c in text))} for text in completions]


class Stray(Capitals):
    provides = frozenset({"preference"})


NOT_A_SOURCE = 3


@pytest.fixture
def installed(monkeypatch) -> None:
    """Entry points of other packages, without installing one."""
    sys.modules.setdefault("test_preflight", sys.modules[__name__])
    objects = {"capitals": "Capitals", "stray": "Stray", "number": "NOT_A_SOURCE"}
    points = [EntryPoint(name, f"test_preflight:{o}", sources.ENTRY_POINTS) for name, o in objects.items()]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == sources.ENTRY_POINTS
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(sources, "entry_points", entry_points)


@pytest.mark.parametrize(
    ("data", "more", "says"),
    [
        ({"source": "capitls"}, {}, r"data.source: unknown source 'capitls'. Did you mean 'capitals'"),
        ({"source": "stray"}, {}, "Did you mean 'preferences'"),
        ({"source": "number"}, {}, "must be a subclass of Source"),
        ({"source": "capitals"}, {"gold": "lab"}, "'lab' scores only the prompts of its own source"),
        ({"source": "capitals"}, {"gold": "labb"}, "Did you mean 'lab'"),
        (
            {"source": "capitals"},
            {"start": {"algorithm": "sft", "on": "demonstrations"}},
            r"start.on: 'demonstrations'",
        ),
    ],
)
def test_mistakes_with_sources_are_named(installed, data, more, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        recipes.check({"data": data, "algorithms": {"dpo": {}}, **more})


def test_a_source_of_another_package_is_read_split_and_decides(installed, tmp_path) -> None:
    from prefzoo.run.stages.data_stage import prepare
    from prefzoo.run.stages.read_sources import read_data
    from prefzoo.run.stages.recipe_inputs import gold_function

    sets = ["data.source=capitals", *SMALL]
    recipe = recipes.load("quickstart", sets, ["dpo"])
    assert recipe.gold_source == "capitals"
    gold = gold_function(recipe)
    assert gold is not None and gold([[]], ["PaRIS"]) == [{"gold": 4.0}]
    assert sum(result.read for result in read_data(recipe)[0].values()) == 48 + 16
    (tmp_path / "data").mkdir()
    plan = make_plan(recipe, tmp_path)
    prepare(plan, plan.stages["data"], tmp_path / "data", lambda *told: None)
    train = splits.load_split(tmp_path / "data", "train")
    assert train and all(each.chosen == "PARIS" for each in train)
    assert (
        plan.stages["data"].folder
        != make_plan(recipes.load("quickstart", SMALL, ["dpo"]), tmp_path).stages["data"].folder
    )


def hostile_pairs(count: int) -> list[dict[str, Any]]:
    """Short and long, alike and refused, with control tokens and other scripts among them."""
    pairs: list[dict[str, Any]] = []
    for i in range(count):
        prompt = (
            f"{LONG} {i}",
            f"lamp {i} " * (1 + i % 90),
            f"<|end|>open {i}?",
            f"今天商店里有一盏灯{i}" * (1 + i % 9),
        )[i % 4]
        turns = [{"role": "system", "content": "s"}, {"role": "user", "content": prompt}] if i % 5 == 0 else prompt
        pairs.append({"prompt": turns, "chosen": f"yes {i} " * (1 + i % 30), "rejected": f"no {i} é<|user|>"})
    return pairs


def test_what_is_sealed_does_not_depend_on_batches_and_the_work_grows_with_the_rows(tmp_path, monkeypatch) -> None:
    texts, told = [0], list[tuple[str, int, int]]()
    encode = PreTrainedTokenizerBase.__call__

    def counted(self, text=None, *args, **more):
        texts[-1] += 1 if isinstance(text, str) else len(text)
        return encode(self, text, *args, **more)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", counted)

    def sealed(count: int, batch: int) -> dict[str, bytes]:
        for module in (preflight, token_lengths):
            monkeypatch.setattr(module, "BATCH", batch)
        file, folder = tmp_path / f"{count}.jsonl", tmp_path / f"{count} {batch}"
        file.write_text("".join(json.dumps(pair) + "\n" for pair in hostile_pairs(count)))
        data = {"preferences": str(file), "max_prompt_tokens": 40, "max_completion_tokens": 60}
        block = {"model": {"path": str(MODEL_DIR)}, "data": data, "algorithms": {"dpo": {}}}
        plan = make_plan(recipes.check(block), folder / "run")
        (folder / "sealed").mkdir(parents=True)
        texts.append(0)
        told.clear()
        prepare(plan, plan.stages["data"], folder / "sealed", lambda *step: told.append(step))
        return {path.name: path.read_bytes() for path in (folder / "sealed").iterdir()}

    whole = sealed(240, 256)
    found = json.loads(whole["preflight.json"])
    assert found["shortened_prompt_count"] > 50 and found["dropped"]["reply_too_long"] > 50
    assert sealed(240, 7) == whole
    assert told[-1] == ("examining", found["kept"], found["kept"]) and ("fitting lengths", 7, 240) in told
    sealed(480, 256)
    _, once, _, twice = texts
    assert 1.8 * once < twice < 2.2 * once
