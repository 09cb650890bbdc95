"""The block `data` of a recipe: where the rows come from, and how they are divided."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from prefzoo.data.read_files import COLUMNS
from prefzoo.data.read_result import Pairs
from prefzoo.data.vote_aggregation import VoteRule
from prefzoo.settings import PathText, Settings

Files = PathText | Annotated[list[PathText], Field(min_length=1)] | None
"""A file, a hub id or a store of feedback, or a list of them."""


class Splits(Settings):
    """Shares of the prompts, which add up to 1.

    Attributes:
        train: what is learned from.
        validation: what is watched meanwhile.
        test: what the verdict is by.
    """

    train: float = Field(gt=0)
    validation: float = Field(ge=0)
    test: float = Field(gt=0)

    @field_validator("*")
    @classmethod
    def _no_percentage(cls, share: float) -> float:
        if share > 1:
            raise ValueError(f"must be a share of 1, such as 0.7 (got {share:g})")
        return share

    @model_validator(mode="after")
    def _whole(self) -> Splits:
        shares = self.model_dump()
        if abs(sum(shares.values()) - 1) > 1e-6:
            total = " + ".join(f"{name} {share:g}" for name, share in shares.items())
            raise ValueError(f"{total} is {sum(shares.values()):g}; the shares must add up to 1")
        return self


class Data(Settings):
    """Where the rows come from: a `source` by name, or files or hub ids of one or more kinds (those of
    `data.read_files.COLUMNS`). Of a list, later files and stores are added to the first, which says what is tested on.

    `columns` maps our column names to those of the data. `attributes` names columns of `ratings` that rate a reply each
    in one respect, such as `helpfulness`; where there is no `rating`, that is their mean. `pairs` says which are made
    of rankings and ratings (the ratings of one reply count by their mean): every two replies that differ (`all`),
    neighbours only (`adjacent`), or every two by their strengths in all rankings of a prompt together
    (`plackett_luce`, see `data.plackett_luce`).
    `annotators` says how several people's votes on one pair of replies become preferences: what most say (`majority`),
    every vote as a pair of its own, so that votes count by their share (`soft`), or what is likelier, people being
    weighed by how often they are found to be right (`reliability`; needs the extra `annotators`, see
    `data.vote_aggregation`). A ranking is a vote on every two of its replies, but not with `plackett_luce`.
    `split`, `revision` and `data_dir` are those of a hub dataset. `label_with` makes pairs from the start's own replies
    to the prompts. `splits` are shares of the prompts. `shuffle_labels` is a negative control: every trial learns from
    pairs whose labels were swapped at random, each seed by its own coin. Lengths that are `auto` are derived from the
    data and the model's positions (`run.stages.token_lengths.derive_lengths`).
    """

    source: str | None = None
    preferences: Files = None
    rankings: Files = None
    ratings: Files = None
    demonstrations: Files = None
    prompts: Files = None
    columns: dict[str, str] = Field({})
    attributes: list[str] = Field([])
    pairs: Pairs = "all"
    annotators: VoteRule = "majority"
    label_with: Literal["gold", "judge"] | None = None
    split: str = "train"
    revision: str | None = None
    data_dir: str | None = None
    splits: Splits = Splits(train=0.7, validation=0.1, test=0.2)
    seed: int = 0
    max_prompt_tokens: Annotated[int, Field(ge=8)] | Literal["auto"] = "auto"
    max_completion_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    shuffle_labels: bool = False

    def files(self) -> dict[str, list[str]]:
        """The files, hub ids and stores of feedback that are given, by kind, in their order."""
        given = {kind: value for kind in COLUMNS if (value := getattr(self, kind)) is not None}
        return {kind: [value] if isinstance(value, str) else list(value) for kind, value in given.items()}

    def places(self) -> dict[str, tuple[str, str]]:
        """Key -> kind and file, such as `preferences`, or `preferences[1]` for the second of several."""
        return {
            kind if len(files) == 1 else f"{kind}[{i}]": (kind, file)
            for kind, files in self.files().items()
            for i, file in enumerate(files)
        }

    @field_validator(*COLUMNS)
    @classmethod
    def _one_origin(cls, value: Files, info: ValidationInfo) -> Files:
        if value is not None and (source := info.data.get("source")):
            raise ValueError(f"give data.source ({source!r}) or data.{info.field_name} ({value!r}), not both")
        if isinstance(value, list) and (twice := next((file for file in value if value.count(file) > 1), None)):
            raise ValueError(f"{twice!r} is given twice, and its rows would be")
        return value
