"""Several annotators who rank the same replies: their votes go by the rule, whatever pairs are made."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_files import save
from prefzoo.data import splits
from prefzoo.data.formats import Row
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_result import ReadResult
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Rejects
from prefzoo.data.row_views import views_of
from prefzoo.errors import DataError, RecipeError
from prefzoo.recipe import check_recipe as recipes
from prefzoo.report.annotators import annotator_facts

RULES = ("majority", "soft", "reliability")


def ranked(order: str, annotator: str | None, prompt: str = "q") -> dict[str, Any]:
    """`"a>b=c"` as a record."""
    places = [place.split("=") for place in order.split(">")]
    ranks = {reply: rank for rank, place in enumerate(places, 1) for reply in place}
    record = {"prompt": prompt, "responses": list(ranks), "ranks": list(ranks.values())}
    return record if annotator is None else {**record, "annotator": annotator}


def read(
    records: list[dict[str, Any]], folder: Path, rule: str = "majority", pairs: str = "all", kind: str = "rankings"
) -> ReadResult:
    path = save(records, folder / "x.jsonl")
    options = ReadOptions(annotators=rule, pairs=pairs)  # type: ignore[arg-type]
    found = read_rows(kind, str(path), options)
    assert found.read == found.used + found.dropped.total()
    assert len({row.id for row in found.rows}) == len(found.rows)
    kept = splits.clean(found.rows, lost := Rejects())
    assert (len(kept), lost.total()) == (len(found.rows), 0)  # no vote is taken for a duplicate
    return found


def better(rows: list[Row]) -> dict[tuple[str | None, str | None], int]:
    return Counter((row.chosen, row.rejected) for row in rows if row.chosen is not None)


@pytest.mark.parametrize("pairs", ["all", "adjacent"])
def test_three_against_one_is_no_draw(tmp_path, pairs) -> None:
    records = [ranked("a>b", name) for name in "pqr"] + [ranked("b>a", "s")]
    found = read(records, tmp_path, pairs=pairs)
    assert better(found.rows) == {("a", "b"): 1}
    assert found.annotators["disagreed"] == 1 and found.annotators["rule"] == "majority"
    found = read(records, tmp_path, "soft", pairs)
    assert better(found.rows) == {("a", "b"): 3, ("b", "a"): 1}
    (line, *_) = annotator_facts({"rankings": found.annotators})
    assert "disagree on 1 of the 1 that several judged" in line and "Every vote is a pair" in line
    found = read([*records[2:], ranked("a>b", "p", "other")], tmp_path, pairs=pairs)
    assert [row.prompt[0]["content"] for row in found.rows] == ["other"]
    assert found.unpaired.places() == {"annotators_tied": ["line 1"]}


@pytest.mark.parametrize("rule", RULES)
def test_rankings_of_two_are_the_same_data_as_votes(tmp_path, rule) -> None:
    if rule == "reliability":
        pytest.importorskip("crowdkit")
    rng = random.Random(1)
    orders = [(f"q{i}", rng.choice(["a>b", "a>b", "b>a"]), name) for i in range(9) for name in "pqr"]
    rankings = [ranked(order, name, prompt) for prompt, order, name in orders]
    votes = [
        {"prompt": p, "response_a": "a", "response_b": "b", "preference": order[0], "annotator": name}
        for p, order, name in orders
    ]
    as_votes = read(votes, tmp_path, rule, kind="preferences")
    as_rankings = read(rankings, tmp_path, rule)
    assert splits.sha256_of(as_rankings.rows) == splits.sha256_of(as_votes.rows)
    assert as_rankings.annotators == as_votes.annotators


def test_neighbours_in_any_ranking_are_paired_and_all_who_rank_both_vote(tmp_path) -> None:
    records = [ranked("a>b>c", "p"), ranked("a>b>c", "q"), ranked("c>a>b", "r")]
    # c and a are neighbours only for r, and p and q, for whom they are not, say the opposite.
    found = read(records, tmp_path, pairs="adjacent")
    assert better(found.rows) == {("a", "b"): 1, ("b", "c"): 1, ("a", "c"): 1}
    assert better(read(records[:2], tmp_path, pairs="adjacent").rows) == {("a", "b"): 1, ("b", "c"): 1}


def test_ties_vote_for_neither_and_are_counted(tmp_path) -> None:
    records = [ranked("a=b>c", "p"), ranked("b>a>c", "q"), ranked("a=c>b", "r"), ranked("d=e>a", "p", "other")]
    found = read(records, tmp_path)
    # a and b: b, a and a tie; a and c: a twice and a tie; b and c: b twice, c once.
    assert better(found.rows) == {("a", "c"): 1, ("b", "c"): 1, ("d", "a"): 1, ("e", "a"): 1}
    assert found.unpaired.counts() == {"annotators_tied": 1, "tied_replies": 1}
    found = read(records, tmp_path, "soft")
    assert better(found.rows)[("a", "b")] == better(found.rows)[("b", "a")] == 1
    assert found.unpaired.counts() == {"tied_replies": 1, "votes_for_neither": 2}


def test_the_whole_ranking_is_the_order_that_the_pairs_make(tmp_path) -> None:
    def orders(records: list[dict[str, Any]], rule: str = "majority") -> list[str]:
        rankings = views_of(read(records, tmp_path, rule).rows).rankings
        return sorted(">".join(each["ranking"]) for each in rankings)

    most = [ranked("a>b>c", "p"), ranked("a>b>c", "q"), ranked("c>b>a", "r")]
    assert orders(most) == ["a>b>c"]
    assert orders(most, "soft") == ["a>b>c", "a>b>c", "c>b>a"]
    circle = [ranked("a>b>c", "p"), ranked("b>c>a", "q"), ranked("c>a>b", "r")]
    assert orders(circle) == ["a>b", "b>c", "c>a"]
    # What the order of three is, somebody who ranks two of them decides.
    assert orders([*most, ranked("c>b", "s"), ranked("c>b", "t")]) == ["a>c>b"]
    assert orders([ranked("a=b>c", "p"), ranked("b>a>c", "q")]) == ["b>a>c"]


@pytest.mark.parametrize("rule", ["majority", "soft"])
@pytest.mark.parametrize("pairs", ["all", "adjacent"])
def test_one_ranking_of_each_prompt_is_itself_whatever_the_rule(tmp_path, rule, pairs) -> None:
    records = [ranked(order, None, order) for order in ("a>b>c", "d=e>f", "b>a")]
    found = read(records, tmp_path, rule, pairs)
    all_of_them = {("a", "b"): 1, ("b", "c"): 1, ("d", "f"): 1, ("e", "f"): 1, ("b", "a"): 1, ("a", "c"): 1}
    assert better(found.rows) == {k: n for k, n in all_of_them.items() if pairs == "all" or k != ("a", "c")}
    assert [row.ranking for row in found.rows if row.ranking] == [["a", "b", "c"]]
    assert found.unpaired.counts() == {"tied_replies": 1} and found.annotators == {}


def test_reliability_weighs_rankers(tmp_path) -> None:
    pytest.importorskip("crowdkit")
    rng = random.Random(2)
    records = []
    for i in range(40):
        for name, right in (("p", 0.95), ("q", 0.9), ("r", 0.85), ("x", 0.1), ("z", 0.5), ("w", 0.5)):
            records.append(ranked("a>b" if rng.random() < right else "b>a", name, f"q{i}"))
    by_majority = better(read(records, tmp_path).rows)
    found = read(records, tmp_path, "reliability")
    assert better(found.rows)[("a", "b")] >= 36 > by_majority[("a", "b")]
    people = found.annotators["annotators"]
    assert people["p"]["reliability"] > 0.85 and people["x"]["reliability"] < 0.25
    with pytest.raises(DataError, match="'reliability' needs to know who said what"):
        read([ranked("a>b", None)], tmp_path, "reliability")


def test_the_recipe_may_name_a_rule_for_rankings_but_not_where_nothing_is_voted_on(tmp_path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(ranked("a>b", "p")))
    given = {"algorithms": {"dpo": {}}, "data": {"rankings": str(path), "annotators": "soft"}, "gold": "none"}
    recipes.check(given)
    with pytest.raises(RecipeError, match=r"data.annotators: 'soft' decides votes in .* data.pairs: all or adjacent"):
        recipes.check({**given, "data": {**given["data"], "pairs": "plackett_luce"}})  # type: ignore[dict-item]
