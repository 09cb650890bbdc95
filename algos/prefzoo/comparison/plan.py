"""From a recipe to stages: what must run, after what, and in which folder its result is kept.

A stage's folder is named after a hash of everything that its result depends on. A stage whose folder exists is done;
any change of input gives another folder, so nothing is ever overwritten or mistaken for something else.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from prefzoo import __version__, registry
from prefzoo.comparison.recipe.blocks import GoldFunction, Recipe
from prefzoo.comparison.running import launched
from prefzoo.data import sources
from prefzoo.errors import PrefzooError
from prefzoo.feedback import constitution as constitutions
from prefzoo.feedback.judges.settings import JudgeSettings

Kind = Literal["data", "start", "label", "reward", "train", "evaluate", "audit"]
LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy")
START = "start"
LABEL = "label"
AUDIT = "audit {}"
INCOMPLETE = "incomplete"
SECONDS = "seconds.txt"
PLAN_FILE = "plan.json"
HASHED_BYTES = 100_000_000
"""Model folders below this are known by their content, larger ones by their files' names, sizes and times."""


@dataclass(frozen=True)
class Stage:
    """One piece of work.

    Attributes:
        name: unique in a plan, e.g. `train dpo seed 1`.
        kind: which job does it.
        folder: where its result will be.
        needs: names of the stages whose results it cannot do without.
        after: names of stages that it waits for but can do without, should they fail.
        label, seed: of trials.
    """

    name: str
    kind: Kind
    folder: Path
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    label: str | None = None
    seed: int | None = None

    @property
    def done(self) -> bool:
        """Whether its result is there, whole. Folders appear at once; one that had to do without something says so."""
        return self.folder.is_dir() and not (self.folder / INCOMPLETE).exists()

    @property
    def seconds(self) -> float | None:
        """How long it took, where it is done and has noted that."""
        try:
            return float((self.folder / SECONDS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class Plan:
    """All stages of a comparison in an order in which they can run."""

    recipe: Recipe
    out: Path
    stages: dict[str, Stage] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: ran_with())

    def save(self) -> None:
        """Keep the plan in `plan.json`, so that a report can be rebuilt later, by other versions too."""
        stages = [{**asdict(s), "folder": str(s.folder.relative_to(self.out))} for s in self.stages.values()]
        content = {"recipe": self.recipe.model_dump(mode="json"), "versions": self.versions, "stages": stages}
        (self.out / PLAN_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")

    @property
    def rows_name(self) -> str:
        """The stage whose rows are learned from: `data`, or `label`, which adds preferences to them."""
        return LABEL if self.recipe.data.label_with else "data"

    def reward_name(self, seed: int) -> str:
        """The reward stage that trials of this seed learn from."""
        return f"reward seed {seed}" if self.recipe.data.shuffle_labels else "reward"


def make_plan(recipe: Recipe, out: Path, audited: Mapping[str, JudgeSettings] | None = None) -> Plan:
    """The stages of a comparison under `out`.

    Args:
        audited: judges to audit, by name; where none are given, those that anything hangs on, if there are pairs for
            it.
    """
    plan = Plan(recipe, out)
    dump = recipe.model_dump(mode="json")
    keys: dict[str, str] = {}

    def add(name: str, kind: Kind, inputs: Mapping[str, Any], needs: tuple[str, ...] = (), **more: Any) -> None:
        after = more.get("after", ())
        upstream = [keys[other] for other in (*needs, *after)]
        keys[name] = _hash({"kind": kind, "name": name, "inputs": inputs, "upstream": upstream, "versions": versions()})
        folder = out / ("trials" if kind in ("train", "evaluate") else "stages")
        plan.stages[name] = Stage(name, kind, folder / f"{name.replace(' ', '-')}-{keys[name][:10]}", needs, **more)

    origin = {
        "files": {kind: fingerprint(path) for kind, path in recipe.data.files().items()},
        "source": _code(type(sources.load(recipe.source))) if recipe.source not in (None, "lab") else None,
        "base": fingerprint(recipe.model.path),
    }
    data_inputs = {k: v for k, v in dump["data"].items() if k != "shuffle_labels"}
    model = {"model": dump["model"], "training": dump["training"], "adapter": dump["adapter"]}
    add(
        "data",
        "data",
        {
            **data_inputs,
            **origin,
            "model": dump["model"],
            "budget": dump["budget"]["prompts"],
            "evaluation": dump["evaluation"]["prompts"],
        },
    )
    shared_seed = recipe.seeds[0]
    add(START, "start", {**model, "budget": dump["budget"], "start": dump["start"], "seed": shared_seed}, ("data",))
    shuffled = recipe.data.shuffle_labels
    rows = tuple(dict.fromkeys(("data", START, plan.rows_name)))
    truth = {"gold": dump["gold"], "gold_file": _gold_fingerprint(recipe)}
    asked = {"judge": _who(recipe.judge), **truth}
    constitution = fingerprint(constitutions.find(recipe.constitution_name))
    if recipe.data.label_with:
        add(LABEL, "label", {"generation": dump["generation"], **asked, "seed": shared_seed}, ("data", START))
    shaping = recipe.reward.shaping.model_dump()
    built = {key: value for key, value in dump["reward"].items() if key not in shaping}
    files = [fingerprint(part.path) for part in recipe.reward.parts]
    learned = {**model, "reward": built, "budget": dump["budget"], "file": files}
    by_judge = any(part.type == "judge" for part in recipe.reward.parts)
    by_judge_too = {**asked, "generation": dump["generation"]} if by_judge else {}
    reward = {**learned, **truth, **by_judge_too, "shuffled": shuffled, "seed": shared_seed}
    # Labels shuffled by each seed's own coin make a reward model of each seed's own; else one serves all.
    for name in [plan.reward_name(seed) for seed in recipe.seeds] if shuffled else ["reward"]:
        add(name, "reward", reward, rows, seed=int(name.split()[-1]) if shuffled else None)
    together = {"processes": count} if (count := launched.processes()) > 1 else {}
    trial = {**model, **together, "budget": dump["budget"], "generation": dump["generation"], "shuffled": shuffled}
    measure = {"generation": dump["generation"], **truth}
    if recipe.final_judge is not None:
        measure |= {"judge": _who(recipe.final_judge), "judge_seed": shared_seed}
    for label in recipe.algorithms:
        algorithm = recipe.algorithm(label)
        draws_on = algorithm.required
        wants_reward = "reward" in draws_on
        for seed in recipe.seeds:
            learns: dict[str, Any] = {"shaping": shaping} if wants_reward else {}
            learns |= asked if {"judge", "constitution"} & draws_on else {}
            learns |= {"constitution": constitution} if "constitution" in draws_on else {}
            learns |= {"milestones": kept} if (kept := recipe.evaluation.milestones) and algorithm.trains else {}
            settings = {**trial, **learns, "seed": recipe.seed_of(label, seed), "settings": dump["algorithms"][label]}
            needs = (*rows, *([plan.reward_name(seed)] if wants_reward else []))
            code = _class_fingerprint(recipe, label)
            add(f"train {label} seed {seed}", "train", {**settings, "code": code}, needs, label=label, seed=seed)
    for label in (START, *recipe.algorithms):
        for seed in recipe.seeds:
            own: tuple[str, ...] = () if label == START else (f"train {label} seed {seed}",)
            if own and recipe.final_judge is not None:
                own = (*own, f"evaluate {START} seed {seed}")  # whose replies theirs are compared with
            add(
                f"evaluate {label} seed {seed}",
                "evaluate",
                {**measure, "seed": seed},
                ("data", START, *own),
                after=(plan.reward_name(seed),),
                label=label,
                seed=seed,
            )
    if audited is None:
        hang_on = recipe.audited if "preferences" in recipe.provides else {}
        audited = {name: judge for name, judge in hang_on.items() if judge.audit_pairs}
    for name, judge in audited.items():  # last, so that no trial waits for it
        audit = {**truth, "judge": _who(judge), "pairs": judge.audit_pairs, "adapter": dump["adapter"]}
        add(AUDIT.format(name), "audit", {**audit, "seed": shared_seed}, (plan.rows_name,), label=name)
    return plan


def _who(judge: JudgeSettings) -> dict[str, Any]:
    """All that a judge's answers depend on; not how fast and how patiently a server is asked."""
    files = [fingerprint(path) for path in (judge.path, judge.prompt, judge.grading_prompt)]
    asking = {"key_env", "concurrency", "timeout", "retries", "price_in", "price_out"}
    return {**judge.model_dump(mode="json", exclude={"audit_pairs": True, "endpoint": asking}), "files": files}


def load_plan(out: Path) -> Plan:
    """The plan of the last comparison in `out`.

    Raises:
        PrefzooError: when there is none, or none that this version can read.
    """
    if not (out / PLAN_FILE).is_file():
        raise PrefzooError(f"{out} holds no prefzoo run: there is no {PLAN_FILE} in it")
    content = json.loads((out / PLAN_FILE).read_text(encoding="utf-8"))
    stages = {
        each["name"]: Stage(
            **{
                **each,
                "folder": out / each["folder"],
                "needs": tuple(each["needs"]),
                "after": tuple(each["after"]),
            }
        )
        for each in content["stages"]
    }
    try:
        recipe = Recipe.model_validate(content["recipe"])
    except ValidationError as error:
        made = content["versions"].get("prefzoo", "another version")
        keys = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise PrefzooError(
            f"{out} was made by prefzoo {made}, whose recipes this one ({__version__}) does not read ({keys}); "
            "compare again, with the same --out or another"
        ) from error
    return Plan(recipe, out, stages, content["versions"])


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that decide what it computes."""
    return {"prefzoo": __version__, **{name: version(name) for name in LIBRARIES}}


def ran_with() -> dict[str, str]:
    """`versions`, with those of what decides nothing but is asked for when a run is to be repeated."""
    return {"python": platform.python_version(), **versions(), "wandb": version("wandb")}


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(path: str | None) -> Any:
    """What tells that a file or model folder is no longer the same; None for hub ids, which have revisions."""
    if path is None:
        return None
    if path == "lab":
        from prefzoo.lab import MODEL_DIR

        path = str(MODEL_DIR)
    place = Path(path.rpartition(":")[0] if ".py:" in path else path).expanduser()
    if place.is_file():
        return hashlib.sha256(place.read_bytes()).hexdigest()
    if not place.is_dir():
        return None
    files = [f for f in sorted(place.rglob("*")) if f.is_file()]
    if sum(f.stat().st_size for f in files) < HASHED_BYTES:
        return [[str(f.relative_to(place)), hashlib.sha256(f.read_bytes()).hexdigest()] for f in files]
    return [[str(f.relative_to(place)), f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def _gold_fingerprint(recipe: Recipe) -> Any:
    return fingerprint(recipe.gold.path) if isinstance(recipe.gold, GoldFunction) else None


def _class_fingerprint(recipe: Recipe, label: str) -> str | None:
    name = recipe.algorithms[label].get("algorithm", label)
    return None if name in registry.BUILT_IN else _code(registry.load(name))


def _code(cls: type) -> str | None:
    """The file and package version of a class that is not ours: a version alone says nothing of its last edit."""
    import inspect

    try:
        file = inspect.getsourcefile(cls)
    except TypeError:  # typed at a prompt or in a script that travelled by value
        file = None
    if file is None or not Path(file).is_file():
        return None
    package = cls.__module__.partition(".")[0]
    installed = [version(name) for name in packages_distributions().get(package, [])]
    return f"{hashlib.sha256(Path(file).read_bytes()).hexdigest()} {installed}"
