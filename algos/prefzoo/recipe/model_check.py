"""Whether a model that a recipe names can be one, and which models are one and the same."""

from __future__ import annotations

import json
from pathlib import Path

from prefzoo.errors import did_you_mean
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.lab import MODEL_DIR
from prefzoo.recipe.machine_check import trainer_blocks
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.rewards.reward_files import critic_problem, tokenizer_folder

TOKENS = ("eos_token", "pad_token")
"""Settings of trainers that name a token."""
SHOWN = 20


def model_problems(recipe: Recipe) -> list[str]:
    """Whether the base model and the models that judge are folders with a model in them, where they are no hub ids."""
    problems = _path_problems("model.path", recipe.model.path)
    for key, judge in given_judges(recipe).items():
        # A judge is only asked, and transformers loads an adapter's folder together with its base.
        if judge.path is not None and not (Path(judge.path).expanduser() / "adapter_config.json").is_file():
            problems += _path_problems(f"{key}.path", judge.path)
    return problems


def token_problems(recipe: Recipe) -> list[str]:
    """Whether the tokens that `trainer:` blocks name are tokens of the model, where its tokenizer is on this disk."""
    named = {
        f"{key}.{name}": block[name]
        for key, block in trainer_blocks(recipe).items()
        for name in TOKENS
        if isinstance(block.get(name), str)
    }
    if not named or (known := _vocabulary(same_place(recipe.model.path))) is None:
        return []
    vocabulary, special = known
    return [
        f"{key}: {token!r} is no token of {recipe.model.path!r}.{did_you_mean(token, special)} Its special tokens: "
        f"{', '.join(map(repr, special[:SHOWN])) or 'none'}."
        for key, token in named.items()
        if token not in vocabulary
    ]


def critic_problems(recipe: Recipe) -> list[str]:
    """Whether a critic that begins as a given reward model reads the policy's tokens, where both are on this disk."""
    labels = [label for label, given in recipe.algorithms.items() if given.get("value_model") == "reward"]
    part = recipe.reward.parts[0]
    if not labels or recipe.reward.of or part.type != "path" or part.path is None:
        return []
    places = same_place(recipe.model.path), tokenizer_folder(Path(part.path).expanduser())
    policy, reward = (known and known[0] for known in map(_vocabulary, places))
    if policy is None or reward is None or (problem := critic_problem(policy, reward)) is None:
        return []
    return [
        f"algorithms.{label}.value_model: {problem} model.path is {recipe.model.path!r}, reward.path {part.path!r}."
        for label in labels
    ]


def _vocabulary(folder: str | Path) -> tuple[dict[str, int], list[str]] | None:
    """Token -> id of the tokenizer in a folder, and its special tokens; None where it is not on this disk."""
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        return None
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"].get("vocab", [])
    if not isinstance(vocabulary, dict):  # Unigram's is a list
        vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    added = {each["content"]: each.get("id", -1) for each in tokenizer.get("added_tokens", [])}
    return {**vocabulary, **added}, list(added)


def given_judges(recipe: Recipe) -> dict[str, JudgeSettings]:
    """The blocks of a recipe that describe a judge, by key."""
    final = recipe.evaluation.judge
    return {"judge": recipe.judge, **({"evaluation.judge": final} if final is not None else {})}


def same_place(path: str) -> str:
    """One spelling for every way to name a model on this disk; hub ids stay as they are."""
    place = MODEL_DIR if path == "lab" else Path(path).expanduser()
    return str(place.resolve()) if place.is_dir() else path


def _path_problems(key: str, path: str) -> list[str]:
    place = Path(path).expanduser()
    allowed = "Allowed: lab, a folder, a hub id (owner/name)."
    if path == "lab" or (place / "config.json").is_file():
        return []
    if place.is_dir():
        return [f"{key}: {path!r} is no model: there is no config.json in it. {allowed}"]
    meant = did_you_mean(path, ["lab"]) if "/" not in path else ""
    if meant or place.exists() or path.count("/") > 1 or path.startswith((".", "/", "~")):
        return [f"{key}: {path!r} is no folder.{meant} {allowed}"]
    return []
