"""Ratings in several respects: read, sealed, learned from, weighed and told."""

from __future__ import annotations

import json
from statistics import fmean, pstdev

import pytest

import prefzoo
from conftest import SMALL
from prefzoo.data.formats import Row
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_rows import read_rows
from prefzoo.data.row_views import views_of
from prefzoo.data.splits import sha256_of
from prefzoo.errors import RecipeError
from prefzoo.recipe.check_recipe import load
from prefzoo.report.reward_section import attribute_cells
from prefzoo.rewards.reward_accuracy import reward_report
from prefzoo.rewards.train_reward import train_reward_model

NAMES = ["help", "harm"]


def read(folder, *records):
    file = folder / "ratings.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_rows("ratings", str(file), ReadOptions(attributes=NAMES))


def rated(rows: list[Row]) -> list[tuple]:
    return [(row.reply, row.rating, row.attributes) for row in rows if row.rating is not None]


def test_columns_of_attributes_are_read_in_every_shape_and_make_the_rating_where_there_is_none(tmp_path) -> None:
    expected = [("a", 3.0, {"help": 4.0, "harm": 2.0}), ("b", 1.0, {"help": 1.0, "harm": 1.0})]
    one = read(tmp_path, *({"prompt": "p", "response": r, **attributes} for r, _, attributes in expected))
    assert rated(one.rows) == expected and not one.unread
    assert [(row.chosen, row.rejected) for row in one.rows if row.chosen] == [("a", "b")]
    lists = read(tmp_path, {"prompt": "p", "responses": ["a", "b"], "help": [4, 1], "harm": [2, 1]})
    inside = read(
        tmp_path, {"prompt": "p", "responses": [{"response": r, **attributes} for r, _, attributes in expected]}
    )
    assert rated(lists.rows) == rated(inside.rows) == expected
    own = read(tmp_path, {"prompt": "p", "response": "a", "rating": 9, "help": 4, "harm": 2})
    assert rated(own.rows) == [("a", 9.0, {"help": 4.0, "harm": 2.0})]
    twice = [{"prompt": "p", "response": "a", "help": help, "harm": 2} for help in (4, 1)]
    assert rated(read(tmp_path, *twice).rows) == [("a", 2.25, {"help": 2.5, "harm": 2.0})], "the mean of two people"


def test_records_without_one_are_dropped_with_the_reason_and_the_manifest_tells_attributes(tmp_path) -> None:
    found = read(
        tmp_path,
        {"prompt": "p", "response": "a", "help": 4, "harm": 2},
        {"prompt": "p", "response": "b", "help": 4},
        {"prompt": "p", "response": "c", "help": 4, "harm": "much"},
        {"prompt": "p", "responses": ["d", "e"], "help": [4], "harm": [1, 2]},
    )
    counts = {"missing_key: harm": 1, "not_a_number: harm": 1, "as_many_ratings_as_replies_needed: help": 1}
    assert found.dropped.counts() == counts
    (row,) = [row for row in found.rows if row.rating is not None]
    plain = Row(row.id, row.prompt, reply=row.reply, rating=row.rating)
    assert sha256_of([row]) != sha256_of([plain])


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["data.attributes=[help]"], "data.attributes: .*are columns of ratings, and there are none"),
        (["reward={loss: regression, attribute: hlp}"], "attribute: unknown attribute 'hlp'"),
        (["reward={attribute: help}"], "'help' has no meaning with loss 'bradley_terry'; it must be 'regression'"),
    ],
)
def test_mistakes_are_told(sets, says) -> None:
    with pytest.raises(RecipeError, match=says):
        load("quickstart", sets)


def test_a_regression_learns_the_attribute_that_it_names(make_bench) -> None:
    bench = make_bench(learning_rate=0.0, batch_size=24)
    rows = [
        Row(f"{i}", p["prompt"], reply=p["chosen"][0]["content"], rating=0.0, attributes={"help": i % 5, "harm": 1.0})
        for i, p in enumerate(bench.data.preferences)
    ]
    bench = bench.replace(data=views_of(rows))
    model = train_reward_model(bench, {"logging_steps": 1}, "regression", attribute="help")
    scores = model([row.prompt for row in rows], [row.reply or "" for row in rows])
    ratings = [float(i % 5) for i in range(len(rows))]
    targets = [(rating - fmean(ratings)) / pstdev(ratings) for rating in ratings]
    expected = fmean((score - target) ** 2 for score, target in zip(scores, targets, strict=True))
    first = json.loads((bench.out / "curves.json").read_text())[-1][0]["loss"]
    assert first == pytest.approx(expected, abs=1e-4)
    shuffled = bench.data.with_shuffled_labels(0).ratings
    assert [row["attributes"]["help"] for row in shuffled] != [row["attributes"]["help"] for row in bench.data.ratings]


def test_how_a_part_goes_with_ratings_is_reported_with_its_interval() -> None:
    rows = [
        Row(f"{i}", [{"role": "user", "content": str(i)}], reply="x" * i, rating=0.0, attributes={"help": float(-i)})
        for i in range(1, 9)
    ]
    found = reward_report(lambda prompts, texts: [float(len(text)) for text in texts], rows, None, "help")
    assert found["attribute_correlation"] == pytest.approx(-1) and found["rated_replies"] == 8
    found |= {"attribute_correlation": -0.5, "attribute_correlation_ci95": [-0.7, -0.2]}
    headings, cells = attribute_cells({"parts": [found, {"type": "random"}]})
    assert cells == [["help", "-0.50 [-0.70, -0.20]", "8"]] and len(headings) == 3
    assert attribute_cells(found) == (headings, cells), "a reward of one part"
    assert attribute_cells({"parts": [{}]}) is None


@pytest.mark.slow
def test_a_comparison_learns_from_a_weighted_sum_of_attributes(tmp_path) -> None:
    from prefzoo.lab.gold_reward import breakdown
    from prefzoo.lab.lab_source import labelled_rows

    with (tmp_path / "ratings.jsonl").open("w") as file:
        for row in labelled_rows("train", 80, seed=5):
            for reply in (str(row.chosen), str(row.rejected)):
                parts = breakdown(row.prompt[-1]["content"], reply)
                rated = {"right": parts["correctness"], "polite": parts["courtesy"]}
                file.write(json.dumps({"prompt": row.prompt, "response": reply, **rated}) + "\n")
    recipe = {
        "extends": "quickstart",
        "data": {"ratings": str(tmp_path / "ratings.jsonl"), "attributes": ["right", "polite"]},
        "reward": {
            "type": "sum",
            "of": [
                {"loss": "regression", "attribute": "right"},
                {"loss": "regression", "attribute": "polite", "weight": -0.5},
            ],
        },
        "gold": "none",
    }
    found = prefzoo.compare(recipe, ["rejection_sampling"], seeds=1, sets=SMALL, out=tmp_path / "out")
    assert found.algorithms["rejection_sampling"].status == "ok"
    assert [part["attribute"] for part in found.reward["parts"]] == ["right", "polite"]
    assert "rated in respect of" in (tmp_path / "out" / "report.md").read_text()
