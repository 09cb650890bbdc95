"""How a reward model learns from labels that may be wrong, and how right it is where policies went."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from prefzoo.data.agreement import clustered_wilson, wilson
from prefzoo.data.formats import Row
from prefzoo.report.reward_section import reward_cells
from prefzoo.report.verdict_section import facts
from prefzoo.results.reward_on_policies import reward_on_policies
from prefzoo.rewards.reward_accuracy import reward_report
from prefzoo.rewards.train_reward import train_reward_model
from reported import made


def nls(difference: float) -> float:
    """-log sigmoid"""
    return math.log1p(math.exp(-difference))


@pytest.mark.parametrize("margins", [True, False])
def test_smoothed_labels_are_a_share_of_the_swapped_pairs_loss(margins, make_bench) -> None:
    bench = make_bench(learning_rate=0.0, batch_size=24)
    pairs = [{**pair, "margin": 0.5} for pair in bench.data.preferences]
    object.__setattr__(bench.data, "preferences", pairs)
    model = train_reward_model(bench, {"logging_steps": 1}, margins=margins, label_smoothing=0.1)
    good, bad = (
        model([p["prompt"] for p in pairs], [p[s][0]["content"] for p in pairs]) for s in ("chosen", "rejected")
    )
    gaps = [x - y - (0.5 if margins else 0.0) for x, y in zip(good, bad, strict=True)]
    expected = sum(0.9 * nls(gap) + 0.1 * nls(-gap) for gap in gaps) / len(gaps)
    first = json.loads((bench.out / "curves.json").read_text())[-1][0]["loss"]
    assert first == pytest.approx(expected, abs=1e-4) and abs(expected - sum(map(nls, gaps)) / len(gaps)) > 1e-3


def row(i: int, chosen: str, rejected: str) -> Row:
    return Row(str(i), [{"role": "user", "content": f"question {i}"}], chosen, rejected)


def length(prompts: object, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


class Judge:
    """A reward that counts what it is asked."""

    questions = 0

    def __call__(self, prompts: object, texts: list[str]) -> list[float]:
        self.questions += len(texts)
        return length(prompts, texts)


def test_the_best_of_four_by_hand() -> None:
    """Scored by length. The chosen reply stands beside its rejected one and those chosen for the next two prompts."""
    rows = [row(0, "aaaa", "a"), row(1, "bbb", "bbbb"), row(2, "cc", "c"), row(3, "dddd", "d")]
    rows.append(Row("again", rows[0].prompt, "aaaaa", "aa"))  # the first pair of a prompt counts
    found = reward_report(length, rows, None)
    # 0: 4 against 1, 3, 2; 1: 3 against 4; 2: 2 against 1, 4; 3: 4 against 1, 4 (a tie of two), 3
    assert found["best_of_four"] == (1 + 0 + 0 + 0.5) / 4 and found["best_of_four_prompts"] == 4
    assert found["best_of_four_ci95"] == pytest.approx(wilson(1.5 / 4, 4))
    assert "best_of_four" not in reward_report(length, rows[:2], None), "there are no other prompts"
    judge = Judge()
    assert "best_of_four" not in reward_report(judge, rows, None) and judge.questions == 2 * 5, "the pairs alone"


def rated(i: int, *replies: tuple[str, float]) -> list[Row]:
    prompt = [{"role": "user", "content": f"question {i}"}]
    return [Row(f"{i} {text}", prompt, reply=text, rating=rating) for text, rating in replies]


def test_equally_good_replies_by_their_ratings_by_hand() -> None:
    """Scored by length."""
    rows = [
        *rated(0, ("a" * 5, 4.0), ("b" * 6, 4.0), ("c", 1.0)),  # 5 and 6 above 1, and near one another
        *rated(1, ("a" * 4, 4.0), ("b" * 9, 4.0), ("c" * 3, 2.0), ("d", 1.0)),  # above, but 5 apart with a gap of 1
        *rated(2, ("a" * 2, 4.0), ("b" * 9, 4.0), ("c" * 2, 1.0)),  # one is no better than the worse one
        *rated(3, ("a" * 4, 4.0), ("b" * 2, 4.0), ("c" * 2 + "!", 4.0)),  # none is worse
        *rated(4, ("a" * 4, 4.0), ("b" * 2, 3.0), ("c" * 3, 3.0)),  # one is best
        row(5, "chosen", "rejected"),
    ]
    found = reward_report(length, rows, None)
    assert found["equal_sets"] == 3 and found["equal_above"] == 2 / 3 and found["equal_alike"] == 1 / 3
    assert found["equal_above_ci95"] == pytest.approx(wilson(2 / 3, 3))
    assert found["equal_chance"] == pytest.approx((1 / 3 + 1 / 6 + 1 / 3) / 3)
    shuffled = reward_report(length, rows[::-1], None)
    assert shuffled["equal_above"] == found["equal_above"], "no order of rows matters"
    judge = Judge()
    assert "equal_sets" not in reward_report(judge, rows, None) and judge.questions == 2, "the pair alone"
    in_respect = [
        Row(r.id, r.prompt, reply=r.reply, rating=5.0, attributes={"tone": r.rating or 0.0}) for r in rows if r.rating
    ]
    assert reward_report(length, [*in_respect, rows[-1]], None, "tone")["equal_above"] == 2 / 3


def test_equally_good_replies_by_the_truth_by_hand() -> None:
    """The truth is the number of a's; the worse ones are replies that were chosen for the next two prompts."""
    rows = [row(0, "aaaa", "aaaab"), row(1, "ab", "aa"), row(2, "bb", "aab"), row(3, "aab", "aa")]

    def truth(prompts: object, texts: list[str]) -> list[dict[str, float]]:
        return [{"gold": float(text.count("a"))} for text in texts]

    found = reward_report(length, rows, truth)
    # 0: 4 and 5 above 2 (ab, bb); 1 and 2: not equal; 3: 3 and 2, beside aaaa, which is better, and ab: 2
    assert found["equal_sets"] == 2 and found["equal_above"] == 0.5 and found["equal_alike"] == 0.5
    assert found["equal_chance"] == pytest.approx((1 / 6 + 1 / 3) / 2)


def test_how_right_the_reward_is_on_policies_own_replies_by_hand() -> None:
    gold = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 1.0], [3.0, 0.0, 1.0]])
    proxy = np.array([[1.0, 5.0, 0.0], [1.0, 4.0, 2.0], [0.0, 4.0, 2.0]])
    start = {"gold": np.array([[0.0] * 3, [2.0] * 3, [4.0] * 3]), "proxy": np.array([[0.5] * 3, [9.0] * 3, [1.0] * 3])}
    found = reward_on_policies({"start": start, "ppo": {"gold": gold, "proxy": proxy}, "failed": {}}, None)
    # prompt 0: seeds 0-1 a tie of scores, 0-2 wrong, 1-2 wrong; 1: 0-1 a tie in gold, 0-2 right, 1-2 a tie of scores;
    # 2: 0-1 wrong, 0-2 wrong, 1-2 a tie in gold
    right, prompts = [0.5, 0, 0, 1, 0.5, 0, 0], [0, 0, 0, 1, 1, 2, 2]
    own = found["ppo"]["own"]
    assert own["accuracy"] == pytest.approx(2 / 7) and own["pairs"] == 7
    assert own["ci95"] == pytest.approx(clustered_wilson(right, prompts))
    # against the start, gold 1 2 3 | 0 0 -1 | -1 -4 -3, proxy .5 4.5 -.5 | -8 -5 -7 | -1 3 1
    assert found["ppo"]["against_start"]["accuracy"] == pytest.approx((1 + 1 + 0 + 1 + 1 + 0 + 0) / 7)
    assert found["start"]["own"]["pairs"] == 9 and "failed" not in found
    grouped = reward_on_policies({"ppo": {"gold": gold, "proxy": proxy}}, np.array([0, 0, 1]))
    assert grouped["ppo"]["own"]["ci95"] == pytest.approx(clustered_wilson(right, [0, 0, 0, 0, 0, 1, 1]))
    assert reward_on_policies({"ppo": {"gold": gold[:1], "proxy": proxy[:1]}}, None) == {}, "one seed, and no start"


def test_the_report_has_it_in_a_table_and_where_it_is_worse_in_a_sentence(tmp_path) -> None:
    results = made(tmp_path)
    numbers = {"accuracy": 0.55, "ci95": [0.5, 0.6], "pairs": 90}
    results.reward |= {"best_of_four": 0.6, "best_of_four_ci95": [0.5, 0.7], "best_of_four_prompts": 128}
    results.reward["on_policies"] = {"dpo": {"own": numbers, "against_start": {**numbers, "pairs": 80}}}
    results.reward |= {"equal_above": 0.5, "equal_above_ci95": [0.3, 0.7], "equal_chance": 1 / 6, "equal_sets": 30}
    results.reward |= {"equal_alike": 0.2, "equal_alike_ci95": [0.1, 0.4]}
    headings, rows = reward_cells(results.reward, ["dpo", "start"])
    assert headings == ["what is compared", "right [95%]", "of how many"]
    assert rows == [
        ["held-out pairs", "0.75 [0.70, 0.80]", "600"],
        ["best of four (chance 0.25)", "0.60 [0.50, 0.70]", "128"],
        ["all equally good above all worse (chance 0.17)", "0.50 [0.30, 0.70]", "30"],
        ["and nearer to one another than to the worse", "0.20 [0.10, 0.40]", "30"],
        ["two replies of dpo", "0.55 [0.50, 0.60]", "90"],
        ["a reply of dpo and the start's", "0.55 [0.50, 0.60]", "80"],
    ]
    told = "On two replies of the same policy it is right less often: dpo (0.55)."
    assert any(told in line for line in facts(results))
    results.reward["on_policies"]["dpo"]["own"]["ci95"] = [0.5, 0.71]
    assert not any("right less often" in line for line in facts(results))


def test_a_comparison_has_it(small_run) -> None:
    results, out = small_run
    found = results.reward["on_policies"]
    assert set(found) == set(results.algorithms) and {"own", "against_start"} <= found["dpo"].keys()
    assert 0 < results.reward["best_of_four"] < 1 and "## The reward" in (out / "report.md").read_text()
