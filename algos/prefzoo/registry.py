"""Names of algorithms and kinds of policy, each imported only when it is asked for.

Listing names imports no algorithm file, and no algorithm file imports torch before it trains.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Set
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from prefzoo.config_fields import trainer_problems
from prefzoo.errors import PrefzooError, RecipeError, unknown
from prefzoo.interface import NEEDS, Algorithm
from prefzoo.types import Range
from prefzoo.validation_messages import shown, unknown_algorithm, validation_problems

BUILT_IN = {
    "a2c": "prefzoo.zoo.a2c:A2C",
    "aot": "prefzoo.zoo.aot:AOT",
    "apo_down": "prefzoo.zoo.apo_down:APODown",
    "apo_zero": "prefzoo.zoo.apo_zero:APOZero",
    "bco": "prefzoo.zoo.bco:BCO",
    "bco_pair": "prefzoo.zoo.bco_pair:BCOPair",
    "best_of_n": "prefzoo.zoo.best_of_n:BestOfN",
    "best_of_n_distillation": "prefzoo.zoo.best_of_n_distillation:BestOfNDistillation",
    "bnpo": "prefzoo.zoo.bnpo:BNPO",
    "cal_dpo": "prefzoo.zoo.cal_dpo:CalDPO",
    "cdpo": "prefzoo.zoo.cdpo:CDPO",
    "cispo": "prefzoo.zoo.cispo:CISPO",
    "constitutional_ai": "prefzoo.zoo.constitutional_ai:ConstitutionalAI",
    "cpo": "prefzoo.zoo.cpo:CPO",
    "dapo": "prefzoo.zoo.dapo:DAPO",
    "discopop": "prefzoo.zoo.discopop:DiscoPOP",
    "distill": "prefzoo.zoo.distill:Distill",
    "dpo": "prefzoo.zoo.dpo:DPO",
    "dpo_norm": "prefzoo.zoo.dpo_norm:DPONorm",
    "dpop": "prefzoo.zoo.dpop:DPOP",
    "dr_grpo": "prefzoo.zoo.dr_grpo:DrGRPO",
    "exo": "prefzoo.zoo.exo:EXO",
    "fdpo": "prefzoo.zoo.fdpo:FDPO",
    "grpo": "prefzoo.zoo.grpo:GRPO",
    "gspo": "prefzoo.zoo.gspo:GSPO",
    "hdpo": "prefzoo.zoo.hdpo:HDPO",
    "ilql": "prefzoo.zoo.ilql:ILQL",
    "ipo": "prefzoo.zoo.ipo:IPO",
    "iterated_rlhf": "prefzoo.zoo.iterated_rlhf:IteratedRLHF",
    "iterative_dpo": "prefzoo.zoo.iterative_dpo:IterativeDPO",
    "kto": "prefzoo.zoo.kto:KTO",
    "ldpo": "prefzoo.zoo.ldpo:LDDPO",
    "luspo": "prefzoo.zoo.luspo:LUSPO",
    "mpo": "prefzoo.zoo.mpo:MPO",
    "nca": "prefzoo.zoo.nca:NCA",
    "odpo": "prefzoo.zoo.odpo:ODPO",
    "online_dpo": "prefzoo.zoo.online_dpo:OnlineDPO",
    "orpo": "prefzoo.zoo.orpo:ORPO",
    "ppo": "prefzoo.zoo.ppo:PPO",
    "rdpo": "prefzoo.zoo.rdpo:RDPO",
    "reinforce": "prefzoo.zoo.reinforce:Reinforce",
    "reinforce_plus_plus": "prefzoo.zoo.reinforce_plus_plus:ReinforcePlusPlus",
    "reinforce_plus_plus_baseline": "prefzoo.zoo.reinforce_plus_plus:ReinforcePlusPlusBaseline",
    "rejection_sampling": "prefzoo.zoo.rejection_sampling:RejectionSampling",
    "rlaif": "prefzoo.zoo.rlaif:RLAIF",
    "rloo": "prefzoo.zoo.rloo:RLOO",
    "robust": "prefzoo.zoo.robust:RobustDPO",
    "rpo": "prefzoo.zoo.rpo:RPO",
    "sac": "prefzoo.zoo.sac:SAC",
    "sapo": "prefzoo.zoo.sapo:SAPO",
    "sft": "prefzoo.zoo.sft:SFT",
    "simpo": "prefzoo.zoo.simpo:SimPO",
    "slic": "prefzoo.zoo.slic:SLiC",
    "sppo": "prefzoo.zoo.sppo:SPPO",
    "vespo": "prefzoo.zoo.vespo:VESPO",
    "wpo": "prefzoo.zoo.wpo:WPO",
    "xpo": "prefzoo.zoo.xpo:XPO",
}
ENTRY_POINTS = "prefzoo.algorithms"
LABEL_KEYS = ("algorithm", "seed_offset", "tune")
"""What a recipe says of a label beside the algorithm's own settings."""
BUILT_IN_POLICIES = {
    "adapter": "prefzoo.models.language_model:LanguageModelPolicy",
    "best_of_n": "prefzoo.rewards.best_of_n_policy:BestOfNPolicy",
    "model": "prefzoo.models.language_model:LanguageModelPolicy",
    "q_values": "prefzoo.models.q_value_policy:QValuePolicy",
    "soft_q_values": "prefzoo.models.q_value_policy:SoftQPolicy",
}
POLICY_ENTRY_POINTS = "prefzoo.policies"

_registered: dict[str, type[Algorithm]] = {}
_registered_policies: dict[str, type] = {}
A = TypeVar("A", bound=type[Algorithm])


def register(name: str) -> Callable[[A], A]:
    """Class decorator: make an algorithm available under `name`, in recipes too.

    Raises:
        ValueError: when `name` is taken by another class, or the class is not a sound algorithm, or an annotation of
            its hyper-parameters means nothing where it is written.
    """

    def decorate(cls: A) -> A:
        if holder := _holder(name, cls):
            raise ValueError(f"the name {name!r} is taken by {holder}; choose another one for {cls.__qualname__}")
        _check_class(name, cls)
        _resolve(name, cls)
        _registered[name] = cls
        return cls

    return decorate


def registered() -> dict[str, type[Algorithm]]:
    """The algorithms that `register` added in this process (worker processes are sent these)."""
    return dict(_registered)


def register_policy(kind: str, cls: type) -> None:
    """Make policies of this kind loadable: `prefzoo.load_policy` calls `cls.load(folder, start, content)` where
    `policy.json` says `kind`. `content` is what that file holds, `start` the start policy's folder.

    Raises:
        ValueError: when `kind` is taken by another class, or `cls` lacks `load`, `save` or `sample`.
    """
    if missing := [name for name in ("load", "sample", "save") if not callable(getattr(cls, name, None))]:
        raise ValueError(f"policy kind {kind!r}: {cls!r} has no method {', '.join(missing)}")
    other = _registered_policies.get(kind)
    same = other is not None and (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__)
    if kind in BUILT_IN_POLICIES or (other is not None and not same):
        holder = "a built-in policy" if other is None else f"{other.__module__}.{other.__qualname__}"
        raise ValueError(f"the policy kind {kind!r} is taken by {holder}; choose another one for {cls.__qualname__}")
    _registered_policies[kind] = cls


def policy_class(kind: str) -> type:
    """The class that loads policies of this kind.

    Raises:
        PrefzooError: for a kind that nothing here registers, with what is known and what to do.
    """
    if kind in _registered_policies:
        return _registered_policies[kind]
    if kind in BUILT_IN_POLICIES:
        module, _, attribute = BUILT_IN_POLICIES[kind].partition(":")
        loaded: type = getattr(importlib.import_module(module), attribute)
        return loaded
    points = entry_points(group=POLICY_ENTRY_POINTS)
    if kind in points.names:
        try:
            offered: type = points[kind].load()
        except (Exception, SystemExit) as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise PrefzooError(
                f"the policy kind {kind!r}, {points[kind].value}, cannot be loaded: {message}"
            ) from error
        return offered
    known = ", ".join(sorted({*BUILT_IN_POLICIES, *_registered_policies, *points.names}))
    raise PrefzooError(
        f"the policy kind {kind!r} is not registered here (known: {known}). Load the plug-in that registers it: "
        "`--plugin FILE` on the command line, `prefzoo.plugins.load_plugins([FILE])` in Python"
    )


def registered_policies() -> dict[str, type]:
    """The kinds of policy that `register_policy` added in this process (worker processes are sent these)."""
    return dict(_registered_policies)


def adopt(algorithms: dict[str, type[Algorithm]], policies: dict[str, type]) -> None:
    """Register what another process had registered and this one, which ran the same plug-ins, has not."""
    for name, cls in algorithms.items():
        if name not in _registered:
            register(name)(cls)
    for kind, policy in policies.items():
        if kind not in _registered_policies:
            register_policy(kind, policy)


def restore(algorithms: dict[str, type[Algorithm]], policies: dict[str, type] | None = None) -> None:
    """Make `algorithms`, and no others, the ones that are registered; the same for kinds of policy where given."""
    _registered.clear()
    _registered.update(algorithms)
    if policies is not None:
        _registered_policies.clear()
        _registered_policies.update(policies)


def names() -> list[str]:
    """Every algorithm that can be named: built in, installed by other packages, and registered here."""
    return sorted({*BUILT_IN, *_registered, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def load(name: str) -> type[Algorithm]:
    """The class behind a name.

    Raises:
        KeyError: for an unknown name; the message says what exists and what was probably meant.
        PrefzooError: when another package offers the name and its code cannot be loaded, or several packages do.
    """
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    offered = _offered().get(name)
    if not offered:
        raise KeyError(unknown_algorithm(name, names()))
    if len(offered) > 1:
        raise PrefzooError(f"the algorithm {name!r} is offered by several packages: {', '.join(sorted(offered))}")
    (package, point), *_ = offered.items()
    try:
        return _check_class(name, point.load())
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise PrefzooError(
            f"the algorithm {name!r} of the package {package} cannot be loaded: {type(error).__name__}: {reason}"
        ) from error


def clashes() -> list[str]:
    """A sentence for each name of ours, or registered here, that an installed package offers too."""
    offered = _offered()
    return [
        f"the package {package} offers an algorithm named {name!r} too; it is not used, because "
        f"{'that is a built-in one' if name in BUILT_IN else 'one of that name is registered'}"
        for name in sorted({*BUILT_IN, *_registered} & offered.keys())
        for package, point in offered[name].items()
        if (cls := _registered.get(name)) is None or point.value != f"{cls.__module__}:{cls.__qualname__}"
    ]


def sound() -> dict[str, type[Algorithm]]:
    """Name -> class of every algorithm that can be loaded; a broken package of somebody else's is left out."""
    loaded = {}
    for name in names():
        with contextlib.suppress(PrefzooError):
            loaded[name] = load(name)
    return loaded


def get(name: str, **parameters: Any) -> Algorithm:
    """An algorithm by name with its hyper-parameters: `get("dpo", beta=0.2)`.

    Raises:
        KeyError: for an unknown name.
        RecipeError: naming every parameter that is unknown or out of range.
    """
    algorithm, problems = build(load(name), parameters)
    if algorithm is None:
        raise RecipeError(name, problems)
    return algorithm


def build(cls: type[Algorithm], parameters: Mapping[str, Any], prefix: str = "") -> tuple[Algorithm | None, list[str]]:
    """An algorithm with its hyper-parameters, and every problem with them, a sentence each.

    Args:
        prefix: of each key in a sentence, such as `"algorithms.dpo."`.

    Returns:
        No algorithm where there is a problem.
    """
    fields = [f.name for f in dataclasses.fields(cls)]
    known = [*fields, *(LABEL_KEYS if prefix.startswith("algorithms.") else ())]
    problems = [f"{prefix}{key}: {unknown('key', key, known)}" for key in parameters if key not in fields]
    settings = {key: value for key, value in parameters.items() if key in fields}
    problems += [
        f"{prefix}{key}: must be a finite number (got {value})"
        for key, value in settings.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    algorithm = None
    try:
        algorithm = TypeAdapter(cls).validate_python(settings)
    except ValidationError as error:
        for problem in validation_problems(error, settings, lambda path: _keys_at(cls, path)):
            key = f"{prefix}{problem.key}".rstrip(".")  # what is wrong between several has no key of its own
            problems.append(f"{key}: {problem.message}" if key else problem.message)
    trainer = parameters.get("trainer")
    if trainer and cls.config is None:
        problems.append(
            f"{prefix}trainer: has no meaning here, for there is no trainer behind it (got {shown(trainer)})"
        )
    elif isinstance(trainer, dict) and cls.config is not None:
        named = {key: key if key in fields else setting for key, setting in cls.owned.items()}
        owned = {key: f"say `{prefix}{name}`" if name in fields else name for key, name in named.items()}
        problems += trainer_problems(cls.config, trainer, f"{prefix}trainer.", owned)
    return (None if problems else algorithm), problems


def family_order(family: str) -> tuple[bool, str]:
    """Sort key of families: by name, those of plug-ins that name none last."""
    return family == Algorithm.family, family.lower()


def settings_of(algorithm: Algorithm) -> dict[str, Any]:
    """The hyper-parameters of an algorithm as plain values, those of its blocks included."""
    values = dataclasses.asdict(algorithm)
    return {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in values.items()}


def _keys_at(cls: type[Algorithm], path: tuple[Any, ...]) -> list[str]:
    """The keys of the block of hyper-parameters at a path, such as `("shaping",)`."""
    blocks = {field.name: type(field.default) for field in dataclasses.fields(cls)}
    return list(getattr(blocks.get(path[0]), "model_fields", ())) if len(path) == 1 else []


def _resolve(name: str, cls: type[Algorithm]) -> None:
    """Put types in the place of annotations that `from __future__ import annotations` keeps as texts: a class from a
    script goes into other processes by value, and the names that its script imported stay behind."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for owner in cls.__mro__:
        for key, written in vars(owner).get("__annotations__", {}).items():
            if key not in fields or not isinstance(fields[key].type, str) or not isinstance(written, str):
                continue
            try:
                annotation = eval(written, vars(sys.modules[owner.__module__]), dict(vars(owner)))
            except Exception as error:
                raise ValueError(
                    f"algorithm {name!r}: the annotation of {key!r}, {written}, means nothing where it is written "
                    f"({type(error).__name__}: {error}); define or import its names at the top of the file, not within "
                    "a function or under TYPE_CHECKING"
                ) from error
            fields[key].type = annotation
            owner.__annotations__[key] = annotation


def _offered() -> dict[str, dict[str, EntryPoint]]:
    """Name -> the installed packages that offer an algorithm of this name. All packages are read for it."""
    offered: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        offered.setdefault(point.name, {})[point.dist.name if point.dist else point.value] = point
    return offered


def _holder(name: str, cls: type[Algorithm]) -> str | None:
    """What has the name already, if that is not this very class (which a notebook may define again and again)."""
    if name in BUILT_IN:
        return "a built-in algorithm"
    own = (cls.__module__, cls.__qualname__)
    if name in _registered:
        other = _registered[name]
        return None if (other.__module__, other.__qualname__) == own else f"{other.__module__}.{other.__qualname__}"
    strangers = [package for package, point in _offered().get(name, {}).items() if point.value != ":".join(own)]
    return f"the package {strangers[0]}" if strangers else None


def _check_class(name: str, cls: type[Algorithm]) -> type[Algorithm]:
    if not (inspect.isclass(cls) and issubclass(cls, Algorithm)):
        raise ValueError(f"algorithm {name!r} is {cls!r}; it must be a subclass of prefzoo.Algorithm")
    # Its own decoration counts, not its parent's: without one, the hyper-parameters it lists would be ignored.
    if "__dataclass_fields__" not in vars(cls):
        raise ValueError(f"algorithm {name!r}: decorate {cls.__qualname__} with @dataclass(frozen=True)")
    if not isinstance(cls.needs, Set):
        raise ValueError(
            f"algorithm {name!r}: needs is the {type(cls.needs).__name__} {cls.needs!r}; it must be a frozenset of any "
            f"of {', '.join(NEEDS)}"
        )
    stray = sorted(cls.needs - set(NEEDS))
    if stray:
        raise ValueError(f"algorithm {name!r}: {unknown('need', stray[0], NEEDS)}")
    fields = [field.name for field in dataclasses.fields(cls)]
    for key, tried in cls.space.items():
        if key.partition(".")[0] not in fields:
            raise ValueError(f"algorithm {name!r}: space: {unknown('hyper-parameter', key, fields)}")
        if not isinstance(tried, Range) or not (tried.choices or tried.low < tried.high):
            raise ValueError(
                f"algorithm {name!r}: space[{key!r}] must be a prefzoo.Range with low below high, or choices"
            )
    return cls
