"""What `results.json` holds of people's answers about test replies. Types only."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from prefzoo.results.tuning_schema import Block


class WinRate(Block):
    """How often a is better than b, ties half, and its 95% interval."""

    mean: float
    ci95: tuple[float, float] = Field(description="over other test prompts and other trainings")
    ci95_of_prompts: tuple[float, float] = Field(description="over other test prompts, of these trainings alone")


class Agreement(Block):
    """The share of replies on which the judge prefers the same one as people, of those on which both prefer one."""

    share: float
    ci95: tuple[float, float]
    count: int


class SoFar(Block):
    """What the first answers alone would have given."""

    answered: int
    people: WinRate
    joined: WinRate


class HumanPair(Block):
    """Two policies, of which people compared some replies."""

    a: str
    b: str
    seeds: list[str] = Field(
        description="the trainings of which people answered about any reply; only these count here"
    )
    replies: int = Field(description="pairs of test replies of these trainings")
    same_replies: int = Field(description="of which both replies are the same, a tie without asking")
    answered: int = Field(description="of which people answered, one or several of them")
    answers: int
    ties: int = Field(description="answers for neither")
    both_bad: int = Field(description="of which said that both are bad")
    judge: WinRate = Field(description="by the judge (see `instrument`) alone, of all replies")
    people: WinRate = Field(description="by people alone, of what they answered")
    joined: WinRate = Field(description="by both, with prediction-powered inference")
    agreement: Agreement | None = Field(default=None, description="None where they never both preferred a reply")
    correlation: float | None = Field(default=None, description="of the judge's and people's verdicts, ties half")
    slope: float = Field(description="by which the judge's verdicts count in `joined`; 0: not at all")
    worth: float = Field(description="answers without the judge that leave as little error as `answered` with it")
    so_far: list[SoFar] = Field(default=[], description="by the number of answers, in their order")


class Human(Block):
    """People's answers about the test replies, joined with the verdicts on all of them."""

    file: str
    sha256: str | None = Field(default=None, description="of what people said; None where nothing could be read")
    instrument: str = Field(description="whose verdicts are on all replies: `judge`, `gold`, or `proxy`: the reward")
    answers: int = Field(default=0, description="in the file, of all kinds")
    used: int = 0
    unused: dict[str, int] = Field(default={}, description="reason -> answers that are not about these test replies")
    weighting: str = Field(default="", description="how the chances of replies to be asked about enter")
    annotators: dict[str, Any] = Field(default={}, description="agreement between people; see `data.agreement`")
    pairs: list[HumanPair] = Field(default=[])
    problem: str | None = Field(default=None, description="why there are no answers")
