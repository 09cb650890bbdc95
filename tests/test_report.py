"""What a person reads of a comparison: tables, words, pictures, from results made by hand."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from prefzoo.comparison.analysis import Pair
from prefzoo.comparison.budgets import EqualBudget
from prefzoo.comparison.hacking import Sign
from prefzoo.comparison.length import LengthAdjusted
from prefzoo.comparison.notes import notes
from prefzoo.comparison.recipe.check import load
from prefzoo.comparison.report import page as report
from prefzoo.comparison.report import words
from prefzoo.comparison.report.breakdown import heat_maps, length_cells
from prefzoo.comparison.report.budgets import budget_cells, budget_words
from prefzoo.comparison.report.cost import cost_cells, detail_cells
from prefzoo.comparison.report.export import write_csv
from prefzoo.comparison.report.figures import drawn, pictures
from prefzoo.comparison.report.pairs import difference_cells, matrix, rating_cells
from prefzoo.comparison.results import AlgorithmResult, Milestone, Results, SeedResult, Summary, Verdict
from prefzoo.comparison.results import load as load_results
from prefzoo.interface import Ledger

LEDGERS = {
    "start": [Ledger(generated_tokens=10, inference_tokens=10, seconds=1.0)] * 2,
    "dpo": [
        Ledger(generated_tokens=10, inference_tokens=10, trained_tokens=1000, flops=2e9, seconds=3.0),
        Ledger(30, inference_tokens=30, trained_tokens=3000, flops=4e9, seconds=5.0, peak_memory_bytes=2**30),
    ],
    "rejection_sampling": [Ledger(generated_tokens=110, inference_tokens=10, reward_calls=24, seconds=2.0)] * 2,
}  # fmt: skip
MEANS = {"start": 0.0, "dpo": 1.5, "rejection_sampling": 0.5}
SPLIT = {
    "unaligned": 0,
    "prompt_tokens": {"median": 1, "p95": 2, "max": 3},
    "trained_tokens": 7,
    "shortened": 0,
    "replies": 1,
}


def trial(out: Path, label: str, seed: int, gold: bool) -> SeedResult:
    folder = out / f"{label}-{seed}"
    folder.mkdir(parents=True)
    record = {"prompt": [{"role": "user", "content": "<b>?"}], "reply": "a|b <script>", "proxy": 0.5}
    (folder / "replies.jsonl").write_text(json.dumps(record | ({"gold": 0.25} if gold else {})) + "\n")
    return SeedResult(
        metrics={"finished": 1.0, "proxy": 0.5},
        ledger=asdict(LEDGERS[label][seed]),
        details={"rounds": [{"kept": 3 + seed, "share": 1 / 3}], "note": "x|y"} if label == "dpo" else {},
        replies=f"{label}-{seed}/replies.jsonl",
    )


def made(out: Path, gold: bool = True) -> Results:
    """Three policies, two seeds, the middle one not better with certainty."""
    recipe = load("quickstart", ["seeds=2", *([] if gold else ["gold=none"])], ["dpo", "rejection_sampling"])
    metric = "gold" if gold else "proxy"
    algorithms = {
        label: AlgorithmResult(
            status="ok",
            algorithm=label,
            settings={},
            differs={},
            seeds={str(seed): trial(out, label, seed, gold) for seed in (0, 1)},
            summary={
                metric: Summary(mean=mean, ci95=(mean - 0.25, mean + 0.25)),
                "win_rate": Summary(mean=0.5, ci95=None),
                "kl": Summary(mean=mean / 10, ci95=None),
            },
        )
        for label, mean in MEANS.items()
    }
    verdicts = [
        Verdict(metric=metric, a=a, b="start", difference=MEANS[a], ci95=(-1, 1), p_adjusted=0.5, verdict=verdict)
        for a, verdict in (("dpo", "better"), ("rejection_sampling", "inconclusive"))
    ]
    sealed = {name: {"rows": 1, "prompts": 300} for name in ("train", "validation", "test")}
    reward = {"type": "trained", "test_accuracy": 0.75, "ci95": [0.7, 0.8], "test_pairs": 600}
    return Results(
        recipe=recipe.model_dump(mode="json"),
        manifest={"sha256": "0" * 64, "splits": sealed},
        versions={"prefzoo": "0"},
        algorithms=algorithms,
        reward=reward,
        preflight={
            "read": 3, "used": 3, "made": 3, "kept": 3, "dropped_records": {}, "dropped_after": {}, "dropped": {},
            "dropped_rows": {}, "unpaired": {}, "unread_columns": {}, "rated": {}, "label_with": None,
            "annotators": {}, "repeated": [],
            "shortened_prompt_count": 0, "beyond_budget": 0, "examples": [],
            "splits": {name: {**SPLIT, "chosen_tokens": SPLIT["prompt_tokens"]} for name in sealed},
            "near_duplicates": {name: {"count": 0, "prompts": 1, "examples": []} for name in sealed},
        },
        shared={"start": asdict(Ledger(trained_tokens=500, seconds=9.0)), "reward": asdict(Ledger())},
        notes=notes(recipe, algorithms, reward, {"splits": sealed}),
        verdicts=verdicts,
    )  # fmt: skip


def test_cost_is_the_mean_of_the_trials_and_leaves_out_what_nothing_used(tmp_path) -> None:
    headings, rows = cost_cells(made(tmp_path))
    assert headings == ["policy", "trained tokens", "sampled in training", "sampled to answer", "reward calls", "FLOPs",
                        "seconds", "peak memory"]  # fmt: skip
    assert rows == [
        ["start", "0", "0", "10", "0", "0", "1.0", "0.00 GiB"],
        ["dpo", "2,000", "0", "20", "0", "3.0 G", "4.0", "1.00 GiB"],
        ["rejection_sampling", "0", "100", "10", "24", "0", "2.0", "0.00 GiB"],
        ["start, made once", "500", "0", "0", "0", "0", "9.0", "0.00 GiB"],
    ]


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


def test_policies_without_a_result_for_one_reason_are_one_line(tmp_path) -> None:
    results = made(tmp_path)
    for label, said in (("start", "seed 0: was not run"), ("dpo", "seed 0: was not run"), ("rejection_sampling", "x")):
        results.algorithms[label].status, results.algorithms[label].error = "skipped", said
    assert report.facts(results)[:2] == ["start, dpo skipped: seed 0: was not run", "rejection_sampling skipped: x"]


def test_the_title_says_what_was_compared(tmp_path) -> None:
    results = made(tmp_path)
    prompts = results.recipe["evaluation"]["prompts"]
    assert words.title(results) == f"dpo and rejection_sampling against the start: 2 seeds, {prompts} test prompts"
    results.algorithms |= {f"dpo-{i}": results.algorithms["dpo"] for i in range(5)}
    assert words.title(results).startswith("dpo, rejection_sampling, dpo-0, dpo-1, dpo-2 and 2 more against the start")
    results.recipe["seeds"] = [4]
    assert "1 seed," in words.title(results)
    assert "with one seed, not other trainings" in words.reading(results)["±"]


def test_words_are_those_of_the_metric_that_decides(tmp_path) -> None:
    known, unknown = made(tmp_path / "a"), made(tmp_path / "b", gold=False)
    assert (
        words.sentence(known) == "Better than the start in gold reward: dpo; no difference shown: rejection_sampling."
    )
    assert "higher gold reward" in words.reading(known)["win_rate"] and "proxy" not in words.reading(known)
    assert "higher proxy reward" in words.reading(unknown)["win_rate"] and "gold" not in words.reading(unknown)
    assert "nats" in words.reading(known)["kl"] and "Holm" in words.reading(known)["verdict"]


def test_the_page_is_whole_and_in_order(tmp_path) -> None:
    results = made(tmp_path)
    report.write(results, tmp_path)
    page = (tmp_path / "report.html").read_text()
    order = [
        "<h1>dpo and",
        "Better than the start in",
        "<td>dpo</td>",
        "<svg",
        "Read before believing</h2>",
        "How to read the table",
        "Curves</h2>",
    ]
    order += ["Cost</h2>", "2,000", "Side by side</h2>", "report</h2>", "rounds.1.kept", "To repeat it</h2>"]
    places = [page.index(part) for part in order]
    assert places == sorted(places)
    assert "http://" not in page and "https://" not in page and "<link" not in page and page.count("<script") == 1
    assert page.count("<table>") == page.count('class="scroll"') == 5
    assert '<meta name="viewport"' in page and "prefers-color-scheme: dark" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)
    assert '<td class="better">better</td>' in page and "&lt;script&gt;" in page


def test_markdown_tables_stay_whole_whatever_is_in_a_cell(tmp_path) -> None:
    text = report.markdown(made(tmp_path))
    assert text.startswith("# dpo and rejection_sampling against the start")
    assert "| note | x\\|y | x\\|y |" in text and "| dpo | 2,000 |" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_pictures_are_drawn_of_what_was_measured_alone(tmp_path) -> None:
    results = made(tmp_path)
    assert drawn(results) == ["dpo", "rejection_sampling", "start"]
    curves = {"dpo": [[{"step": 1, "loss": 0.7, "entropy": 2.0}, {"step": 5, "loss": 0.5}]] * 2, "start": [[]]}
    found = {each.name: each for each in pictures(results, curves)}
    assert list(found) == ["score", "frontier", "cost_flops", "cost_seconds", "curve_loss", "curve_entropy"]
    assert found["score"].words.startswith("dpo 1.50 (1.25 to 1.75), rejection_sampling 0.50 (0.25 to 0.75)")
    assert "dpo 0.7 to 0.5" in found["curve_loss"].words and "start" not in found["curve_loss"].words
    for each in found.values():
        assert each.png.startswith(b"\x89PNG") and each.svg.startswith("<?xml")
        assert "http" not in each.inline and "currentColor" in each.inline
    for each in results.algorithms.values():
        each.summary = {"gold": each.summary["gold"], "proxy": Summary(mean=1.0, ci95=None)}
    assert [each.name for each in pictures(results, {})][:2] == ["score", "gold_proxy"]


def test_the_loss_of_what_learns_from_its_samples_is_not_drawn(tmp_path) -> None:
    curves = {"dpo": [[{"step": 1, "loss": 0.0, "reward": 1.0}, {"step": 2, "loss": 0.0, "reward": 2.0}]]}
    names = [each.name for each in pictures(made(tmp_path), curves)]
    assert "curve_reward" in names and "curve_loss" not in names


def test_milestones_are_on_the_frontier_and_in_the_table_for_programs(tmp_path) -> None:
    results = made(tmp_path)
    trial = results.algorithms["dpo"].seeds["0"]
    trial.metrics = {"gold": 1.5, "kl": 4.0}
    without = {each.name: each.svg for each in pictures(results, {})}["frontier"]
    trial.milestones = [Milestone(name="round 1", metrics={"gold": 0.7, "kl": 1.0}, ledger={"flops": 5.0})]
    assert {each.name: each.svg for each in pictures(results, {})}["frontier"] != without
    trial.ledger["flops"] = 10.0
    write_csv(results, tmp_path / "results.csv")
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "policy,seed,milestone,metric,value"
    assert {"dpo,0,round 1,gold,0.7", "dpo,0,round 1,ledger/flops,5.0", "dpo,0,,gold,1.5"} <= set(lines)
    assert "start,1,,ledger/seconds,1.0" in lines


def test_equal_budgets_are_a_table_that_says_who_is_not_in_it(tmp_path) -> None:
    results = made(tmp_path)
    assert budget_cells(results, ["dpo", "start"]) is None
    measured = {"dpo": Summary(mean=0.8, ci95=(0.0, 1.0)), "ppo": Summary(mean=0.25, ci95=None)}
    over = {"dpo": Summary(mean=0.5, ci95=(0.4, 0.6)), "ppo": Summary(mean=-0.05, ci95=None)}
    missing = {"best_of_n": "no policy was kept on its way"}
    one, other = {"budget": 1500, "missing": missing}, {"budget": 2e9, "missing": {**missing, "dpo": "none"}}
    results.equal_budgets = [
        EqualBudget(axis="prompts", policies=measured, over_start=over, **one),
        EqualBudget(axis="flops", policies={"ppo": measured["ppo"]}, over_start={"ppo": over["ppo"]}, **other),
    ]
    headings, rows = budget_cells(results, ["ppo", "dpo", "start"]) or ([], [])
    assert headings == ["policy", "1,500 prompts", "2.0 G FLOPs"]
    assert rows == [["ppo", "0.25 (-0.05)", "0.25 (-0.05)"], ["dpo", "0.80 (+0.50 ±0.10)", "-"]]
    said = budget_words(results)
    assert said.endswith("Not in it: best_of_n (no policy was kept on its way); dpo (none: FLOPs).")


def test_heat_is_the_distance_from_the_start_and_equal_length_is_told(tmp_path) -> None:
    results = made(tmp_path)
    for label, value in (("start", 1.0), ("dpo", 0.5), ("rejection_sampling", 1.25)):
        results.algorithms[label].summary["gold/courtesy"] = Summary(mean=value, ci95=None)
    (found,) = heat_maps(results, ["dpo", "rejection_sampling", "start"])
    assert found.headings == ["policy", "courtesy"]
    assert found.rows == [
        ("dpo", [("0.50", -1.0)]),
        ("rejection_sampling", [("1.25", 0.5)]),
        ("start", [("1.00", 0.0)]),
    ]
    assert length_cells(results) is None
    results.algorithms["dpo"].length_adjusted = LengthAdjusted(0.4, (0.1, 0.7), 0.6, (0.55, 0.65), 0.02, -0.01)
    headings, rows = length_cells(results) or ([], [])
    assert rows == [["dpo", "+0.0", "+1.50", "+0.40 [+0.10, +0.70]", "0.50", "0.60 [0.55, 0.65]", "+0.020"]]
    assert len(headings) == len(rows[0])


def test_all_pairs_by_hand(tmp_path) -> None:
    results = made(tmp_path)
    labels = ["dpo", "rejection_sampling", "start"]
    assert matrix(results, labels) is None is rating_cells(results, labels)
    rates = {("start", "dpo"): 0.25, ("start", "rejection_sampling"): 0.5, ("dpo", "rejection_sampling"): 0.75}
    results.pairs = [
        Pair(a=a, b=b, win_rate=Summary(mean=rate, ci95=None),
             probability_of_improvement=Summary(mean=rate, ci95=(rate - 0.25, rate + 0.125)))
        for (a, b), rate in rates.items()
    ]  # fmt: skip
    results.ratings = {label: Summary(mean=mean, ci95=None) for label, mean in (("start", 0.0), ("dpo", 1.0))}
    found = matrix(results, labels)
    assert found is not None and found.headings == ["policy", *labels]
    assert found.rows == [
        ("dpo", [("", 0.0), ("0.75", 0.5), ("0.75*", 0.5)]),  # the star: dpo's verdict against the start is `better`
        ("rejection_sampling", [("0.25", -0.5), ("", 0.0), ("0.50", 0.0)]),
        ("start", [("0.25*", -0.5), ("0.50", 0.0), ("", 0.0)]),
    ]
    _, rows = rating_cells(results, labels) or ([], [])
    assert rows == [["dpo", "1.00", "-", "0.75 [0.62, 1.00]"], ["start", "0.00", "-", "-"]]
    results.verdicts[1] = results.verdicts[1].model_copy(update={"effect_size": 0.25, "detectable": 0.125})
    _, rows = difference_cells(results) or ([], [])
    assert rows[1] == ["rejection_sampling - start", "inconclusive", "+0.50 [-1.00, +1.00]", "0.500", "+0.25", "0.12"]
    assert "| start | 0.25* | 0.50 |  |" in report.markdown(results)


def test_the_sentence_says_who_is_highest_and_who_cannot_be_told_from_it(tmp_path) -> None:
    results = made(tmp_path)
    results.verdicts[1] = results.verdicts[1].model_copy(update={"verdict": "better"})
    pair = {"metric": "gold", "a": "rejection_sampling", "b": "dpo", "difference": -1, "ci95": (-2, 0), "p_adjusted": 1}
    results.verdicts.append(Verdict(**pair, verdict="inconclusive"))
    said = words.sentence(results)
    assert said.startswith("Highest gold reward: dpo, not told apart from rejection_sampling; better than the start")
    results.verdicts[-1] = Verdict(**pair, verdict="worse")
    assert words.sentence(results).startswith("Highest gold reward: dpo, ahead of every other policy; ")


def test_warnings_are_in_the_page_and_in_markdown_and_survive_the_file(tmp_path) -> None:
    results = made(tmp_path)
    assert "Warnings" not in report.markdown(results)
    results.warnings = [Sign("length", "dpo", "dpo: replies got <b>longer</b>.", 5.0, (4.0, 6.0))]
    report.write(results, tmp_path)
    assert "dpo: replies got &lt;b&gt;longer&lt;/b&gt;." in (tmp_path / "report.html").read_text()
    assert "## Warnings" in (tmp_path / "report.md").read_text()
    assert load_results(tmp_path).warnings == results.warnings


def test_it_is_said_that_policies_used_the_proxy_only_when_some_did(tmp_path) -> None:
    results = made(tmp_path, gold=False)
    assert [n for n in results.notes if "proxy" in n] == [
        "No truth is known here: the verdict is by the proxy reward, which rejection_sampling used: a gain "
        "there may be an error of the reward."
    ]
    recipe = load("quickstart", ["gold=none"], ["dpo"])
    algorithms = {label: results.algorithms[label] for label in ("start", "dpo")}
    said = notes(recipe, algorithms, results.reward, results.manifest)
    assert [n for n in said if "proxy" in n] == [
        "No truth is known here: the verdict is by the proxy reward, which no policy used."
    ]
