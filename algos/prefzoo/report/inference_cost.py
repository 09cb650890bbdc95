"""What one answer costs, where a policy pays for its answers instead of a training."""

from __future__ import annotations

from prefzoo.report.cost import Cells, charge, mean_ledger
from prefzoo.results.results_schema import Results
from prefzoo.run.stage_graph import START

ANSWERS = (
    "Tokens and FLOPs of one answer to a test prompt, in the mean of the trials; those of a policy that chooses among "
    "several replies are of all of them, and of scoring them where the reward is a model. A policy that costs nothing "
    "to train and more to answer is in no budget of training: the last columns say after how many answers it has cost "
    "more FLOPs than training the policy of the row and answering with that."
)


def answer_cells(results: Results) -> Cells | None:
    """A row for each policy; None where every policy but the start was trained."""
    training, answer, tokens = {}, {}, {}
    for label, each in results.algorithms.items():
        if each.seeds:
            whole = mean_ledger([trial.ledger for trial in each.seeds.values()])
            spent = [trial.training.get("flops", 0.0) for trial in each.seeds.values()]
            training[label] = sum(spent) / len(spent)
            answer[label] = (whole["flops"] - training[label]) / results.test_prompts
            tokens[label] = whole["inference_tokens"] / results.test_prompts
    charged = {label for label in training if all(s.training for s in results.algorithms[label].seeds.values())}
    untrained = [label for label in training if label in charged and not training[label] and answer[label]]
    if not untrained:
        return None
    headings = ["policy", "tokens an answer", "FLOPs an answer", "times the start's", "FLOPs to train"]
    headings += [f"{label} costs more after" for label in untrained]
    start = answer.get(START, 0.0)
    rows = [
        [
            label,
            f"{tokens[label]:.1f}",
            charge("flops", answer[label]),
            f"{answer[label] / start:.1f}" if start else "-",
            charge("flops", training[label]),
            *[_after(training[label], answer[dear] - answer[label]) for dear in untrained],
        ]
        for label in training
    ]
    return headings, rows


def _after(training: float, dearer: float) -> str:
    """After how many answers, each dearer by so much, a training is paid for."""
    return f"{training / dearer:,.0f} answers" if training and dearer > 0 else "-"
