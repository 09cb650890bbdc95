"""What a recipe may say: every block, key, default and range."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from prefzoo import registry
from prefzoo.data import sources
from prefzoo.data.prompt_context import Context
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.interface import Algorithm
from prefzoo.judges.fact_checking import FOUND
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.lab import MODELS
from prefzoo.recipe.data_settings import Data
from prefzoo.recipe.tuning_settings import Tuning
from prefzoo.registry import LABEL_KEYS
from prefzoo.rewards.reward_settings import RewardSettings
from prefzoo.settings import Adapter, Budget, Generation, PathText, Settings, Training


def weight_bytes(path: str) -> int | None:
    """How much the files of a model's weights hold; None for what is no folder here."""
    place = MODELS.get(path) or Path(path).expanduser()
    return sum(f.stat().st_size for f in place.glob("*.safetensors")) if place.is_dir() else None


class Model(Settings):
    """The base model: a bundled one (`lab`, `lab_bilingual`), a folder, or a hub id. Remote code stays off unless the
    recipe turns it on.

    `attn_implementation` is how transformers computes attention; None is what it chooses for the model and machine.
    `chat_template` is a shipped one (`plain`), a file (.jinja), or `none`: prompts are plain text that begins as the
    tokenizer begins any text, and replies go on from there. None is the model's own, or `plain` where it has none.
    """

    path: PathText = "lab"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attn_implementation: Literal["eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"] | None = (
        None
    )
    trust_remote_code: bool = False
    chat_template: str | None = None


class Start(BaseModel):
    """How the start policy comes about: `sft` (with its settings; `on` is what the data has: demonstrations, else
    chosen replies), or `none`: the model as it is.

    Attributes:
        algorithm: sft | none.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    algorithm: str = "sft"

    @property
    def parameters(self) -> dict[str, Any]:
        """The algorithm's own settings."""
        return dict(self.model_extra or {})


class GoldFunction(Settings):
    """A truth of one's own.

    Attributes:
        path: `FILE.py:NAME`, called as `(prompts, completions) -> scores`.
    """

    path: PathText


class Knowledge(Settings):
    """Facts that replies are measured by: each reply is supported, contradicted or not found by `documents`, as in
    `reward.type: knowledge`.

    Attributes:
        documents: a file, .jsonl with `text`, .txt or .md.
        path: folder or hub id of an entailment model, which decides; None lets the judge decide that is asked about
            dimensions.
        k: sentences of the documents that each sentence of a reply is checked by.
    """

    documents: PathText
    path: PathText | None = None
    k: int = Field(FOUND, ge=1)


class Evaluation(Settings):
    """How every policy is measured: one reply to each of `prompts` test prompts a seed, compared with `against`.

    With `gold: judge` a judge decides: `judge` says which, where it is not the recipe's. One that made the labels or
    the reward likes what it taught; `same_judge` says that the reader knows, and lets it decide all the same.

    `dimensions` names a file (or `general`, `lab`) of respects in which replies are measured beside: a question each to
    the judge (`judge`, else the recipe's), or a rule. `knowledge` names a file of documents that replies are checked
    against beside.

    `milestones` policies are kept by each training of a policy (of which an algorithm of several rounds has several) at
    equal shares of its optimizer steps, and measured too: with 3, after 1/4, 1/2 and 3/4. They allow to compare at
    equal budgets. With full fine-tuning each takes the room of the whole model.

    `human` is a file of people's answers about test replies (of `prefzoo label`, or exported), which correct what the
    judge, the gold reward or the reward says. Nothing but the report depends on it.
    """

    prompts: int = Field(256, ge=2)
    milestones: int = Field(0, ge=0)
    against: Literal["start"] = "start"
    judge: JudgeSettings | None = None
    same_judge: bool = False
    dimensions: PathText | None = None
    knowledge: Knowledge | None = None
    human: PathText | None = None

    @field_validator("human")
    @classmethod
    def _absolute(cls, file: str | None) -> str | None:
        return None if file is None else str(Path(file).expanduser().resolve())


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


class Sampling(Generation):
    """How replies are sampled, with `max_new_tokens` derived from the data where it is `auto`."""

    max_new_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"  # type: ignore[assignment]


LENGTHS = {"data": ("max_prompt_tokens", "max_completion_tokens"), "generation": ("max_new_tokens",)}
"""Keys that may be `auto`, by block."""
LONGEST_LABEL = 100
"""A label is part of file names, which have at most 255 letters, and of W&B's run ids, which have at most 128."""
LAB_LENGTHS = {"max_prompt_tokens": 512, "max_completion_tokens": 512, "max_new_tokens": 40}


class Recipe(Settings):
    """One comparison. What is left out has a default; only algorithms must be named.

    `plugins` are Python files that register algorithms or kinds of policy; in a recipe's file their paths are relative
    to it, elsewhere to the current folder.
    """

    plugins: list[PathText] = Field([])
    model: Model = Model()
    adapter: Adapter = Adapter()
    data: Data = Data()
    context: Context | None = None
    start: Start = Start()
    reward: RewardSettings = RewardSettings()
    judge: JudgeSettings = JudgeSettings()
    constitution: PathText | None = None
    gold: str | GoldFunction | None = None
    budget: Budget = Budget()
    generation: Sampling = Sampling()
    training: Training = Training()
    algorithms: dict[str, dict[str, Any]] = Field({})
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0, 1, 2], min_length=1)
    evaluation: Evaluation = Evaluation()
    tuning: Tuning | None = None
    tracking: Tracking = Tracking()

    @field_validator("plugins")
    @classmethod
    def _absolute(cls, files: list[str]) -> list[str]:
        return [str(Path(file).expanduser().resolve()) for file in files]

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
        if not isinstance(value, (list, tuple)):
            raise ValueError("must be how many seeds, or a list of them")
        if len(set(map(str, value))) < len(value):
            raise ValueError(f"a seed is given twice in {value}; it would count as two runs")
        return value

    @field_validator("start", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"algorithm": value or "none"} if value is None or isinstance(value, str) else value

    @property
    def source(self) -> str | None:
        """The name of the source of the rows, the lab where a recipe says nothing; None when they come from files."""
        return None if self.data.files() else self.data.source or "lab"

    @property
    def provides(self) -> frozenset[str]:
        """What the data has, of `data.sources.PROVIDES`; pairs count as preferences however they are made."""
        if self.source is not None:
            return sources.load(self.source).provides
        kinds = {"prompts", *self.data.files()}
        paired = self.data.label_with or kinds & {"rankings", "ratings"}
        return frozenset({*kinds, "preferences"} if paired else kinds)

    @property
    def gold_source(self) -> str | GoldFunction:
        """What policies are measured by: what the recipe says (`judge` is no truth), else that of the source, else
        `none`."""
        if self.gold is not None:
            return self.gold
        return self.source if self.source is not None and sources.load(self.source).has_gold else "none"

    @property
    def constitution_name(self) -> str:
        """The constitution that the recipe names, else the one that whoever criticises can follow."""
        by_lab = self.judge.endpoint is None and (self.judge.path or self.model.path) in MODELS
        return self.constitution or ("lab" if by_lab else "general")

    @property
    def uses_judge(self) -> bool:
        """Whether anything is learned from the recipe's judge."""
        asked = any("judge" in needs for needs in self.draws_on.values())
        return asked or self.data.label_with == "judge" or any(part.asks_judge for part in self.reward.parts)

    @property
    def final_judge(self) -> JudgeSettings | None:
        """The judge that decides in the end; None where no judge does."""
        return (self.evaluation.judge or self.judge) if self.gold == "judge" else None

    @property
    def dimension_judge(self) -> JudgeSettings | None:
        """The judge that is asked about dimensions; None where none is."""
        return (self.evaluation.judge or self.judge) if self.evaluation.dimensions is not None else None

    @property
    def knowledge_judge(self) -> JudgeSettings | None:
        """The judge that measures what replies state; None where an entailment model does, or nothing."""
        knowledge = self.evaluation.knowledge
        return (self.evaluation.judge or self.judge) if knowledge is not None and knowledge.path is None else None

    @property
    def audited(self) -> dict[str, JudgeSettings]:
        """The judges that results depend on, but people: `judge`, the recipe's, and `final judge`, another one that
        decides."""
        final = self.final_judge
        asked = self.judge.type != "people" and (self.uses_judge or final == self.judge)
        judges = {"judge": self.judge} if asked else {}
        return {**judges, **({"final judge": final} if final is not None and final != self.judge else {})}

    @cached_property
    def _built(self) -> dict[str, tuple[Algorithm | None, list[str]]]:
        """By label each algorithm that was built so far, and the problems with its settings."""
        return {}

    def __copy__(self) -> Recipe:
        """A copy, which may get other settings, builds its own algorithms."""
        copied = super().__copy__()
        copied.__dict__.pop("_built", None)
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        """What goes to another process, which builds the algorithm that it trains."""
        state = super().__getstate__()
        return {**state, "__dict__": {key: value for key, value in state["__dict__"].items() if key != "_built"}}

    def build(self, label: str) -> tuple[Algorithm | None, list[str]]:
        """The algorithm behind a label, built once, and the problems with its settings; None where there are any.

        Raises:
            KeyError: for an unknown algorithm.
            PrefzooError: for an algorithm of another package that cannot be loaded.
        """
        if label not in self._built:
            settings = {key: value for key, value in self.algorithms[label].items() if key not in LABEL_KEYS}
            cls = registry.load(self.algorithms[label].get("algorithm", label))
            self._built[label] = registry.build(cls, settings, f"algorithms.{label}.")
        return self._built[label]

    def algorithm(self, label: str) -> Algorithm:
        """The algorithm behind a label, with its settings. Raises RecipeError where they have a problem."""
        algorithm, problems = self.build(label)
        if algorithm is None:
            raise RecipeError(label, problems)
        return algorithm

    def start_algorithm(self) -> Algorithm | None:
        """The algorithm that makes the start; None when the model is taken as it is."""
        if self.start.algorithm == "none":
            return None
        parameters = self.start.parameters
        if self.start.algorithm == "sft":
            parameters.setdefault("on", "demonstrations" if "demonstrations" in self.provides else "chosen")
        return registry.get(self.start.algorithm, **parameters)

    @property
    def sound_algorithms(self) -> dict[str, Algorithm]:
        """The algorithm behind each label; labels with problems are left out."""
        sound = {}
        for label in self.algorithms:
            with contextlib.suppress(PrefzooError, KeyError, TypeError, ValueError):
                sound[label] = self.algorithm(label)
        return sound

    @property
    def draws_on(self) -> dict[str, frozenset[str]]:
        """What the algorithm behind each sound label draws from the bench."""
        return {label: algorithm.required for label, algorithm in self.sound_algorithms.items()}

    @property
    def derives(self) -> tuple[str, ...]:
        """The lengths that the data stage derives: `auto`, as dotted keys."""
        keys = [(block, key) for block, names in LENGTHS.items() for key in names]
        return tuple(f"{block}.{key}" for block, key in keys if getattr(getattr(self, block), key) == "auto")

    @property
    def lengths(self) -> dict[str, int]:
        """The lengths by their last name; none of them is `auto` any more."""
        assert not self.derives, self.derives
        return {key: getattr(getattr(self, block), key) for block, names in LENGTHS.items() for key in names}

    def with_lengths(self, lengths: Mapping[str, int]) -> Recipe:
        """This recipe with these lengths in the place of those that are `auto`."""
        changes = {
            block: settings.model_copy(
                update={key: lengths[key] for key in names if getattr(settings, key) == "auto" and key in lengths}
            )
            for block, names in LENGTHS.items()
            if (settings := getattr(self, block))
        }
        return self.model_copy(update=changes)

    def seed_of(self, label: str, seed: int) -> int:
        """The seed that a label's trial really uses: the comparison's, moved by the label's `seed_offset`."""
        return seed + int(self.algorithms[label].get("seed_offset", 0))
