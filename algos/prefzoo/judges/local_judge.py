"""A language model in this process as a judge, read by probabilities or by the text that it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import Response
from prefzoo.judges.judge import Judge
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.judges.prompt_templates import JudgeTemplates, judge_templates
from prefzoo.judges.text_judge import TextJudge, grade_requests, pair_requests
from prefzoo.ledger import Ledger
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.next_token import next_token, spellings
from prefzoo.settings import Generation
from prefzoo.types import Message, Prompt

GRADES = torch.arange(11, dtype=torch.float64)
TOO_LONG = "the question is longer than the model reads"


def local_judge(
    base: str,
    lab: bool,
    loading: Mapping[str, Any],
    settings: JudgeSettings | None = None,
    sampling: Generation | None = None,
) -> Judge:
    """A language model asked for "A" or "B" in both orders, because of its position bias (Zheng et al. 2023,
    https://arxiv.org/abs/2306.05685).

    Args:
        base: folder of the model.
        lab: whether it is the lab's, which knows one form of the question and does not grade.
        loading: how its files are read.
        settings: how it is asked and read; None for the defaults.
        sampling: its engine writes the answers that are read in words; probabilities are read in this process.

    Raises:
        PrefzooError: when a template is wrong, or when the model is to be read by probabilities and its vocabulary has
            no single tokens for the two verdicts.
    """
    settings = settings or JudgeSettings()
    templates = judge_templates(settings, lab)
    model = LanguageModelPolicy.from_start(base, **loading)
    name = f"the judge {'lab' if lab else base!r}"
    if settings.verdict == "generated":
        client = LocalChatClient(model, sampling)
        return TextJudge(client, templates, settings.reasoning, settings.max_new_tokens, name)
    return ProbabilityJudge(model, templates, name)


class LocalChatClient:
    """Asks a language model; it answers greedily.

    Args:
        model: who answers.
        sampling: its engine is used; None is transformers'.

    Attributes:
        flops: floating-point operations so far.
    """

    def __init__(self, model: LanguageModelPolicy, sampling: Generation | None = None) -> None:
        self.model, self.sampling, self.flops = model, sampling or Generation(), 0.0

    def __call__(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Response]:
        """See `ChatClient`."""
        limit = getattr(self.model.model.config, "max_position_embeddings", None)
        fits = [limit is None or len(self.model.render(turns)) + max_new_tokens <= limit for turns in conversations]
        ledger = Ledger()
        changes = {"max_new_tokens": max_new_tokens, "temperature": 0.0, "batch_size": 64}
        greedy = self.sampling.model_copy(update=changes)
        with torch.random.fork_rng(range(torch.cuda.device_count())):  # a training may be in between two draws
            fitting = [turns for turns, short in zip(conversations, fits, strict=True) if short]
            replies = iter(self.model.sample(fitting, greedy, seed=0, ledger=ledger))
        self.flops += ledger.flops
        return [Response(next(replies)[0].text) if short else Response(failure=TOO_LONG) for short in fits]


class ProbabilityJudge(Judge):
    """Reads verdict and grade off the model's probabilities of the token that comes next.

    Args:
        model: who judges.
        templates: the requests.
        name: what it is called in messages.

    Raises:
        PrefzooError: when its vocabulary has no single tokens for the verdicts.
    """

    def __init__(self, model: LanguageModelPolicy, templates: JudgeTemplates, name: str) -> None:
        super().__init__(self._compare, self._grade_replies if templates.grading else None, name)
        self.model, self.templates = model, templates
        self.about = {"wording": templates.report()}
        self.verdict_mass, self.questions_read = 0.0, 0
        self.letters = spellings(model.tokenizer, ("A", "B"))
        if not self.letters:
            raise PrefzooError(
                f"judge.path: the tokenizer of {model.start!r} has no single tokens for the verdicts A and B; "
                "judge.verdict: generated does without"
            )

    def _compare(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], questions: Sequence[str | None]
    ) -> list[float | None]:
        requests = pair_requests(self.templates.comparing, prompts, first, second, questions)
        verdicts = self._next(requests, self.letters).sum(1)  # (N, 2)
        mass = verdicts.sum(1)
        self.verdict_mass += float(mass.nansum())
        self.questions_read += int(mass.isfinite().sum())
        self.about["verdict_probability"] = self.verdict_mass / max(1, self.questions_read)
        return self._known(verdicts[:, 0] / mass)

    def state(self) -> dict[str, Any]:
        """See `Judge.state`."""
        return {**super().state(), "mass": self.verdict_mass, "seen": self.questions_read}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Judge.restore`."""
        super().restore(state)
        self.verdict_mass, self.questions_read = state["mass"], state["seen"]

    def compare_both_orders(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> tuple[Sequence[float | None], Sequence[float | None]]:
        """See `Judge.compare_both_orders`; in one call, as what the two orders have in common is computed only once."""
        asks = 2 * (list(questions) if questions is not None else [None] * len(prompts))
        answers = self.compare_once([*prompts, *prompts], [*first, *second], [*second, *first], asks)
        return answers[: len(prompts)], answers[len(prompts) :]

    def _grade_replies(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float | None]:
        """The mean of 0 to 10 by the probabilities of the answers "0" to "10".

        Where "10" is "1" and then "0", the probability of "1" is shared between the two by what follows it.
        """
        assert self.templates.grading is not None
        requests = grade_requests(self.templates.grading, prompts, completions)
        if numbers := spellings(self.model.tokenizer, [str(grade) for grade in range(11)]):
            masses = self._next(requests, numbers).sum(1)  # (N, 11)
            return self._known(masses @ GRADES / masses.sum(1))
        digits = spellings(self.model.tokenizer, [str(grade) for grade in range(10)])
        if not digits:
            raise PrefzooError(
                f"judge.path: the tokenizer of {self.model.start!r} has no single tokens for the grades 0 to 9; "
                "judge.verdict: generated does without"
            )
        first_digit = self._next(requests, digits)  # (N, spellings, 10)
        ten = torch.zeros(len(requests), dtype=torch.float64)
        for i, (_, one, *_) in enumerate(digits):
            zeros = [[zero] for zero, *_ in digits if self.model.tokenizer.decode([one, zero]).strip() == "10"]
            if zeros:
                ten += first_digit[:, i, 1] * self._next(requests, zeros, [one]).sum((1, 2))
        masses = torch.cat([first_digit.sum(1), ten[:, None]], 1)  # (N, 11)
        masses[:, 1] -= ten
        return self._known(masses @ GRADES / masses.sum(1))

    def _next(
        self, requests: Sequence[Sequence[Message]], spelled: Sequence[Sequence[int]], prefix: Sequence[int] = ()
    ) -> torch.Tensor:
        """The probability that each word comes next, in each of its spellings, of shape (requests, spellings, words).

        Args:
            spelled: for each way to spell the words their tokens, one a word.
            prefix: tokens that the answer has begun with.
        """
        outcome = next_token(self.model, requests, [token for tokens in spelled for token in tokens], prefix)
        self.flops += 2.0 * self.model.parameters * outcome.tokens
        return outcome.probabilities.unflatten(1, (len(spelled), -1))

    def _known(self, values: torch.Tensor) -> list[float | None]:
        """As numbers; None, which is recorded, for what is not one."""
        known = [None if value != value else value for value in values.tolist()]
        for _ in range(known.count(None)):
            self.record_failure(TOO_LONG)
        return known
