"""Judges: which of two replies is better, asked in both orders."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prefzoo.errors import PrefzooError
from prefzoo.interface import Prompt, Settings

PROMPTS = Path(__file__).parent / "prompts"


class JudgeSettings(Settings):
    """Who judges: `local`, a causal language model (`path`: folder or hub id; where it is not given, the recipe's own),
    by the probabilities of its verdict; `gold`, the truth; `random`, a negative control."""

    type: Literal["local", "gold", "random"] = "local"
    path: str | None = None


@dataclass
class Asked:
    """What a judge was asked and how it answered.

    Attributes:
        pairs, questions: pairs judged; questions put, two a pair.
        ties: pairs of which neither reply came out better over both orders.
        inconsistent: pairs of which the two orders preferred different replies.
        first_preferred: questions in which the reply shown first was preferred, undecided ones counting half; of a
            judge without position bias, half.
    """

    pairs: int = 0
    questions: int = 0
    ties: int = 0
    inconsistent: int = 0
    first_preferred: float = 0.0


class Judge:
    """P(the first reply is better) over both orders of showing the two.

    Args:
        answers: `(prompts, shown first, shown second) -> P(the one shown first is better)` of one order.
    """

    def __init__(self, answers: Callable[[Sequence[Prompt], Sequence[str], Sequence[str]], list[float]]) -> None:
        self.answers, self.asked = answers, Asked()

    def __call__(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
        """The mean of P(first better) when it is shown first and when it is shown second, for each pair."""
        forth = self.answers(prompts, first, second)
        back = self.answers(prompts, second, first)
        verdicts = [(p + (1 - q)) / 2 for p, q in zip(forth, back, strict=True)]
        asked = self.asked
        asked.pairs += len(verdicts)
        asked.questions += 2 * len(verdicts)
        asked.ties += sum(math.isclose(p, 0.5, abs_tol=1e-9) for p in verdicts)
        asked.inconsistent += sum((p - 0.5) * (q - 0.5) > 0 for p, q in zip(forth, back, strict=True))
        asked.first_preferred += sum((p > 0.5) + (p == 0.5) / 2 for p in (*forth, *back))
        return [0.5 if math.isclose(p, 0.5, abs_tol=1e-9) else p for p in verdicts]

    def report(self) -> dict[str, float]:
        """What was asked so far."""
        return asdict(self.asked)


def local_judge(base: str, lab: bool, loading: Mapping[str, Any]) -> Judge:
    """A language model asked for "A" or "B", judged by the probabilities of the two (Zheng et al. 2023,
    https://arxiv.org/abs/2306.05685, ask in both orders for its position bias).

    Args:
        base: folder of the model.
        lab: whether it is the lab's, which knows one wording of the question.
        loading: how its files are read.

    Raises:
        PrefzooError: when the model's vocabulary has no single tokens for the two verdicts.
    """
    from prefzoo.interface import Completion
    from prefzoo.policies.language_model import LanguageModelPolicy

    template = Environment(loader=FileSystemLoader(PROMPTS), undefined=StrictUndefined).get_template(
        "pairwise-lab.jinja" if lab else "pairwise-1.jinja"
    )
    model = LanguageModelPolicy.from_start(base, **loading)
    verdicts = [model.tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in ("A", "B")]
    if any(len(ids) != 1 for ids in verdicts) or verdicts[0] == verdicts[1]:
        raise PrefzooError(f"judge.path: the tokenizer of {base!r} has no single tokens for the verdicts A and B")
    (a,), (b,) = verdicts

    def answers(prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
        asked = [
            [{"role": "user", "content": template.render(prompt=prompt, first=x, second=y)}]
            for prompt, x, y in zip(prompts, first, second, strict=True)
        ]
        said = [0.0] * len(asked)
        for i, table in model.token_log_probabilities(asked, [Completion("A", (a,), True)] * len(asked)):
            said[i] = float((table[0, a] - table[0, b]).sigmoid())
        return said

    return Judge(answers)


def gold_judge(gold: Callable[[list[Any], list[str]], list[Mapping[str, float]]]) -> Judge:
    """The truth: 1 where the first is better, 0 where the second is, one half where they are as good."""

    def answers(prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
        scores = [[each["gold"] for each in gold(list(prompts), list(side))] for side in (first, second)]
        return [0.5 if x == y else float(x > y) for x, y in zip(*scores, strict=True)]

    return Judge(answers)


def random_judge(seed: int) -> Judge:
    """A coin for each question; the negative control."""
    rng = random.Random(f"random judge {seed}")
    return Judge(lambda prompts, first, second: [rng.random() for _ in prompts])
