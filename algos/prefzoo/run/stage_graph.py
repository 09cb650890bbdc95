"""From a recipe to stages: what must run, after what, and in which folder its result is kept.

A stage's folder is named after a hash of everything that its result depends on (`run/cache.py`). A stage whose folder
exists is done. Any change of its inputs or of this package's source gives it another folder, so that no result is ever
overwritten or mistaken for another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from prefzoo import registry
from prefzoo.atomic_files import read_json, write_whole
from prefzoo.data import sources
from prefzoo.errors import PrefzooError
from prefzoo.judges import constitution as constitutions
from prefzoo.judges import dimensions
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.run import distributed
from prefzoo.run.cache import (
    class_fingerprint,
    fingerprint,
    judge_fingerprint,
    ran_with,
    result_key,
    rows_fingerprint,
)
from prefzoo.version import __version__

Kind = Literal["data", "start", "label", "reward", "train", "evaluate", "audit", "tune"]
START = "start"
LABEL_STAGE = "label"
AUDIT = "audit {}"
INCOMPLETE = "incomplete"
SECONDS_FILE, PROCESSOR_SECONDS_FILE = "seconds.txt", "processor_seconds.txt"
PLAN_FILE = "plan.json"
PREFLIGHT = "preflight.json"
"""What the data stage found, in its folder."""


@dataclass(frozen=True)
class Stage:
    """One piece of work.

    Attributes:
        name: unique in a plan, e.g. `train dpo seed 1`.
        kind: which module of `run/stages` does it.
        folder: where its result will be.
        needs: names of the stages whose results it reads.
        after: names of stages that it waits for, and whose results it reads unless they failed.
        label, seed: of trials.
        settings: of a trial of tuning: the label's, in the place of the recipe's.
        prompts: of a trial of tuning: how many training prompts it has; None is what the recipe says.
    """

    name: str
    kind: Kind
    folder: Path
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    label: str | None = None
    seed: int | None = None
    settings: Mapping[str, Any] | None = None
    prompts: int | None = None

    @property
    def done(self) -> bool:
        """True when its result is there, whole. A folder appears when it is complete; one that was made without a
        result that failed holds a file `incomplete`."""
        return self.folder.is_dir() and not (self.folder / INCOMPLETE).exists()

    @property
    def seconds(self) -> float | None:
        """How long it took; None where it is not done."""
        return self._number(SECONDS_FILE)

    @property
    def processor_seconds(self) -> float | None:
        """Processor time of its process, all threads together; None where it is not done, or by an older version."""
        return self._number(PROCESSOR_SECONDS_FILE)

    def _number(self, file: str) -> float | None:
        try:
            return float((self.folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class Plan:
    """All stages of a comparison in an order in which they can run.

    Attributes:
        written: label -> its settings before tuning; None where nothing was tuned.
    """

    recipe: Recipe
    out: Path
    stages: dict[str, Stage] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=ran_with)
    written: Mapping[str, Mapping[str, Any]] | None = None

    def save(self) -> None:
        """Write `plan.json`, of which a report can be rebuilt later, by other versions too."""
        stages = [{**asdict(s), "folder": str(s.folder.relative_to(self.out))} for s in self.stages.values()]
        content = {"recipe": self.recipe.model_dump(mode="json"), "versions": self.versions, "stages": stages}
        content |= {"written": self.written} if self.written is not None else {}
        write_whole(self.out / PLAN_FILE, json.dumps(content, indent=1))

    def with_lengths(self) -> Plan:
        """This plan with the lengths that its data stage derived, where that is done."""
        file = self.stages["data"].folder / PREFLIGHT if "data" in self.stages else None
        if not self.recipe.derives or file is None or not file.is_file():
            return self
        return replace(self, recipe=self.recipe.with_lengths(json.loads(file.read_text(encoding="utf-8"))["lengths"]))

    @property
    def rows_name(self) -> str:
        """The stage whose rows are learned from: `data`, or `label`, which adds preferences to them."""
        return LABEL_STAGE if self.recipe.data.label_with else "data"

    def reward_name(self, seed: int) -> str:
        """The reward stage that trials of this seed learn from."""
        return f"reward seed {seed}" if self.recipe.data.shuffle_labels else "reward"


def lost_need(plan: Plan, stage: Stage) -> str | None:
    """A sentence on what a stage needs and is gone, though what made it ended well; None where all is there."""
    for need in (plan.stages[name] for name in stage.needs):
        if not need.folder.is_dir():
            return f"{need.name}: its result, {need.folder}, is gone; compare again, which makes it anew"
    return None


def make_plan(recipe: Recipe, out: Path, audited: Mapping[str, JudgeSettings] | None = None) -> Plan:
    """The stages of a comparison under `out`.

    Args:
        audited: judges to audit, by name. None audits those that a number of the comparison depends on, where the data
            has pairs for it.
    """
    builder = PlanBuilder(recipe, out)
    builder.data()
    builder.start()
    if recipe.data.label_with:
        builder.labels()
    builder.rewards()
    for label in recipe.algorithms:
        for seed in recipe.seeds:
            builder.trial(label, seed)
    for label in (START, *recipe.algorithms):
        for seed in recipe.seeds:
            builder.evaluation(label, seed)
    if audited is None:
        candidates = recipe.audited if "preferences" in recipe.provides else {}
        audited = {name: judge for name, judge in candidates.items() if judge.audit_pairs}
    for name, judge in audited.items():  # last, so that no trial waits for it
        builder.audit(name, judge)
    return builder.plan


class PlanBuilder:
    """Builds a plan. Each method adds stages of one kind, with all that their results depend on."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.plan, self.recipe, self.keys = Plan(recipe, out), recipe, dict[str, str]()
        self.dump = recipe.model_dump(mode="json")
        # Where a server is does not change what it samples; what it is started with may.
        self.dump["generation"]["vllm"] = self.dump["generation"]["vllm"]["arguments"]
        self.shared_seed = recipe.seeds[0]
        self.shaping = recipe.reward.shaping.model_dump()
        self.template = fingerprint(recipe.model.chat_template)
        self.model = {key: self.dump[key] for key in ("model", "training", "adapter")} | {"template": self.template}
        gold, final = recipe.gold, recipe.final_judge
        self.truth = {
            "gold": self.dump["gold"],
            "gold_file": fingerprint(gold.path) if isinstance(gold, GoldFunction) else None,
        }
        self.judge = {"judge": judge_fingerprint(recipe.judge), **self.truth}
        self.final_judge = judge_fingerprint(final) if final is not None else None
        self.divided = distributed.arrangement() if "reward" in distributed.shared_kinds() else {}
        # Whoever learns from the data's rows needs these stages.
        self.rows = tuple(dict.fromkeys(("data", START, self.plan.rows_name)))

    def add(self, name: str, kind: Kind, inputs: Mapping[str, Any], needs: tuple[str, ...] = (), **more: Any) -> None:
        """Add a stage; its key is made of `inputs` and of the keys of the stages that it comes after."""
        upstream = [self.keys[other] for other in (*needs, *more.get("after", ()))]
        key = self.keys[name] = result_key({"kind": kind, "name": name, "inputs": inputs, "upstream": upstream})
        folder = self.plan.out / ("trials" if kind in ("train", "evaluate") else "stages")
        self.plan.stages[name] = Stage(name, kind, folder / f"{name.replace(' ', '-')}-{key[:10]}", needs, **more)

    def data(self) -> None:
        source = self.recipe.source
        built_in = source in sources.BUILT_IN
        inputs = {key: value for key, value in self.dump["data"].items() if key != "shuffle_labels"}
        inputs |= {
            "files": {key: rows_fingerprint(*place) for key, place in self.recipe.data.places().items()},
            "source": class_fingerprint(type(sources.load(source))) if source and not built_in else None,
            "base": fingerprint(self.recipe.model.path),
            "model": self.dump["model"],
            "template": self.template,
            "budget": self.dump["budget"]["prompts"],
            "evaluation": self.dump["evaluation"]["prompts"],
            "max_new_tokens": self.dump["generation"]["max_new_tokens"] if self.recipe.derives else None,
        }
        if (context := self.recipe.context) is not None:
            files = [fingerprint(context.documents), fingerprint(context.template)]
            inputs["context"] = {**context.model_dump(mode="json"), "files": files}
        self.add("data", "data", inputs)

    def start(self) -> None:
        training = {"budget": self.dump["budget"], "start": self.dump["start"], "seed": self.shared_seed}
        self.add(START, "start", {**self.model, **training, **self.divided}, ("data",))

    def labels(self) -> None:
        inputs = {"generation": self.dump["generation"], **self.judge, "seed": self.shared_seed}
        self.add(LABEL_STAGE, "label", inputs, ("data", START))

    def rewards(self, seeds: Sequence[int] | None = None) -> None:
        """One reward for all seeds; where labels are shuffled by seed, one for each of these, or the recipe's."""
        shuffled = self.recipe.data.shuffle_labels
        by_judge = any(part.asks_judge for part in self.recipe.reward.parts)
        inputs = {
            **self.model,
            "reward": {key: value for key, value in self.dump["reward"].items() if key not in self.shaping},
            "budget": self.dump["budget"],
            "file": [fingerprint(part.path) for part in self.recipe.reward.parts],
            "documents": [fingerprint(part.documents) for part in self.recipe.reward.parts],
            **self.truth,
            **self.divided,
            **({**self.judge, "generation": self.dump["generation"]} if by_judge else {}),
            "shuffled": shuffled,
            "seed": self.shared_seed,
        }
        for seed in (seeds or self.recipe.seeds) if shuffled else (None,):
            name = self.plan.reward_name(self.shared_seed if seed is None else seed)
            self.add(name, "reward", inputs, self.rows, seed=seed)

    def trial(self, label: str, seed: int) -> None:
        inputs, needs = self.training(self.recipe, label, seed)
        self.add(f"train {label} seed {seed}", "train", inputs, needs, label=label, seed=seed)

    def training(self, recipe: Recipe, label: str, seed: int) -> tuple[dict[str, Any], tuple[str, ...]]:
        """What a training of this recipe, which differs from the plan's in settings and budget at most, depends on,
        and the stages that it needs."""
        dump = recipe.model_dump(mode="json", include={"budget", "algorithms"})
        algorithm = recipe.algorithm(label)
        draws_on = algorithm.required
        name = recipe.algorithms[label].get("algorithm", label)
        inputs: dict[str, Any] = {
            **self.model,
            "budget": dump["budget"],
            "generation": self.dump["generation"],
            "shuffled": recipe.data.shuffle_labels,
            "seed": recipe.seed_of(label, seed),
            "settings": {key: value for key, value in dump["algorithms"][label].items() if key != "tune"},
            "code": None if name in registry.BUILT_IN else class_fingerprint(registry.load(name)),
        }
        needs = self.rows
        inputs |= distributed.arrangement()
        if "reward" in draws_on:
            inputs["shaping"] = self.shaping
            needs = (*needs, self.plan.reward_name(seed))
        if {"judge", "constitution"} & draws_on:
            inputs |= self.judge
        if "constitution" in draws_on:
            inputs["constitution"] = fingerprint(constitutions.find(recipe.constitution_name))
        if algorithm.reads:
            inputs["reads"] = [fingerprint(path) for path in algorithm.reads]
        if recipe.evaluation.milestones and algorithm.trains:
            inputs["milestones"] = recipe.evaluation.milestones
        return inputs, needs

    def evaluation(self, label: str, seed: int) -> None:
        inputs = {"generation": self.dump["generation"], **self.truth, "seed": seed}
        needs: tuple[str, ...] = ("data", START)
        if label != START:
            needs = (*needs, f"train {label} seed {seed}")
        if self.final_judge is not None:
            inputs |= {"judge": self.final_judge, "judge_seed": self.shared_seed}
            if label != START:
                needs = (*needs, f"evaluate {START} seed {seed}")  # whose replies these are compared with
        if (asked := self.recipe.dimension_judge) is not None:
            name = str(self.recipe.evaluation.dimensions)
            rules = [fingerprint(each.rule) for each in dimensions.load(name).dimensions]
            inputs["dimensions"] = [
                fingerprint(dimensions.find(name)),
                rules,
                judge_fingerprint(asked),
                self.shared_seed,
            ]
            if label != START:
                needs = tuple(dict.fromkeys((*needs, f"evaluate {START} seed {seed}")))
        if (knowledge := self.recipe.evaluation.knowledge) is not None:
            asked = self.recipe.knowledge_judge
            by_judge = None if asked is None else [judge_fingerprint(asked), self.shared_seed]
            files = [fingerprint(knowledge.documents), fingerprint(knowledge.path)]
            inputs["knowledge"] = [knowledge.model_dump(mode="json"), files, by_judge]
        after = (self.plan.reward_name(seed),)
        self.add(f"evaluate {label} seed {seed}", "evaluate", inputs, needs, after=after, label=label, seed=seed)

    def audit(self, name: str, judge: JudgeSettings) -> None:
        inputs = {
            **self.truth,
            "judge": judge_fingerprint(judge),
            "pairs": judge.audit_pairs,
            "adapter": self.dump["adapter"],
            "seed": self.shared_seed,
        }
        self.add(AUDIT.format(name), "audit", inputs, (self.plan.rows_name,), label=name)


def load_plan(out: Path) -> Plan:
    """The plan of the last comparison in `out`.

    Raises:
        PrefzooError: when there is none, or none that this version can read.
    """
    if not (out / PLAN_FILE).is_file():
        raise PrefzooError(f"{out} holds no prefzoo run: there is no {PLAN_FILE} in it")
    advice = "compare again with the same recipe, which writes it anew and trains nothing twice"
    content = read_json(out / PLAN_FILE, advice=advice)
    stages = {}
    try:
        for fields in content["stages"]:
            paths = {"folder": out / fields["folder"], "needs": tuple(fields["needs"]), "after": tuple(fields["after"])}
            stages[fields["name"]] = Stage(**{**fields, **paths})
        versions = dict(content["versions"])
        content["recipe"].keys()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PrefzooError(f"{out / PLAN_FILE} is damaged ({type(error).__name__}: {error}); {advice}") from error
    try:
        recipe = Recipe.model_validate(content["recipe"])
    except ValidationError as error:
        version = versions.get("prefzoo", "another version")
        keys = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise PrefzooError(
            f"{out} was made by prefzoo {version}, whose recipes this one ({__version__}) does not read ({keys}); "
            "compare again, with the same --out or another"
        ) from error
    return Plan(recipe, out, stages, versions, content.get("written"))
