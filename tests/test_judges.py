"""Judges: which side a verdict belongs to, in both orders; position bias; the lab model against gold."""

from __future__ import annotations

import json

import pytest

from prefzoo import compare, lab
from prefzoo.judges.build_judge import RandomJudge, gold_judge
from prefzoo.judges.judge import Judge
from prefzoo.judges.local_judge import local_judge
from prefzoo.lab import MODEL_DIR, tasks
from prefzoo.models import next_token

LOADING = {"dtype": "float32", "trust_remote_code": False, "quantization": None}


@pytest.fixture(scope="module")
def pairs():
    """Prompts with two replies of different gold, the better one first in every other pair."""
    rows = lab.preferences("test", 200, 11)
    kept = []
    for row in rows:
        a, b = row["chosen"], row["rejected"]
        if len(kept) % 2:
            a, b = b, a
        if lab.gold(row["prompt"], a) != lab.gold(row["prompt"], b):
            kept.append(([{"role": "user", "content": row["prompt"]}], a, b))
    prompts, first, second = zip(*kept, strict=True)
    better = [lab.gold(p[0]["content"], a) > lab.gold(p[0]["content"], b) for p, a, b in kept]
    assert 20 < sum(better) < len(better) - 20, "both answers must occur"
    return prompts, first, second, better


def truth(prompts, completions):
    return [{"gold": lab.gold(p[-1]["content"], c)} for p, c in zip(prompts, completions, strict=True)]


def test_an_oracle_agrees_with_gold_in_every_pair(pairs) -> None:
    prompts, first, second, better = pairs
    judge = gold_judge(truth)
    assert [p > 0.5 for p in judge(prompts, first, second)] == better
    assert [p < 0.5 for p in judge(prompts, second, first)] == better
    asked = judge.report()
    assert asked["inconsistent"] == asked["ties"] == 0
    assert asked["first_preferred"] * 2 == asked["questions"] == 4 * len(better)


def test_one_that_always_says_a_gives_only_ties(pairs) -> None:
    prompts, first, second, _ = pairs
    judge = Judge(lambda p, x, y, q: [0.9] * len(p))
    assert set(judge(prompts, first, second)) == {0.5}
    asked = judge.report()
    assert asked["ties"] == asked["inconsistent"] == asked["pairs"] == len(prompts)
    assert asked["first_preferred"] == asked["questions"] == 2 * len(prompts)


def test_a_tie_in_each_order_is_no_disagreement(pairs) -> None:
    prompts, first, second, _ = pairs
    judge = Judge(lambda p, x, y, q: [0.5] * len(p))
    judge(prompts, first, second)
    asked = judge.report()
    assert asked["ties"] == asked["pairs"] == asked["first_preferred"] and asked["inconsistent"] == 0


def test_probabilities_of_the_two_orders_by_hand() -> None:
    """0.9 for x before y, 0.4 for y before x: P(x better) = (0.9 + 0.6) / 2 = 0.75."""
    judge = Judge(lambda p, x, y, q: [0.9 if a == "x" else 0.4 for a in x])
    assert judge([[]], ["x"], ["y"]) == [pytest.approx(0.75)]
    assert judge([[]], ["y"], ["x"]) == [pytest.approx(0.25)]


def test_the_lab_model_judges_as_gold_does_and_is_asked_as_it_was_taught(pairs, monkeypatch) -> None:
    prompts, first, second, better = pairs
    asked = []

    def noted(policy, prompts, *rest):
        asked.extend(prompt[-1]["content"] for prompt in prompts)
        return next_token.next_token(policy, prompts, *rest)

    judge = local_judge(str(MODEL_DIR), True, LOADING)
    monkeypatch.setattr("prefzoo.judges.local_judge.next_token", noted)
    verdicts = judge(prompts, first, second)
    assert tasks.judge_prompt(prompts[0][0]["content"], first[0], second[0]) in asked
    assert tasks.judge_prompt(prompts[0][0]["content"], second[0], first[0]) in asked
    agreement = sum((p > 0.5) == truly for p, truly in zip(verdicts, better, strict=True)) / len(better)
    assert agreement > 0.85
    chance = [p > 0.5 for p in RandomJudge(0)(prompts, first, second)]
    assert 0.35 < sum(c == truly for c, truly in zip(chance, better, strict=True)) / len(better) < 0.65


def test_a_judge_makes_the_pairs_of_a_comparison(tmp_path) -> None:
    rows = lab.preferences("train", 64, 3)
    (tmp_path / "prompts.txt").write_text("\n".join(row["prompt"] for row in rows))
    recipe = {
        "data": {"prompts": str(tmp_path / "prompts.txt"), "label_with": "judge"},
        "generation": {"max_new_tokens": 24},
        "evaluation": {"prompts": 8},
        "reward": {"type": "random"},
        "algorithms": {"dpo": {}},
    }
    found = compare(recipe, seeds=1, out=tmp_path / "out")
    assert found.algorithms["dpo"].status == "ok"
    made = sum(part["pairs"] for part in found.preflight["labels"]["splits"].values())
    assert 10 < made <= found.judge["pairs"] and found.judge["questions"] == 2 * found.judge["pairs"]
    assert found.judge["type"] == "local" and json.loads((tmp_path / "out" / "results.json").read_text())["judge"]
    audit = found.judge["audits"]["judge"]
    assert audit["truth"] is None and audit["agreement"] is None, "its own labels say nothing of how good it is"
    assert 1 < audit["questions"] == 2 * found.preflight["labels"]["splits"]["test"]["pairs"]
    assert any("is not known" in note for note in found.notes)
    page, text = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    assert '<h2 id="judge">The judge</h2>' in page and "prefers the reply shown first" in page
    assert "## The judge" in text and "agrees with itself in the other order" in text
