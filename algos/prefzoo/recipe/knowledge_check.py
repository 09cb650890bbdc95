"""Checks of documents, of who checks facts by them, and of what puts them before prompts."""

from __future__ import annotations

from prefzoo.data.documents import documents_problem
from prefzoo.data.prompt_context import load_context_template
from prefzoo.data.sources import BUILT_IN
from prefzoo.errors import PrefzooError
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.rewards.entailment_labels import entailment_problem


def document_files(recipe: Recipe) -> dict[str, str]:
    """The files of documents that a recipe names, by key."""
    named = {f"{key}.documents": part.documents for key, part in recipe.reward.places.items()}
    blocks = {"evaluation.knowledge": recipe.evaluation.knowledge, "context": recipe.context}
    named |= {f"{key}.documents": block.documents for key, block in blocks.items() if block is not None}
    return {key: file for key, file in named.items() if file}


def document_problems(recipe: Recipe) -> list[str]:
    """Files of documents must hold sound passages, and the template of a context show them."""
    files = document_files(recipe)
    found = {file: documents_problem(file) for file in dict.fromkeys(files.values())}
    problems = [f"{key}: {found[file]}." for key, file in files.items() if found[file]]
    try:
        load_context_template(recipe.context.template if recipe.context is not None else None)
    except PrefzooError as error:
        problems.append(str(error))
    return problems


def checker_problems(recipe: Recipe) -> list[str]:
    """Who checks facts must be a model with labels that are known, or a judge that can say what is true."""
    knowledge = recipe.evaluation.knowledge
    paths = {f"{key}.path": p.path for key, p in recipe.reward.places.items() if p.type == "knowledge"}
    paths["evaluation.knowledge.path"] = knowledge.path if knowledge is not None else None
    wrong = {key: (path, entailment_problem(path)) for key, path in paths.items() if path}
    problems = [f"{key}: {path!r} {problem}." for key, (path, problem) in wrong.items() if problem]
    judges = {
        f"{key}.type": recipe.judge for key, p in recipe.reward.places.items() if p.type == "knowledge" and not p.path
    }
    if (judge := recipe.knowledge_judge) is not None:
        judges["evaluation.knowledge"] = judge
    without_parts = isinstance(recipe.gold_source, GoldFunction) or recipe.gold_source in ("none", "judge")
    problems += [
        f"{key}: the judge is 'gold', which decides facts by gold/correctness, and only the truth of a source has such "
        "a part. Allowed: judge.type local or openai, or an entailment model as path."
        for key, judge in judges.items()
        if judge.type == "gold" and without_parts
    ]
    return problems


def context_problems(recipe: Recipe) -> list[str]:
    """The lab's truth reads whole prompts, and knows none with passages before it."""
    if recipe.context is None or recipe.gold_source not in BUILT_IN:
        return []
    return [
        f"context.documents: the truth {recipe.gold_source!r} knows no prompts with passages before them. Allowed: "
        "gold: none, judge, {path: FILE.py:NAME}."
    ]
