"""What two trials must have in common to be compared. Each trial records it, and reports refuse trials that differ.

A table compares algorithms only if nothing else differs. Every trial therefore records the rows it could see (the
manifest's hashes), the start's weights, and the blocks of the recipe that all labels share. An algorithm's own settings
and its `trainer:` are compared, and no part of this.

A difference is refused where it changes what a policy may learn or what a number in the table means: rows, start,
adapter, budget, shared training arguments, sampling, test prompts, gold, the judge where one decides, and the reward
(for algorithms that use none, too: their proxy column would mean something else). It is only noted where it changes
numbers by rounding or by chance: versions of libraries, and how work is cut into batches (`NON_BLOCKING_KEYS`). The
judge and the constitution that an algorithm learns from are its settings; they are noted because a label does not show
them (`TEACHERS`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import add_file, read_json
from prefzoo.errors import PrefzooError
from prefzoo.judges import constitution as constitutions
from prefzoo.judges import dimensions
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.run.cache import fingerprint, judge_fingerprint
from prefzoo.run.stage_graph import LABEL_STAGE, START, Plan

IDENTITY = "identity.json"
TEACHERS = "taught by"
NON_BLOCKING_KEYS = (
    f"{TEACHERS}.",
    "versions.",
    "generation.batch_size",
    "training.accumulation",
    "training.gradient_checkpointing",
)
NOT_MEASURED_BY = ("milestones", "judge", "human")
"""Keys of `evaluation` on which no measurement depends, or that are compared by themselves."""
WEIGHTS = ("*.safetensors", "tokenizer.json", "*.model", "vocab*", "merges.txt", "*.jinja")
SHARED = ("adapter", "budget", "training", "generation", "reward")
SHOWN = 40
"""Characters of the longest value that a sentence shows in full."""


def content_hash(folder: Path) -> str:
    """A hash of a model folder's weights, tokenizer and chat template, the same wherever it lies and whenever it was
    written."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)}):
        digest.update(file.name.encode())
        add_file(digest, file)
    return digest.hexdigest()


def without_server(generation: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's block without where vLLM runs, which changes nothing; and without the engine where that is the one of
    runs from before there were others."""
    rest = {key: value for key, value in generation.items() if key != "vllm"}
    if rest.get("engine") in ("auto", "transformers"):
        del rest["engine"]
    return rest


def identity(plan: Plan, label: str | None = None) -> dict[str, Any]:
    """What every trial of this plan has in common, as its stages left it; and the teachers of this label's trials."""
    recipe = plan.recipe
    dump = recipe.model_dump(mode="json")
    manifest = read_json(plan.stages["data"].folder / "manifest.json")
    hashes = {name: part["sha256"] for name, part in manifest["splits"].items()}
    if LABEL_STAGE in plan.stages:
        labelled = read_json(plan.stages[LABEL_STAGE].folder / "labels.json")["splits"]
        hashes |= {f"labels of {name}": part["sha256"] for name, part in labelled.items()}
    if "context" in manifest:
        hashes |= {f"context {name}": value for name, value in manifest["context"].items()}
    start = read_json(plan.stages[START].folder / "start.json")
    gold = recipe.gold_source
    files = [fingerprint(part.path) for part in recipe.reward.parts]
    documents = [fingerprint(part.documents) for part in recipe.reward.parts if part.documents]
    return {
        "manifest": hashes,
        "start": start["sha256"],
        "model": {
            "dtype": dump["model"]["dtype"],
            **(
                {"chat_template": fingerprint(template) or template} if (template := recipe.model.chat_template) else {}
            ),
        },
        **{key: dump[key] for key in SHARED},
        "generation": without_server(dump["generation"]),
        "evaluation": {key: value for key, value in dump["evaluation"].items() if key not in NOT_MEASURED_BY},
        "reward files": files if any(files) else None,
        **({"reward documents": documents} if documents else {}),
        "data": {"shuffle_labels": recipe.data.shuffle_labels},
        "gold": fingerprint(gold.path) if isinstance(gold, GoldFunction) else gold,
        "versions": plan.versions,
        **judges(recipe, label),
    }


def judges(recipe: Recipe, label: str | None = None) -> dict[str, Any]:
    """The judges in an identity: that of the reward, the one that measures policies, and the label's teachers."""
    judges_reward = any(part.asks_judge for part in recipe.reward.parts)
    of_label = teachers(recipe, label) if label is not None else {}
    return {
        "reward judge": judge_fingerprint(recipe.judge) if judges_reward else None,
        "final judge": judge_fingerprint(recipe.final_judge) if recipe.final_judge is not None else None,
        **(_by_knowledge(recipe) if recipe.evaluation.knowledge is not None else {}),
        **(_by_dimension(recipe) if recipe.dimension_judge is not None else {}),
        **({TEACHERS: of_label} if of_label else {}),
    }


def _by_dimension(recipe: Recipe) -> dict[str, Any]:
    """What dimensions are, and who is asked about them."""
    judge, name = recipe.dimension_judge, str(recipe.evaluation.dimensions)
    assert judge is not None
    return {"dimensions": fingerprint(dimensions.find(name)), "dimension judge": judge_fingerprint(judge)}


def _by_knowledge(recipe: Recipe) -> dict[str, Any]:
    """What replies are checked against, and by whom."""
    knowledge, judge = recipe.evaluation.knowledge, recipe.knowledge_judge
    assert knowledge is not None
    return {
        "knowledge": fingerprint(knowledge.documents),
        "facts checked by": fingerprint(knowledge.path) if judge is None else judge_fingerprint(judge),
    }


def teachers(recipe: Recipe, label: str) -> dict[str, Any]:
    """The judge and the constitution that a label learns from, besides the data and the reward; empty where none."""
    draws_on = recipe.draws_on.get(label, frozenset())
    taught_by: dict[str, Any] = {}
    if {"judge", "constitution"} & draws_on:
        taught_by["judge"] = judge_fingerprint(recipe.judge)
    if "constitution" in draws_on:
        name = recipe.constitution_name
        taught_by["constitution"] = {"name": name, "content": fingerprint(constitutions.find(name))}
    return taught_by


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The differences between two identities: those that block a comparison, and those that are only noted.

    Returns:
        For each, the key (`adapter.r`) -> both values (`16 and 8`).
    """
    one, other = _flat(a), _flat(b)
    refused: dict[str, str] = {}
    non_blocking: dict[str, str] = {}
    for key in dict.fromkeys([*one, *other]):
        if one.get(key) != other.get(key):
            values = non_blocking if key.startswith(NON_BLOCKING_KEYS) else refused
            values[key] = f"{_shown(one.get(key))} and {_shown(other.get(key))}"
    return refused, non_blocking


def refuse_unequal(trials: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse a table of unequal trials.

    Args:
        trials: name -> identity; an empty identity, of an older version, is not compared.
        where: their folder.

    Raises:
        PrefzooError: naming each trial that differs from the first, and everything in which it does.
    """
    known = {name: recorded for name, recorded in trials.items() if recorded}
    first = next(iter(known), "")
    problems = []
    for name, recorded in known.items():
        refused, _ = differences(known[first], recorded)
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
    """A value in a sentence, a long one shortened."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 4]}..{text[-3:]}"
