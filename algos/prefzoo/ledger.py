"""What a trial used: tokens, operations, questions and time, so that algorithms are compared at equal cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from prefzoo.errors import PrefzooError

if TYPE_CHECKING:
    from prefzoo.types import Judge, Prompt, Reward

T = TypeVar("T")

CHARGES = (
    "generated_tokens",
    "inference_tokens",
    "trained_tokens",
    "forward_tokens",
    "prompts",
    "reward_calls",
    "judge_calls",
    "flops",
)
"""What of a ledger adds up over processes that work together."""


@dataclass
class Ledger:
    """What a trial used. Costs of measuring (scoring test replies, KL, keeping a milestone) are not charged to it.

    FLOPs are those of multiplying by weights (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, table 1): for each
    weight that a token passes through 2 forward, 2 more to carry its gradient back to the activations below, and 2 more
    for the gradient of the weight itself, if it is trained. Full fine-tuning of N weights thus costs 6 N a token; an
    adapter of A weights on a frozen base of N costs 4 N + 6 A, for nothing needs the gradients of frozen weights. The
    adapter and the embeddings are among the weights; sampling, the reference, old log-probabilities, values, rewards
    and judges in this process are paid for. Attention over earlier tokens, the optimizer, and what gradient
    checkpointing computes again are not counted. A prompt counts once for each row that holds it, also where a
    beginning that several rows share is computed once.

    Attributes:
        generated_tokens: tokens sampled in training and to answer the test prompts.
        inference_tokens: the part of `generated_tokens` that answering the test prompts took.
        trained_tokens: tokens that passed through a forward and a backward pass, prompt tokens included.
        forward_tokens: tokens that passed forward only, once for each pass: prompts that were read to sample from, and
            what the reference, old log-probabilities and values were taken of. A reward's and a judge's own tokens are
            in `flops` alone.
        prompts: how often training took up a prompt of the data: once when replies to it are sampled, however many, and
            once for a row in each epoch of learning from it. What is made of sampled replies does not count again, nor
            do the rows of reward models.
        reward_calls: replies scored by the reward, in training and (best-of-n) to choose an answer.
        judge_calls: questions put to a judge.
        flops: floating-point operations, counted as said above.
        seconds: wall-clock time of training and of answering the test prompts.
        peak_memory_bytes: the largest resident memory of the trial's process (of its GPU where it has one); of one that
            evaluates several policies, since it began with this one, where the system can tell.
    """

    generated_tokens: int = 0
    inference_tokens: int = 0
    trained_tokens: int = 0
    forward_tokens: int = 0
    prompts: int = 0
    reward_calls: int = 0
    judge_calls: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def generated(self, tokens: int, parameters: int) -> None:
        """Charge sampled tokens, each of which passed through so many parameters."""
        self.generated_tokens += tokens
        self.flops += 2.0 * parameters * tokens

    def forwarded(self, tokens: int, parameters: int) -> None:
        """Charge tokens that passed forward only."""
        self.forward_tokens += tokens
        self.flops += 2.0 * parameters * tokens

    def trained(self, tokens: int, parameters: int, trained_parameters: int | None = None) -> None:
        """Charge tokens that were trained on, where so many of the parameters are trained; None is all of them."""
        learning = parameters if trained_parameters is None else trained_parameters
        self.trained_tokens += tokens
        self.flops += (4.0 * parameters + 2.0 * learning) * tokens

    def scored(self, reward: Reward, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """Score replies and charge that; a reward that counts its operations does so in an attribute `flops`, and one
        that asks a judge its questions in `questions`.

        Raises:
            PrefzooError: when a reply has no score, or one that is not a finite number: trainers take that for 0.
        """
        flops_before, questions_before = getattr(reward, "flops", 0.0), getattr(reward, "questions", 0)
        scores = list(reward(prompts, completions))
        if len(scores) != len(completions):
            raise PrefzooError(f"the reward gave {len(scores)} scores for {len(completions)} replies")
        if bad := [i for i, score in enumerate(scores) if not _finite(score)]:
            raise PrefzooError(
                f"the reward gave {scores[bad[0]]!r} to {len(bad)} of {len(scores)} replies, first to "
                f"{completions[bad[0]]!r}; a score must be a finite number"
            )
        self.reward_calls += len(completions)
        self.flops += getattr(reward, "flops", 0.0) - flops_before
        self.judge_calls += getattr(reward, "questions", 0) - questions_before
        return [float(score) for score in scores]

    def judged(self, judge: Judge, ask: Callable[[], list[T]]) -> list[T]:
        """Ask a judge and charge the questions; one that counts its operations does so in an attribute `flops`."""
        before, operations = judge.report()["questions"], getattr(judge, "flops", 0.0)
        answers = ask()
        self.judge_calls += int(judge.report()["questions"] - before)
        self.flops += getattr(judge, "flops", 0.0) - operations
        return answers


def _finite(score: Any) -> bool:
    try:
        return math.isfinite(score)
    except TypeError:
        return False
