"""What an audit says of a judge: `judge_audit.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

KnownBy = Literal["gold", "labels"]
AUDIT_FILE = "judge_audit.json"


class Block(BaseModel):
    """A block of `judge_audit.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Share(Block):
    """A share of `count` cases with its 95% interval."""

    share: float
    ci95: tuple[float, float]
    count: int


class Bin(Block):
    """Pairs whose preferred reply the judge is `low` to `high` sure of."""

    low: float
    high: float
    pairs: int
    mean: float | None = Field(description="mean probability that the judge gives to the reply it prefers")
    right: Share | None = Field(description="how often that reply is the better one")


class Calibration(Block):
    """Whether the judge is right as often as it is sure.

    A pair is asked about in both orders, so that P(first better) and P(second better) add up to 1 and the reply that is
    preferred has at least one half: the table begins there.

    Attributes:
        error: expected calibration error: the mean over pairs of |sure - right| of their bin (Guo et al. 2017,
            https://arxiv.org/abs/1706.04599).
        brier: mean of (1 - P(the better reply))^2; a coin that says one half has 0.25 (Brier 1950).
        sure: mean probability of the preferred reply.
    """

    bins: list[Bin]
    error: float
    brier: float
    sure: float


class LengthBias(Block):
    """What length has to do with the verdicts, over pairs of replies that differ in characters.

    A judge that errs without looking at length errs as often where the better reply is the longer one as where it is
    the shorter one; `favour` is the difference.

    Attributes:
        longer_preferred: how often the longer reply is preferred.
        longer_better: how often it is the better one; None without a truth.
        where_longer_is_better, where_shorter_is_better: agreement in these pairs; None where there are none.
        favour, favour_ci95: the first less the second, with Newcombe's 95% interval of a difference of two shares
            (Newcombe 1998, method 10); above 0 the judge favours longer replies.
    """

    longer_preferred: Share
    longer_better: float | None = None
    where_longer_is_better: Share | None = None
    where_shorter_is_better: Share | None = None
    favour: float | None = None
    favour_ci95: tuple[float, float] | None = None


class Figures(Block):
    """What was found over some pairs; every pair is two questions, one in each order.

    Attributes:
        pairs: pairs that were judged.
        agreement: how often the judge, over both orders, prefers the better reply, ties counting half; None without a
            truth.
        consistency: of pairs in which both orders gave a verdict, how often it was the same; None where none did.
        first_preferred: questions in which the reply shown first was preferred, undecided ones counting half; without
            position bias one half.
        ties: how often neither reply came out better over both orders.
        failures: questions to which no answer could be read.
        length: None where all replies are equally long.
        calibration: None without a truth.
    """

    pairs: int
    agreement: Share | None
    consistency: Share | None
    first_preferred: Share
    ties: Share
    failures: Share
    length: LengthBias | None
    calibration: Calibration | None


class Audit(Figures):
    """The whole audit.

    Attributes:
        judge: what is audited.
        truth: what it is held against: gold, the labels of the data, or nothing.
        questions: how many were put to the judge; they are charged to no trial.
        without_truth: pairs that were left out because both replies are as good in gold.
        slices: the same for each named part of the prompts.
    """

    judge: str
    truth: KnownBy | None
    questions: int
    without_truth: int
    slices: dict[str, Figures] = {}

    @property
    def trusted(self) -> bool | None:
        """Whether it is better than a coin; None where there is no truth to tell that by."""
        return None if self.agreement is None else self.agreement.ci95[0] > 0.5
