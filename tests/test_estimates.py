"""Statistics of a comparison against values worked out by hand, published, or found by simulation."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from prefzoo.data.agreement import wilson
from prefzoo.results import analysis, statistics
from prefzoo.results.caveats import power_difference, skew_notes
from prefzoo.results.statistics.bootstrap import pigeonhole_bootstrap
from prefzoo.results.statistics.bradley_terry import fit_bradley_terry


def test_noise_is_counted_once() -> None:
    # rows' means 1.5 4.5, columns' means 2 4, mean 3: MS_seeds 2 * 4.5 = 9, MS_prompts 2 * 2 = 4; rests are +-0.5,
    # MS_noise 1. Squared error (9 + 4 - 1) / 4 = 3; df 12^2 / (81 + 16 + 1) = 1.4694; t(0.975, 1.4694) = 6.1954
    found = statistics.estimate(np.array([[1.0, 2.0], [3.0, 6.0]]))
    assert found.error == pytest.approx(3**0.5)
    assert found.df == pytest.approx(144 / 98)
    assert found.high - found.mean == pytest.approx(6.1954 * 3**0.5, rel=1e-4)


def test_lucky_seeds_do_not_narrow_the_interval_below_what_prompts_alone_give() -> None:
    # rows' means both 2, MS_seeds 0; columns' means 1 3, MS_prompts 4; rests +-1, MS_noise 4: 0 + 4 - 4 = 0.
    # The root mean square of 0 and 4 is 2.828; over 4 values 0.7071.
    found = statistics.estimate(np.array([[0.0, 4.0], [2.0, 2.0]]))
    assert found.error**2 == pytest.approx(8**0.5 / 4)


def test_the_effect_size_is_in_units_of_single_differences() -> None:
    a, b = np.array([[2.0, 4.0, 6.0]]), np.array([[1.0, 2.0, 3.0]])  # differences 1 2 3: mean 2, deviation 1
    assert statistics.effect_size(a, b) == pytest.approx(2.0)
    assert statistics.effect_size(b, a) == pytest.approx(-2.0)
    assert statistics.effect_size(a, a) is None


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side() -> None:
    table = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 1000.0]])
    assert statistics.interquartile_mean(table).mean == pytest.approx((3 + 4 + 5 + 6) / 4)
    # Of six values 1.5 lie below the quartile: half of the second, the third, the fourth, half of the fifth
    table = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 100.0]])
    assert statistics.interquartile_mean(table).mean == pytest.approx((0.5 * 1 + 2 + 3 + 0.5 * 4) / 3)


def test_the_probability_of_improvement_is_of_any_two_seeds_and_the_win_rate_of_the_same() -> None:
    a, b = np.array([[1.0], [3.0]]), np.array([[2.0], [0.0]])  # 1 > 2 no, 1 > 0 yes, 3 > 2 yes, 3 > 0 yes
    assert statistics.probability_of_improvement(a, b).mean == pytest.approx(0.75)
    assert statistics.wins(a, b).mean() == pytest.approx(0.5)
    assert statistics.probability_of_improvement(a, a).mean == pytest.approx(0.5)


def test_bradley_terry_against_a_published_fit() -> None:
    """Baseball, American League 1987 (Agresti 2002, Categorical Data Analysis, 10.6.2): log-odds over Baltimore."""
    teams = {
        "Baltimore": (0.0, [0, 1, 7, 4, 2, 3, 1]),
        "Boston": (1.1077, [12, 0, 7, 2, 6, 7, 6]),
        "Cleveland": (0.6839, [6, 6, 0, 4, 4, 6, 5]),
        "Detroit": (1.4364, [9, 11, 9, 0, 6, 5, 7]),
        "Milwaukee": (1.5814, [11, 7, 9, 7, 0, 7, 9]),
        "New York": (1.2476, [10, 6, 7, 8, 6, 0, 6]),
        "Toronto": (1.2945, [12, 7, 8, 6, 4, 7, 0]),
    }
    matrix = np.array([wins for _, wins in teams.values()], float)
    assert fit_bradley_terry(matrix[None])[0] == pytest.approx([rating for rating, _ in teams.values()], abs=2e-4)


def test_two_ratings_are_the_log_odds_of_the_wins_and_one_that_always_wins_stays_finite() -> None:
    a, b = np.array([[0.0] * 4]), np.array([[1.0, 1.0, 1.0, -1.0]])  # b wins 3 of 4, and half of one tie on top
    assert statistics.bradley_terry_ratings(np.stack([a, b]))[1].mean == pytest.approx(np.log(3.5 / 1.5))
    assert statistics.bradley_terry_ratings(np.stack([a, a + 1]))[1].mean == pytest.approx(np.log(4.5 / 0.5))
    assert statistics.bradley_terry_ratings(np.stack([a, b]))[0].high == 0.0


def test_the_bootstrap_of_a_mean_is_the_analysis_of_variance_of_it() -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(0, 0.3, (6, 1)) + rng.normal(0, 1, (1, 200)) + rng.normal(0, 1, (6, 200))
    (found,) = pigeonhole_bootstrap(lambda seeds, prompts: ((seeds @ table) * prompts).sum(1), 6, 200)
    exact = statistics.estimate(table)
    assert found.mean == pytest.approx(exact.mean)
    assert found.error == pytest.approx(exact.error, rel=0.1)
    assert (found.low, found.high) == tuple(
        getattr(pigeonhole_bootstrap(lambda seeds, prompts: ((seeds @ table) * prompts).sum(1), 6, 200)[0], side)
        for side in ("low", "high")
    )


def test_with_one_seed_and_many_prompts_power_is_the_textbooks() -> None:
    # (z(0.975) + z(0.8)) * 1 / sqrt(10,000) = (1.95996 + 0.84162) / 100
    pilot = statistics.Pilot((0.0, 1.0, 0.0), statistics.Design(1, 10_000))
    assert pilot.minimum_detectable_effect(pilot.design) == pytest.approx(0.0280158, rel=1e-3)
    assert pilot.power(0.0280158, pilot.design) == pytest.approx(0.8, abs=2e-3)
    assert pilot.power(0.0, pilot.design) == pytest.approx(0.025, abs=1e-3)
    # four tests: z(1 - 0.025 / 4) = 2.49771
    assert pilot.minimum_detectable_effect(pilot.design, 4) == pytest.approx((2.49771 + 0.84162) / 100, rel=1e-3)


def test_more_prompts_do_not_help_where_seeds_differ_and_more_seeds_do() -> None:
    rng = np.random.default_rng(0)
    pilot = statistics.Pilot.of(rng.normal(0, 1, (5, 1)) + rng.normal(0, 1, (5, 128)), np.zeros((5, 128)))
    power = {size: pilot.power(1.5, statistics.Design(*size)) for size in ((3, 128), (3, 4096), (20, 128))}
    assert power[3, 4096] < power[3, 128] + 0.02
    assert power[20, 128] > power[3, 128] + 0.2
    assert pilot.minimum_detectable_effect(pilot.design) == pytest.approx(
        next(d for d in np.linspace(0, 20, 20001) if pilot.power(float(d), pilot.design) >= 0.8), abs=2e-3
    )


def test_families_are_named_and_equal_policies_are_inconclusive() -> None:
    rng = np.random.default_rng(1)
    prompts = rng.normal(0, 1, (1, 64))
    tables = {label: {"gold": prompts + rng.normal(0, 1, (3, 64))} for label in ("start", "a", "a-again")}
    tables["better"] = {"gold": tables["a"]["gold"] + 3}
    found = {(v.a, v.b): v for v in analysis.verdicts(tables)}
    assert found["a", "a-again"].verdict == "inconclusive" and found["better", "start"].verdict == "better"
    assert found["better", "start"].family == "gold against the start" and found["better", "start"].family_size == 3
    assert found["a", "a-again"].family == "gold between policies"
    assert found["a", "better"].difference == -3.0 and found["a", "better"].detectable is None
    assert found["a", "better"].effect_size is None
    rated = analysis.ratings(tables)
    assert rated["start"].mean == 0.0 and rated["better"].mean == max(each.mean for each in rated.values())
    assert {(pair.a, pair.b) for pair in analysis.pairs(tables)} >= {("start", "a"), ("a", "better")}


def test_the_interval_of_a_skewed_mean_is_halls_on_the_side_of_what_is_missing() -> None:
    table = np.array([[0.0, 0.1, 0.3, 0.2, 0.1, 0.0, 0.4, 0.2, 0.3, 6.0]]) - 2.0
    found, n = statistics.estimate(table), table.size
    skewness = float(stats.skew(table[0], bias=False)) / n**0.5
    assert found.skewness == pytest.approx(skewness) and skewness > statistics.SKEWED
    assert found.mean - found.low == pytest.approx(stats.t.ppf(0.975, n - 1) * table.std(ddof=1) / n**0.5)

    def hall(t: float) -> float:  # Hall (1992), with the skewness that a sample is taken to miss
        g = 2 * skewness
        return t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6

    # the upper end is the mean that would lie so far below by chance
    assert hall((found.mean - found.high) / found.error) == pytest.approx(-stats.t.ppf(0.975, n - 1), abs=1e-9)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(hall(found.mean / found.error)), n - 1), abs=1e-9)
    turned = statistics.estimate(-table)
    assert (turned.low, turned.high, turned.p) == pytest.approx((-found.high, -found.low, found.p))
    along = statistics.estimate(table + 4.0)
    assert along.p == pytest.approx(stats.ttest_1samp(table[0] + 4.0, 0).pvalue), "the other side stays Student's"


@pytest.mark.parametrize(("spread", "seeds", "prompts"), [(1.25, 1, 64), (1.5, 3, 256), (2.0, 1, 256)])
def test_skewed_differences_are_called_rarely_or_told_to_be_skewed(spread, seeds, prompts) -> None:
    rng = np.random.default_rng(5)
    called = told = 0
    mean, times = np.exp(spread**2 / 2), 600
    skewed = (rng.lognormal(0, spread, (times, 1, prompts)) - mean) / mean
    tables = skewed + rng.normal(0, 0.2, (times, seeds, prompts))
    for table in tables:
        found = statistics.estimate(table)
        called += found.p < 0.05
        told += found.skewed
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high), "interval and p-value agree"
    of_t = (stats.ttest_1samp(tables.mean(1), 0, axis=1).pvalue < 0.05).mean()
    assert called / times <= 0.075 and of_t > 0.08 and told / times > 0.8


def test_what_is_skewed_is_said_in_the_report() -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(2, 64))
    odd = start + (rng.permutation(64) < 2) * 50.0 + rng.normal(0, 0.1, (2, 64))
    found = analysis.verdicts({"start": {"gold": start}, "odd": {"gold": odd}, "even": {"gold": start + 0.1 * start}})
    (said,) = skew_notes(found, "gold")
    assert "difference to the start of odd." in said and skew_notes(found, "proxy") == []


@pytest.mark.parametrize(("share", "seeds", "prompts"), [(0.01, 5, 200), (0.02, 3, 200), (0.05, 1, 64)])
def test_intervals_of_rare_shares_lie_within_0_and_1_and_cover(share, seeds, prompts) -> None:
    rng = np.random.default_rng(6)
    inside, times = 0, 600
    for _ in range(times):
        table = (rng.random((seeds, prompts)) < share) * 1.0
        found = statistics.proportion(statistics.estimate(table), table)
        inside += found.low <= share <= found.high
        assert 0 <= found.low <= found.mean <= found.high <= 1
    assert inside / times >= 0.93


def test_a_share_of_one_seed_has_wilsons_interval() -> None:
    table = np.array([[1.0] * 3 + [0.0] * 197])
    found = statistics.proportion(statistics.estimate(table), table)
    # of 199 replies, whose variance is that of 200 with n - 1, and with t of 199 df, 1.971957, for 1.959964
    assert (found.low, found.high) == pytest.approx(wilson(0.015, 199 * (1.959964 / 1.971957) ** 2), abs=1e-6)


def test_what_to_ask_of_power_is_half_of_what_could_be_found() -> None:
    rng = np.random.default_rng(2)
    start = rng.normal(size=(3, 64))
    tables = {"start": {"gold": start}, "same": {"gold": start + rng.normal(size=(3, 64))}, "up": {"gold": start + 9}}
    found = analysis.verdicts(tables)
    (same,) = (v for v in found if (v.a, v.b) == ("same", "start"))
    assert same.verdict == "inconclusive" and same.detectable is not None
    asked = power_difference(found, "gold", 3)
    assert asked == pytest.approx(same.detectable / 2, rel=0.5) and len(f"{asked:g}".strip("0.")) == 1
    assert power_difference(found, "gold", 1) is None
    assert power_difference([v for v in found if v.a == "up"], "gold", 3) is None


def test_twelve_policies_are_analysed_in_seconds() -> None:
    """12 policies x 1,000 prompts x 5 seeds: 5 s of processor time where this was written, 20 s allowed."""
    rng = np.random.default_rng(0)
    tables = {label: {"gold": rng.normal(0, 1, (5, 1000))} for label in ("start", *map(str, range(12)))}
    began = time.process_time()
    assert len(analysis.verdicts(tables)) == 12 + 66 and len(analysis.pairs(tables)) == 78
    assert len(analysis.ratings(tables)) == 13
    for each in tables.values():
        statistics.interquartile_mean(each["gold"])
    assert time.process_time() - began < 20
