"""A judge that answers in text, whoever is asked: a model in this process or a server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import ChatClient, Response
from prefzoo.judges.judge import Judge
from prefzoo.judges.prompt_templates import JudgeTemplates, PromptTemplate
from prefzoo.judges.verdict_parsing import read_grade, read_verdict
from prefzoo.types import Message, Prompt


class TextJudge(Judge):
    """A judge whose verdicts and grades are read out of answers.

    A verdict is soft where the answer's first token is known to be A or B rather than anything else: then it is the
    probability of A among the two. Else it is what the text says: 1, 0, or one half for a tie.

    Args:
        client: brings the answers; what it counts in an attribute `flops`, if it has one, the judge counts.
        templates: the requests.
        reasoning: whether answers think aloud before the verdict.
        max_new_tokens: length of an answer; None for 16, and 512 with reasoning.
        name: what the judge is called in messages.
    """

    def __init__(
        self,
        client: ChatClient,
        templates: JudgeTemplates,
        reasoning: bool = False,
        max_new_tokens: int | None = None,
        name: str = "the judge",
    ) -> None:
        super().__init__(self._compare, self._grade_replies if templates.grading else None, name)
        self.client, self.templates, self.reasoning = client, templates, reasoning
        self.max_new_tokens = max_new_tokens or (512 if reasoning else 16)
        self.about = {"wording": templates.report()}

    def _compare(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], questions: Sequence[str | None]
    ) -> list[float | None]:
        requests = pair_requests(self.templates.comparing, prompts, first, second, questions)
        return [self._preference(response) for response in self._ask(requests)]

    def _preference(self, response: Response) -> float | None:
        first_token = {} if self.reasoning or response.failure else response.first_token or {}
        if (p := soft_verdict(first_token)) is not None:
            return p
        return self._checked(response, read_verdict(response.text, self.reasoning))

    def _grade_replies(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float | None]:
        assert self.templates.grading is not None
        responses = self._ask(grade_requests(self.templates.grading, prompts, completions))
        return [self._checked(response, read_grade(response.text, self.reasoning)) for response in responses]

    def _ask(self, requests: list[list[Message]]) -> list[Response]:
        before = getattr(self.client, "flops", 0.0)
        responses = self.client(requests, self.max_new_tokens)
        self.flops += getattr(self.client, "flops", 0.0) - before
        return responses

    def report(self) -> dict[str, Any]:
        """See `Judge.report`; with what the client reports of itself, where it does."""
        own = getattr(self.client, "report", None)
        return {**super().report(), **({"endpoint": own()} if own is not None else {})}

    def _checked(self, response: Response, value: float | None) -> float | None:
        """The value that was read, where there is an answer and a value; else the failure is recorded."""
        if response.failure is None and value is not None:
            return value
        self.record_failure(response.failure, response.text)
        return None


def pair_requests(
    template: PromptTemplate,
    prompts: Sequence[Prompt],
    first: Sequence[str],
    second: Sequence[str],
    questions: Sequence[str | None],
) -> list[list[Message]]:
    """A conversation for each pair that asks which reply is better.

    Raises:
        PrefzooError: when a question is to be asked that the template has no place for.
    """
    if "question" not in template.variables and any(question is not None for question in questions):
        raise PrefzooError(
            f"judge.prompt: {template.name!r} does not use {{{{ question }}}}, and principles ask one each"
        )
    return [
        [{"role": "user", "content": template.render(prompt=prompt, first=x, second=y, question=question)}]
        for prompt, x, y, question in zip(prompts, first, second, questions, strict=True)
    ]


def grade_requests(
    template: PromptTemplate, prompts: Sequence[Prompt], completions: Sequence[str]
) -> list[list[Message]]:
    """A conversation for each reply that asks how good it is."""
    return [
        [{"role": "user", "content": template.render(prompt=prompt, reply=reply)}]
        for prompt, reply in zip(prompts, completions, strict=True)
    ]


def soft_verdict(first_token: Mapping[str, float]) -> float | None:
    """P(A) among A and B by the log-probabilities of a first token; None where it is neither more likely than not.

    Spellings of a letter are added up. Where the alternatives are cut off before one letter, it has at most the
    probability of the last of them, and at most what is left over: that much it is given.
    """
    mass = {
        letter: sum(math.exp(p) for token, p in first_token.items() if token.strip(" \n\t▁Ġ") == letter)
        for letter in "AB"
    }
    if mass["A"] + mass["B"] < 0.5:
        return None
    listed = [math.exp(p) for p in first_token.values()]
    for letter in "AB":
        if not mass[letter]:
            mass[letter] = min(*listed, max(0.0, 1 - sum(listed)))
    return mass["A"] / (mass["A"] + mass["B"])
