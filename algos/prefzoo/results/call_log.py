"""How a comparison was called, kept in its folder, so that its report can say how to repeat it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from prefzoo import plugins, registry
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.results.results_schema import Call
from prefzoo.run.cache import ran_with

CALLS = "calls.jsonl"


def note_call(recipe: Recipe, out: Path) -> None:
    """Add this call to `calls.jsonl`, with the versions and the recipe that it ran with."""
    used = {settings.get("algorithm", label) for label, settings in recipe.algorithms.items()}
    registered = {
        name: getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
        for name, cls in sorted(registry.registered().items())
        if name in used
    }
    given = [file for file in plugins.loaded() if file in registered.values() and file not in recipe.plugins]
    call = Call(command=shlex.join(sys.argv), folder=str(Path.cwd()), registered=registered, plugins=given)
    content = {**call.model_dump(), "versions": ran_with(), "recipe": recipe.model_dump(mode="json")}
    with (out / CALLS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")


def last_call(out: Path) -> Call | None:
    """The last call in a folder; None where none was noted, or by a version that noted less."""
    if not (out / CALLS).is_file():
        return None
    lines = (out / CALLS).read_text(encoding="utf-8").splitlines()
    content = json.loads(lines[-1])
    known = {key: content[key] for key in Call.model_fields if key in content}
    return Call(**known) if len(known) == len(Call.model_fields) else None
