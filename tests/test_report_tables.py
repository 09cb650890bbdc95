"""Tables of a report, from results made by hand: every cell."""

from __future__ import annotations

from prefzoo.report.algorithm_details import detail_cells, details_section, single_reply_steps
from prefzoo.report.breakdown import heat_maps, length_cells
from prefzoo.report.cost import budget_legend, budget_tables, cost_cells, cost_legend
from prefzoo.report.pairs import difference_cells, pairs_section, rating_cells, win_matrix
from prefzoo.report.render_pages import render_markdown
from prefzoo.report.sections import Text
from prefzoo.results.results_schema import EqualBudget, LengthAdjusted, Pair, Summary
from prefzoo.run.executor import add_worker_count, read_worker_counts
from reported import made


def test_cost_is_the_mean_of_the_trials_and_leaves_out_what_nothing_used(tmp_path) -> None:
    results = made(tmp_path)
    for seed, seconds in (("0", 2.0), ("1", 3.0)):
        results.algorithms["dpo"].seeds[seed].training = {"seconds": seconds}
    headings, rows = cost_cells(results)
    assert headings == ["policy", "trained tokens", "sampled in training", "sampled to answer", "reward calls", "FLOPs",
                        "seconds to train", "seconds to answer", "peak memory"]  # fmt: skip
    assert rows == [
        ["start", "0", "0", "10", "0", "0", "0.0", "1.0", "0.00 GiB"],
        ["dpo", "2,000", "0", "20", "0", "3.0 G", "2.5", "1.5", "1.00 GiB"],
        ["rejection_sampling", "0", "100", "10", "24", "0", "0.0", "2.0", "0.00 GiB"],
        ["start, made once", "500", "0", "0", "0", "0", "9.0", "0.0", "0.00 GiB"],
    ]
    assert "of stages that may have run side by side on one machine" in cost_legend(results)
    results.workers = [4, 2]
    assert "of stages that ran 4, then 2 at a time on one machine" in cost_legend(results)


def test_what_an_algorithm_reports_is_a_row_for_each_fact_and_a_column_for_each_seed(tmp_path) -> None:
    results = made(tmp_path)
    assert detail_cells(results) == {
        "dpo": (
            ["fact", "seed 0", "seed 1"],
            [["rounds.1.kept", "3", "4"], ["rounds.1.share", "0.3333", "0.3333"], ["note", "x|y", "x|y"]],
        )
    }
    results.algorithms["dpo"].seeds["1"].details = {"round": list(range(100))}
    _, rows = detail_cells(results)["dpo"]
    assert rows[0] == ["rounds.1.kept", "3", "-"] and rows[3] == ["round.1", "-", "0"]
    assert rows[-1] == ["43 more in results.json", "", ""] and len(rows) == 61


def test_a_step_of_single_replies_is_said_in_words(tmp_path) -> None:
    results = made(tmp_path)
    assert single_reply_steps(results) == []
    weights = {"weight_of_liked": 1.0, "weight_of_not_liked": 2.5}
    facts = {"liked": 50, "not_liked": 20, **weights, "replies_a_step": 16}
    results.algorithms["dpo"].seeds["0"].details = {"unpaired": facts}
    assert single_reply_steps(results) == [
        "An optimizer step of dpo took 16 single replies, as many sequences as a step of 8 pairs. It learned from 50 "
        "replies that were liked, each with weight 1, and 20 others, each with weight 2.5."
    ]
    assert details_section(results).parts[0] == Text(single_reply_steps(results)[0])


def test_equal_budgets_are_a_table_that_says_who_is_not_in_it(tmp_path) -> None:
    results = made(tmp_path)
    assert budget_tables(results, ["dpo", "start"]) == {}
    measured = {"dpo": Summary(mean=0.8, ci95=(0.0, 1.0)), "ppo": Summary(mean=0.25, ci95=None)}
    over = {"dpo": Summary(mean=0.5, ci95=(0.4, 0.6)), "ppo": Summary(mean=-0.05, ci95=None)}
    reached = {"dpo": ["final", "final"], "ppo": ["start", "start"]}
    missing = {"best_of_n": "no policy was kept on its way"}
    one, other = {"budget": 1500, "missing": missing}, {"budget": 2e9, "missing": {**missing, "dpo": "none"}}
    results.equal_budgets = [
        EqualBudget(axis="prompts", policies=measured, over_start=over, reached=reached, **one),
        EqualBudget(axis="prompts", policies=measured, over_start=over, budget=3000, missing=missing),
        EqualBudget(axis="flops", policies={"ppo": measured["ppo"]}, over_start={"ppo": over["ppo"]}, **other),
    ]
    assert budget_tables(results, ["ppo", "dpo", "start"]) == {
        "prompts": (
            ["policy", "1,500 prompts", "3,000 prompts"],
            [["ppo", "0.25 (start)", "0.25 (-0.05)"], ["dpo", "0.80 (+0.50 ±0.10) final", "0.80 (+0.50 ±0.10)"]],
        ),
        "FLOPs": (["policy", "2.0 G FLOPs"], [["ppo", "0.25 (-0.05)"]]),
    }
    assert budget_legend(results).endswith("Not in them: best_of_n (no policy was kept on its way); dpo (none: FLOPs).")


def test_heat_is_the_distance_from_the_start_where_one_is_clear_and_equal_length_is_told(tmp_path) -> None:
    results = made(tmp_path)
    found = {"start": (1.0, None), "dpo": (0.5, (-0.75, -0.25)), "rejection_sampling": (1.25, (0.125, 0.375))}
    for label, (value, ends) in found.items():
        each = results.algorithms[label]
        each.summary |= {"gold/courtesy": Summary(mean=value, ci95=None), "gold@odd": Summary(mean=value, ci95=None)}
        if ends is not None:
            each.over_start = {
                "gold/courtesy": Summary(mean=value - 1, ci95=ends),
                "gold@odd": Summary(mean=value - 1, ci95=(value - 2, value)),
            }
    results.slices = {"odd": 12}
    parts, slices = heat_maps(results, ["dpo", "rejection_sampling", "start"])
    rows = [
        ["dpo", "0.50 (-0.50\N{NO-BREAK SPACE}±0.25)"],
        ["rejection_sampling", "1.25 (+0.25\N{NO-BREAK SPACE}±0.12)"],
        ["start", "1.00"],
    ]
    assert parts.cells == (["policy", "courtesy"], rows) and parts.heat == [[-1.0], [0.5], [0.0]]
    assert slices.cells[0] == ["policy", "odd (12 prompts)"]
    assert slices.cells[1][0] == ["dpo", "0.50 (-0.50\N{NO-BREAK SPACE}±1.00)"]
    assert slices.heat[0] == [0.0]  # it may be chance
    results.slices, results.algorithms["dpo"].over_start = {}, {}  # as an older version left them
    _, slices = heat_maps(results, ["dpo", "start"])
    assert slices.cells == (["policy", "odd"], [["dpo", "0.50"], ["start", "1.00"]]) and slices.heat == [[0.0], [0.0]]
    assert length_cells(results) is None
    results.algorithms["dpo"].length_adjusted = LengthAdjusted(0.4, (0.1, 0.7), 0.6, (0.55, 0.65), 0.02, -0.01)
    headings, rows = length_cells(results) or ([], [])
    assert rows == [["dpo", "+0.0", "+1.50", "+0.40 [+0.10, +0.70]", "0.50", "0.60 [0.55, 0.65]", "+0.020"]]
    assert len(headings) == len(rows[0])


def test_all_pairs_by_hand(tmp_path) -> None:
    results = made(tmp_path)
    labels = ["dpo", "rejection_sampling", "start"]
    assert win_matrix(results, labels) is None is rating_cells(results, labels)
    rates = {("start", "dpo"): 0.25, ("start", "rejection_sampling"): 0.5, ("dpo", "rejection_sampling"): 0.75}
    results.pairs = [
        Pair(a=a, b=b, win_rate=Summary(mean=rate, ci95=None),
             probability_of_improvement=Summary(mean=rate, ci95=(rate - 0.25, rate + 0.125)))
        for (a, b), rate in rates.items()
    ]  # fmt: skip
    results.ratings = {label: Summary(mean=mean, ci95=None) for label, mean in (("start", 0.0), ("dpo", 1.0))}
    table = win_matrix(results, labels)
    assert table is not None and table.cells[0] == ["policy", *labels]
    assert table.cells[1] == [
        ["dpo", "", "0.75", "0.75*"],  # the star: dpo's verdict against the start is `better`
        ["rejection_sampling", "0.25", "", "0.50"],
        ["start", "0.25*", "0.50", ""],
    ]
    assert table.heat == [[0.0, 0.5, 0.5], [-0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]
    _, rows = rating_cells(results, labels) or ([], [])
    assert rows == [["dpo", "1.00", "-", "0.75 [0.62, 1.00]"], ["start", "0.00", "-", "-"]]
    results.verdicts[1] = results.verdicts[1].model_copy(update={"effect_size": 0.25, "detectable": 0.125})
    _, rows = difference_cells(results) or ([], [])
    assert rows[1] == ["rejection_sampling - start", "inconclusive", "+0.50 [-1.00, +1.00]", "0.500", "+0.25", "0.12"]
    assert "| start | 0.25* | 0.50 |  |" in render_markdown([pairs_section(results, labels)])


def test_how_many_stages_ran_at_a_time_is_kept_once_each(tmp_path) -> None:
    assert read_worker_counts(tmp_path) == []
    for workers in (4, 4, 2, 4):
        add_worker_count(tmp_path, workers)
    assert read_worker_counts(tmp_path) == [4, 2]
    (tmp_path / "workers.json").write_text("[4")
    assert read_worker_counts(tmp_path) == []
