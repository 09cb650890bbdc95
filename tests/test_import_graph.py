"""Imports point one way, in no circle, and each file's name says which one is meant."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from prefzoo import registry

PACKAGE = Path(__file__).parents[1] / "algos" / "prefzoo"
LAYERS = """
errors atomic_files bounded_yaml bounded_template types views settings version ledger validation_messages config_fields
scoring_function stored_code machine interface registry plugins data feedback lab models judges trainers rewards zoo
recipe run results serving report tracking commands __init__ conformance cli
"""
"""From below: a part imports what stands before it, and itself."""


def imported() -> dict[str, set[str]]:
    """Module -> modules of this package that it imports, anywhere in its text; `prefzoo.` is left off."""
    modules = {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): file
        for file in PACKAGE.rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for module, file in modules.items():
        names = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    names.add(submodule if submodule.removeprefix("prefzoo.") in modules else node.module)
        graph[module] = {name.removeprefix("prefzoo.") for name in names} & modules.keys() - {module}
    return graph


def test_no_arrow_runs_upward() -> None:
    rank = {name: i for i, name in enumerate(LAYERS.split())}
    upward = [
        (module, other)
        for module, others in imported().items()
        for other in others
        if rank[other.partition(".")[0]] > rank[module.partition(".")[0]]
    ]
    assert not upward


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = imported()
    while free := [module for module, others in graph.items() if not others & graph.keys()]:
        for module in free:
            del graph[module]
    assert not graph


def test_no_algorithm_imports_another() -> None:
    """What several share is in a base class; a base may know an algorithm."""
    algorithms = {f"zoo.{name}" for name in registry.names()}
    crossed = [(m, o) for m, others in imported().items() for o in others if {m, o} <= algorithms]
    assert len(algorithms & imported().keys()) > 40 and crossed == []


def test_no_two_files_share_a_name() -> None:
    names = Counter(file.name for file in PACKAGE.rglob("*.py") if file.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []
