"""Prefzoo: which preference-optimization algorithm should I use on my data?

    import prefzoo
    prefzoo.names()                                              # what can be compared
    prefzoo.get("dpo", beta=0.2)                                 # one algorithm and its hyper-parameters
    results = prefzoo.compare("quickstart", algorithms=["dpo"])  # train, measure, judge
    results = prefzoo.load("runs/quickstart")                    # what a run found; .to_dataframe(), .report, .folder

Importing this package imports neither torch nor any trainer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from prefzoo.errors import DataError, PrefzooError, RecipeError
from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.ledger import Ledger
from prefzoo.registry import get, names, register, register_policy
from prefzoo.types import Completion, Range, Reward
from prefzoo.version import __version__ as __version__

if TYPE_CHECKING:
    from prefzoo.commands.comparison import compare
    from prefzoo.commands.comparison import load_results as load
    from prefzoo.commands.tuning import tune
    from prefzoo.models.policy_kinds import load_policy, write_policy_file
    from prefzoo.models.policy_with_modules import PolicyWithModules
    from prefzoo.trainers.fitting import current_policy, fit
    from prefzoo.trainers.online import fit_online, shaped
    from prefzoo.trainers.pairwise_trainer import ReplyBatch
    from prefzoo.trainers.reference import precomputed_reference, without_reference
    from prefzoo.zoo.pairwise import Pairwise, PairwiseLoss

__all__ = [
    "Algorithm",
    "Bench",
    "Completion",
    "DataError",
    "Ledger",
    "Pairwise",
    "PairwiseLoss",
    "Policy",
    "PolicyWithModules",
    "PrefzooError",
    "Range",
    "RecipeError",
    "ReplyBatch",
    "Reward",
    "compare",
    "current_policy",
    "fit",
    "fit_online",
    "get",
    "load",
    "load_policy",
    "names",
    "precomputed_reference",
    "register",
    "register_policy",
    "shaped",
    "tune",
    "without_reference",
    "write_policy_file",
]

LAZY = {
    "Pairwise": "prefzoo.zoo.pairwise:Pairwise",
    "PairwiseLoss": "prefzoo.zoo.pairwise:PairwiseLoss",
    "PolicyWithModules": "prefzoo.models.policy_with_modules:PolicyWithModules",
    "ReplyBatch": "prefzoo.trainers.pairwise_trainer:ReplyBatch",
    "compare": "prefzoo.commands.comparison:compare",
    "current_policy": "prefzoo.trainers.fitting:current_policy",
    "fit": "prefzoo.trainers.fitting:fit",
    "fit_online": "prefzoo.trainers.online:fit_online",
    "load": "prefzoo.commands.comparison:load_results",
    "load_policy": "prefzoo.models.policy_kinds:load_policy",
    "precomputed_reference": "prefzoo.trainers.reference:precomputed_reference",
    "shaped": "prefzoo.trainers.online:shaped",
    "tune": "prefzoo.commands.tuning:tune",
    "without_reference": "prefzoo.trainers.reference:without_reference",
    "write_policy_file": "prefzoo.models.policy_kinds:write_policy_file",
}
"""Where names are that are imported on first use: they bring in the trainers, which `prefzoo.names()` does without."""


def __getattr__(name: str) -> Any:
    if name in LAZY:
        module, _, attribute = LAZY[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'prefzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"]
