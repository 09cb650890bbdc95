"""`prefzoo power`: of whom its chances are, what no number of prompts can give, and whose recipe the pilot was."""

from __future__ import annotations

import numpy as np
import pytest

from prefzoo.commands import power_analysis
from prefzoo.commands.power_analysis import ENDLESS, PROMPTS, SEEDS, PowerAnalysis, analyze_power, recipe_differences
from prefzoo.errors import PrefzooError
from prefzoo.results.statistics import Design


def power(few: list[float], many: list[float]) -> dict[Design, float]:
    """The chances at each number of prompts, the last one of endlessly many: below 15 seeds, and from 15 on."""
    sizes = (*PROMPTS, ENDLESS)
    return {Design(s, n): c for s in SEEDS for n, c in zip(sizes, few if s < 15 else many, strict=True)}


def test_where_no_number_of_prompts_is_enough_that_is_said_and_chances_are_of_the_hardest() -> None:
    seedy = power([0.5, 0.6, 0.7, 0.799, 0.79, 0.79, 0.79], [0.9] * 7)
    noisy = power([0.1, 0.2, 0.3, 0.4, 0.75, 0.75, 0.85], [0.3, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95])
    found = PowerAnalysis("gold", 0.5, Design(2, 16), 2, {"seedy": seedy, "noisy": noisy}, [])
    fewest, chance = ([list(column.cells) for column in table.columns] for table in found.tables())
    assert (fewest[1][0], fewest[2][0]) == ("at most 79%", "over 2048")
    assert (fewest[1][-1], fewest[2][-1]) == ("64", "128")
    assert [column[0] for column in chance[1:]] == ["10%", "20%", "30%", "40%", "75%", "75%"]
    assert [column[-1] for column in chance[1:3]] == ["30%", "90%"]
    assert '"at most"' in found.sentences()[1]
    enough = PowerAnalysis("gold", 0.5, Design(2, 16), 1, {"noisy": noisy}, [])
    assert len(enough.sentences()) == 1


@pytest.mark.parametrize("difference", [0.0, -1.0, float("nan"), float("inf")])
def test_a_difference_that_is_no_number_above_0_is_refused(small_run, difference) -> None:
    with pytest.raises(PrefzooError, match=r"--difference .*above 0"):
        analyze_power(small_run[1], difference)


def test_the_hardest_comes_first_and_what_does_not_vary_is_left_out(small_run, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 64))
    gold = {
        "start": start,
        "dpo": start + rng.normal(0, 0.1, (3, 64)),
        "rejection_sampling": start + rng.normal(0, 1, (3, 64)),
        "random_choice": start,
    }
    monkeypatch.setattr(power_analysis, "load_tables", lambda each, folder: {"gold": gold.pop(next(iter(gold)))})
    run = power_analysis.load(small_run[1])
    run.algorithms = dict(zip(gold, [run.algorithms["start"]] * 4, strict=True))
    monkeypatch.setattr(power_analysis, "load", lambda folder: run)
    found = analyze_power(small_run[1], 0.2)
    assert list(found.power) == ["rejection_sampling", "dpo"] and found.family == 3
    assert found.unvaried == ["random_choice"]
    assert found.sentences()[-1] == "Not in the tables: random_choice, of which nothing varied."


def test_a_pilot_of_another_recipe_is_told_and_one_of_another_size_is_not(small_run, tmp_path) -> None:
    out = small_run[1]
    (said,) = recipe_differences(out, "quickstart")
    assert "budget.prompts: 600 and 48" in said and "evaluation.prompts" not in said
    as_it_ran = tmp_path / "recipe.yaml"
    text = (out / "recipe.resolved.yaml").read_text()
    as_it_ran.write_text(text)
    assert recipe_differences(out, str(as_it_ran)) == []
    as_it_ran.write_text(text.replace("algorithms:\n", "algorithms:\n  strong: {algorithm: dpo, beta: 0.3}\n"))
    (said,) = recipe_differences(out, str(as_it_ran))
    assert said.endswith("(there the second of two values): without strong.")
    assert "cannot be read" in recipe_differences(out, "quickstrat")[0]
