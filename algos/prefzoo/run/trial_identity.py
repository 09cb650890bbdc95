"""What makes two trials comparable, recorded with each of them, and what is said when they are not.

A table compares algorithms only if nothing else differs. Every trial therefore records the rows it could see (the
manifest's hashes), the start's weights, and the blocks of the recipe that all labels share. What an algorithm sets for
itself (its own settings, its `trainer:`) is what is compared, and no part of this.

Refused, where it differs, is whatever changes what a policy may learn or what a number in the table means: rows,
start, adapter, budget, shared training arguments, sampling, test prompts, gold, the judge where one decides, and the
reward (also for algorithms that use none: their proxy column would mean something else). Only noted is what changes the
numbers by rounding or by chance, but nothing that they stand for: versions of libraries, and how work is cut into
batches (`NOTED`). The judge and the constitution that an algorithm learns from are settings of it, and so are compared;
they are noted, too, because a label does not show them (`TEACHERS`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.judges import constitution as constitutions
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.run.cache import fingerprint, judge_fingerprint
from prefzoo.run.stage_graph import LABEL, START, Plan

IDENTITY = "identity.json"
TEACHERS = "taught by"
NOTED = (
    f"{TEACHERS}.",
    "versions.",
    "generation.batch_size",
    "training.accumulation",
    "training.gradient_checkpointing",
)
WEIGHTS = ("*.safetensors", "tokenizer.json", "*.model", "vocab*", "merges.txt", "*.jinja")
SHARED = ("adapter", "budget", "training", "generation", "reward")
MANY = 20


def content_hash(folder: Path) -> str:
    """A hash of a model folder's weights, tokenizer and chat template, the same wherever it lies and whenever it was
    written."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)}):
        digest.update(file.name.encode())
        with file.open("rb") as content:
            while piece := content.read(1 << 24):
                digest.update(piece)
    return digest.hexdigest()


def identity(plan: Plan, label: str | None = None) -> dict[str, Any]:
    """What every trial of this plan has in common, as its stages left it; and what taught this label's."""
    recipe = plan.recipe
    dump = recipe.model_dump(mode="json")
    manifest = _read(plan.stages["data"].folder / "manifest.json")
    hashes = {name: part["sha256"] for name, part in manifest["splits"].items()}
    if LABEL in plan.stages:
        labelled = _read(plan.stages[LABEL].folder / "labels.json")["splits"]
        hashes |= {f"labels of {name}": part["sha256"] for name, part in labelled.items()}
    start = _read(plan.stages[START].folder / "start.json")
    gold = recipe.gold_source
    files = [fingerprint(part.path) for part in recipe.reward.parts]
    return {
        "manifest": hashes,
        "start": start["sha256"],
        "model": {"dtype": dump["model"]["dtype"]},
        **{key: dump[key] for key in SHARED},
        "evaluation": {key: value for key, value in dump["evaluation"].items() if key not in ("milestones", "judge")},
        "reward files": files if any(files) else None,
        "data": {"shuffle_labels": recipe.data.shuffle_labels},
        "gold": fingerprint(gold.path) if isinstance(gold, GoldFunction) else gold,
        "versions": plan.versions,
        **judges(recipe, label),
    }


def judges(recipe: Recipe, label: str | None = None) -> dict[str, Any]:
    """The part of an identity that says whom its numbers are by: the judge in the reward, the one that decides, and
    what taught the label."""
    rewards = any(part.type == "judge" for part in recipe.reward.parts)
    decides = recipe.final_judge
    taught = teachers(recipe, label) if label is not None else {}
    return {
        "reward judge": judge_fingerprint(recipe.judge) if rewards else None,
        "final judge": judge_fingerprint(decides) if decides is not None else None,
        **({TEACHERS: taught} if taught else {}),
    }


def teachers(recipe: Recipe, label: str) -> dict[str, Any]:
    """The judge and the constitution that a label learns from, besides the data and the reward; empty where none."""
    draws_on = recipe.draws_on.get(label, frozenset())
    found: dict[str, Any] = {}
    if {"judge", "constitution"} & draws_on:
        found["judge"] = judge_fingerprint(recipe.judge)
    if "constitution" in draws_on:
        name = recipe.constitution_name
        found["constitution"] = {"name": name, "content": fingerprint(constitutions.find(name))}
    return found


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What two identities do not have in common: what must be refused, and what is only noted.

    Returns:
        For each, the key (`adapter.r`) -> both values (`16 and 8`).
    """
    one, other = _flat(a), _flat(b)
    found = {
        key: f"{_shown(one.get(key))} and {_shown(other.get(key))}"
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    }
    noted = {key: values for key, values in found.items() if key.startswith(NOTED)}
    return {key: values for key, values in found.items() if key not in noted}, noted


def refuse_unequal(trials: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse a table of unequal trials.

    Args:
        trials: the name of each -> its identity; an empty one, of an older version, is not compared.
        where: the folder that they are in.

    Raises:
        PrefzooError: naming each trial that differs from the first, and everything in which it does.
    """
    known = {name: each for name, each in trials.items() if each}
    first = next(iter(known), "")
    problems = []
    for name, each in known.items():
        refused, _ = differences(known[first], each)
        problems += [f"{key}: {values} ({first} and {name})" for key, values in refused.items()]
    if problems:
        raise PrefzooError(
            "\n  - ".join([f"{where}: these trials cannot stand in one table; they differ in", *problems])
        )


def _flat(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return flat


def _shown(value: Any) -> str:
    """A value in a sentence, hashes by their beginning."""
    text = json.dumps(value)
    return text if len(text) <= 2 * MANY else f"{text[: MANY // 2]}..{text[-3:]}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
