"""People's answers joined with a judge's: estimates against values by hand, by loops, and by another package."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from prefzoo.results.statistics import LabelPlan, prediction_powered

NAN = float("nan")


def test_a_judge_that_people_never_contradict_is_taken_at_its_word() -> None:
    # On every three of the four answers the slope is 1, so no residual is left: the judge's own 5 of 8, not 2 of 4.
    judge = np.array([[1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0]])
    people = np.array([[1.0, 0.0, 1.0, 0.0, NAN, NAN, NAN, NAN]])
    found = prediction_powered(judge, people)
    assert (found.slope, found.correlation, found.answered) == (1.0, pytest.approx(1.0), 4)
    assert (found.people.mean, found.joined.mean) == (0.5, 0.625)
    assert found.worth == pytest.approx(8)  # as good as to ask about all
    # Only the judge's verdicts vary: s^2 = (5 * 0.140625 + 3 * 0.390625) / 7 = 0.267857; t(0.975, 3) = 3.182446
    # and that half an answer had contradicted it: 0.5 (1 / 4)^2 of the squared error, of half of all, that is not asked
    r = 3.182446**2 * (0.267857 / 8 + 0.5 * 0.0625 * 0.5) / (0.625 * 0.375)
    centre, half = (0.625 + r / 2) / (1 + r), np.sqrt(r * 0.234375 + r**2 / 4) / (1 + r)
    assert (found.joined.low, found.joined.high) == pytest.approx((centre - half, centre + half), abs=1e-5)


def test_a_judge_that_says_always_the_same_changes_nothing() -> None:
    people = np.array([[1.0, 0.0, 1.0, 1.0, NAN, NAN]])
    found = prediction_powered(np.ones((1, 6)), people)
    assert (found.slope, found.correlation, found.joined.mean, found.worth) == (0.0, None, 0.75, 4.0)
    assert found.joined == found.people


def test_it_agrees_with_ppi_python() -> None:
    """Values of ppi-python 0.2.3: `ppi_mean_pointestimate` and `ppi_mean_ci` of 219 answers and 1781 other verdicts,
    with the normal distribution, and the slope fitted to all."""
    i = np.arange(2000)
    judge = ((i * 7) % 10 < 6).astype(float)
    people = np.where((i * 13) % 9 < 2, 1 - judge, judge)
    found = prediction_powered(judge[None], np.where((i * i) % 211 < 21, people, np.nan)[None])
    assert found.people.mean == pytest.approx(0.57990868, abs=1e-7)
    assert found.joined.mean == pytest.approx(0.58091705, abs=1e-4)
    assert found.joined.high - found.joined.low == pytest.approx(0.63687204 - 0.52496205, rel=0.01)
    assert found.people.high - found.people.low == pytest.approx(0.64527856 - 0.51453850, rel=0.01)


def by_loops(judge: np.ndarray, people: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """People's mean alone and joined, cell by cell: each group counts once, each slope is fitted without its group."""
    seeds, prompts = judge.shape
    size = np.bincount(groups)
    overall = np.mean([np.mean([judge[:, p].mean() for p in np.flatnonzero(groups == g)]) for g in range(len(size))])
    cells = [(s, p) for s in range(seeds) for p in range(prompts) if not np.isnan(people[s, p])]
    w = {(s, p): weights[s, p] / size[groups[p]] for s, p in cells}
    values = {}
    for s, p in cells:
        others = [cell for cell in cells if groups[cell[1]] != groups[p]]
        x, y, v = (np.array([of[cell] for cell in others]) for of in (judge, people, w))
        slope, offset = np.polyfit(x, y, 1, w=np.sqrt(v))
        n = v.sum() ** 2 / (v**2).sum()
        explained = slope**2 * (v * (x - (v * x).sum() / v.sum()) ** 2).sum()
        f = explained * (n - 2) / (v * (y - offset - slope * x) ** 2).sum()
        values[s, p] = people[s, p] - slope * max(0, 1 - 1 / f) * (judge[s, p] - overall)
    total = sum(w.values())
    return sum(w[c] * people[c] for c in cells) / total, sum(w[c] * values[c] for c in cells) / total


def test_seeds_groups_and_unequal_chances_enter_as_they_do_in_loops() -> None:
    rng = np.random.default_rng(1)
    groups = np.array([0, 0, 1, 2, 2, 2, *range(3, 27)])
    people = rng.integers(3, size=(3, 30)) / 2
    judge = np.where(rng.random((3, 30)) < 0.7, people, 1 - people)
    chances = rng.choice([0.2, 0.6], (3, 30))
    people = np.where(rng.random((3, 30)) < chances, people, np.nan)
    found = prediction_powered(judge, people, 1 / chances, groups)
    assert (found.people.mean, found.joined.mean) == pytest.approx(by_loops(judge, people, 1 / chances, groups))
    assert found.joined.low < found.joined.mean < found.joined.high


def test_where_people_always_say_the_same_the_interval_has_a_width() -> None:
    people = np.full((2, 50), NAN)
    people[:, :4] = 1.0
    found = prediction_powered(np.tile([1.0, 0.0], (2, 25)), people)
    # Clopper and Pearson of four prompts, each once however many seeds: 1 - 0.025^(1/4) = 0.602365
    for each in (found.people, found.joined, found.people_here):
        assert (each.mean, each.low, each.high) == (1.0, pytest.approx(1 - 0.602365, abs=1e-5), 1.0)


def test_seeds_that_agree_to_the_digit_leave_an_interval() -> None:
    people = np.full((2, 40), NAN)
    people[:, :20] = np.tile([1.0, 0.0], 10)
    found = prediction_powered(np.full((2, 40), 0.5), people)
    half = float(stats.t.ppf(0.975, 19)) * 0.5 * np.sqrt(20 / 19 / 20)  # about that of 20 answers
    assert found.people_here.high - found.people_here.low > half
    assert found.people.high - found.people.low > 0.3 * half


def test_what_is_known_without_asking_is_not_estimated() -> None:
    # Half of all replies are equal to the other one: a tie. Of the other half people answered 4, 3 of them for it.
    people, known = np.full((1, 16), NAN), np.full((1, 16), NAN)
    known[0, 8:], people[0, :4] = 0.5, (1, 1, 1, 0)
    found = prediction_powered(np.full((1, 16), 0.5), people, known=known)
    assert found.people.mean == found.joined.mean == pytest.approx(0.5 * 0.75 + 0.5 * 0.5)
    people[0, 3] = 1
    sure = prediction_powered(np.full((1, 16), 0.5), people, known=known).people
    assert (sure.mean, sure.low, sure.high) == pytest.approx((0.75, 0.25 + 0.5 * (1 - 0.602365), 0.75), abs=1e-5)


@pytest.mark.parametrize(("accuracy", "labels"), [(0.6, 60), (0.9, 60), (0.9, 200)])
def test_the_planned_width_is_what_such_answers_come_to(accuracy: float, labels: int) -> None:
    rng = np.random.default_rng(labels)
    rate = 0.6 + 0.1 * rng.normal(size=(3, 1)) * np.ones(128)
    widths, planned = [], []
    for _ in range(150):
        people = (rng.random((3, 128)) < rate).astype(float)
        judge = np.where(rng.random((3, 128)) < accuracy, people, 1 - people)
        asked = rng.permutation(people.size).reshape(people.shape) < labels
        found = prediction_powered(judge, np.where(asked, people, NAN))
        widths.append((found.joined.high - found.joined.low, found.joined_here.high - found.joined_here.low))
        planned.append(
            LabelPlan.of(people, None).widths(labels, float(np.corrcoef(judge.ravel(), people.ravel())[0, 1]))
        )
    assert np.mean(planned, 0) == pytest.approx(np.mean(widths, 0), rel=0.12)
