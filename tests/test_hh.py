"""The main job on real input: human pairs with empty and repeated rows."""

from __future__ import annotations

import pytest

import prefzoo
from conftest import HH_FILE
from prefzoo.report.verdict_section import facts

pytestmark = pytest.mark.skipif(not HH_FILE.is_file(), reason="the HH-RLHF sample is not beside this checkout")


@pytest.mark.long
def test_real_pairs_go_the_whole_way_in_small(tmp_path) -> None:
    sets = [f"data.preferences={HH_FILE}", "budget.prompts=32", "evaluation.prompts=8", "generation.max_new_tokens=16"]
    found = prefzoo.compare("hh_harmless", seeds=1, sets=sets, out=tmp_path)
    assert {each.status for each in found.algorithms.values()} == {"ok"}
    text = "\n".join(facts(found))
    assert f"empty reply: 4 ({HH_FILE.name} line" in text
    assert "Repeated prompts" in text and "1500 records read = 1499 used + 1 dropped" in text
    assert found.preflight["read"] == 1500
    assert found.preflight["kept"] + sum(found.preflight["dropped"].values()) == 1500
    assert found.primary == "proxy" and "gold" not in found.algorithms["dpo"].summary


@pytest.mark.learning
@pytest.mark.timeout(3600)
def test_the_reward_model_is_above_chance_on_real_pairs(tmp_path) -> None:
    found = prefzoo.compare("hh_harmless", ["dpo"], seeds=1, sets=[f"data.preferences={HH_FILE}"], out=tmp_path)
    assert found.reward["test_accuracy"] > 0.5 < found.reward["ci95"][0]
