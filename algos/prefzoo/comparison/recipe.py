"""What a recipe may say, with every mistake in it found at once and before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from prefzoo import registry
from prefzoo.comparison import recipe_files
from prefzoo.data.formats import source_problem
from prefzoo.errors import RecipeError, unknown
from prefzoo.feedback.rewards import function_problem
from prefzoo.interface import Adapter, Algorithm, Budget, Generation, Settings, Training

REWARD_CONFIG = "trl.trainer.reward_config:RewardConfig"
LEARNING_RATES = {("lab", "lora"): 2e-3, ("lab", "full"): 5e-4, ("other", "lora"): 1e-4, ("other", "full"): 1e-5}
"""What `training.learning_rate` is when a recipe leaves it out: by model (the lab's tiny one or not) and adapter."""
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Model(Settings):
    """The base model: `lab`, a folder, or a hub id. Remote code stays off unless the recipe turns it on."""

    path: str = "lab"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    trust_remote_code: bool = False


class Data(Settings):
    """Where the rows come from: `source: lab`, or `preferences:` a file or hub id of chosen/rejected pairs.

    `revision` and `data_dir` are those of a hub dataset. `splits` are shares of the prompts. `shuffle_labels` is a
    negative control: every trial learns from pairs whose labels were swapped at random, each seed by its own coin.
    """

    source: Literal["lab"] | None = None
    preferences: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    splits: dict[str, float] = Field({"train": 0.7, "validation": 0.1, "test": 0.2})
    seed: int = 0
    max_prompt_tokens: int = Field(512, ge=8)
    max_completion_tokens: int = Field(512, ge=1)
    shuffle_labels: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Data:
        if self.source and self.preferences:
            raise ValueError(f"give source ({self.source!r}) or preferences ({self.preferences!r}), not both")
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


class RewardSettings(Settings):
    """What algorithms learn from: a reward model `trained` on the pairs, one at a `path`, a `function` (`path:
    FILE.py:NAME`), or `random`: a negative control. `adapter` and `trainer` are those of the trained model; where
    `adapter` is not given it is the recipe's."""

    type: Literal["trained", "path", "function", "random"] = "trained"
    path: str | None = None
    adapter: Adapter | None = None
    trainer: dict[str, Any] = Field({})

    @model_validator(mode="after")
    def _path_fits(self) -> RewardSettings:
        if self.type in ("path", "function") and not self.path:
            raise ValueError(f"path: is missing; reward.type {self.type!r} needs one")
        if self.type in ("trained", "random") and self.path:
            raise ValueError(f"path: {self.path!r} has no meaning with reward.type {self.type!r}")
        return self


class GoldFunction(Settings):
    """A truth of one's own: `FILE.py:NAME`, called as `(prompts, completions) -> scores`."""

    path: str


class Evaluation(Settings):
    """How every policy is measured: one reply to each of `prompts` test prompts a seed, compared with `against`."""

    prompts: int = Field(256, ge=2)
    against: Literal["start"] = "start"


class Recipe(Settings):
    """One comparison. Everything but `algorithms` has a default."""

    model: Model = Model()
    adapter: Adapter = Adapter()
    data: Data = Data()
    start: Start = Start()
    reward: RewardSettings = RewardSettings()
    gold: Literal["lab", "none"] | GoldFunction | None = None
    budget: Budget = Budget()
    generation: Generation = Generation()
    training: Training = Training()
    algorithms: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    evaluation: Evaluation = Evaluation()

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
    def lab_data(self) -> bool:
        """Whether the rows are the lab's."""
        return self.data.preferences is None

    @property
    def gold_source(self) -> Literal["lab", "none"] | GoldFunction:
        """The truth that policies are measured by: what the recipe says, else the lab's for the lab's data."""
        if self.gold is not None:
            return self.gold
        return "lab" if self.lab_data else "none"

    def start_algorithm(self) -> Algorithm | None:
        """The algorithm that makes the start; None when the model is taken as it is."""
        if self.start.algorithm == "none":
            return None
        parameters = self.start.parameters
        if self.start.algorithm == "sft":
            parameters.setdefault("on", "demonstrations" if self.lab_data else "chosen")
        return registry.get(self.start.algorithm, **parameters)

    def algorithm(self, label: str) -> Algorithm:
        """The algorithm behind a label, with its settings."""
        settings = dict(self.algorithms[label])
        settings.pop("seed_offset", None)
        return registry.get(settings.pop("algorithm", label), **settings)

    def seed_of(self, label: str, seed: int) -> int:
        """The seed that a label's trial really uses: the comparison's, moved by the label's `seed_offset`."""
        return seed + int(self.algorithms[label].get("seed_offset", 0))


def load(recipe: str | Mapping[str, Any], sets: Iterable[str] = (), algorithms: Iterable[str] | None = None) -> Recipe:
    """A checked recipe.

    Args:
        recipe: a path, one of `recipe_files.shipped()`, or the content of a recipe.
        sets: `key.sub=value` assignments over it.
        algorithms: labels to keep, or names of algorithms to add with their defaults.

    Raises:
        RecipeError: listing every mistake, with the key, the value, what is allowed and the nearest right spelling.
    """
    where = recipe if isinstance(recipe, str) else "recipe"
    content = recipe_files.read(recipe, sets)
    if algorithms is not None:
        given = content.get("algorithms")
        listed = given if isinstance(given, dict) else {}
        known = registry.names()
        strangers = [name for name in algorithms if name not in listed and name not in known]
        if strangers:
            raise RecipeError(where, [f"algorithms: {unknown('algorithm', s, [*listed, *known])}" for s in strangers])
        content["algorithms"] = {name: listed.get(name) or {} for name in algorithms}
    return check(content, where)


def check(content: dict[str, Any], where: str = "recipe") -> Recipe:
    """`content` as a recipe. Raises RecipeError like `load`."""
    problems: list[str] = []
    recipe = None
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        problems += [_sentence(item) for item in error.errors()]
    algorithms = content.get("algorithms")
    if isinstance(algorithms, dict):
        for label, settings in algorithms.items():
            problems += _algorithm_problems(str(label), settings)
    reward = content.get("reward")
    if isinstance(reward, dict) and isinstance(trainer := reward.get("trainer"), dict):
        allowed = registry.config_fields(REWARD_CONFIG)
        problems += [f"reward.trainer.{key}: {unknown('key', key, allowed)}" for key in trainer if key not in allowed]
    if recipe is not None:
        problems += _cross_problems(recipe)
    if problems:
        raise RecipeError(where, problems)
    assert recipe is not None
    if recipe.training.learning_rate is None:
        kind = "lab" if recipe.model.path == "lab" else "other"
        rate = {"learning_rate": LEARNING_RATES[kind, recipe.adapter.type]}
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=rate)})
    return recipe


def _algorithm_problems(label: str, settings: Any) -> list[str]:
    prefix = f"algorithms.{label}"
    if not LABEL.fullmatch(label) or label == "start":
        return [f"{prefix}: a label is letters, digits, '_', '-' and '.', and is not 'start', which names the start"]
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        return []  # the schema has said so already
    settings = dict(settings)
    problems = []
    if not isinstance(offset := settings.pop("seed_offset", 0), int):
        problems.append(f"{prefix}.seed_offset: must be a whole number, not {offset!r}")
    name = settings.pop("algorithm", label)
    if name not in registry.names():
        at = prefix if name == label else f"{prefix}.algorithm"
        return [*problems, f"{at}: {unknown('algorithm', name, registry.names())}"]
    return problems + registry.parameter_problems(registry.load(name), settings, prefix=f"{prefix}.")


def _cross_problems(recipe: Recipe) -> list[str]:
    problems = []
    if recipe.start.algorithm not in ("none", "sft"):
        problems.append(f"start.algorithm: {unknown('start', recipe.start.algorithm, ['none', 'sft'])}")
    elif recipe.start.algorithm == "sft":
        problems += registry.parameter_problems(registry.load("sft"), recipe.start.parameters, prefix="start.")
        if recipe.start.parameters.get("on") == "demonstrations" and not recipe.lab_data:
            problems.append("start.on: 'demonstrations' is given, but data.preferences has none. Allowed: chosen.")
    elif recipe.start.parameters:
        problems.append(f"start.{next(iter(recipe.start.parameters))}: has no meaning when the start is 'none'")
    if not recipe.lab_data:
        problems += [
            f"algorithms.{label}.on: 'demonstrations' is given, but data.preferences has none. Allowed: chosen."
            for label, settings in recipe.algorithms.items()
            if settings.get("algorithm", label) == "sft" and settings.get("on") == "demonstrations"
        ]
    if recipe.gold == "lab" and not recipe.lab_data:
        problems.append(
            "gold: 'lab' scores only the lab's own prompts, and data.preferences are not. Allowed: none, path."
        )
    if recipe.data.preferences and (problem := source_problem(recipe.data.preferences)):
        problems.append(f"data.preferences: {problem}.")
    if recipe.training.batch_size % recipe.training.accumulation:
        problems.append(
            f"training.accumulation: {recipe.training.accumulation} does not divide "
            f"training.batch_size {recipe.training.batch_size}"
        )
    path = recipe.reward.path
    if recipe.reward.type == "path" and path and not Path(path).expanduser().is_dir() and path.count("/") != 1:
        problems.append(f"reward.path: {path!r} is neither a folder nor a hub id (owner/name).")
    for label, settings in recipe.algorithms.items():
        if isinstance(settings.get("seed_offset", 0), int) and min(recipe.seeds) + settings.get("seed_offset", 0) < 0:
            problems.append(f"algorithms.{label}.seed_offset: {settings['seed_offset']} makes a seed negative")
    if min(recipe.seeds) < 0:
        problems.append(f"seeds: {min(recipe.seeds)} is negative; seeds are 0 or more")
    functions = {
        "reward.path": recipe.reward.path if recipe.reward.type == "function" else None,
        "gold.path": recipe.gold.path if isinstance(recipe.gold, GoldFunction) else None,
    }
    problems += [f"{key}: {p}" for key, path in functions.items() if path and (p := function_problem(path))]
    return problems


def _sentence(item: Any) -> str:
    """One pydantic error in our words: key, value, what is allowed, nearest spelling."""
    loc = [str(part) for part in item["loc"] if not str(part).startswith(("GoldFunction", "literal["))]
    key = ".".join(loc) or "recipe"
    if item["type"] == "extra_forbidden":
        return f"{key}: {unknown('key', loc[-1], _fields_at(loc[:-1]))}"
    if item["type"] == "missing":
        return f"{key}: is missing"
    return f"{key}: {item['msg'].removeprefix('Value error, ')} (got {item['input']!r})"


def _fields_at(path: list[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for key in path:
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    fields = list(model.model_fields)
    return [*fields, "extends"] if model is Recipe else fields
