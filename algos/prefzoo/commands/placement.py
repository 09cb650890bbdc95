"""`prefzoo plan --gpu`: what of a comparison fits where, and the least time that it takes, without loading a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefzoo.commands.gpu_data import Gpu, compute_seconds, gpu_named, sampling_seconds, training_flops
from prefzoo.commands.label_memory import (
    label_parts,
    learner,
    lengths,
    replies_of_prompt,
    step_traffic,
    workload,
)
from prefzoo.commands.memory_estimate import (
    ALONE,
    Arrangement,
    base_weights,
    key_values,
    optimizer_states,
    peak,
    sampling,
    trained_weights,
)
from prefzoo.commands.model_shape import ModelShape, read_shape
from prefzoo.commands.run_folder import checked_recipe
from prefzoo.interface import Algorithm
from prefzoo.recipe.recipe_schema import Recipe

KL_LOGITS = 2**28
"""Bytes of logits of one policy at a time when its KL to the start is measured."""
TOGETHER = ("data parallel", "FSDP", "ZeRO-2")
"""Of those that fit on as many GPUs, the first is taken."""


@dataclass(frozen=True)
class LabelPlan:
    """What one trial of a label takes.

    Attributes:
        parts: memory by part on one GPU, in bytes.
        alone: its peak on one GPU.
        together: the peak in each process of `gpus` that train together, by arrangement.
        smallest: the arrangement of the fewest GPUs that fits; None where none does.
        runs: whether the label is trained in that arrangement here, and not on paper alone.
        traffic: bytes that each process sends in an optimizer step, by arrangement.
        checkpoint: bytes of a checkpoint.
        learning_hours, sampling_hours: on one GPU, at least; None where its speed is unknown.
    """

    label: str
    parts: dict[str, float]
    alone: float
    together: dict[str, float]
    smallest: Arrangement | None
    runs: bool
    traffic: dict[str, float]
    checkpoint: float
    learning_hours: float | None
    sampling_hours: float | None

    @property
    def hours(self) -> float | None:
        if self.learning_hours is None or self.sampling_hours is None:
            return None
        return self.learning_hours + self.sampling_hours


@dataclass(frozen=True)
class Placement:
    """What all labels of a recipe take on a GPU; `gpus` is how many may train one trial together."""

    recipe: Recipe
    shape: ModelShape
    gpu: Gpu
    gpus: int
    labels: dict[str, LabelPlan]

    @property
    def trials(self) -> int:
        tuned = self.recipe.tuning.trials * self.recipe.tuning.seeds if self.recipe.tuning is not None else 0
        return len(self.labels) * (len(self.recipe.seeds) + tuned)


def placement(
    recipe: str | Mapping[str, Any],
    gpu: str,
    gpus: int = 1,
    algorithms: Iterable[str] | None = None,
    seeds: int | list[int] | None = None,
    sets: Iterable[str] = (),
    **more: Any,
) -> Placement:
    """Plan a recipe on paper.

    Args:
        gpu: a name in `gpu_data.GPUS`, or GiB.
        gpus: how many may train one trial together, at most.
        more: further arguments of `checked_recipe`.

    Raises:
        RecipeError: for a recipe that cannot run.
        PrefzooError: for an unknown GPU, or a model whose config cannot be had.
    """
    card = gpu_named(gpu)
    checked = checked_recipe(recipe, algorithms, seeds, sets, **more)
    return placed(checked, read_shape(checked), card, gpus)


def placed(recipe: Recipe, shape: ModelShape, gpu: Gpu, gpus: int = 1) -> Placement:
    """Plan a checked recipe for a model of this shape."""
    labels = {label: _label_plan(recipe, shape, label, gpu, gpus) for label in recipe.algorithms}
    return Placement(recipe, shape, gpu, gpus, labels)


def runs(arrangement: Arrangement, algorithm: Algorithm, recipe: Recipe) -> bool:
    """Whether a label is trained in an arrangement, and not on paper alone."""
    if arrangement.name == "FSDP":
        return recipe.adapter.type != "qlora" and (algorithm.divisible or not algorithm.trains)
    return arrangement.name != "ZeRO-2"


def _label_plan(recipe: Recipe, shape: ModelShape, label: str, gpu: Gpu, gpus: int) -> LabelPlan:
    algorithm = recipe.algorithm(label)
    learns = learner(algorithm)
    parts = label_parts(recipe, shape, algorithm)
    counts = [2**i for i in range(1, gpus.bit_length() + 1) if 2**i <= gpus]
    tried = [ALONE, *(Arrangement(name, n) for n in counts for name in TOGETHER)]
    peaks = {arrangement: _peak(recipe, shape, algorithm, arrangement) for arrangement in tried}
    smallest = next((each for each, bytes_ in peaks.items() if bytes_ <= gpu.usable), None)
    most = {name: Arrangement(name, counts[-1]) for name in TOGETHER} if counts else {}
    count, width = trained_weights(shape, recipe.adapter, recipe.model.dtype)
    states = count * width + optimizer_states(count, width, recipe.training.optim)
    learning, sampled = _hours(recipe, shape, algorithm, learns, gpu)
    return LabelPlan(
        label=label,
        parts=parts,
        alone=peaks[ALONE],
        together={name: peaks[each] for name, each in most.items()},
        smallest=smallest,
        runs=smallest is not None and runs(smallest, algorithm, recipe),
        traffic={name: algorithm.trains * step_traffic(shape, recipe, each, learns) for name, each in most.items()},
        checkpoint=states if algorithm.trains else 0.0,
        learning_hours=learning,
        sampling_hours=sampled,
    )


def _peak(recipe: Recipe, shape: ModelShape, algorithm: Algorithm, arrangement: Arrangement) -> float:
    """The largest memory of a trial: while it learns, or while the policy answers test prompts, which one process does
    from whole weights."""
    work = replace(workload(recipe, learner(algorithm)), samples=recipe.generation.batch_size)
    weights = base_weights(shape, recipe.adapter, recipe.model.dtype)
    answering = weights + shape.adapter * 4 + max(sampling(shape, recipe.model.dtype, work), 2 * KL_LOGITS)
    return max(peak(label_parts(recipe, shape, algorithm, arrangement)), answering)


def _hours(
    recipe: Recipe, shape: ModelShape, algorithm: Algorithm, learns: Algorithm, gpu: Gpu
) -> tuple[float | None, float | None]:
    """Hours at least of learning and of sampling, on one GPU: as many sequences as the algorithm may learn from
    (`Algorithm.replies_per_row`), each as long as it may be, with a pass of the reference over each; replies to
    training prompts, and to test prompts."""
    prompt, _, reply = lengths(recipe)
    work, epochs = workload(recipe, learns), recipe.budget.epochs
    if recipe.budget.prompts is None or gpu.flops is None or gpu.bandwidth is None:
        return None, None
    rows = recipe.budget.prompts * epochs
    trained, _ = trained_weights(shape, recipe.adapter, recipe.model.dtype)
    passed = shape.weights + shape.adapter
    checkpointing = recipe.training.gradient_checkpointing
    tokens = rows * algorithm.replies_per_row * work.length if algorithm.trains else 0.0
    flops = tokens * (training_flops(passed, trained, checkpointing) + 2.0 * shape.weights)
    sampled = 0.0
    if {"reward", "judge"} & algorithm.required:
        sampled = rows * replies_of_prompt(algorithm)
        flops += sampled * (prompt + reply) * 3 * 2.0 * passed  # read, scored by the reward, and by the policy
    at_once = max(1, work.samples or recipe.generation.batch_size)
    cache = (prompt + reply) * key_values(shape, recipe.model.dtype)
    weights = base_weights(shape, recipe.adapter, recipe.model.dtype)
    seconds = [
        sampling_seconds(weights, size * cache, reply, gpu) or 0.0 for size in (at_once, recipe.generation.batch_size)
    ]
    answers = recipe.evaluation.prompts / recipe.generation.batch_size
    learning = compute_seconds(flops, gpu)
    return (learning or 0.0) / 3600, (sampled / at_once * seconds[0] + answers * seconds[1]) / 3600
