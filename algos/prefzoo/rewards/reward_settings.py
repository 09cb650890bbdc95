"""What a recipe's `reward:` block may say."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from prefzoo.judges.fact_checking import FOUND
from prefzoo.rewards.judge_reward import By
from prefzoo.rewards.load_reward import Combine
from prefzoo.rewards.reward_files import RewardLoss
from prefzoo.settings import Adapter, PathText, Settings, Shaping


class FactScores(Settings):
    """What a reply scores by what documents say of it.

    Attributes:
        supported: where they support what it states.
        contradicted: where they contradict any of it.
        not_found: where they do neither.
    """

    supported: float = 1.0
    contradicted: float = -1.0
    not_found: float = 0.0


class RewardPart(Settings):
    """One reward: a model `trained` on the data, one at a `path`, a `function` (`path: FILE.py:NAME`), the recipe's
    `judge`, `knowledge` out of `documents`, or `random`: a negative control.

    `knowledge` checks what a reply states against the `k` sentences of `documents` that are found for it
    (`judges.fact_checking`), by an entailment model at `path` or, without one, by the recipe's judge; `scores` says
    what each verdict is worth.

    `by` is how a judge scores (`judge_reward.JudgeReward`): by `comparison` with the start's own reply, or by `grade`.
    With a `question` the judge is asked that about the two, in the place of which is better.

    `loss`, `adapter` and `trainer` are those of a trained model: it learns from pairs (`bradley_terry`), ratings
    (`regression`), rankings (`plackett_luce`) or single replies that are liked or not (`logistic`); where `adapter` is
    not given it is the recipe's. With `margins` a pair's scores shall differ by the data's `margin` (Touvron et al.
    2023, https://arxiv.org/abs/2307.09288); with `label_smoothing` e, a share e of its labels is taken to be wrong.
    With `attribute` a regression is on the ratings in that respect (`data.attributes`); a sum of several weighs them.
    `members` above 1 trains that many, each with a seed of its own, and `combine` says how their scores become one:
    `mean`, `min`, or `mean_minus_std`, less `std_weight` standard deviations. `weight` is its weight in a sum.
    """

    type: Literal["trained", "path", "function", "judge", "knowledge", "random"] = "trained"
    path: PathText | None = Field(None, validate_default=True)
    by: By = "comparison"
    question: str | None = Field(None, min_length=1)
    documents: PathText | None = Field(None, validate_default=True)
    k: int = Field(FOUND, ge=1)
    scores: FactScores = FactScores()
    loss: RewardLoss = "bradley_terry"
    margins: bool = False
    attribute: str | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    adapter: Adapter | None = None
    trainer: dict[str, Any] = Field({})
    members: int = Field(1, ge=1)
    combine: Combine = "mean"
    std_weight: float = Field(1.0, ge=0)
    weight: float = 1.0

    @field_validator("path")
    @classmethod
    def _path_fits(cls, path: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("type")  # missing where it is itself wrong
        if kind in ("path", "function") and not path:
            raise ValueError(f"is missing; reward.type {kind!r} needs one")
        if kind in ("trained", "judge", "random", "sum") and path:
            raise ValueError(f"{path!r} has no meaning with reward.type {kind!r}")
        return path

    @field_validator("documents")
    @classmethod
    def _documents_fit(cls, documents: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("type") == "knowledge" and not documents:
            raise ValueError("is missing; reward.type 'knowledge' needs a file of documents")
        return documents

    @field_validator("documents", "k", "scores")
    @classmethod
    def _knowledge_is_used(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        kind = info.data.get("type", "knowledge")
        if kind != "knowledge" and value != cls.model_fields[info.field_name].default:
            said = value.model_dump() if isinstance(value, FactScores) else value
            raise ValueError(f"{said!r} has no meaning with reward.type {kind!r}; it must be 'knowledge'")
        return value

    @field_validator("by")
    @classmethod
    def _judge_is_used(cls, by: By, info: ValidationInfo) -> By:
        if (kind := info.data.get("type", "judge")) != "judge" and by != "comparison":
            raise ValueError(f"{by!r} has no meaning with reward.type {kind!r}; it must be 'judge'")
        return by

    @field_validator("question")
    @classmethod
    def _question_is_asked(cls, question: str | None, info: ValidationInfo) -> str | None:
        if question is None:
            return None
        if (kind := info.data.get("type", "judge")) != "judge":
            raise ValueError(f"{question!r} has no meaning with reward.type {kind!r}; it must be 'judge'")
        if info.data.get("by", "comparison") != "comparison":
            raise ValueError(f"{question!r} is about two replies, and by: 'grade' shows one; it must be 'comparison'")
        return question

    @field_validator(
        "loss", "margins", "attribute", "label_smoothing", "adapter", "trainer", "members", "combine", "std_weight"
    )
    @classmethod
    def _training_is_used(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        if value == cls.model_fields[info.field_name].default:
            return value
        if (kind := info.data.get("type", "trained")) != "trained":
            raise ValueError(f"{value!r} has no meaning with reward.type {kind!r}")
        if info.field_name == "attribute" and (loss := info.data.get("loss", "regression")) != "regression":
            raise ValueError(f"{value!r} has no meaning with loss {loss!r}; it must be 'regression'")
        of_pairs = info.field_name in ("margins", "label_smoothing")
        if of_pairs and (loss := info.data.get("loss", "bradley_terry")) != "bradley_terry":
            raise ValueError(f"{str(value).lower()} has no meaning with loss {loss!r}; it must be 'bradley_terry'")
        if info.field_name in ("combine", "std_weight") and info.data.get("members") == 1:
            raise ValueError(f"{value!r} has no meaning with 1 member; members must be above 1")
        if info.field_name == "std_weight" and (combine := info.data.get("combine")) in ("mean", "min"):
            raise ValueError(f"{value!r} has no meaning with combine {combine!r}; it must be 'mean_minus_std'")
        return value

    @property
    def asks_judge(self) -> bool:
        """Whether the recipe's judge is asked."""
        return self.type == "judge" or (self.type == "knowledge" and self.path is None)


class RewardSettings(RewardPart):
    """What algorithms learn from: one reward, or a `sum` `of` several, each times its `weight`.

    What online algorithms make of the scores is said by `normalize` and `clip` (`prefzoo.settings.Shaping`).
    """

    type: Literal["trained", "path", "function", "judge", "knowledge", "random", "sum"] = "trained"  # type: ignore[assignment]
    of: list[RewardPart] = Field([], validate_default=True)
    normalize: bool = False
    clip: float | None = Field(None, gt=0)

    @field_validator("of")
    @classmethod
    def _sum_fits(cls, of: list[RewardPart], info: ValidationInfo) -> list[RewardPart]:
        kind = info.data.get("type", "sum" if of else "trained")
        if kind == "sum" and not of:
            raise ValueError("is missing; reward.type 'sum' needs a list of rewards")
        if kind != "sum" and of:
            raise ValueError(f"a list of rewards has no meaning with reward.type {kind!r}; it must be 'sum'")
        return of

    @field_validator("weight")
    @classmethod
    def _weight_is_used(cls, weight: float) -> float:
        if weight != 1.0:
            raise ValueError(f"{weight} has no meaning outside a sum")
        return weight

    @property
    def parts(self) -> list[RewardPart]:
        """What is summed; the reward itself where nothing is."""
        return list(self.places.values())

    @property
    def names(self) -> list[str]:
        """What the parts of a sum are called: by their attribute, else by the end of their path, else by their type;
        with a number where several would have one name."""
        plain = [
            part.attribute or re.split(r"[/:]", (part.type != "knowledge" and part.path) or part.type)[-1]
            for part in self.of
        ]
        return [f"{name} {i + 1}" if plain.count(name) > 1 else name for i, name in enumerate(plain)]

    @property
    def places(self) -> dict[str, RewardPart]:
        """The parts by their keys in the recipe."""
        return {f"reward.of.{i}": part for i, part in enumerate(self.of)} if self.type == "sum" else {"reward": self}

    @property
    def shaping(self) -> Shaping:
        """`normalize` and `clip`."""
        return Shaping(normalize=self.normalize, clip=self.clip)
