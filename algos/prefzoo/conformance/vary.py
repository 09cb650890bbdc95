"""Vary what an algorithm is given, one thing at a time, and see whether what it learns changes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import time
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from prefzoo.conformance.probe import DETAILS, answers, described, questions, with_own_start
from prefzoo.conformance.watch import watching
from prefzoo.interface import MILESTONES, Algorithm, Bench, Policy
from prefzoo.ledger import Ledger
from prefzoo.models.policy_with_modules import PolicyWithModules

ROWS, BATCH = 24, 4
"""Rows and batch size of each training: two optimizer steps in each of three rounds, for at the first step every
schedule of the learning rate is alike."""
TRIES = 4
"""Other values of a hyper-parameter that are tried, at most."""
LIMIT = 120.0
"""Seconds of processor time after which nothing more is tried."""


@dataclasses.dataclass
class Variations:
    """What changed what is learned.

    Attributes:
        repeatable: whether two trainings with nothing varied came out alike; if not, nothing else is known.
        sampled: whether replies were made in training.
        without_effect: what changed nothing -> the values that were tried beside its own.
        with_effect: what changed what is learned.
        untried: hyper-parameters for which no other value is known, or that time did not suffice for.
        milestones: policies kept on the way where two were asked for.
    """

    repeatable: bool
    sampled: bool = False
    without_effect: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    with_effect: list[str] = dataclasses.field(default_factory=list)
    untried: list[str] = dataclasses.field(default_factory=list)
    milestones: int = 0


def vary(algorithm: Algorithm, bench: Bench) -> Policy:
    """Train with one thing after another varied, report what had an effect, and return the policy with none varied."""
    from prefzoo.models.policy_kinds import load_policy

    trainings = _Trainings(algorithm, bench)
    bench.report[DETAILS] = dataclasses.asdict(varied(trainings))
    shutil.copytree(trainings.folder(0), bench.out / "policy")
    return load_policy(trainings.folder(0))


class _Trainings:
    """Small trainings with the algorithm or the bench changed, each done once."""

    def __init__(self, algorithm: Algorithm, bench: Bench) -> None:
        data = bench.data
        rows = {
            name: getattr(data, name)[:ROWS]
            for name in ("prompts", "preferences", "demonstrations", "ratings", "rankings", "labelled")
        }
        self.algorithm = algorithm
        self.bench = with_own_start(bench).replace(
            data=dataclasses.replace(data, **rows),
            training=bench.training.model_copy(update={"batch_size": BATCH}),
            milestones=0,
        )
        self.done: dict[str, str | None] = {}
        self.began = time.process_time()
        self.sampled = False

    @property
    def late(self) -> bool:
        return time.process_time() - self.began > LIMIT

    def folder(self, i: int) -> Path:
        return self.bench.out / f"variation-{i:02d}" / "policy"

    def outcome(
        self, parameters: Mapping[str, Any], blocks: Mapping[str, Mapping[str, Any]] | None = None, again: bool = False
    ) -> str | None:
        """Return a digest of the policy that is learned; None where the algorithm refuses or fails.

        Args:
            parameters: hyper-parameters that are other than the algorithm's own.
            blocks: of the bench: name -> keys that are other than its own.
            again: whether to train although that was done already.
        """
        key = repr((sorted(parameters.items()), blocks))
        if key not in self.done or again:
            digest = None
            with contextlib.suppress(Exception):  # a value that is refused says nothing of how it is used
                digest = self._train(dataclasses.replace(self.algorithm, **parameters), blocks or {})
            if again:
                return digest
            self.done[key] = digest
        return self.done[key]

    def _train(self, algorithm: Algorithm, blocks: Mapping[str, Mapping[str, Any]]) -> str:
        out = self.folder(len(self.done)).parent
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        changed = {name: getattr(self.bench, name).model_copy(update=dict(keys)) for name, keys in blocks.items()}
        bench = self.bench.replace(out=out, ledger=Ledger(), memory={}, report={}, **changed)
        with watching(bench) as seen:
            policy = algorithm.train(bench)
        if not self.done:
            self.sampled = seen.generated_tokens > 0 or bool(described(seen, bench).generated_digests)
        return _digest(policy, out / "policy", bench)

    def milestones(self) -> int:
        """Return how many policies are kept on the way where two are asked for."""
        out = self.bench.out / "variation-milestones"
        out.mkdir()
        with contextlib.suppress(Exception):
            self.algorithm.train(self.bench.replace(out=out, ledger=Ledger(), memory={}, report={}, milestones=2))
        return len(list((out / MILESTONES).glob("*")))


def varied(trainings: _Trainings) -> Variations:
    """Vary every hyper-parameter and the recipe's keys that every algorithm must keep to."""
    base = trainings.outcome({})
    if base is None:
        raise RuntimeError(f"no training on {ROWS} rows came to its end")
    result = Variations(trainings.outcome({}, again=True) == base, trainings.sampled)
    if not result.repeatable:
        return result
    for key, values in _recipe_keys(trainings).items():
        block, _, name = key.partition(".")
        outcomes = {value: trainings.outcome({}, {block: {name: value}}) for value in values if not trainings.late}
        if any(outcome is not None and outcome != base for outcome in outcomes.values()):
            result.with_effect.append(key)
        elif any(outcome is not None for outcome in outcomes.values()):
            result.without_effect[key] = list(outcomes)
    if trainings.algorithm.trains:
        result.milestones = trainings.milestones()
    alternatives = {**_alternatives(trainings.algorithm), **_of_trainer(trainings)}
    result.untried = sorted(
        _untyped(trainings.algorithm) | {name for name, values in alternatives.items() if not values}
    )
    for name, values in alternatives.items():
        if not values:
            continue
        effect, tried = _try_values(trainings, name, values)
        if not effect:
            effect = any(
                _try_values(trainings, name, values, {other: value})[0]
                for other, others in alternatives.items()
                if other != name
                for value in others
            )
        if effect:
            result.with_effect.append(name)
        elif not tried or trainings.late:
            result.untried.append(name)
        else:
            result.without_effect[name] = tried
    return result


def _try_values(
    trainings: _Trainings, name: str, values: list[Any], other_parameters: Mapping[str, Any] | None = None
) -> tuple[bool, list[Any]]:
    """Train with each of the values in turn, until one changes what is learned.

    Args:
        name: of the hyper-parameter that takes the values.
        other_parameters: hyper-parameters that are changed in all of these trainings.

    Returns:
        True if a value changed what is learned; the values that changed nothing.
    """
    other_parameters = other_parameters or {}
    tried: list[Any] = []
    base = None if trainings.late else trainings.outcome(other_parameters)
    for value in values:
        if trainings.late or base is None:
            break
        outcome = trainings.outcome({**other_parameters, name: value})
        if outcome is None:
            continue
        if outcome != base:
            return True, tried
        tried.append(value)
    return False, tried


def _recipe_keys(trainings: _Trainings) -> dict[str, list[Any]]:
    """Keys of the recipe that every algorithm that trains, or samples, keeps to -> other values."""
    bench, algorithm = trainings.bench, trainings.algorithm
    keys: dict[str, list[Any]] = {}
    if algorithm.trains:
        if bench.adapter.type != "full":
            r, alpha = bench.adapter.r, bench.adapter.alpha
            keys |= {"adapter.r": [r // 2 or 2 * r], "adapter.alpha": [2 * alpha]}
        rate, schedule = bench.training.learning_rate, bench.training.lr_scheduler_type
        keys["budget.epochs"] = [2 * bench.budget.epochs]
        keys["training.learning_rate"] = [(rate or 1e-3) / 2]
        keys["training.batch_size"] = [BATCH // 2]
        keys["training.lr_scheduler_type"] = ["constant" if schedule != "constant" else "linear"]
        explained = {"num_train_epochs": "budget.epochs", "max_steps": "budget.epochs"}
        explained |= {name: f"training.{name}" for name in ("learning_rate", "lr_scheduler_type")}
        explained |= dict.fromkeys(
            ("per_device_train_batch_size", "gradient_accumulation_steps"), "training.batch_size"
        )
        for name in algorithm.trainer:
            keys.pop(explained.get(name, ""), None)
    if trainings.sampled:
        temperature, longest = bench.generation.temperature, bench.generation.max_new_tokens
        keys["generation.temperature"] = [temperature / 2 or 1.0]
        keys["generation.max_new_tokens"] = [longest // 2, longest // 3, 2 * longest]
    return keys


def _of_trainer(trainings: _Trainings) -> dict[str, list[Any]]:
    """The trainer's settings, of which one that every trainer has is varied."""
    algorithm, rate = trainings.algorithm, trainings.bench.training.learning_rate
    if algorithm.config is None:
        return {}
    learning_rate = algorithm.trainer.get("learning_rate", rate or 1e-3)
    return {"trainer": [{**algorithm.trainer, "learning_rate": learning_rate / 2}]}


def _untyped(algorithm: Algorithm) -> set[str]:
    """Hyper-parameters for which no other value is known: texts and collections."""
    return {f.name for f in dataclasses.fields(algorithm) if f.init and f.name != "trainer"} - set(
        _alternatives(algorithm)
    )


def _alternatives(algorithm: Algorithm) -> dict[str, list[Any]]:
    """Hyper-parameter -> other values that the algorithm admits beside its other settings as they are."""
    alternatives = {}
    try:
        hints = typing.get_type_hints(type(algorithm))
    except NameError:  # its annotations name what is no longer there
        hints = {}
    for field in dataclasses.fields(algorithm):
        if not field.init or field.name == "trainer":
            continue
        now = getattr(algorithm, field.name)
        candidates = list(_candidates(now, hints.get(field.name)))
        if candidates:
            admitted = [value for value in candidates if value != now and _admits(algorithm, field.name, value)]
            unique = list(dict.fromkeys(admitted))
            alternatives[field.name] = unique if _options(hints.get(field.name)) else unique[:TRIES]
    return alternatives


def _options(hint: Any) -> list[Any]:
    """The values of a `Literal` in a type, also one of several."""
    if typing.get_origin(hint) is Literal:
        return list(typing.get_args(hint))
    return [value for part in typing.get_args(hint) for value in _options(part)]


def _candidates(now: Any, hint: Any) -> Iterator[Any]:
    if options := _options(hint):
        yield from options
    elif isinstance(now, bool):
        yield not now
    elif isinstance(now, int):
        yield from (now + 1, 2 * now, 1, now + 10, now + 100, 0, now - 1)
    elif isinstance(now, float):
        yield from (now / 2, 2 * now, now / 100, 100 * now, now + 1, 0.5, 0.0)
    elif now is None:
        yield from (0.5, 1, 0.01)


def _admits(algorithm: Algorithm, name: str, value: Any) -> bool:
    from pydantic import TypeAdapter

    cls = type(algorithm)
    settings = {f.name: getattr(algorithm, f.name) for f in dataclasses.fields(cls) if f.init}
    try:
        TypeAdapter(cls).validate_python({**settings, name: value})
    except Exception:  # whatever an algorithm's own check raises
        return False
    return True


def _digest(policy: Policy, folder: Path, bench: Bench) -> str:
    """A hash of the weights that were saved, and of replies where there are none, or more than a language model."""
    digest = hashlib.sha256()
    files = sorted(folder.rglob("*.safetensors"))
    for file in files:
        digest.update(file.read_bytes())
    if not files or isinstance(policy, PolicyWithModules):
        digest.update(repr(answers(policy, *questions(bench))["replies"]).encode())
    return digest.hexdigest()
