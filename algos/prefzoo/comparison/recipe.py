"""What a recipe may say: every block, key, default and range."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from prefzoo import registry
from prefzoo.data import sources
from prefzoo.data.comparisons import Pairs
from prefzoo.data.reading import COLUMNS
from prefzoo.feedback.combined import Combine
from prefzoo.feedback.judges import JudgeSettings
from prefzoo.feedback.rewards import RewardLoss
from prefzoo.interface import Adapter, Algorithm, Budget, Generation, Settings, Shaping, Training

LEARNING_RATES = {
    "lab": {"lora": 2e-3, "qlora": 2e-3, "full": 5e-4},
    "other": {"lora": 1e-4, "qlora": 1e-4, "full": 1e-5},
}
"""What `training.learning_rate` is when a recipe leaves it out: by model (the lab's tiny one or not) and adapter."""


class Model(Settings):
    """The base model: `lab`, a folder, or a hub id. Remote code stays off unless the recipe turns it on."""

    path: str = "lab"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    trust_remote_code: bool = False


class Data(Settings):
    """Where the rows come from: a `source` by name, or files or hub ids of one or more kinds (`data.reading.COLUMNS`).

    `columns` maps our column names to those of the data. `pairs` says which are made of rankings and ratings.
    `split`, `revision` and `data_dir` are those of a hub dataset. `label_with` makes pairs from the start's own replies
    to the prompts. `splits` are shares of the prompts. `shuffle_labels` is a negative control: every trial learns from
    pairs whose labels were swapped at random, each seed by its own coin.
    """

    source: str | None = None
    preferences: str | None = None
    rankings: str | None = None
    ratings: str | None = None
    demonstrations: str | None = None
    prompts: str | None = None
    columns: dict[str, str] = Field({})
    pairs: Pairs = "all"
    label_with: Literal["gold", "judge"] | None = None
    split: str = "train"
    revision: str | None = None
    data_dir: str | None = None
    splits: dict[str, float] = Field({"train": 0.7, "validation": 0.1, "test": 0.2})
    seed: int = 0
    max_prompt_tokens: int = Field(512, ge=8)
    max_completion_tokens: int = Field(512, ge=1)
    shuffle_labels: bool = False

    def files(self) -> dict[str, str]:
        """The files and hub ids that are given, by kind."""
        return {kind: path for kind in COLUMNS if (path := getattr(self, kind)) is not None}

    @model_validator(mode="after")
    def _one_origin(self) -> Data:
        if self.source and (files := self.files()):
            kind, path = next(iter(files.items()))
            raise ValueError(f"give source ({self.source!r}) or {kind} ({path!r}), not both")
        if set(self.splits) != {"train", "validation", "test"} or abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"splits must give train, validation and test shares that add up to 1, not {self.splits}")
        if min(self.splits.values()) < 0 or self.splits["train"] == 0 or self.splits["test"] == 0:
            raise ValueError(f"splits: train and test must be above 0, not {self.splits}")
        return self


class Start(BaseModel):
    """How the start policy comes about: `sft` (with its settings; `on` is what the data has: demonstrations, else
    chosen replies), or `none`: the model as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    algorithm: str = "sft"

    @property
    def parameters(self) -> dict[str, Any]:
        """The algorithm's own settings."""
        return dict(self.model_extra or {})


class RewardPart(Settings):
    """One reward: a model `trained` on the data, one at a `path`, a `function` (`path: FILE.py:NAME`), or `random`: a
    negative control.

    `loss`, `adapter` and `trainer` are those of a trained model: it learns from pairs (`bradley_terry`), ratings
    (`regression`) or rankings (`plackett_luce`); where `adapter` is not given it is the recipe's. `members` above 1
    trains that many, each with a seed of its own, and `combine` says how their scores become one: `mean`, `min`, or
    `mean_minus_std`, less `std_weight` standard deviations. `weight` is its weight in a sum.
    """

    type: Literal["trained", "path", "function", "random"] = "trained"
    path: str | None = None
    loss: RewardLoss = "bradley_terry"
    adapter: Adapter | None = None
    trainer: dict[str, Any] = Field({})
    members: int = Field(1, ge=1)
    combine: Combine = "mean"
    std_weight: float = Field(1.0, ge=0)
    weight: float = 1.0

    @model_validator(mode="after")
    def _keys_fit(self) -> RewardPart:
        kind = self.type
        if kind in ("path", "function") and not self.path:
            raise ValueError(f"path: is missing; reward.type {kind!r} needs one")
        if kind not in ("path", "function") and self.path:
            raise ValueError(f"path: {self.path!r} has no meaning with reward.type {kind!r}")
        said = self.model_dump(exclude_defaults=True)
        idle = [key for key in ("loss", "adapter", "trainer", "members", "combine", "std_weight") if key in said]
        if kind != "trained" and idle:
            raise ValueError(f"{idle[0]}: {said[idle[0]]!r} has no meaning with reward.type {kind!r}")
        if self.members == 1 and (idle := [key for key in ("combine", "std_weight") if key in said]):
            raise ValueError(f"{idle[0]}: {said[idle[0]]!r} has no meaning with 1 member; members must be above 1")
        if "std_weight" in said and self.combine != "mean_minus_std":
            raise ValueError(f"std_weight: {self.std_weight} has no meaning with combine {self.combine!r}")
        return self


class RewardSettings(RewardPart):
    """What algorithms learn from: one reward, or a `sum` `of` several, each times its `weight`.

    What online algorithms make of the scores is said by `normalize` and `clip` (`interface.Shaping`).
    """

    type: Literal["trained", "path", "function", "random", "sum"] = "trained"  # type: ignore[assignment]
    of: list[RewardPart] = Field([])
    normalize: bool = False
    clip: float | None = Field(None, gt=0)

    @property
    def parts(self) -> list[RewardPart]:
        """What is summed; the reward itself where nothing is."""
        return self.of if self.type == "sum" else [self]

    @property
    def shaping(self) -> Shaping:
        """`normalize` and `clip`."""
        return Shaping(normalize=self.normalize, clip=self.clip)

    @model_validator(mode="after")
    def _sum_fits(self) -> RewardSettings:
        if (self.type == "sum") != bool(self.of):
            raise ValueError(
                f"of: reward.type 'sum' and a list of rewards go together, not {self.type!r} and {self.of}"
            )
        if self.weight != 1.0:
            raise ValueError(f"weight: {self.weight} has no meaning outside a sum")
        return self


class GoldFunction(Settings):
    """A truth of one's own: `FILE.py:NAME`, called as `(prompts, completions) -> scores`."""

    path: str


class Evaluation(Settings):
    """How every policy is measured: one reply to each of `prompts` test prompts a seed, compared with `against`."""

    prompts: int = Field(256, ge=2)
    against: Literal["start"] = "start"


class Wandb(Settings):
    """Weights & Biases: one group for the comparison, one run for each label and seed, one run with the summary.

    `auto` is online for who is logged in, else offline, unless the environment (`WANDB_MODE`) says otherwise; what is
    kept offline lies in the comparison's folder. `artifacts` uploads the trained policies too.
    """

    project: str = "prefzoo"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    artifacts: bool = False


class Tracking(Settings):
    """Where runs are logged; no result depends on it, and turning it on trains nothing again.

    `report_to` names further trackers that the trainers themselves log their curves to, while they train.
    """

    wandb: Wandb = Wandb()
    report_to: list[Literal["tensorboard", "trackio", "mlflow"]] = Field([])


class Recipe(Settings):
    """One comparison. Everything but `algorithms` has a default."""

    model: Model = Model()
    adapter: Adapter = Adapter()
    data: Data = Data()
    start: Start = Start()
    reward: RewardSettings = RewardSettings()
    judge: JudgeSettings = JudgeSettings()
    gold: str | GoldFunction | None = None
    budget: Budget = Budget()
    generation: Generation = Generation()
    training: Training = Training()
    algorithms: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()

    @field_validator("algorithms", mode="before")
    @classmethod
    def _empty_settings(cls, value: Any) -> Any:
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError(f"at least 1 seed is needed, not {value}")
            return list(range(value))
        if isinstance(value, list) and len(set(map(str, value))) < len(value):
            raise ValueError(f"a seed is given twice in {value}; it would count as two runs")
        return value

    @field_validator("start", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return {"algorithm": "none"} if value in (None, "none") else value

    @property
    def source(self) -> str | None:
        """The name of the source of the rows, the lab where a recipe says nothing; None when they come from files."""
        return None if self.data.files() else self.data.source or "lab"

    @property
    def provides(self) -> frozenset[str]:
        """What the data has, of `data.sources.PROVIDES`; pairs count as preferences however they are made."""
        if self.source is not None:
            return sources.load(self.source).provides
        given = {"prompts", *self.data.files()}
        return frozenset(
            given | ({"preferences"} if self.data.label_with or given & {"rankings", "ratings"} else set())
        )

    @property
    def gold_source(self) -> str | GoldFunction:
        """The truth that policies are measured by: what the recipe says, else that of the source, else `none`."""
        if self.gold is not None:
            return self.gold
        return self.source if self.source is not None and sources.load(self.source).has_gold else "none"

    def start_algorithm(self) -> Algorithm | None:
        """The algorithm that makes the start; None when the model is taken as it is."""
        if self.start.algorithm == "none":
            return None
        parameters = self.start.parameters
        if self.start.algorithm == "sft":
            parameters.setdefault("on", "demonstrations" if "demonstrations" in self.provides else "chosen")
        return registry.get(self.start.algorithm, **parameters)

    def algorithm(self, label: str) -> Algorithm:
        """The algorithm behind a label, with its settings."""
        settings = dict(self.algorithms[label])
        settings.pop("seed_offset", None)
        return registry.get(settings.pop("algorithm", label), **settings)

    def seed_of(self, label: str, seed: int) -> int:
        """The seed that a label's trial really uses: the comparison's, moved by the label's `seed_offset`."""
        return seed + int(self.algorithms[label].get("seed_offset", 0))
