"""A judge that answers in words, whoever is asked: a model in this process or a server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import Asker, Said
from prefzoo.judges.judge import Judge
from prefzoo.judges.prompt_templates import Form, Wording
from prefzoo.judges.verdict_parsing import read_grade, read_verdict
from prefzoo.types import Message, Prompt


def worded_judge(
    asker: Asker,
    wording: Wording,
    reasoning: bool = False,
    max_new_tokens: int | None = None,
    name: str = "the judge",
) -> Judge:
    """A judge whose verdicts and grades are read out of answers.

    A verdict is soft where the answer's first token is known to be A or B rather than anything else: then it is the
    probability of A among the two. Else it is what the text says: 1, 0, or one half for a tie.

    Args:
        asker: brings the answers; what it counts in an attribute `flops`, if it has one, the judge counts.
        wording: the requests.
        reasoning: whether answers think aloud before the verdict.
        max_new_tokens: length of an answer; None for 16, and 512 with reasoning.
        name: what the judge is called in messages.
    """
    return _Worded(asker, wording, reasoning, max_new_tokens or (512 if reasoning else 16), name)


class _Worded(Judge):
    def __init__(self, asker: Asker, wording: Wording, reasoning: bool, max_new_tokens: int, name: str) -> None:
        super().__init__(self._compare, self._give_grades if wording.grading else None, name)
        self.asker, self.wording, self.reasoning, self.max_new_tokens = asker, wording, reasoning, max_new_tokens
        self.about = {"wording": wording.report()}

    def _compare(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], questions: Sequence[str | None]
    ) -> list[float | None]:
        requests = pair_requests(self.wording.comparing, prompts, first, second, questions)
        return [self._preference(said) for said in self._ask(requests)]

    def _preference(self, said: Said) -> float | None:
        if said.failure is None and not self.reasoning and (p := soft_verdict(said.first or {})) is not None:
            return p
        return self._noted(said, read_verdict(said.text, self.reasoning))

    def _give_grades(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float | None]:
        assert self.wording.grading is not None
        asked = self._ask(grade_requests(self.wording.grading, prompts, completions))
        return [self._noted(said, read_grade(said.text, self.reasoning)) for said in asked]

    def _ask(self, requests: list[list[Message]]) -> list[Said]:
        before = getattr(self.asker, "flops", 0.0)
        answers = self.asker(requests, self.max_new_tokens)
        self.flops += getattr(self.asker, "flops", 0.0) - before
        return answers

    def report(self) -> dict[str, Any]:
        """See `Judge.report`; with what the asker reports of itself, where it does."""
        own = getattr(self.asker, "report", None)
        return {**super().report(), **({"endpoint": own()} if own is not None else {})}

    def _noted(self, said: Said, read: float | None) -> float | None:
        """What was read, where there is an answer; else that is noted."""
        if said.failure is None and read is not None:
            return read
        self.failed(said.failure, said.text)
        return None


def pair_requests(
    form: Form, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], questions: Sequence[str | None]
) -> list[list[Message]]:
    """A conversation for each pair that asks which reply is better.

    Raises:
        PrefzooError: when a question is to be asked that the template has no place for.
    """
    if "question" not in form.variables and any(question is not None for question in questions):
        raise PrefzooError(f"judge.prompt: {form.name!r} does not use {{{{ question }}}}, and principles ask one each")
    return [
        [{"role": "user", "content": form.render(prompt=prompt, first=x, second=y, question=question)}]
        for prompt, x, y, question in zip(prompts, first, second, questions, strict=True)
    ]


def grade_requests(form: Form, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[list[Message]]:
    """A conversation for each reply that asks how good it is."""
    return [
        [{"role": "user", "content": form.render(prompt=prompt, reply=reply)}]
        for prompt, reply in zip(prompts, completions, strict=True)
    ]


def soft_verdict(first: Mapping[str, float]) -> float | None:
    """P(A) among A and B by the log-probabilities of a first token; None where it is neither more likely than not.

    Spellings of a letter are added up. Where the alternatives are cut off before one letter, it has at most the
    probability of the last of them, and at most what is left over: that much it is given.
    """
    mass = {letter: sum(math.exp(p) for text, p in first.items() if _bare(text) == letter) for letter in "AB"}
    if mass["A"] + mass["B"] < 0.5:
        return None
    listed = [math.exp(p) for p in first.values()]
    for letter in "AB":
        if not mass[letter]:
            mass[letter] = min(*listed, max(0.0, 1 - sum(listed)))
    return mass["A"] / (mass["A"] + mass["B"])


def _bare(token: str) -> str:
    return token.strip(" \n\t▁Ġ")
