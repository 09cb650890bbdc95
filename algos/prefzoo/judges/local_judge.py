"""A language model in this process as a judge, read by probabilities or asked for words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import Said
from prefzoo.judges.judge import Judge
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.judges.prompt_templates import Wording, wording
from prefzoo.judges.text_judge import grade_requests, pair_requests, worded_judge
from prefzoo.ledger import Ledger
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.next_token import next_token, spellings
from prefzoo.settings import Generation
from prefzoo.types import Message, Prompt

GRADES = torch.arange(11, dtype=torch.float64)
TOO_LONG = "the question is longer than the model reads"


def local_judge(base: str, lab: bool, loading: Mapping[str, Any], settings: JudgeSettings | None = None) -> Judge:
    """A language model asked for "A" or "B" in both orders, because of its position bias (Zheng et al. 2023,
    https://arxiv.org/abs/2306.05685).

    Args:
        base: folder of the model.
        lab: whether it is the lab's, which knows one wording of the question and does not grade.
        loading: how its files are read.
        settings: how it is asked and read; None for the defaults.

    Raises:
        PrefzooError: when a template is wrong, or when the model is to be read by probabilities and its vocabulary has
            no single tokens for the two verdicts.
    """
    settings = settings or JudgeSettings()
    words = wording(settings, lab)
    model = LanguageModelPolicy.from_start(base, **loading)
    name = f"the judge {'lab' if lab else base!r}"
    if settings.verdict == "generated":
        return worded_judge(LocalAsker(model), words, settings.reasoning, settings.max_new_tokens, name)
    return ProbabilityJudge(model, words, name)


class LocalAsker:
    """Asks a model in this process; it answers greedily.

    Attributes:
        flops: floating-point operations so far.
    """

    def __init__(self, model: LanguageModelPolicy) -> None:
        self.model, self.flops = model, 0.0

    def __call__(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Said]:
        """See `asking.Asker`."""
        limit = getattr(self.model.model.config, "max_position_embeddings", None)
        room = [limit is None or len(self.model.render(each)) + max_new_tokens <= limit for each in conversations]
        ledger = Ledger()
        greedy = Generation(max_new_tokens=max_new_tokens, temperature=0, batch_size=64)
        with torch.random.fork_rng(range(torch.cuda.device_count())):  # a training may be in between two draws
            fitting = [each for each, fits in zip(conversations, room, strict=True) if fits]
            replies = iter(self.model.sample(fitting, greedy, seed=0, ledger=ledger))
        self.flops += ledger.flops
        return [Said(next(replies)[0].text) if fits else Said("", failure=TOO_LONG) for fits in room]


class ProbabilityJudge(Judge):
    """Reads verdict and grade off the model's probabilities of the token that comes next.

    Args:
        model: who judges.
        words: the requests.
        name: what it is called in messages.

    Raises:
        PrefzooError: when its vocabulary has no single tokens for the verdicts.
    """

    def __init__(self, model: LanguageModelPolicy, words: Wording, name: str) -> None:
        super().__init__(self._compare, self._give_grades if words.grading else None, name)
        self.model, self.words = model, words
        self.about = {"wording": words.report()}
        self.mass, self.seen = 0.0, 0
        self.letters = spellings(model.tokenizer, ("A", "B"))
        if not self.letters:
            raise PrefzooError(
                f"judge.path: the tokenizer of {model.start!r} has no single tokens for the verdicts A and B; "
                "judge.verdict: generated does without"
            )

    def _compare(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], questions: Sequence[str | None]
    ) -> list[float | None]:
        asked = pair_requests(self.words.comparing, prompts, first, second, questions)
        verdicts = self._next(asked, self.letters).sum(1)  # (N, 2)
        mass = verdicts.sum(1)
        self.mass, self.seen = self.mass + float(mass.nansum()), self.seen + int(mass.isfinite().sum())
        self.about["verdict_probability"] = self.mass / max(1, self.seen)
        return self._known(verdicts[:, 0] / mass)

    def state(self) -> dict[str, Any]:
        """See `Judge.state`."""
        return {**super().state(), "mass": self.mass, "seen": self.seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Judge.restore`."""
        super().restore(state)
        self.mass, self.seen = state["mass"], state["seen"]

    def in_both_orders(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> tuple[Sequence[float | None], Sequence[float | None]]:
        """See `Judge.in_both_orders`; at once, because the two orders begin alike, and that is computed only once."""
        asks = 2 * (list(questions) if questions is not None else [None] * len(prompts))
        told = self.answers([*prompts, *prompts], [*first, *second], [*second, *first], asks)
        return told[: len(prompts)], told[len(prompts) :]

    def _give_grades(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float | None]:
        """The mean of 0 to 10 by the probabilities of the answers "0" to "10".

        Where "10" is "1" and then "0", the probability of "1" is shared between the two by what follows it.
        """
        assert self.words.grading is not None
        asked = grade_requests(self.words.grading, prompts, completions)
        if whole := spellings(self.model.tokenizer, [str(grade) for grade in range(11)]):
            masses = self._next(asked, whole).sum(1)  # (N, 11)
            return self._known(masses @ GRADES / masses.sum(1))
        digits = spellings(self.model.tokenizer, [str(grade) for grade in range(10)])
        if not digits:
            raise PrefzooError(
                f"judge.path: the tokenizer of {self.model.start!r} has no single tokens for the grades 0 to 9; "
                "judge.verdict: generated does without"
            )
        begun = self._next(asked, digits)  # (N, ways, 10)
        ten = torch.zeros(len(asked), dtype=torch.float64)
        for way, (_, one, *_) in enumerate(digits):
            zeros = [[zero] for zero, *_ in digits if self.model.tokenizer.decode([one, zero]).strip() == "10"]
            if zeros:
                ten += begun[:, way, 1] * self._next(asked, zeros, [one]).sum((1, 2))
        masses = torch.cat([begun.sum(1), ten[:, None]], 1)  # (N, 11)
        masses[:, 1] -= ten
        return self._known(masses @ GRADES / masses.sum(1))

    def _next(
        self, asked: Sequence[Sequence[Message]], ways: Sequence[Sequence[int]], begun: Sequence[int] = ()
    ) -> torch.Tensor:
        """The probability of each word next, in each of the `ways` to spell them, of shape (asked, ways, words)."""
        found = next_token(self.model, asked, [token for way in ways for token in way], begun)
        self.flops += 2.0 * self.model.parameters * found.tokens
        return found.probabilities.unflatten(1, (len(ways), -1))

    def _known(self, values: torch.Tensor) -> list[float | None]:
        """As numbers; None, which is noted, for what is not one."""
        known = [None if value != value else value for value in values.tolist()]
        for _ in range(known.count(None)):
            self.failed(TOO_LONG)
        return known
