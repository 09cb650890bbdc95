"""A language model as a judge, asked in its own words and read by the probabilities of its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prefzoo.errors import PrefzooError
from prefzoo.feedback.judges.judge import Judge
from prefzoo.interface import Prompt

PROMPTS = Path(__file__).parent / "prompts"


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

    def answers(
        prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], questions: Sequence[str | None]
    ) -> list[float]:
        asked = [
            [{"role": "user", "content": template.render(prompt=prompt, first=x, second=y, question=question)}]
            for prompt, x, y, question in zip(prompts, first, second, questions, strict=True)
        ]
        said = [0.0] * len(asked)
        for i, table in model.token_log_probabilities(asked, [Completion("A", (a,), True)] * len(asked)):
            said[i] = float((table[0, a] - table[0, b]).sigmoid())
        return said

    return Judge(answers, name=f"the judge {base!r}")
