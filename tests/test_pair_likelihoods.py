"""What a comparison says of the chosen and rejected replies of test pairs."""

from __future__ import annotations

import json
from math import sqrt

import numpy as np
import pytest

from prefzoo.report.likelihood_section import likelihood_cells, likelihood_section, readings
from prefzoo.report.sections import PROSE
from prefzoo.results.results_schema import Summary
from prefzoo.results.trial_metrics import pair_columns
from reported import made

START = [
    {"chosen": -10.0, "rejected": -9.0, "group": "a", "gold": [1.0, 0.0]},
    {"chosen": -5.0, "rejected": -5.0, "group": "b", "gold": [2.0, -1.0]},
    {"chosen": -7.0, "rejected": -20.0, "group": "c", "gold": [0.0, 1.0]},
]
POLICY = [
    {"chosen": -9.0, "rejected": -12.0},
    {"chosen": -6.0, "rejected": -7.0},
    {"chosen": -8.0, "rejected": -20.0},
]


def test_columns_of_pairs_worked_by_hand() -> None:
    assert {name: each.tolist() for name, each in pair_columns(START, None).items()} == {
        "pairs/likelihood_accuracy": [0, 0.5, 1]
    }, "the start has no log-ratio to itself"
    columns = pair_columns(POLICY, START)
    correlation = columns.pop("pairs/gold_correlation")
    assert {name: each.tolist() for name, each in columns.items()} == {
        "pairs/likelihood_accuracy": [1, 1, 1],
        "pairs/implicit_accuracy": [1, 1, 0],
        "pairs/chosen": [1, -1, -1],
        "pairs/rejected": [-3, -2, 0],
        "pairs/margin": [4, 1, -1],
    }
    assert correlation == pytest.approx([(4 * 1 + 1 * 3 + 1) / sqrt((16 + 1 + 1) * (1 + 9 + 1))])
    ratios, gold = np.array([[1, -3], [-1, -2], [-1, 0]]), np.array([line["gold"] for line in START])
    centred = [(each - each.mean(1, keepdims=True)).ravel() for each in (ratios, gold)]
    assert correlation == pytest.approx([np.corrcoef(*centred)[0, 1]]), "Pearson's, within pairs"


def test_pairs_that_belong_together_count_as_one_and_what_cannot_be_told_is_not() -> None:
    grouped = [{**line, "group": name} for line, name in zip(START, "aba", strict=True)]
    columns = pair_columns(POLICY, grouped)
    assert columns["pairs/margin"].tolist() == [1.5, 1] and columns["pairs/implicit_accuracy"].tolist() == [0.5, 1]
    alike = [{**line, "gold": [1.0, 1.0]} for line in START]
    assert "pairs/gold_correlation" not in pair_columns(POLICY, alike)
    assert "pairs/gold_correlation" not in pair_columns(POLICY, [{**line} | {"gold": [0, 0]} for line in START])
    impossible = [{**POLICY[0], "chosen": -np.inf}, *POLICY[1:]]
    assert pair_columns(impossible, START) == {"pairs/unlikely": [pytest.approx(1 / 3)]}
    by_start = [{**START[0], "rejected": -np.inf}, *START[1:]]
    assert pair_columns(POLICY, by_start) == {"pairs/unlikely": [pytest.approx(1 / 3)]}
    assert pair_columns([], START) == pair_columns(POLICY, []) == {}, "best-of-n, and a start that failed"


def test_log_probabilities_are_those_of_transformers(tmp_path, lab_rows) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from prefzoo.lab import MODEL_DIR
    from prefzoo.models.language_model import LanguageModelPolicy
    from prefzoo.run.stages.pair_likelihoods import write_pair_likelihoods

    policy, rows = LanguageModelPolicy.from_start(str(MODEL_DIR)), lab_rows[:6]

    def truth(prompts, replies):
        return [{"gold": float(len(reply))} for reply in replies]

    write_pair_likelihoods(policy, rows, str(MODEL_DIR), {}, tmp_path, lambda *_: None, of_start=True, truth=truth)
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    model, tokenizer = (each.from_pretrained(MODEL_DIR) for each in (AutoModelForCausalLM, AutoTokenizer))
    assert [line["replies"] for line in lines] == [[row.chosen, row.rejected] for row in rows]
    assert [line["gold"] for line in lines] == [[len(row.chosen), len(row.rejected)] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        for side in ("chosen", "rejected"):
            turns = [*row.prompt, {"role": "assistant", "content": getattr(row, side)}]
            ids = tokenizer.apply_chat_template(turns, return_dict=False)
            prompt = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, return_dict=False)
            with torch.no_grad():
                table = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            expected = sum(float(table[i - 1, ids[i]]) for i in range(len(prompt), len(ids)))
            assert line[side] == pytest.approx(expected, abs=1e-3)


def summarized(chosen: float, rejected: float, accuracy: float, half: float = 0.1) -> dict[str, Summary]:
    means = {"chosen": chosen, "rejected": rejected, "margin": chosen - rejected, "implicit_accuracy": accuracy}
    return {f"pairs/{name}": Summary(mean=mean, ci95=(mean - half, mean + half)) for name, mean in means.items()}


@pytest.mark.parametrize(
    ("numbers", "gain", "seen"),
    [
        ((1.0, -1.0, 0.7), 0.5, ["intended"]),
        ((0.0, -1.0, 0.7), 0.5, ["rejected_fell"]),
        ((-1.0, -3.0, 0.7), 0.5, ["displaced"]),
        ((3.0, 1.0, 0.7), 0.5, ["both_rose"]),
        ((1.0, 1.05, 0.5), 0.0, ["no_margin"]),
        ((-3.0, -1.0, 0.3), 0.0, ["wrong_way"]),
        ((-1.0, -3.0, 0.7), -0.5, ["displaced", "ranks_and_loses"]),
        ((-1.0, -3.0, 0.55), 0.5, ["displaced", "gains_without_ranking"]),
    ],
)
def test_the_report_says_in_words_what_was_seen(tmp_path, numbers, gain, seen) -> None:
    results = made(tmp_path)
    results.algorithms["dpo"].summary |= summarized(*numbers)
    results.algorithms["dpo"].over_start = {"gold": Summary(mean=gain, ci95=(gain - 0.1, gain + 0.1))}
    assert readings(results, ["dpo", "start"]) == [f"dpo: {PROSE[f'likelihood_{name}']}" for name in seen]


def test_the_section_has_a_row_for_each_policy_that_scores_tokens(tmp_path) -> None:
    results = made(tmp_path)
    labels = ["dpo", "rejection_sampling", "start"]
    assert likelihood_section(results, labels, {}).parts == [], "a run of an older version"
    likely = Summary(mean=0.54, ci95=(0.5, 0.58))
    results.algorithms["start"].summary["pairs/likelihood_accuracy"] = likely
    results.algorithms["dpo"].summary |= summarized(-1, -3, 0.7) | {"pairs/likelihood_accuracy": likely}
    results.algorithms["rejection_sampling"].summary["pairs/unlikely"] = Summary(mean=0.25, ci95=None)
    assert likelihood_cells(results, labels) == (
        ["policy", "right by log-ratio [95%]", "right by likelihood [95%]", "chosen, nats", "rejected, nats",
         "margin, nats [95%]"],
        [
            ["dpo", "0.70 [0.60, 0.80]", "0.54 [0.50, 0.58]", "-1.00", "-3.00", "+2.00 [+1.90, +2.10]"],
            ["rejection_sampling", "-", "-", "-", "-", "-"],
            ["start", "-", "0.54 [0.50, 0.58]", "-", "-", "-"],
        ],
    )  # fmt: skip
    assert readings(results, labels)[-1] == f"rejection_sampling: 25% {PROSE['likelihood_unlikely']}"


def test_a_comparison_has_it_of_all_but_best_of_n(small_run) -> None:
    results, out = small_run
    for label, result in results.algorithms.items():
        found = {name for name in result.summary if name.startswith("pairs/")}
        if label == "best_of_n":
            assert not found
        elif label == "start":
            assert found == {"pairs/likelihood_accuracy"}
        else:
            assert {"pairs/implicit_accuracy", "pairs/margin", "pairs/gold_correlation"} <= found
            summary = result.summary
            margin = summary["pairs/chosen"].mean - summary["pairs/rejected"].mean
            assert summary["pairs/margin"].mean == pytest.approx(margin)
    assert "## Chosen and rejected replies" in (out / "report.md").read_text()
