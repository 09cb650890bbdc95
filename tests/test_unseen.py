"""No variance is no certainty: prompts that all show the same, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from prefzoo.results import analysis, statistics
from prefzoo.results.statistics.hypothesis_tests import clopper_pearson_bound


def against(policy: np.ndarray, start: np.ndarray) -> analysis.Verdict:
    (found,) = analysis.verdicts({"start": {"gold": start}, "mine": {"gold": policy}})
    return found


@pytest.fixture
def gold() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 64))


def test_equal_differences_are_as_sure_as_the_sign_test_of_so_many_prompts(gold) -> None:
    # two prompts: p = 2^-1; six: 2^-5. Clopper and Pearson's lower limit of 6 of 6 is 0.025^(1/6) = 0.540742, so that
    # the interval is 1 plus or minus 2 (1 - 0.540742) = 0.918516
    two, five, six = (against(gold[:, :n] + 0.01, gold[:, :n]) for n in (2, 5, 6))
    assert (two.verdict, two.p_adjusted) == ("inconclusive", 0.5) and two.ci95[0] < 0 < two.ci95[1]
    assert (five.verdict, five.p_adjusted) == ("inconclusive", 0.0625) and five.ci95[0] < 0 < five.ci95[1]
    assert (six.verdict, six.p_adjusted) == ("better", 0.03125)
    assert six.ci95 == pytest.approx((0.01 - 0.00918516, 0.01 + 0.00918516), abs=1e-7)
    assert {each.detectable for each in (two, five, six)} == {None} and six.effect_size is None


def test_seeds_that_agree_are_no_more_prompts(gold) -> None:
    one, three = (
        statistics.paired_difference(np.repeat(gold[:, :8] - 1, n, 0), np.repeat(gold[:, :8], n, 0)) for n in (1, 3)
    )
    assert three == one and one.p == 2**-7 and one.high < 0
    of_seeds = statistics.paired_difference(np.full((3, 1), 1.0), np.zeros((3, 1)))
    assert of_seeds.p == 0.25 and of_seeds.low < 0, "of one prompt, seeds are what is counted"


def test_nearly_equal_differences_on_five_prompts_call_nothing_and_on_many_are_what_they_were(gold) -> None:
    almost = gold + 0.01 + 1e-6 * np.arange(64)
    few = against(almost[:, :5], gold[:, :5])
    assert (few.verdict, few.p_adjusted, few.detectable) == ("inconclusive", 0.0625, None) and few.ci95[0] < 0
    many = statistics.paired_difference(almost[:, :6], gold[:, :6])
    assert many == statistics.estimate(almost[:, :6] - gold[:, :6]) and many.p < 1e-9


def test_an_identical_policy_is_exactly_the_start(gold) -> None:
    found = against(gold[:, :2], gold[:, :2])
    assert (found.difference, found.ci95, found.p_adjusted, found.verdict) == (0.0, (0.0, 0.0), 1.0, "inconclusive")
    (pair,) = analysis.pairs({"start": {"gold": gold}, "mine": {"gold": gold}})
    assert pair.win_rate.ci95 == pair.probability_of_improvement.ci95 == (0.5, 0.5)
    rated = analysis.ratings({"start": {"gold": gold}, "mine": {"gold": gold}})
    assert rated["mine"].ci95 == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_verifier_that_one_policy_always_passes(seeds) -> None:
    right, wrong = np.ones((seeds, 32)), np.zeros((seeds, 32))
    tables = {
        "start": {"gold": wrong, "kl": wrong, "win_rate": np.full((seeds, 32), 0.5)},
        "mine": {"gold": right, "kl": right + 0.25, "win_rate": right},
    }
    # Clopper and Pearson of 32 of 32: 0.025^(1/32) = 0.891119; of 0 of 32: 1 - 0.891119
    (pair,) = analysis.pairs(tables)
    for found in (pair.win_rate, pair.probability_of_improvement):
        assert found.mean == 0.0 and found.ci95 == pytest.approx((0.0, 0.108881), abs=1e-6)
    found = analysis.summaries(tables)
    assert found["mine"]["gold"].ci95 == found["mine"]["win_rate"].ci95 == pytest.approx((0.891119, 1.0), abs=1e-6)
    assert found["start"]["gold"].ci95 == pytest.approx((0.0, 0.108881), abs=1e-6)
    assert found["start"]["win_rate"].ci95 == (0.5, 0.5), "ties with itself"
    assert found["start"]["kl"].ci95 == (0.0, 0.0), "no share"
    assert found["mine"]["kl"].ci95 is None, "a KL that is the same of all replies is a bound, and varies with no seed"
    assert clopper_pearson_bound(32) == pytest.approx(0.108881, abs=1e-6)
    assert against(right, wrong).verdict == "better"


def test_a_share_that_varies_has_an_interval_within_0_and_1() -> None:
    gold = np.array([[0.0, 1.0, 1.0, 1.0]])
    tables = {"start": {"gold": 1 - gold}, "mine": {"gold": gold}}
    # s^2 = 0.25, squared error 0.0625: as 3 independent replies. t(0.975, 3)^2 / 3 = 3.375988, so Wilson's is
    # (0.75 + 1.687994 -+ sqrt(3.375988 * 0.1875 + 1.687994^2)) / 4.375988
    assert analysis.summaries(tables)["mine"]["gold"].ci95 == pytest.approx((0.130690, 0.983570), abs=1e-6)


def test_ratings_under_complete_separation_have_an_interval() -> None:
    # 32 of 32 with one tie on top: share 32.5 / 33, log-odds log(65) = 4.174387; its variance by the binomial over 34
    # is 1 / (share (1 - share) 34) = 33^2 / (32.5 * 0.5 * 34) = 1.970995; t(0.975, 31) = 2.039513
    start, mine = np.zeros((1, 32)), np.ones((1, 32))
    first, found = statistics.bradley_terry_ratings(np.stack([start, mine]))
    half = 2.039513 * 1.970995**0.5
    assert (found.mean, found.high - found.mean) == (pytest.approx(4.174387), pytest.approx(half, rel=1e-3))
    assert (first.mean, first.low, first.high) == (0.0, 0.0, 0.0)
    # a third one that wins against some: its rating varies as before, and is less sure for what is unknown of the pair
    third = np.tile([[-1.0, 0.5, 2.0, 2.0]], 8)
    wide = statistics.bradley_terry_ratings(np.stack([start, mine, third]))
    assert wide[1].high - wide[1].low > 1 and wide[2].low < wide[2].mean < wide[2].high
