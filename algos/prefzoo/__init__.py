"""Prefzoo: which preference-optimization algorithm should I use on my data?

    import prefzoo
    prefzoo.names()                                              # what can be compared
    prefzoo.get("dpo", beta=0.2)                                 # one algorithm and its hyper-parameters
    results = prefzoo.compare("quickstart", algorithms=["dpo"])  # train, measure, judge

Importing this package imports neither torch nor any trainer.
"""

from __future__ import annotations

from typing import Any

from prefzoo.errors import DataError, PrefzooError, RecipeError
from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.ledger import Ledger
from prefzoo.registry import get, names, register, register_policy
from prefzoo.types import Completion, Reward
from prefzoo.version import __version__ as __version__

__all__ = [
    "Algorithm",
    "Bench",
    "Completion",
    "DataError",
    "Ledger",
    "Policy",
    "PrefzooError",
    "RecipeError",
    "Reward",
    "compare",
    "get",
    "load_policy",
    "names",
    "register",
    "register_policy",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: these two pull in the whole machinery, which `prefzoo.names()` does without.
    if name == "compare":
        from prefzoo.commands.comparison import compare

        return compare
    if name == "load_policy":
        from prefzoo.models.policy_kinds import load_policy

        return load_policy
    raise AttributeError(f"module 'prefzoo' has no attribute {name!r}")
