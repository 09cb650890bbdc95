"""Intervals, corrections and verdicts against values worked out by hand or by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prefzoo.data.agreement import wilson
from prefzoo.results import analysis, statistics
from prefzoo.results.statistics.confidence_sequence import confidence_sequence
from prefzoo.rewards.reward_accuracy import reward_report
from prefzoo.run.evaluation_records import distinct


def test_one_seed_is_the_one_sample_t_interval() -> None:
    # values 1 2 3 4: mean 2.5, s = 1.290994, se = 0.645497, t(0.975, 3) = 3.182446
    found = statistics.estimate(np.array([[1.0, 2.0, 3.0, 4.0]]))
    assert found.mean == 2.5
    assert found.high - found.mean == pytest.approx(3.182446 * 0.645497, abs=1e-5)
    # t = 2.5 / 0.645497 = 3.872983 with 3 degrees of freedom
    assert found.p == pytest.approx(0.030466, abs=1e-5)


def test_seeds_and_prompts_both_count() -> None:
    # Seeds' means 1 and 3: s^2 = 2, part 2/2 = 1 with 1 df. Prompts' means 2 and 2: part 0.
    found = statistics.estimate(np.array([[1.0, 1.0], [3.0, 3.0]]))
    assert (found.mean, found.high - found.mean) == (2.0, pytest.approx(12.706205, abs=1e-5))
    # The same table turned: the prompts' part is 1 with 1 df, the seeds' part 0.
    assert statistics.estimate(np.array([[1.0, 3.0], [1.0, 3.0]])).high == pytest.approx(2 + 12.706205, abs=1e-5)
    # Welch-Satterthwaite by hand: parts 1 (1 df) and 1 (1 df): square 2, df = 4 / (1 + 1) = 2, t(0.975, 2) = 4.302653
    found = statistics.estimate(np.array([[0.0, 2.0], [2.0, 4.0]]))
    assert found.high - found.mean == pytest.approx(4.302653 * math.sqrt(2), abs=1e-5)


def test_beyond_5_percent_the_tail_is_of_at_most_twice_the_seeds_freedom() -> None:
    # Mean squares 0.1, 1, 0.5 of 3 seeds and 1001 prompts: square sqrt((0.01 + 1) / 2) = 0.710634,
    # df = 0.505 / (0.01 / 2 + 1 / 1000 + 0.25 / 2000) = 82.449, t(0.975, 82.449) = 1.989222; t(0.975, 4) = 2.776445.
    def p(errors: float) -> float:
        error = math.sqrt(0.710634 / 3003)
        return statistics.two_way_anova.estimate_from_mean_squares(errors * error, (0.1, 1.0, 0.5), 3, 1001).p

    # 3 errors are 3 * 2.776445 / 1.989222 = 4.187233 on 4 df: p = 1 - t (t^2 + 6) / (t^2 + 4)^1.5 = 0.013838
    assert p(3.0) == pytest.approx(0.013838, abs=1e-5)
    assert p(1.989222) == pytest.approx(0.05, abs=1e-5)
    # one error is below 5%, where nothing changes: Student's t of 82.449 df
    assert p(1.0) == pytest.approx(0.320256, abs=1e-4)


def test_an_error_that_no_table_shows_widens_the_interval() -> None:
    # values 1 2 3 4: se 0.645497, 3 df; with another error of 0.484123 the root of the squares is 0.806872
    table = np.array([[1.0, 2.0, 3.0, 4.0]])
    found = statistics.widened(statistics.estimate(table), 0.484123, *table.shape)
    assert (found.mean, found.error) == (2.5, pytest.approx(0.806872, abs=1e-6))
    assert found.high - 2.5 == pytest.approx(3.182446 * 0.806872, abs=1e-5) == 2.5 - found.low
    # t = 2.5 / 0.806872 = 3.098384 of 3 df: p = 1 - (2 / pi) (atan(x) + x / (1 + x^2)), x = t / sqrt(3) = 1.788853
    assert found.p == pytest.approx(0.053372, abs=1e-4)
    assert statistics.widened(statistics.estimate(table), 0.0, *table.shape) == statistics.estimate(table)


def test_only_pairs_of_policies_that_were_searched_for_allow_for_other_searches() -> None:
    rng = np.random.default_rng(0)
    tables = {label: {"gold": rng.normal(i, 1.0, (3, 64))} for i, label in enumerate(("start", "a", "b", "c"))}
    plain, wide = (analysis.verdicts(tables, search_sds=errors) for errors in ({}, {"a": 0.3, "b": 0.4}))
    for one, other in zip(plain, wide, strict=True):
        between = one.family == "gold between policies"
        error = {"ab": 0.5, "ac": 0.3, "bc": 0.4}[one.a + one.b] if between else None
        assert other.search_sd == pytest.approx(error) and one.search_sd is None
        half, wider = ((each.ci95[1] - each.ci95[0]) / 2 for each in (one, other))
        assert (other.difference, other.family) == (one.difference, one.family)
        assert wider > half if between else other == one
        if between:
            assert other.detectable / one.detectable == pytest.approx(wider / half)
            assert other.p_adjusted > one.p_adjusted


def test_a_constant_table_has_no_width_and_one_number_has_no_interval() -> None:
    assert statistics.estimate(np.full((2, 3), 0.5)).p == 0.0
    assert statistics.estimate(np.zeros((2, 3))).p == 1.0
    assert math.isinf(statistics.estimate(np.array([[1.0]])).high)


def test_holm_against_a_worked_example() -> None:
    # sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, made monotone: .04 .06 .06 .06
    assert statistics.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_verdicts() -> None:
    assert statistics.verdict(1.0, 0.04) == "better"
    assert statistics.verdict(-1.0, 0.04) == "worse"
    assert statistics.verdict(1.0, 0.05) == "inconclusive"


def test_equal_policies_are_called_different_rarely_and_the_interval_covers() -> None:
    """3 seeds that differ by 0.1, prompts by 1, replies by 1: at most 5% false calls, up to simulation noise."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(600):
        tables = [
            rng.normal(0, 0.1, (3, 1)) + shared + rng.normal(0, 1, (3, 64))
            for shared in [rng.normal(0, 1, (1, 64))]
            for _ in range(2)
        ]
        wrong += statistics.paired_difference(*tables).p < 0.05
    assert wrong / 600 < 0.07


def test_wilson_against_a_published_value() -> None:
    # 81 of 263 (Newcombe 1998, Table I): 0.2553 to 0.3662
    low, high = wilson(81 / 263, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert wilson(0.0, 20)[0] == 0.0 and wilson(1.0, 20)[1] == 1.0


def test_distinct_n_by_hand() -> None:
    # words: a b a b | a c -> unigrams 6, different 3; bigrams ab ba ab ac -> 3 of 4
    assert distinct(["a b a b", "a c"], 1) == 0.5
    assert distinct(["a b a b", "a c"], 2) == 0.75
    assert distinct(["", "a"], 2) == 0.0


def test_the_reward_report_counts_ties_as_half_and_knows_the_truth() -> None:
    from prefzoo.data.formats import Row

    rows = [
        Row(str(i), [{"role": "user", "content": f"q{i}"}], good, bad)
        for i, (good, bad) in enumerate([("aaa", "a"), ("aa", "a"), ("a", "aa"), ("a", "b")])
    ]

    def by_length(prompts, texts):
        return [float(len(text)) for text in texts]

    found = reward_report(by_length, rows, lambda prompts, texts: [{"gold": 2.0 * len(text) + 1} for text in texts])
    assert (found["test_accuracy"], found["ties"], found["test_pairs"]) == (2.5 / 4, 1, 4)
    assert found["gold_correlation"] == pytest.approx(1.0)
    assert "gold_correlation" not in reward_report(by_length, rows, None)
    # Two votes as before and one for the opposite on each pair are neither more pairs nor others; one of each is none.
    turned = [Row(f"{row.id} turned", row.prompt, row.rejected, row.chosen) for row in rows]
    again = reward_report(by_length, [*turned, *rows, *rows], None)
    assert {key: found[key] for key in again} == again
    assert reward_report(by_length, [*turned, *rows], None)["test_pairs"] == 0


@pytest.mark.parametrize(("name", "mean"), [("wins", 0.5), ("wins", 0.9), ("with ties", 0.62), ("drifting", 0.5)])
def test_an_interval_that_is_looked_at_after_every_answer_keeps_its_promise(name: str, mean: float) -> None:
    """Somebody who stops as soon as the interval leaves the true mean out succeeds in at most 5% of the streams."""
    rng = np.random.default_rng(int(mean * 100))
    streams, length = 300, 200

    def drawn() -> np.ndarray:
        if name == "wins":
            return (rng.random(length) < mean).astype(float)
        if name == "with ties":  # a third of the answers; the rest is won so often that the mean is as said
            tie = rng.random(length) < 1 / 3
            return np.where(tie, 0.5, rng.random(length) < (mean - 1 / 6) * 1.5)
        values = np.empty(length)  # the spread depends on what was seen before, the mean does not
        for i in range(length):
            values[i] = 0.5 if i and values[i - 1] == 1 else rng.integers(2)
        return values

    missed, missed_by_wald = 0, 0
    for _ in range(streams):
        values = drawn()
        low, high = confidence_sequence(values)  # it holds what all earlier ones held, so that the last is the test
        missed += not low <= mean <= high
        n = np.arange(1, length + 1)
        means = np.cumsum(values) / n
        errors = 1.96 * np.sqrt(np.maximum(np.cumsum(values**2) / n - means**2, 1e-9) / n)
        missed_by_wald += bool((np.abs(means - mean) > errors)[19:].any())
    assert missed / streams < 0.05 + 3 * math.sqrt(0.05 * 0.95 / streams)
    assert missed_by_wald / streams > 0.2  # the control: an interval for one look


def test_a_confidence_sequence_is_exact_narrows_and_never_grows() -> None:
    assert confidence_sequence([]) == (0.0, 1.0)
    values = [1.0, 1.0, 0.5, 1.0, 0.0, 1.0, 1.0, 1.0] * 40
    low, high = 0.0, 1.0
    for n in range(1, len(values), 7):
        new_low, new_high = confidence_sequence(values[:n])
        assert low <= new_low <= new_high <= high
        low, high = new_low, new_high
    assert 0.5 < low < 0.8125 < high < 0.9  # the mean is 6.5 of 8
    mirrored = confidence_sequence([1 - value for value in values])
    assert mirrored == pytest.approx((1 - confidence_sequence(values)[1], 1 - confidence_sequence(values)[0]))
    for seen in (values, values[:30], [0.0] * 9):
        ends = confidence_sequence(seen)
        assert most_money(seen, ends[0] + 0.0011) < 20 > most_money(seen, ends[1] - 0.0011)
        assert ends[0] == 0 or most_money(seen, ends[0]) >= 20
        assert ends[1] == 1 or most_money(seen, ends[1]) >= 20
    with pytest.raises(ValueError, match="from 0 to 1"):
        confidence_sequence([1.5])


def most_money(values: list[float], mean: float) -> float:
    """The most that the bettor of theorem 3 (arXiv 2010.09686, c = 1/2, theta = 1/2, alpha = 0.05) ever had, term by
    term as in its equations."""
    up, down, most = 1.0, 1.0, 0.0
    for t in range(1, len(values) + 1):
        before = values[: t - 1]
        centres = [(0.5 + sum(values[: i + 1])) / (i + 2) for i in range(t - 1)]
        variance = (0.25 + sum((x - c) ** 2 for x, c in zip(before, centres, strict=True))) / t
        bet = math.sqrt(2 * math.log(2 / 0.05) / (variance * t * math.log(1 + t)))
        up *= 1 + min(bet, 0.5 / mean) * (values[t - 1] - mean)
        down *= 1 - min(bet, 0.5 / (1 - mean)) * (values[t - 1] - mean)
        most = max(most, 0.5 * up, 0.5 * down)
    return most
