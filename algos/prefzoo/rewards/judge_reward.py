"""A judge's opinion as a reward."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.types import Judge, Prompt
from prefzoo.views import prompt_key

By = Literal["comparison", "grade"]
REFERENCES = "references.json"
CERTAIN = 0.999
"""A probability nearer to 0 or 1 than this counts as this, so that the score of a judge that is certain is finite."""


class JudgeReward:
    """Scores replies by a judge (direct RLAIF, Lee et al. 2023, https://arxiv.org/abs/2309.00267).

    By `comparison` the score is the log-odds, in nats, that the judge prefers the reply to the start's own greedy one
    to the same prompt: the difference of the two replies' rewards under Bradley-Terry. By `grade` it is the judge's
    grade from 0 to 10, less 5; a reply whose grade could not be read gets the mean of those so far, which neither
    rewards nor punishes it, and the judge counts it as a failure.

    Args:
        judge: who is asked.
        by: how.
        references: `prompt_key` of a prompt to the start's reply; for comparison.
        question: what is asked about the two; None asks which is better.
    """

    def __init__(self, judge: Judge, by: By, references: Mapping[str, str], question: str | None = None) -> None:
        self.judge, self.by, self.references, self.question = judge, by, dict(references), question
        self._grades_read, self._score_sum = 0, 0.0

    @property
    def flops(self) -> float:
        """Operations of the judge so far."""
        return getattr(self.judge, "flops", 0.0)

    @property
    def questions(self) -> int:
        """Questions put to the judge so far."""
        return int(self.judge.report()["questions"])

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        if self.by == "grade":
            return [self._grade_score(grade) for grade in self.judge.grade(prompts, completions)]
        try:
            others = [self.references[prompt_key(prompt)] for prompt in prompts]
        except KeyError as error:
            raise PrefzooError(
                f"reward.by: 'comparison' has no reply of the start to compare with for the prompt {error}"
            ) from error
        asked = None if self.question is None else [self.question] * len(prompts)
        return [_log_odds(p) for p in self.judge(prompts, completions, others, asked)]

    def _grade_score(self, grade: float | None) -> float:
        if grade is None:
            return self._score_sum / self._grades_read if self._grades_read else 0.0
        self._grades_read += 1
        self._score_sum += grade - 5
        return grade - 5

    def spec(self, folder: Path) -> dict[str, Any]:
        """See `prefzoo.Reward`; writes the start's replies into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REFERENCES).write_text(json.dumps(self.references), encoding="utf-8")
        asked = {} if self.question is None else {"question": self.question}
        return {"type": "judge", "by": self.by, "judge": getattr(self.judge, "spec", None), **asked}


def load_judge_reward(spec: Mapping[str, Any], folder: Path) -> JudgeReward:
    """The reward that `JudgeReward.spec` describes and wrote."""
    from prefzoo.judges.build_judge import build_judge

    references = json.loads((folder / REFERENCES).read_text(encoding="utf-8"))
    return JudgeReward(build_judge(spec["judge"]), spec["by"], references, spec.get("question"))


def start_replies(bench: Bench, prompts: Sequence[Prompt]) -> dict[str, str]:
    """The start's greedy reply to each prompt, by `prompt_key`; charged to the ledger."""
    from prefzoo.models.language_model import LanguageModelPolicy

    start = LanguageModelPolicy.start_of(bench)
    greedy = bench.generation.model_copy(update={"temperature": 0.0})
    drawn = bench.replace(generation=greedy).sample(start, prompts, 1, bench.seed)
    return {prompt_key(prompt): replies[0].text for prompt, replies in zip(prompts, drawn, strict=True)}


def _log_odds(p: float) -> float:
    p = min(max(p, 1 - CERTAIN), CERTAIN)
    return math.log(p / (1 - p))
