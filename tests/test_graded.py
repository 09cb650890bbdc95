"""Reward models from ratings and rankings: their losses by hand, and that they learn in the lab."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
import torch

import prefzoo
from prefzoo.data.formats import Row
from prefzoo.data.row_views import views_of
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.recipe import check_recipe as recipes
from prefzoo.rewards.rating_losses import normalised, plackett_luce, regression
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.rewards.train_reward import train_reward_model

USER = [{"role": "user", "content": "q"}]


def test_losses_are_those_worked_out_by_hand() -> None:
    assert regression(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item() == pytest.approx((1 + 4) / 2)
    e = math.e
    three = math.log((e**2 + e + 1) / e**2) + math.log((e + 1) / e)  # scores 2, 1, 0: first place, then second
    two = math.log((1 + e**3) / e**3)  # scores 3, 0
    assert plackett_luce(torch.tensor([2.0, 1.0, 0.0]), [3]).item() == pytest.approx(three)
    scores = torch.tensor([2.0, 1.0, 0.0, 3.0, 0.0])
    assert plackett_luce(scores, [3, 2]).item() == pytest.approx((three + two) / 2)
    assert plackett_luce(scores[3:], [2]).item() == pytest.approx(-math.log(1 / (1 + math.exp(-3))))  # Bradley-Terry
    assert plackett_luce(torch.tensor([0.0, 1.0, 2.0]), [3]).item() > three  # the wrong order costs more


def test_ratings_are_normalised_and_must_differ() -> None:
    assert normalised([2, 4, 9]) == pytest.approx(
        [-3 / math.sqrt(26 / 3), -1 / math.sqrt(26 / 3), 4 / math.sqrt(26 / 3)]
    )
    with pytest.raises(PrefzooError, match="ratings that differ; all 2 are the same"):
        normalised([3, 3])


def test_views_of_rankings_count_each_pair_once() -> None:
    rows = [
        Row("1", USER, chosen="a", rejected="b"),
        Row("2", USER, chosen="b", rejected="c"),
        Row("3", USER, ranking=["a", "b", "c"]),
        Row("4", [{"role": "user", "content": "other"}], chosen="a", rejected="b"),
        Row("5", USER, reply="a", rating=7.0),
    ]
    views = views_of(rows)
    assert [each["ranking"] for each in views.rankings] == [["a", "b", "c"], ["a", "b"]]
    assert views.ratings == [{"prompt": USER, "completion": "a", "rating": 7.0}]
    many = views_of([Row(str(i), USER, reply=str(i), rating=float(i)) for i in range(9)] + rows[2:3])
    shuffled = many.with_shuffled_labels(1)
    assert [r["rating"] for r in shuffled.ratings] != [r["rating"] for r in many.ratings]
    assert sorted(r["rating"] for r in shuffled.ratings) == [r["rating"] for r in many.ratings]
    assert sorted(shuffled.rankings[0]["ranking"]) == ["a", "b", "c"]


def graded_rows(count: int, seed: int, replies: int = 3) -> list[dict]:
    """Lab prompts with replies and a noisy rating of each from 0 to 10."""
    from prefzoo import lab
    from prefzoo.lab.clerk import ordinary_reply
    from prefzoo.lab.world import read_prompt

    rng = random.Random(seed)
    rows = []
    for each in lab.prompts("train", count, seed):
        said = list({ordinary_reply(read_prompt(each["prompt"]), rng): None for _ in range(replies)})
        ratings = [min(10.0, max(0.0, 5 + 1.5 * lab.gold(each["prompt"], reply) + rng.gauss(0, 0.7))) for reply in said]
        rows.append({"prompt": each["prompt"], "responses": said, "ratings": ratings})
    return rows


@pytest.fixture
def graded(make_bench):
    def make(name: str, **training):
        rows = []
        for i, each in enumerate(graded_rows(24, 3)):
            prompt = [{"role": "user", "content": each["prompt"]}]
            rows += [
                Row(f"{i} {j}", prompt, reply=reply, rating=rating)
                for j, (reply, rating) in enumerate(zip(each["responses"], each["ratings"], strict=True))
            ]
            order = sorted(zip(each["ratings"], each["responses"], strict=True), reverse=True)
            rows.append(Row(f"{i}", prompt, ranking=[reply for _, reply in order]))
        return make_bench(name=name, **training).replace(data=views_of(rows))

    return make


@pytest.mark.parametrize("loss", ["regression", "plackett_luce"])
def test_the_first_loss_is_the_formula_of_the_models_own_scores(graded, loss) -> None:
    bench = graded(loss, learning_rate=0.0)
    model = train_reward_model(bench, {"logging_steps": 1}, loss)
    logged = [e["loss"] for e in json.loads((bench.out / "curves.json").read_text())[-1] if "loss" in e]
    data = bench.data
    if loss == "regression":
        scores = torch.tensor(model([r["prompt"] for r in data.ratings], [r["completion"] for r in data.ratings]))
        by_hand = regression(scores, torch.tensor(normalised([r["rating"] for r in data.ratings]))).item()
        rows, whole = len(data.ratings), len(data.ratings) % 8 == 0
    else:
        flat = [(r["prompt"], reply) for r in data.rankings for reply in r["ranking"]]
        scores = torch.tensor(model([p for p, _ in flat], [reply for _, reply in flat]))
        by_hand = plackett_luce(scores, [len(r["ranking"]) for r in data.rankings]).item()
        rows, whole = len(data.rankings), True
    assert len(logged) == math.ceil(rows / 8)
    if whole:
        assert sum(logged) / len(logged) == pytest.approx(by_hand, abs=1e-4)
    else:  # the last batch is smaller: weigh each batch by its rows
        sizes = [8] * (rows // 8) + [rows % 8]
        assert sum(a * b for a, b in zip(logged, sizes, strict=True)) / rows == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize("loss", ["regression", "plackett_luce"])
def test_one_step_of_8_is_two_accumulated_steps_of_4(graded, loss) -> None:
    def scores(**training) -> list[float]:
        bench = graded(f"{loss} {len(training)}", learning_rate=5e-3, **training)
        keep = {
            "ratings": bench.data.ratings[:48],
            "rankings": [r for r in bench.data.rankings if len(r["ranking"]) == 3],
        }
        bench = bench.replace(data=replace(bench.data, **{k: v[: len(v) // 8 * 8] for k, v in keep.items()}))
        model = train_reward_model(bench, {}, loss)
        prompts = [r["prompt"] for r in bench.data.ratings]
        return model(prompts, [r["completion"] for r in bench.data.ratings])

    whole = scores()
    assert max(whole) - min(whole) > 1e-2
    assert scores(accumulation=2) == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("loss", ["regression", "plackett_luce"])
def test_a_graded_reward_model_survives_saving(graded, loss, adapter) -> None:
    bench = graded(f"{loss} {adapter}", learning_rate=5e-3)
    bench = bench.replace(adapter=bench.adapter.model_copy(update={"type": adapter}))
    model = train_reward_model(bench, {}, loss)
    prompts, texts = [r["prompt"] for r in bench.data.ratings], [r["completion"] for r in bench.data.ratings]
    scores = model(prompts, texts)
    assert max(scores) - min(scores) > 1e-3
    assert RewardModel.load(str(model.folder))(prompts, texts) == pytest.approx(scores, abs=1e-6)
    by_hand = sum(len(model.tokenizer.apply_chat_template([*p, {"role": "assistant", "content": t}], return_dict=False)) for p, t in zip(prompts, texts, strict=True))  # fmt: skip  # noqa: E501
    if loss == "regression":
        assert bench.ledger.trained_tokens == by_hand


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"reward": {"loss": "regression"}}, r"reward.loss: 'regression' learns from ratings.*Give data.ratings"),
        ({"data": {"ratings": "a/b"}, "reward": {"loss": "plackett_luce"}}, "Give data.rankings"),
        ({"reward": {"loss": "regresion"}}, "reward.loss"),
        ({"data": {"ratings": "a/b"}, "reward": {"type": "random", "loss": "regression"}}, "has no meaning"),
    ],
)
def test_mistakes_are_named(content, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        recipes.check({"algorithms": {"dpo": {}}, **content})


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("loss", ["bradley_terry", "regression", "plackett_luce"])
def test_it_learns_in_the_lab_and_does_not_from_shuffled_labels(tmp_path, loss) -> None:
    kind = "rankings" if loss == "plackett_luce" else "ratings"
    records = graded_rows(1000, 11)
    if kind == "rankings":
        records = [
            {
                "prompt": each["prompt"],
                "ranking": [r for _, r in sorted(zip(each["ratings"], each["responses"], strict=True), reverse=True)],
            }
            for each in records
        ]
    file = tmp_path / f"{kind}.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    for shuffled in (False, True):
        recipe = {
            "data": {
                kind: str(file),
                "shuffle_labels": shuffled,
                "splits": {"train": 0.6, "validation": 0, "test": 0.4},
            },
            "start": "none",
            "reward": {"loss": loss},
            "algorithms": {"best_of_n": {"n": 1}},
            "evaluation": {"prompts": 4},
            "seeds": 1,
        }
        found = prefzoo.compare(recipe, out=tmp_path / str(shuffled)).reward
        print(loss, shuffled, found["test_accuracy"], found["ci95"])
        if shuffled:
            assert found["test_accuracy"] < 0.6
        else:
            assert found["ci95"][0] > 0.65
