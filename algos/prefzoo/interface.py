"""The contract of an algorithm: the bench that it is given, the policy that it returns, and what it promises.

Everything here is light: importing this module imports neither torch nor TRL.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from prefzoo.ledger import Ledger
from prefzoo.settings import Adapter, Budget, Generation, Shaping, Training
from prefzoo.types import Completion, Constitution, Judge, Progress, Prompt, Range, Reward

if TYPE_CHECKING:
    from prefzoo.views import Views


NEEDS = ("preferences", "prompts", "demonstrations", "unpaired", "reward", "judge", "constitution")
"""What an algorithm may declare in `needs`."""


CHECKPOINTS = "checkpoints"
"""Folder inside `Bench.out` that is kept when a trial is killed."""

LEARNING_RATE = "trainer.learning_rate"
RATES = Range(0.2, 5, log=True, relative=True, source="ours: a factor of five either way")
"""What tuning tries of the learning rate of every algorithm with a trainer."""

MILESTONES = "milestones"
"""Folder inside `Bench.out` with policies from before the end of the training, which are measured too."""


class Policy(Protocol):
    """What `train` returns: it answers prompts and can be saved."""

    def sample(
        self,
        prompts: Sequence[Prompt],
        generation: Generation,
        seed: int,
        n: int = 1,
        ledger: Ledger | None = None,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """Return `n` replies to each prompt, in the order of `prompts`. The same seed gives the same replies.

        The sampled tokens are charged to `ledger`; `progress("sampling", done, total)` is called after each batch.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write all that `prefzoo.load_policy` needs to load this policy, `policy.json` with its kind included; see
        `prefzoo.register_policy` and `prefzoo.models.policy_kinds.write_policy_file`."""
        ...


@runtime_checkable
class HasKL(Protocol):
    """A policy that measures its distance from the start itself; such a policy has a KL in results."""

    def kl_to_start(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[float]:
        """KL(policy || start) of each reply in nats, or an upper bound of it, for replies that this policy sampled at
        `temperature`. The mean over replies counts."""
        ...


@runtime_checkable
class HasLogProbabilities(Protocol):
    """A policy that scores tokens; such a policy has a KL in results too, estimated by log-ratios."""

    def log_probabilities(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[list[float]]:
        """The log-probability of each token of each reply, in nats, under this policy at this temperature."""
        ...


class Assistant(Protocol):
    """A model that writes what a request asks for, such as a critique or a revision."""

    def __call__(self, requests: Sequence[str], seed: int, ledger: Ledger | None = None) -> list[str]:
        """Return one answer to each request; the same seed gives the same answers. The tokens are charged."""
        ...


class Reuse(Protocol):
    """Does once what several trials of a comparison would compute alike. Result and charge are those of a trial that
    computes it itself; see `run.stages.shared_work`."""

    def samples(
        self, bench: Bench, policy: Policy, prompts: Sequence[Prompt], n: int, seed: int
    ) -> list[list[Completion]]: ...

    def preferences(
        self,
        bench: Bench,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None,
    ) -> list[float]: ...

    def reference(
        self, bench: Bench, model: Any, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Machinery:
    """What only trainers and stages need of a bench.

    Attributes:
        loading: how model files are read (dtype, trust_remote_code, quantization).
        reporting: where trainers log their curves, as training arguments (`report_to`, `run_name`, `project`).
        shaping: what online algorithms make of scores; used by `prefzoo.trainers.online`.
        memory: plain values that a killed training needs again; checkpoints keep them.
        milestones: how many policies each training of the policy keeps on its way, at equal shares of its steps.
        began: when the trial began, by `time.perf_counter`.
        reuse: what `sample`, `prefer` and DPO's reference share with other trials; None where nothing is shared.
        self_play: whether a training that goes on from `latest` compares with that policy as it was before, and not
            with the start: whether it is the reference.
    """

    loading: Mapping[str, Any] = field(default_factory=dict)
    reporting: Mapping[str, Any] = field(default_factory=dict)
    shaping: Shaping = field(default_factory=Shaping)
    memory: dict[str, Any] = field(default_factory=dict)
    milestones: int = 0
    began: float = field(default_factory=time.perf_counter)
    reuse: Reuse | None = None
    self_play: bool = False


@dataclass(frozen=True)
class Bench:
    """All that an algorithm may draw on; the same for every algorithm of a comparison.

    Attributes:
        start: folder of the start policy, a plain transformers model; also the reference.
        data: views of the sealed training split: `prompts`, `preferences`, `demonstrations`.
        reward: what to learn from, for algorithms that declare they need it; charged to the ledger by `score`.
        adapter, budget, generation, training: the recipe's blocks of those names.
        seed: seeds data order, adapter initialisation and sampling.
        out: a folder of this trial's own.
        ledger: what has been used so far.
        progress: called as `progress(what, done, total)`.
        report: plain values that the algorithm adds about this trial; they end up in `results.json` under `details`.
        latest: the policy to go on from in a later round; None for the start.
        judge: answers which of two replies is better; charged by `prefer`; other questions by `ledger.judged`.
        assistant: writes critiques and revisions.
        constitution: the principles that feedback is given by.
        machinery: what trainers and stages need; an algorithm passes it on with the bench.
    """

    start: str
    data: Views
    reward: Reward | None
    adapter: Adapter
    budget: Budget
    generation: Generation
    training: Training
    seed: int
    out: Path
    ledger: Ledger = field(default_factory=Ledger)
    progress: Progress = lambda what, done, total: None
    report: dict[str, Any] = field(default_factory=dict)
    latest: Policy | None = None
    judge: Judge | None = None
    assistant: Assistant | None = None
    constitution: Constitution | None = None
    machinery: Machinery = field(default_factory=Machinery)

    @property
    def loading(self) -> Mapping[str, Any]:
        """How model files are read: `LanguageModelPolicy.from_start(bench.start, **bench.loading)`."""
        return self.machinery.loading

    def replace(self, **changes: Any) -> Bench:
        """Return a bench that differs only in `changes`; ledger and report stay shared. This is how one algorithm
        hands data that it made to another. Fields of `Machinery` may be named too."""
        inner = {name: changes.pop(name) for name in list(changes) if name in Machinery.__dataclass_fields__}
        if inner:
            changes["machinery"] = dataclasses.replace(changes.get("machinery", self.machinery), **inner)
        return dataclasses.replace(self, **changes)

    def sample(self, policy: Policy, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Completion]]:
        """Return `n` replies of `policy` to each prompt, sampled by the comparison's settings and charged to the
        ledger."""
        self.ledger.prompts += len(prompts)
        if self.machinery.reuse is not None:
            return self.machinery.reuse.samples(self, policy, prompts, n, seed)
        return policy.sample(prompts, self.generation, seed, n=n, ledger=self.ledger, progress=self.progress)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """Return the reward of each reply, charged to the ledger."""
        assert self.reward is not None, "an algorithm scores replies only if 'reward' is in its needs"
        return self.ledger.scored(self.reward, prompts, completions)

    def prefer(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> list[float]:
        """Return the judge's P(first is better) of each pair, charged to the ledger; see `Judge`."""
        judge = self.judge
        assert judge is not None, "an algorithm asks the judge only if 'judge' is in its needs"
        reuse = self.machinery.reuse
        if reuse is not None:
            return self.ledger.judged(judge, lambda: reuse.preferences(self, prompts, first, second, questions))
        return self.ledger.judged(judge, lambda: judge(prompts, first, second, questions))

    def keep(self, policy: Policy, name: str, ledger: Ledger | None = None, folder: Path | None = None) -> None:
        """Save a policy from before the end of the training, with the costs so far; it is measured too.

        The seconds that saving takes belong to measuring and are taken off the trial's.

        Args:
            name: of the policy in results, such as `round 1`; results list policies in the order of these calls.
            ledger: the costs so far, where the bench's own ledger does not hold all of them yet; the seconds since
                `began` are added. Peak memory is left out: a process has only one.
            folder: of the policy; None is the next one in `MILESTONES`.
        """
        if not is_first_process():
            return
        now = time.perf_counter()
        used = dataclasses.asdict(ledger or self.ledger)
        used["seconds"] += now - self.machinery.began
        del used["peak_memory_bytes"]
        folder = folder or self.out / MILESTONES / f"{len(list((self.out / MILESTONES).glob('*'))):02d}"
        policy.save(folder / "policy")
        (folder / "milestone.json").write_text(json.dumps({"name": name, "ledger": used}), encoding="utf-8")
        self.ledger.seconds -= time.perf_counter() - now

    def record(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to the JSON-lines file `name` in the trial's folder, for people to read."""
        if is_first_process():
            with (self.out / name).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in records)


def is_first_process() -> bool:
    """True for the first of the processes that train a trial together, which `RANK` numbers."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Algorithm(ABC):
    """A method that turns a start policy into a better one; `docs/algorithms.md` says how to write one.

    A subclass is a frozen dataclass of its own hyper-parameters, says in `needs` what it draws from the bench
    (any of `NEEDS`), and implements `train`. Its docstring opens with the paper.

    What every algorithm promises; `prefzoo check NAME` tries each promise in the lab:

    - *Budget.* It takes its prompts from `bench.data` alone. A row of the view that it learns from (a pair, a
      demonstration, a prompt) contributes at most `replies_per_row` sequences to an epoch of training, so that at
      most rows x `replies_per_row` x `bench.budget.epochs` sequences pass through a forward and a backward pass,
      however they are divided among rounds. What was trained on, sampled and scored is charged to `bench.ledger`
      (`prefzoo.trainers.fitting.fit`, `bench.sample` and `bench.score` do that).
    - *Base.* The files in `bench.start` stay as they are; what is trained is what `bench.adapter` says, and with its
      adapter off the policy is the start.
    - *Seed.* The same seed gives the same policy again, and another seed another one.
    - *Saving.* `policy.save(bench.out / "policy")` is called, and what is loaded from there answers like the policy
      that was returned.
    - *Learning.* With the lab's preferences gold rises; with shuffled labels or a random reward it does not.

    Attributes:
        trainer: settings for the trainer behind it, checked against the trainer's own config class `config`. Default:
            TRL's, but for what `training` sets for all.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    config: ClassVar[str | None] = None
    """`"module:Class"` of the config whose fields `trainer` may set; None when there is no such trainer."""

    family: ClassVar[str] = "others"
    """The heading under which `prefzoo ls` lists it."""

    owned: ClassVar[Mapping[str, str]] = {}
    """Fields of `config` that `train` itself sets, so that `trainer` may not: field -> the hyper-parameter that sets
    it, or a sentence on what to do instead. (`config_fields.OWNED` are those of every algorithm.)"""

    trains: ClassVar[bool] = True
    """False for an algorithm that leaves the start's weights as they are and only samples in another way."""

    plain_sampling: ClassVar[bool] = True
    """False for an algorithm that samples from more than a language model's own distribution, in training or from its
    policy: an engine that is given a model's weights alone is then refused."""

    space: ClassVar[Mapping[str, Range]] = {}
    """What tuning tries of which hyper-parameter, beside the learning rate."""

    trainer: dict[str, Any] = field(default_factory=dict, kw_only=True)

    @property
    def tunable(self) -> dict[str, Range]:
        """What tuning tries of the algorithm with these settings, by dotted setting: `space`, and the learning rate
        where a trainer is behind it."""
        return {**self.space, **({LEARNING_RATE: RATES} if self.config is not None and self.trains else {})}

    @property
    def required(self) -> frozenset[str]:
        """What the algorithm with these settings draws from the bench: `needs`, unless settings change that."""
        return self.needs

    @property
    def divisible(self) -> bool:
        """Whether it also trains where processes divide the weights among themselves (FSDP): while it learns it samples
        by `fit_online` alone, and a trainer of its own passes through its model by `forward` and gets `divisible=True`
        in `fit`. Classes say so by `divisible: ClassVar[bool] = True`."""
        return False

    @property
    def reads(self) -> tuple[str, ...]:
        """Files and folders that it reads beside what the bench has, such as a teacher's: where their content changes,
        the trial is made anew."""
        return ()

    @property
    def replies_per_row(self) -> int:
        """How many sequences a row of the data contributes to an epoch of training: two of a pair, else one.

        An algorithm that trains on more (several samples of a prompt, several passes over a sample) overrides it.
        """
        return 2 if {"preferences", "unpaired"} & self.needs else 1

    @property
    def models_on_data(self) -> int:
        """How many models it trains on the same rows of the data, each from the start for the recipe's epochs: more
        than one where reward models are made anew, never policies."""
        return 1

    @abstractmethod
    def train(self, bench: Bench) -> Policy:
        """Learn within the bench's budget and return the policy."""
