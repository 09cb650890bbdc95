"""Warnings, and what is left at equal length: by hand, and under noise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from prefzoo.results import statistics
from prefzoo.results.length_adjustment import at_equal_length, length_adjusted
from prefzoo.results.results_schema import AlgorithmResult, LengthAdjusted, Milestone, SeedResult, Warning
from prefzoo.results.training_history import milestone_tables, read_curve
from prefzoo.results.warnings import find_warnings

SEEDS, PROMPTS = 3, 200


def test_a_line_by_hand() -> None:
    """Least squares through (0, 0), (1, 1), (2, 5): slope 2.5, intercept -0.5."""
    found = at_equal_length(np.array([[0.0, 1.0, 5.0]]), np.array([[0.0, 1.0, 2.0]]))
    assert found is not None
    table, slope = found
    assert slope == pytest.approx(2.5) and table.mean() == pytest.approx(-0.5)
    # residuals 0.5, -1, 0.5; each counts 1 - (l - 1) / (2/3), that is 2.5, 1 and -0.5 times
    assert table.tolist() == [pytest.approx([-0.5 + 1.25, -0.5 - 1.0, -0.5 - 0.25])]


def test_without_a_spread_of_lengths_there_is_a_line_only_where_lengths_are_equal() -> None:
    gain = np.array([[1.0, 2.0]])
    found = at_equal_length(gain, np.zeros((1, 2)))
    assert found is not None and found[0] is gain and found[1] == 0
    assert at_equal_length(gain, np.full((1, 2), 3.0)) is None


def test_the_interval_at_equal_length_is_that_of_least_squares() -> None:
    """With one seed: the textbook standard error of an intercept, and the truth in it 95 times of 100."""
    random = np.random.default_rng(0)
    inside = 0
    for i in range(400):
        longer = random.normal(2.0, 1.0, (1, 100))
        found = at_equal_length(0.3 + 0.5 * longer + random.normal(0, 1, longer.shape), longer)
        assert found is not None
        of_it = statistics.estimate(found[0])
        inside += of_it.low < 0.3 < of_it.high
        if i == 0:
            textbook = np.sqrt(1 / 100 + longer.mean() ** 2 / (100 * longer.var()))
            assert (of_it.high - of_it.low) / 2 / 1.984 == pytest.approx(textbook, rel=0.25)
    assert 0.92 < inside / 400 < 0.98


def test_a_gain_that_is_all_length_vanishes_and_a_true_one_stays() -> None:
    random = np.random.default_rng(1)
    start = {"gold": random.normal(0, 1, (SEEDS, PROMPTS)), "length": np.full((SEEDS, PROMPTS), 20.0)}
    longer = random.integers(-5, 30, (SEEDS, PROMPTS)).astype(float)
    noise = random.normal(0, 0.2, longer.shape)
    bought = {"gold": start["gold"] + 0.1 * longer + noise, "length": start["length"] + longer}
    earned = {"gold": start["gold"] + 1.0 + noise, "length": start["length"] + longer}
    of_bought, of_earned = (length_adjusted(each, start, "gold") for each in (bought, earned))
    assert of_bought is not None and of_earned is not None
    assert of_bought.slope == pytest.approx(0.1, abs=0.01) and abs(of_bought.difference) < 0.05
    assert of_earned.difference == pytest.approx(1.0, abs=0.05) and of_earned.win_rate > 0.95
    assert of_bought.win_rate < 0.75 and of_bought.tokens == pytest.approx(longer.mean())
    assert length_adjusted({"gold": start["gold"]}, start, "gold") is None
    itself = length_adjusted(start, start, "gold")
    assert itself is not None and (itself.difference, itself.win_rate, itself.slope) == (0.0, 0.5, 0.0)


def tables(**shift: float) -> dict[str, np.ndarray]:
    """What was measured of a policy: all 1, distinct-2 0.5, lengths 20, each moved, with a little noise."""
    random = np.random.default_rng(2)
    base = {"gold": 1.0, "proxy": 1.0, "gold@harmful": 1.0, "length": 20.0, "distinct_2": 0.5, "finished": 1.0}
    return {
        name: value + shift.get(name, 0.0) + random.normal(0, 0.01, (SEEDS, 1 if name == "distinct_2" else PROMPTS))
        for name, value in base.items()
    }


def warnings_of(policy: dict[str, np.ndarray], **more: object) -> list[Warning]:
    start = tables()
    start["distinct_2"] += np.linspace(-0.01, 0.01, SEEDS)[:, None]  # so few equal differences would show nothing
    rest: dict = {
        "length_adjusted": {"mine": length_adjusted(policy, start, "gold")},
        "curves": {},
        "judges": {},
        "final_judge": {},
        "milestones": {},
        **more,
    }
    return find_warnings({"mine": policy}, start, "gold", **rest)


@pytest.mark.parametrize(
    ("shift", "kind", "says"),
    [
        ({"proxy": 1.0, "gold": -0.5}, "over_optimization", "gold went down (-0.50 [-0.5"),
        ({"gold": 0.5, "gold@harmful": -0.5}, "slice", "slice harmful (-0.50"),
        ({"gold@harmful": -0.5}, "slice", "200 prompts); over all prompts no change is clear ("),
        ({"gold": -0.5, "gold@harmful": -2.5}, "slice", "over all prompts it fell less (-0.50"),
        ({"length": 5.0}, "length", "replies got longer, by +5.0"),
        ({"length": -5.0}, "length", "replies got shorter, by -5.0"),
        ({"distinct_2": -0.2}, "diversity", "distinct-2 changed by -0.2"),
        ({"finished": -0.5}, "cut_off", "50% of the replies"),
    ],
)
def test_each_sign_is_told_with_its_number(shift: dict[str, float], kind: str, says: str) -> None:
    found = [sign for sign in warnings_of(tables(**shift)) if sign.kind == kind]
    assert [sign.policy for sign in found] == ["mine"] and says in found[0].text
    assert found[0].ci95[0] <= found[0].value <= found[0].ci95[1]


def test_nothing_is_told_of_what_is_small_unclear_or_good() -> None:
    good = tables(proxy=1.0, gold=1.0, length=0.5, distinct_2=-0.02, finished=-0.01)
    assert warnings_of({**good, "gold@harmful": good["gold@harmful"] + 1.0}) == []
    unclear = tables(proxy=1.0)
    unclear["gold"] = unclear["gold"] - np.random.default_rng(3).normal(0.1, 9, unclear["gold"].shape)
    one_seed = {name: table[:1] for name, table in tables(distinct_2=-0.4).items()}
    assert warnings_of(unclear) == []
    start = {name: table[:1] for name, table in tables().items()}
    assert find_warnings({"mine": one_seed}, start, "gold", {}, {}, {}, {}, {}) == []


def test_a_slice_is_told_by_what_the_mean_over_all_prompts_hides() -> None:
    alike = tables(gold=-0.5, **{"gold@harmful": -0.5})
    assert "slice" not in {each.kind for each in warnings_of(alike)}  # the mean over all prompts says as much
    random = np.random.default_rng(5)
    noise, start = ({f"gold@{i}": random.normal(1.0, 1.0, (1, 20)) for i in range(80)} for _ in range(2))
    assert any(statistics.paired_difference(noise[name], start[name]).high < 0 for name in noise)  # some fall by chance
    whole = {"gold": np.ones((1, 20))}
    assert find_warnings({"mine": {**whole, **noise}}, {**whole, **start}, "gold", {}, {}, {}, {}, {}) == []


def test_a_fall_after_the_best_policy_on_the_way_is_told() -> None:
    first, best = tables(gold=0.5, proxy=0.2), tables(gold=2.0, proxy=0.5)
    final = tables(gold=0.5, proxy=1.5)
    (sign,) = warnings_of(final, milestones={"mine": [("step 5", first), ("step 10", best)]})
    assert (sign.kind, sign.policy) == ("past_peak", "mine") and sign.value == pytest.approx(-1.5, abs=0.01)
    assert "fell again along its training, from 3.00 at step 10 to 1.50 at the end (-1.50 [-1.5" in sign.text
    assert "the proxy reward did not fall (+1.00" in sign.text and "over-optimized" in sign.text
    (sign,) = warnings_of(tables(gold=0.5, proxy=0.2), milestones={"mine": [("step 10", best)]})
    assert "the proxy reward fell too (-0.30" in sign.text and "over-optimized" not in sign.text
    only = {"gold": best["gold"]}
    (sign,) = warnings_of({"gold": final["gold"]}, length_adjusted={}, milestones={"mine": [("step 10", only)]})
    assert "proxy" not in sign.text


def test_policies_on_the_way_are_tables_of_those_that_every_trial_kept(tmp_path) -> None:
    seeds = {}
    for seed, kept in enumerate([["step 3", "step 6"], ["step 3", "step 7", "step 9"]]):
        for i, name in enumerate(kept):
            folder = tmp_path / f"{seed}" / "milestones" / f"{i:02d}"
            folder.mkdir(parents=True)
            rows = [{"gold": 10 * seed + i, "proxy": 0.5}, {"gold": 1, **({} if name == "step 7" else {"proxy": 0.5})}]
            (folder / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        milestones = [Milestone(name=name, metrics={}, ledger={}) for name in kept]
        seeds[str(seed)] = SeedResult(metrics={}, ledger={}, milestones=milestones, replies=f"{seed}/replies.jsonl")
    each = AlgorithmResult(status="ok", algorithm="x", settings={}, differs={}, seeds=seeds, summary={})
    (first, tables), (second, others) = milestone_tables(each, tmp_path)
    assert (first, second) == ("step 3", "milestone 2")  # which is not the same step in both
    assert tables["gold"].tolist() == [[0, 1], [10, 1]] and others["gold"].tolist() == [[1, 1], [11, 1]]
    assert "proxy" in tables and "proxy" not in others
    each.seeds["2"] = SeedResult(metrics={}, ledger={}, replies="2/replies.jsonl")
    assert milestone_tables(each, tmp_path) == []


def test_no_fall_is_told_that_is_small_or_the_luck_of_the_best_of_several() -> None:
    best = tables(gold=2.0)
    at_10, lower = {"mine": [("step 10", best)]}, {"mine": [("step 10", tables(gold=-1.0))]}
    assert warnings_of(tables(gold=1.9), milestones=at_10) == []  # clear, and small beside what was gained
    assert warnings_of(tables(gold=2.1), milestones=at_10) == []
    assert warnings_of(tables(gold=-2.0), length_adjusted={}, milestones=lower) == []  # no peak
    random = np.random.default_rng(0)
    alone = several = 0
    for _ in range(60):
        final, *earlier = ({"gold": random.normal(1.3, 1.0, (1, 40))} for _ in range(9))
        start = {"gold": np.zeros((1, 40))}
        highest = max(earlier, key=lambda table: float(table["gold"].mean()))
        alone += statistics.paired_difference(final["gold"], highest["gold"]).high < 0
        milestones = {"mine": [("x", table) for table in earlier]}
        several += bool(find_warnings({"mine": final}, start, "gold", {}, {}, {}, {}, milestones))
    assert alone > 6 > several


def test_a_gain_of_length_alone_is_told() -> None:
    start, random = tables(), np.random.default_rng(4)
    longer = random.integers(0, 20, (SEEDS, PROMPTS)).astype(float)
    mine = {**start, "length": start["length"] + longer}
    mine["gold"] = start["gold"] + 0.1 * longer + random.normal(0, 0.5, longer.shape)
    (sign,) = [each for each in warnings_of(mine) if each.kind == "length_explains"]
    assert "is not shown at equal length" in sign.text and sign.ci95[0] <= 0
    unsure = LengthAdjusted(0.6, (-5.0, 6.0), 0.6, None, 0.01, 1.0)  # as large, and only less certain
    assert "length_explains" not in {
        each.kind for each in warnings_of(tables(gold=0.6), length_adjusted={"mine": unsure})
    }
    worse = LengthAdjusted(0.2, (-5.0, 6.0), 0.6, None, 0.01, 1.0)
    assert "length_explains" in {each.kind for each in warnings_of(tables(gold=0.6), length_adjusted={"mine": worse})}


def test_entropy_is_told_where_every_seed_logged_it() -> None:
    curves = [[{"step": 1, "entropy": 1.0 + seed / 50}, {"step": 9, "entropy": 0.2}] for seed in range(3)]
    (sign,) = warnings_of(tables(), curves={"mine": curves})
    assert sign.kind == "entropy" and "from 1.02 to 0.20" in sign.text and sign.value == pytest.approx(-0.8, abs=0.01)
    assert warnings_of(tables(), curves={"mine": [*curves, [{"step": 1, "loss": 2.0}]]}) == []  # not all logged it
    assert warnings_of(tables(), curves={"mine": curves[:1]}) == []


def test_a_judge_that_disagrees_with_itself_is_told() -> None:
    of_labels = [{"pairs": 60, "inconsistent": 15}, {"pairs": 40, "inconsistent": 25}]
    (sign,) = warnings_of(tables(), judges={None: of_labels, "mine": [{}]})
    assert sign.policy is None and sign.text.startswith("The judge disagrees with itself")
    assert sign.ci95 == pytest.approx((0.3094, 0.4980), abs=1e-4)  # 40 of 100, Wilson's interval
    assert warnings_of(tables(), judges={None: [{"pairs": 100, "inconsistent": 25}], "mine": [{"pairs": 0}]}) == []
    (sign,) = warnings_of(tables(), judges={"mine": [{"pairs": 100, "inconsistent": 50}]})
    assert sign.policy == "mine" and sign.text.startswith("mine: its judge disagrees") and "in 50% of 100" in sign.text


def test_a_curve_counts_on_over_rounds_and_keeps_numbers_only(tmp_path) -> None:
    rounds = [[{"loss": 2.0, "step": 5, "note": "x"}, {"train_loss": 1.0, "step": 6}], [{"loss": 1.0, "step": 5}]]
    (tmp_path / "curves.json").write_text(json.dumps(rounds))
    assert read_curve(tmp_path) == [{"loss": 2.0, "step": 5}, {"loss": 1.0, "step": 11}]
    assert read_curve(tmp_path / "none") == []


def test_a_judge_that_cannot_be_read_is_told_and_only_then() -> None:
    (sign,) = warnings_of(tables(), judges={"mine": [{"failures": n, "questions": 128} for n in (40, 20)]})
    assert sign.kind == "judge" and sign.value == 60 / 256 and "23% of 256 answers" in sign.text
    assert sign.text.startswith("mine: its judge could not be read")
    assert warnings_of(tables(), judges={None: [{"failures": 3, "questions": 128}], "mine": [{}]}) == []
    (sign,) = warnings_of(tables(), final_judge={"mine": [{"failures": 60, "questions": 256}], "other": [{}]})
    assert sign.policy == "mine" and sign.text.startswith("mine: the final judge could not be read in 23% of 256")
