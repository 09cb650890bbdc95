"""Fact checkers by description, as far as a judge decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefzoo.judges.build_judge import build_judge, load_truth
from prefzoo.judges.fact_checking import Checker, JudgeChecker, RandomChecker, TruthChecker, knowledge_template
from prefzoo.judges.local_judge import LocalChatClient, ProbabilityJudge
from prefzoo.judges.text_judge import TextJudge
from prefzoo.types import Progress


def judge_checker(spec: Mapping[str, Any], progress: Progress | None = None) -> Checker:
    """The checker that asks the judge of a description (see `build_judge`), who answers in text in any case."""
    kind = spec["settings"]["type"]
    if kind == "gold":
        truth = load_truth(spec["gold"])
        assert truth is not None
        return TruthChecker(truth)
    if kind == "random":
        return RandomChecker(spec["seed"])
    judge = build_judge(spec, progress)
    assert isinstance(judge, TextJudge | ProbabilityJudge)
    lab = judge.templates.grading is None  # only the bundled model was never taught to grade
    if isinstance(judge, ProbabilityJudge):
        return JudgeChecker(LocalChatClient(judge.model), knowledge_template(False, lab), False, 16)
    return JudgeChecker(judge.client, knowledge_template(judge.reasoning, lab), judge.reasoning, judge.max_new_tokens)
