"""What a person reads of a comparison: tables, words, pictures, from results made by hand."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from prefzoo.comparison.notes import notes
from prefzoo.comparison.recipe.check import load
from prefzoo.comparison.report import page as report
from prefzoo.comparison.report import words
from prefzoo.comparison.report.cost import cost_cells, detail_cells
from prefzoo.comparison.report.figures import drawn, picture
from prefzoo.comparison.results import AlgorithmResult, Results, SeedResult, Summary, Verdict
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
        "<img",
        "<h2>Read before",
        "How to read the table",
    ]
    order += ["<h2>Cost", "2,000", "What the algorithms report", "rounds.1.kept", "Side by side", "To repeat it"]
    places = [page.index(part) for part in order]
    assert places == sorted(places)
    assert "http://" not in page and "https://" not in page and "<link" not in page and "<script" not in page
    assert page.count("<table>") == page.count('class="scroll"') == 4
    assert '<meta name="viewport"' in page and page.count('media="(prefers-color-scheme: dark)"') == 2
    assert '<td class="better">better</td>' in page and "&lt;script&gt;" in page


def test_markdown_tables_stay_whole_whatever_is_in_a_cell(tmp_path) -> None:
    text = report.markdown(made(tmp_path))
    assert text.startswith("# dpo and rejection_sampling against the start")
    assert "| note | x\\|y | x\\|y |" in text and "| dpo | 2,000 |" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize("dark", [False, True])
def test_pictures_are_drawn_for_light_and_dark_and_without_kl(tmp_path, dark) -> None:
    results = made(tmp_path)
    assert drawn(results) == ["dpo", "rejection_sampling", "start"]
    whole = picture(results, dark=dark)
    assert whole.startswith(b"\x89PNG") and whole != picture(results, ["kl"], dark=dark)
    for each in results.algorithms.values():
        del each.summary["kl"]
    assert picture(results, ["kl"], dark=dark).startswith(b"\x89PNG")


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
