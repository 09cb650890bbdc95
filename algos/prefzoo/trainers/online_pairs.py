"""TRL's DPOTrainer on pairs of replies that the policy itself samples while it trains."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from accelerate.utils import gather_object

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench, Policy
from prefzoo.judges.ai_preferences import in_words
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.trainers.divided_weights import whole_weights
from prefzoo.trainers.fitting import fit, start_shared_with_reward
from prefzoo.trainers.reference import without_reference
from prefzoo.types import Prompt

MakePairs = Callable[[Bench, "LearningPolicy", Sequence[Prompt], int], list[tuple[dict[str, Any], str | None]]]
"""`(bench, policy, prompts, seed) -> (a row of Views.preferences, why it is no pair)` for each prompt. The replies of a
row have their `token_ids`, which are trained on as they were sampled."""
COUNTS = "sampled_pairs"
"""In `Bench.report`, and while a training lasts in `Bench.memory`: what became of the prompts of each training."""
JUDGE = "judge"
"""In `Bench.memory`: the judge's state after what it was asked so far."""


def fit_online_pairs(
    bench: Bench,
    learner: Any,
    make_pairs: MakePairs,
    sync: int | Literal["once"],
    settings: dict[str, Any],
    from_start: bool = False,
) -> Policy:
    """Train on pairs of the policy's own replies to the bench's prompts, which the ledger is charged for as they are
    made.

    Args:
        learner: a `Pairwise` algorithm, whose loss is learned from.
        make_pairs: samples and labels. It must draw random numbers by its seed alone.
        sync: after how many optimizer steps the policy that samples is brought up to date; `once` never is.
        settings: of the trainer.
        from_start: whether `make_pairs` samples from the start, too.

    Raises:
        PrefzooError: when nothing is sampled (temperature 0), or no pair could be made.
    """
    from trl import DPOConfig

    if bench.generation.temperature == 0:
        raise PrefzooError("generation.temperature is 0: an algorithm that learns from its own samples must sample")
    bench = bench.replace(reuse=None, data=dataclasses.replace(bench.data, sampled=True))
    start, latest = start_shared_with_reward(bench), bench.latest
    whole_start = start if bench.adapter.type == "full" and learner.reference else None
    if whole_start is None:  # the reference is the policy with its adapter off, or there is none
        latest = latest or start
    sampling = OnlineSampling(bench, learner, make_pairs, None if sync == "once" else sync, from_start)
    trainer = learner.trainer_class() if learner.reference else without_reference(learner.trainer_class())
    policy: Policy = fit(
        bench.replace(latest=latest),
        type(trainer.__name__, (OnlinePairs, trainer), {"sampling": sampling, "whole_start": whole_start}),
        DPOConfig,
        [{"prompt": list(prompt)} for prompt in bench.data.prompts],
        {**learner.trainer_settings(), **settings, "precompute_ref_log_probs": False, "remove_unused_columns": False},
        reference=learner.reference,
        divisible=True,
        **({"ref_model": whole_start.model} if whole_start else {}),
    )
    counts = bench.machinery.memory.pop(COUNTS)
    bench.report.setdefault(COUNTS, []).append(counts)
    if bench.judge is not None and bench.machinery.memory.pop(JUDGE, None):
        bench.report["judge"] = bench.judge.report()
    if not counts["pairs"]:
        raise PrefzooError(f"of sampled replies no pair could be made: {in_words(counts)}")
    return policy


@dataclass(frozen=True)
class OnlineSampling:
    """Where the pairs of a training come from; see `fit_online_pairs`. `sync` is None where all are made at once."""

    bench: Bench
    learner: Any
    make_pairs: MakePairs
    sync: int | None
    from_start: bool


class LearningPolicy(LanguageModelPolicy):
    """The policy while it is trained.

    Attributes:
        whole_start: the start, where the policy is trained whole; None where it is the policy with its adapter off.
    """

    whole_start: LanguageModelPolicy | None = None

    @contextlib.contextmanager
    def as_start(self) -> Iterator[LanguageModelPolicy]:
        if self.whole_start is not None:
            yield self.whole_start
        else:
            with super().as_start() as start:
                yield start


class OnlinePairs:
    """Mixed into TRL's `DPOTrainer`: its rows are prompts, and each optimizer step learns from pairs that the policy's
    own replies make.

    At the first of `sync` steps the pairs of all of them are made, and divided among the steps as their prompts are.
    The loss of a step is the mean over its pairs, into however many passes and processes they are divided. A pass that
    is left without a pair takes one at weight 0, for all processes must pass.

    What is sampled depends on the seed, the step and the weights alone, and leaves the random numbers of the training
    as they were, so that a training that resumes goes on to the same numbers.
    """

    sampling: ClassVar[OnlineSampling]
    whole_start: ClassVar[LanguageModelPolicy | None]

    def __init__(self: Any, **more: Any) -> None:
        super().__init__(**more)
        self.pair_collator, self.data_collator = self.data_collator, list
        self.pairs_ahead: dict[int, tuple[list[dict[str, Any]], int]] = {}
        self.begun = False
        bench, model = self.sampling.bench, self.accelerator.unwrap_model(self.model)
        self.policy = LearningPolicy(model, self.processing_class, bench.start, dict(bench.loading))
        self.policy.whole_start = self.whole_start

    def _prepare_dataset(self, dataset: Any, *args: Any, **more: Any) -> Any:
        """Prompts are turned into tokens where they are sampled from."""
        return dataset

    def get_batch_samples(self: Any, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> Any:
        """Return the passes of the coming step. The batches of the data loader count them, and are not looked at: the
        prompts of later steps must be known."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        if not batches:
            return batches, items
        step, passes = self.state.global_step, len(batches) * self.accelerator.num_processes
        if not self.begun:
            self.begun = True
            self._restore_judge()
        if step not in self.pairs_ahead:
            self._sample_ahead(step)
        rows, pairs = self.pairs_ahead.pop(step)
        own = range(self.accelerator.process_index, passes, self.accelerator.num_processes)
        return [self._pass(rows, pairs, i, passes) for i in own], items

    def _pass(self: Any, rows: list[dict[str, Any]], pairs: int, i: int, passes: int) -> dict[str, Any]:
        """Return a batch of every so many rows from the one at `i` on, with the weight of its mean loss."""
        part = rows[i::passes] if pairs else []
        return {**self.pair_collator(part or rows[:1]), "weight": len(part) * passes / max(1, pairs)}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **more: Any) -> Any:
        weight = inputs.pop("weight")
        with self._gathering_any_number():
            return super().compute_loss(model, inputs, *args, **more) * weight  # type: ignore[misc]

    @contextlib.contextmanager
    def _gathering_any_number(self: Any) -> Iterator[None]:
        """TRL gathers what it logs of each pair, of which the processes may have unequal numbers."""
        if self.accelerator.num_processes == 1:
            yield
            return
        self.accelerator.gather = _gather
        try:
            yield
        finally:
            del self.accelerator.gather

    def _sample_ahead(self: Any, step: int) -> None:
        """Make the pairs of this step and of those that the policy is not brought up to date for."""
        sync, steps = self.sampling.sync, self.state.max_steps
        by_step = [self._prompts(s) for s in range(step, steps if sync is None else min(step + sync, steps))]
        prompts = [prompt for part in by_step for prompt in part]
        processes = self.accelerator.num_processes
        made: list[Any] = [None] * len(prompts)
        own_start = [self.ref_model] if self.sampling.from_start and self.whole_start else []
        with whole_weights(self, self.model, *own_start):
            own = self._made(prompts[self.accelerator.process_index :: processes], step)
        everyone = iter(gather_object(own))
        for k in range(processes):  # back into the order of the prompts
            made[k::processes] = [next(everyone) for _ in made[k::processes]]
        pairs = [row for row, dropped in made if dropped is None]
        spare = next(row for row, _ in made if row is not None)
        counts = Counter(self.sampling.bench.machinery.memory.get(COUNTS, {"pairs": 0}))
        counts.update({"prompts": len(prompts), **Counter(dropped or "pairs" for _, dropped in made)})
        begin = 0
        for later, part in enumerate(by_step):
            end = begin + len(part)
            of_step = pairs[len(pairs) * begin // len(prompts) : len(pairs) * end // len(prompts)]
            self.pairs_ahead[step + later] = of_step or [spare], len(of_step)
            counts["steps_without_pairs"] += not of_step
            begin = end
        self.sampling.bench.machinery.memory[COUNTS] = dict(counts)

    def _prompts(self: Any, step: int) -> list[Prompt]:
        """Return the prompts of an optimizer step; each epoch has an order of its own."""
        args, prompts = self.args, self.sampling.bench.data.prompts
        size = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        epoch, i = divmod(step, -(-len(prompts) // size))
        return [prompts[j] for j in _order(len(prompts), args.seed, epoch)[i * size : (i + 1) * size]]

    def _made(self: Any, prompts: list[Prompt], step: int) -> list[tuple[dict[str, Any] | None, str | None]]:
        """Return for each prompt its pair in tokens, or None and why there is no pair; where there is none at all, the
        first has its two replies all the same."""
        if not prompts:
            return []
        bench = self.sampling.bench
        seed = random.Random(f"replies {bench.seed} {step} {self.accelerator.process_index}").getrandbits(31)
        training = self.model.training
        self.model.eval()  # without dropout
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            made = self.sampling.make_pairs(bench, self.policy, prompts, seed)
        self.model.train(training)
        if bench.judge is not None and bench.judge.report()["questions"]:
            bench.machinery.memory[JUDGE] = bench.judge.state() if hasattr(bench.judge, "state") else True
        kept = [i for i, (_, dropped) in enumerate(made) if dropped is None] or [0]
        data = dataclasses.replace(bench.data, preferences=[made[i][0] for i in kept])
        rows = dict(zip(kept, self.sampling.learner.rows(bench.replace(data=data)), strict=True))
        return [(self._tokens(rows[i]) if i in rows else None, dropped) for i, (_, dropped) in enumerate(made)]

    def _tokens(self: Any, row: dict[str, Any]) -> dict[str, Any]:
        ids = {f"{side}_ids": row[side][-1]["token_ids"] for side in ("chosen", "rejected")}
        numbers = {key: value for key, value in row.items() if isinstance(value, float)}
        return {"prompt_ids": self.policy.render(row["prompt"]), **ids, **numbers}

    def _restore_judge(self: Any) -> None:
        """Let a training that resumes ask on from where the killed one was."""
        bench = self.sampling.bench
        if self.state.global_step and hasattr(bench.judge, "restore") and JUDGE in bench.machinery.memory:
            bench.judge.restore(bench.machinery.memory[JUDGE])


def _gather(values: torch.Tensor) -> torch.Tensor:
    """Return the numbers of all processes, in their order, flat."""
    return torch.cat([each.flatten() for each in gather_object([values.detach().cpu()])]).to(values.device)


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    return random.Random(f"prompts {seed} {epoch}").sample(range(count), count)
