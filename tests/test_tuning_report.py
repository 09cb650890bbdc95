"""What is read of a search for settings: the numbers that follow from it, and what a report says of them."""

from __future__ import annotations

import io
import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from prefzoo.cli.options import show
from prefzoo.recipe.check_recipe import load as load_recipe
from prefzoo.recipe.tuning_space import tuned as compared
from prefzoo.report import report_files
from prefzoo.report.figures import drawn_labels
from prefzoo.report.render_pages import render_html, render_markdown
from prefzoo.report.sections import tables
from prefzoo.report.tuning_figures import tuning_pictures
from prefzoo.report.tuning_section import expected_cells, order_sentence, tuning_lines
from prefzoo.results.caveats import notes
from prefzoo.results.collect import damaged_bookkeeping
from prefzoo.results.results_file import load, save
from prefzoo.results.results_schema import Results, Verdict
from prefzoo.results.tuning_results import (
    budget_curves,
    expected_best,
    expected_best_of_trials,
    explained,
    found_tuning,
    order_changes,
    paired_verdict,
    read_tuning,
)
from prefzoo.results.tuning_schema import Tuning
from prefzoo.run.executor import Outcome
from prefzoo.run.label_search import Measured
from prefzoo.run.tuning_record import save as save_search
from prefzoo.run.tuning_search import Search
from reported import made, searched

SCORES: dict[str, list[float | None]] = {"dpo": [-0.5, 0.25, None, 1.0], "rejection_sampling": [0.5, 0.25, 0.0, 0.5]}


def verdict(a: str, b: str, difference: float, name: Any, metric: str = "gold") -> Verdict:
    ends = (difference - 0.5, difference + 0.25)
    return Verdict(metric=metric, a=a, b=b, difference=difference, ci95=ends, p_adjusted=0.01, verdict=name)


def tuned(out: Path, scores: dict[str, list[float | None]] | None = None, **more: Any) -> Results:
    """Results of a search whose `dpo` won over `dpo-untuned`, and whose `rejection_sampling` is as written."""
    results = made(out)
    results.algorithms["dpo-untuned"] = results.algorithms["rejection_sampling"].model_copy(update={"algorithm": "dpo"})
    results.verdicts += [
        verdict("dpo-untuned", "start", 0.5, "inconclusive"),
        verdict("dpo-untuned", "dpo", -1.0, "worse"),
    ]
    results.tuning = explained(Tuning.model_validate(searched(scores or SCORES, **more)), results.verdicts, "gold")
    return results


def test_expected_best_by_hand() -> None:
    # two draws of (1, 2, 6): the highest is 1 once, 2 three times and 6 five times of nine; three: 1, 7 and 19 of 27
    assert expected_best([6.0, 1.0, 2.0]) == pytest.approx([3.0, 37 / 9, (1 + 14 + 114) / 27])
    assert expected_best([4.0]) == [4.0] and expected_best([]) == []


def test_expected_best_is_the_mean_of_searches_that_draw_at_random() -> None:
    scores = [0.3, -1.0, 2.5, 0.9, None, 1.1]
    trials = Tuning.model_validate(searched({"dpo": scores})).labels["dpo"].trials
    curve = expected_best_of_trials(trials)
    assert len(curve) == len(scores)
    draw, others = random.Random(0), [score if score is not None else -9.0 for score in scores[1:]]
    for n in range(1, len(scores) + 1):
        found = [max([scores[0], *draw.choices(others, k=n - 1)]) for _ in range(20_000)]
        assert curve[n - 1] == pytest.approx(np.mean(found), abs=4 * np.std(found) / 20_000**0.5 + 1e-9)
    assert curve[0] == scores[0] and all(a <= b for a, b in itertools.pairwise(curve))


def test_where_the_settings_as_written_failed_the_lowest_score_stands_for_them() -> None:
    trials = Tuning.model_validate(searched({"dpo": [None, 1.0, 0.0], "ppo": [None, None]})).labels
    assert expected_best_of_trials(trials["dpo"].trials) == pytest.approx([0.0, 0.5, 0.75])
    assert expected_best_of_trials(trials["ppo"].trials) == []


def curves(**scores: list[float]) -> dict[str, list[tuple[float, float]]]:
    return {label: [(float(n), score) for n, score in enumerate(values, 1)] for label, values in scores.items()}


def test_order_changes_where_curves_cross_and_not_where_they_touch() -> None:
    search = Tuning.model_validate(searched({"a": [0.0]}))
    assert order_changes(curves(a=[1, 2, 3], b=[0, 2, 4], c=[5, 5])) == [(3.0, "b", "a")]
    assert order_sentence(curves(a=[1, 2, 3], b=[0, 2, 4]), search).endswith("all trials: b passes a at 3 trials.")
    assert order_sentence(curves(a=[1, 2], b=[0, 1]), search).endswith("with the settings as written: a, b.")
    headings, rows = expected_cells(curves(a=[1, 2, 3, 4, 5, 6], b=[0, 1]), search)
    assert headings == ["policy", "1 trial", "2 trials", "4 trials", "6 trials"]
    assert rows == [["a", "1.00", "2.00", "4.00", "6.00"], ["b", "0.00", "1.00", "1.00", "1.00"]]
    assert expected_cells(curves(a=[1.0]), search) == (["policy", "1 trial"], [["a", "1.00"]])


def test_with_equal_flops_the_order_is_that_for_the_same_flops(tmp_path) -> None:
    search = searched({"dpo": [0.0, 1.0], "sft": [0.25, 0.25, 0.5, 0.75]}, equal="flops", trials=2, allowance=8e9)
    search["labels"]["dpo"]["spent"]["flops"], search["labels"]["sft"]["spent"]["flops"] = 8e9, 8e9
    tuning = explained(Tuning.model_validate(search), [], "gold")
    found = budget_curves(tuning)
    assert found["dpo"] == [(4e9, 0.0), (8e9, 1.0)] and [cost for cost, _ in found["sft"]] == [2e9, 4e9, 6e9, 8e9]
    headings, rows = expected_cells(found, tuning)
    assert headings == ["policy", "4.0 G FLOPs", "8.0 G FLOPs"]
    assert rows[0] == ["dpo", "0.00", "1.00"] and rows[1][1] == "0.50", "the mean of 0.25, 0.5 and 0.75"
    assert order_changes(found) == [(8e9, "dpo", "sft")]
    assert "dpo passes sft at 8.0 G FLOPs" in order_sentence(found, tuning)
    results = made(tmp_path)
    results.tuning = tuning
    text = render_markdown(report_files.all_sections(results, tmp_path, {}))
    assert "dpo, sft were each given the FLOPs of 2 trials of the dearest label (8.0 G; tpe), the first" in text
    assert "FLOPs of trials" in tuning_pictures(results)[0].svg


def test_a_pair_is_read_in_either_direction() -> None:
    found = paired_verdict("dpo", "dpo-untuned", [verdict("dpo-untuned", "dpo", -1.0, "worse")], "gold")
    assert found is not None
    assert (found.a, found.difference, found.ci95, found.verdict) == ("dpo", 1.0, (0.75, 1.5), "better")
    assert paired_verdict("dpo", None, [verdict("dpo", "start", 1.0, "better")], "gold") is None


def test_the_report_says_what_was_searched_what_it_changed_and_what_it_cost(tmp_path) -> None:
    results = tuned(tmp_path)
    assert results.tuning is not None
    (changed,) = results.tuning.changed_verdicts
    assert (changed.label, changed.untuned, changed.tuned) == ("dpo", "inconclusive", "better")
    text = render_markdown(report_files.all_sections(results, tmp_path, {}))
    assert text.startswith("# dpo and rejection_sampling, tuned and as written, against the start")
    assert "tuning changed 1 of 1 verdicts: dpo (inconclusive as written, better tuned)." in text
    row = "| dpo | better | +1.00 [+0.75, +1.50] | 0.50 ±0.25 | 1.50 ±0.25 | inconclusive → better"
    assert f"{row} | -0.50 ±0.20 | 1.00 ±0.20 | beta 0.1 → 0.8, trainer.learning_rate 0.001 → 0.00025 |" in text
    assert (
        "| rejection_sampling | the same | - | 0.50 ±0.25 | 0.50 ±0.25 | inconclusive | 0.50 ±0.20 | 0.50 ±0.20 |"
        in text
    )
    curve = results.tuning.labels["dpo"].expected_best
    assert f"| dpo | {curve[0]:.2f} | {curve[1]:.2f} | {curve[3]:.2f} |" in text
    assert "| dpo | 4 | 0 | 1 | 4.0 G | 8.0 | 400 | 1.3 |" in text, (
        "four trials of 1 G beside trainings of 3 G in the mean"
    )
    assert "| all | 8 | 0 | 1 | 8.0 G | 16.0 | 800 |  |" in text
    assert "| 2 | - | 0.4 | 0.000333 | - | - | 2.0 | failed: loss is nan |" in text
    assert "| beta | 0.05 to 2 (log) | 0.8 | Rafailov et al. 2023 |" in text
    for words in ("winner's curse", "Verdicts are by the test prompts", "approximation", "best_of_n (it has nothing"):
        assert words in text
    sections = report_files.all_sections(results, tmp_path, {})
    keys = {table.key for section in sections for table in tables(section.parts)}
    assert {"tuning", "expected best", "tuning cost", "trials of dpo"} <= keys, "they are logged to W&B"
    page = render_html(sections)
    assert '<h2 id="tuning">Tuning</h2>' in page and '<td class="better">better</td>' in page


def test_pictures_of_a_search_have_its_numbers_in_words_and_the_colours_of_the_others(tmp_path) -> None:
    results = tuned(tmp_path)
    found = {each.name: each for each in tuning_pictures(results)}
    assert list(found) == ["expected_best", "tuning_dpo", "tuning_rejection_sampling"]
    assert found["expected_best"].text.startswith("dpo -0.50 with 1 trial, ")
    assert "beta 0.4, trainer.learning_rate 0.000333: failed" in found["tuning_dpo"].text
    from prefzoo.report.axes import style_of

    colours = {label: style_of(label, drawn_labels(results))["color"] for label in SCORES}
    shades = {"C0": "#1f77b4", "C1": "#ff7f0e", "C2": "#2ca02c"}
    for label, colour in colours.items():
        assert shades[colour] in found["expected_best"].svg and shades[colour] in found[f"tuning_{label}"].svg
    save(results, tmp_path)
    assert load(tmp_path) == results


@pytest.mark.parametrize(
    ("scores", "more", "kind", "labels", "words"),
    [
        ({"dpo": [None, None], "ppo": [0.0, 1.0]}, {}, "all_failed", ["dpo"], "dpo 2 of 2 (first: loss is nan)"),
        ({"dpo": [0.0, None]}, {}, "failed", ["dpo"], "dpo 1 of 2"),
        ({"dpo": [1.0, 0.5]}, {}, "kept", ["dpo"], "as written, which are kept: dpo"),
        ({"dpo": [0.0] * 4 + [1.0]}, {}, "edge", ["dpo"], "dpo beta 1.6 of 0.05 to 1.8. Better"),
        ({"dpo": [0.0] * 9 + [1.0]}, {"metric": "reward"}, "far_out", ["dpo"], "dpo (10.5)"),
        ({"dpo": [0.0, 1.0]}, {"metric": "reward"}, "reward", [], "less 0.05 of each nat of KL"),
        ({"dpo": [0.0, 1.0]}, {"finished": False}, "unfinished", [], "did not come to its end"),
    ],
)  # fmt: skip
def test_what_to_beware_of_is_said(scores, more, kind: str, labels: list[str], words: str) -> None:
    search = searched(scores, **more)
    search["labels"]["dpo"]["space"]["beta"]["high"] = 1.8  # 1.6 is 97% of the way from 0.05, in logarithms
    found = explained(Tuning.model_validate(search), [], "gold").notes
    (note,) = [each for each in found if each.kind == kind]
    assert note.labels == labels and words in note.text


def test_a_quiet_search_has_no_warnings() -> None:
    search = Tuning.model_validate(searched({"dpo": [0.0, 1.0, 0.5]}))
    assert explained(search, [], "gold").notes == []


def test_a_search_of_which_every_trial_failed_is_still_reported(tmp_path) -> None:
    results = tuned(tmp_path, {"dpo": [None, None]})
    assert [each.name for each in tuning_pictures(results)] == []
    text = render_markdown(report_files.all_sections(results, tmp_path, {}))
    assert "All tuning trials failed" in text and "| dpo | the same | - |" in text


def test_what_the_search_found_must_be_what_was_compared(tmp_path) -> None:
    results = made(tmp_path)
    written = load_recipe({"algorithms": {"dpo": {}, "sft": {}}}, ["tuning={}"])
    recipe = compared(written, {"dpo": {"beta": 0.8}})
    search = searched({"dpo": [0.0, 1.0]})
    assert found_tuning(recipe, tmp_path) is None
    for winner, known in (({"beta": 0.8}, True), ({"beta": 0.4}, False), (None, True)):
        search["labels"]["dpo"]["winner"] = winner
        (tmp_path / "tuning.json").write_text(json.dumps(search))
        assert (found_tuning(recipe, tmp_path) is not None) == known
        assert found_tuning(written, tmp_path) is not None, "the search alone is reported too"
        assert found_tuning(recipe.model_copy(update={"tuning": None}), tmp_path) is None
    (tmp_path / "tuning.json").write_text('{"objective": {"metric": "luck"}}')
    with pytest.raises(Exception, match=r"tuning.json: objective.metric: .*compare again"):
        read_tuning(tmp_path)
    assert "tuning.json" in damaged_bookkeeping(tmp_path)[0] and found_tuning(recipe, tmp_path) is None
    assert "Tuning" not in render_html(report_files.all_sections(results, tmp_path, {}))


def test_the_terminal_has_a_line_for_each_label(tmp_path) -> None:
    results, shown = tuned(tmp_path), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prefzoo.cli.options.Console", lambda **more: Console(file=shown, width=220))
        show(results, Path("runs/x"))
    text = shown.getvalue()
    assert "~ dpo: beta 0.1 → 0.8, trainer.learning_rate 0.001 → 0.00025; test gold 0.50 ±0.25 → 1.50 ±0.25" in text
    assert "~ rejection_sampling: as written" in text and text.index("~ dpo") < text.index("over start")
    results.verdicts = []
    told = "dpo: beta 0.1 → 0.8, .*; validation gold -0.50 ±0.20 → 1.00 ±0.20, not compared on test prompts"
    assert any(re.fullmatch(told, line) for line in tuning_lines(results)), "as after a search alone"
    assert "(dpo-untuned: as written). Against the start, tuning changed 1 of 1 verdicts: dpo" in text


def test_what_was_searched_for_each_label_is_no_argument_that_only_one_had(tmp_path) -> None:
    results = tuned(tmp_path)
    results.algorithms["dpo"].differs = {"learning_rate": 0.5, "max_grad_norm": 2.0}
    parts = (load_recipe("quickstart"), results.algorithms, results.reward, results.manifest)
    (told,) = [note for note in notes(*parts, results.tuning) if note.startswith("Trained with arguments of their own")]
    assert told.endswith(": dpo (max_grad_norm 2).")
    assert any("dpo (learning_rate 0.5, max_grad_norm 2)" in note for note in notes(*parts))


def test_what_a_search_records_is_read(tmp_path, monkeypatch) -> None:
    recipe = load_recipe("quickstart", ["tuning.trials=2"], ["dpo", "sft", "best_of_n"])
    search = Search(recipe, tmp_path)
    save_search(search)
    assert read_tuning(tmp_path) is not None, "before the first trial has ended, too"
    scores = {"dpo": iter([0.0, 1.0]), "sft": iter([0.5, None])}
    measured = {"kl": 1.0, "length": 9.0, "ledger": {"flops": 2.0}, "measuring": {}}
    monkeypatch.setattr(search, "_measured", lambda stage: Measured([score] * 2, **measured))
    stages = [stage for stage in search.plan.stages.values() if stage.kind == "tune" and stage.label != "start"]
    for stage in stages:  # which grow by what these bring
        score = next(scores[str(stage.label)])
        outcome = Outcome("ok") if score is not None else Outcome("failed", "out of memory")
        stages += search.ended(stage, outcome)[0]
    search.finished = True
    save_search(search)
    found = found_tuning(compared(recipe, search.winners()), tmp_path)
    assert found is not None and found.not_tuned == {"best_of_n": "it has nothing to tune"}
    dpo, sft = found.labels["dpo"], found.labels["sft"]
    assert [trial.score for trial in dpo.trials] == [0.0, 1.0]
    assert (dpo.best, dpo.untuned, dpo.spent["flops"]) == (1, "dpo-untuned", 4.0)
    assert [(trial.state, trial.error) for trial in sft.trials] == [("complete", None), ("failed", "out of memory")]
    assert (sft.best, sft.untuned) == (0, None)
    assert {"failed", "kept"} <= {note.kind for note in explained(found, [], "gold").notes}
