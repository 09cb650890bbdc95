"""`prefzoo plan --gpu`: what of a comparison fits where, and the least time that it takes, without loading a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefzoo.commands.gpu_data import Gpu, compute_seconds, gpu_named, sampling_seconds, training_flops
from prefzoo.commands.memory_estimate import (
    ALONE,
    BYTES,
    Arrangement,
    Workload,
    base_weights,
    gathered,
    key_values,
    optimizer_states,
    peak,
    sampling,
    trained_weights,
    training_parts,
)
from prefzoo.commands.model_shape import ModelShape, read_shape
from prefzoo.commands.run_folder import checked_recipe
from prefzoo.interface import Algorithm
from prefzoo.recipe.recipe_schema import Recipe, weight_bytes

ASSUMED_TOKENS = 512
"""Of a length that is `auto`, which only the data can tell."""
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


def lengths(recipe: Recipe) -> tuple[int, int, int]:
    """Tokens of a prompt, of a reply in the data, and of a sampled one, at most."""
    assumed = {key: ASSUMED_TOKENS for key in ("max_prompt_tokens", "max_completion_tokens", "max_new_tokens")}
    known = recipe.with_lengths(assumed).lengths
    return known["max_prompt_tokens"], known["max_completion_tokens"], known["max_new_tokens"]


def learner(algorithm: Algorithm) -> Algorithm:
    """The algorithm that trains in the end, where one hands what it made to another."""
    while hasattr(algorithm, "build_learner") and not samples_while_learning(algorithm):
        algorithm = algorithm.build_learner()
    return algorithm


def runs(arrangement: Arrangement, algorithm: Algorithm, recipe: Recipe) -> bool:
    """Whether a label is trained in an arrangement, and not on paper alone."""
    if arrangement.name == "FSDP":
        return recipe.adapter.type != "qlora" and (algorithm.divisible or not algorithm.trains)
    return arrangement.name != "ZeRO-2"


def samples_while_learning(algorithm: Algorithm) -> bool:
    """Whether it samples with optimizer states in memory, from the policy that is being learned."""
    return "reward" in algorithm.needs and (algorithm.config or "").endswith(("GRPOConfig", "RLOOConfig", "DPOConfig"))


def replies_of_prompt(algorithm: Algorithm) -> int:
    """How many replies to a prompt an algorithm samples at a time, where it samples."""
    return int(getattr(algorithm, "generations", getattr(algorithm, "n", 2)))


def workload(recipe: Recipe, algorithm: Algorithm, processes: int = 1) -> Workload:
    """What a process trains and samples at a time. Every row is taken to be as long as rows may be."""
    prompt, completion, reply = lengths(recipe)
    online = samples_while_learning(algorithm)
    config = algorithm.config or ""
    rows_of_one = 2 if config.endswith(("DPOConfig", "KTOConfig")) or "unpaired" in algorithm.needs else 1
    scale = getattr(algorithm, "batch_scale", 1)
    rollout = recipe.training.batch_size * scale * getattr(algorithm, "minibatches", 1)
    shared = _critic(algorithm, recipe) == "shared"
    rows = rows_of_one * recipe.training.batch_size // recipe.training.accumulation
    return Workload(
        rows=max(1, -(-rows // processes)) if algorithm.trains else 0,
        length=prompt + (reply if online else completion),
        samples=-(-rollout * replies_of_prompt(algorithm) // processes) if online else 0,
        prompt=prompt,
        reply=reply,
        passes_at_once=2 if shared else 1,
        eager=recipe.model.attn_implementation == "eager",
    )


def _critic(algorithm: Algorithm, recipe: Recipe) -> str | None:
    """`shared`, an adapter on the policy's base; `frozen`, two layers on the start's last states; `separate`, a model
    of its own; `heads`, of every token's value."""
    if algorithm.family == "Q-learning":
        return "heads"
    kind = getattr(algorithm, "value_model", None)
    on_base = kind == "shared" and recipe.adapter.type != "full"
    return kind if kind in (None, "frozen") or on_base else "separate"


def critic_weights(shape: ModelShape, kind: str | None) -> int:
    """How many weights a critic of this kind has of its own."""
    return {
        "shared": shape.adapter,
        "separate": shape.weights - shape.head,
        "frozen": shape.hidden * (shape.hidden + 2),
        "heads": 4 * shape.hidden * (shape.hidden + shape.vocabulary),
    }.get(kind or "", 0)


def critic_bytes(shape: ModelShape, kind: str | None, optim: str, arrangement: Arrangement = ALONE) -> float:
    """A critic's weights, gradients and optimizer states, all in float32. An adapter of its own is as large as the
    policy's; a model of its own is the base without its head; value heads are two layers, the second as wide as the
    vocabulary, two of them, with copies that follow slowly (Snell et al. 2022, https://arxiv.org/abs/2206.11871)."""
    count = critic_weights(shape, kind)
    copies = 4.0 * count if kind == "heads" else 0.0
    weights = (4.0 * count + copies) / arrangement.weights_divided
    return weights + (4.0 * count + optimizer_states(count, 4, optim)) / arrangement.states_divided


def others_bytes(
    recipe: Recipe, shape: ModelShape, algorithm: Algorithm, online: bool, arrangement: Arrangement = ALONE
) -> float:
    """Other models that are in memory while a label trains: reward models (whole models, or with LoRA adapters on the
    policy's base, under FSDP on one of their own), a judge that is a model here, and with full fine-tuning the
    reference, of what samples or learns from single replies, and of losses on pairs under FSDP alone, because elsewhere
    its log-probabilities are taken before the training; and the start that a frozen critic reads, where that is not the
    reference. These two are what FSDP divides."""
    adapter, dtype = recipe.adapter, recipe.model.dtype
    whole = base_weights(shape, adapter, dtype)
    total, own_base = 0.0, False
    if "reward" in algorithm.required:
        for part in recipe.reward.parts:
            if part.type == "trained":
                full = adapter.type == "full" or (part.adapter is not None and part.adapter.type == "full")
                own_base |= not full and arrangement.weights_divided > 1
                total += part.members * (shape.weights * BYTES[dtype] if full else shape.adapter * 4)
            elif part.type == "path":
                total += weight_bytes(part.path or "") or shape.weights * BYTES[dtype]
        total += whole if own_base else 0.0
    asked = "judge" in algorithm.required or ("reward" in algorithm.required and recipe.uses_judge)
    if asked and recipe.judge.type == "local":
        total += (weight_bytes(recipe.judge.path) if recipe.judge.path else None) or whole
    if algorithm.family == "distillation" and (algorithm.config or "").endswith("DistillationConfig"):
        total += shape.weights * BYTES[dtype] / arrangement.weights_divided  # the teacher
    if adapter.type == "full":
        reference = _compares_with_start(algorithm, online, arrangement.weights_divided > 1)
        stays = bool(getattr(algorithm, "kl_coefficient", 0)) and getattr(algorithm, "reference_decay", None) is None
        of_critic = _critic(algorithm, recipe) == "frozen" and not stays
        total += (reference + of_critic) * whole / arrangement.weights_divided
    return total


def _compares_with_start(algorithm: Algorithm, online: bool, divided: bool) -> bool:
    """Whether the start is in memory, beside a policy that is trained whole, while that learns."""
    from_single = (algorithm.config or "").endswith("KTOConfig")
    held = bool(getattr(algorithm, "kl_coefficient", online))
    return from_single or held or (divided and getattr(algorithm, "reference", False))


def whole_while_sampling(
    recipe: Recipe, shape: ModelShape, algorithm: Algorithm, arrangement: Arrangement = ALONE
) -> float:
    """Under FSDP the weights that each process gathers for as long as it samples, beside its share of them: the
    policy's, and a critic's on its base."""
    if arrangement.weights_divided == 1 or not samples_while_learning(algorithm):
        return 0.0
    adapter, dtype = recipe.adapter, recipe.model.dtype
    critic = _critic(algorithm, recipe)
    own = 4.0 * (0 if adapter.type == "full" else shape.adapter)
    if adapter.type == "full" and getattr(algorithm, "samples_from_start", False):
        own += base_weights(shape, adapter, dtype)
    own += 4.0 * (0 if critic == "separate" else critic_weights(shape, critic))
    return base_weights(shape, adapter, dtype) + own - gathered(shape, dtype, arrangement)


def step_traffic(
    shape: ModelShape, recipe: Recipe, arrangement: Arrangement, algorithm: Algorithm | None = None
) -> float:
    """Bytes that each process sends in an optimizer step, by ring collectives (Patarasuk & Yuan 2009; Rajbhandari et
    al. 2020, section 7): an all-reduce of n bytes sends 2 (N - 1) / N n, a gather or a reduce-scatter half of that.
    FSDP gathers all weights, the frozen ones too, twice in each pass, of which there are `training.accumulation` for
    each reply to a prompt that is learned from, twice more where a critic passes through them, and once for a rollout;
    and those of a second model, the reference or the start of a frozen critic, once in each of its passes."""
    count, width = trained_weights(shape, recipe.adapter, recipe.model.dtype)
    trained, share = count * width, (arrangement.processes - 1) / arrangement.processes
    kind = None if algorithm is None else _critic(algorithm, recipe)
    critic = 4.0 * critic_weights(shape, kind)
    if arrangement.name != "FSDP":
        # ZeRO-2's reduce-scatter of gradients and gather of weights are as much as an all-reduce.
        return 2.0 * share * (trained + critic)
    added = 0.0 if recipe.adapter.type == "full" else trained
    weights = base_weights(shape, recipe.adapter, recipe.model.dtype) + added
    scale = getattr(algorithm, "generations", 1) * getattr(algorithm, "batch_scale", 1)
    passes = recipe.training.accumulation * scale
    sent = passes * (2.0 * weights + trained + 3.0 * critic + (2.0 * weights if kind == "shared" else 0.0))
    if algorithm is None:
        return share * sent
    epochs, online = getattr(algorithm, "epochs", 1), samples_while_learning(algorithm)
    if online:
        sent += (weights + (critic if kind == "shared" else 0.0)) / (epochs * getattr(algorithm, "minibatches", 1))
    if recipe.adapter.type == "full":
        sent += (_compares_with_start(algorithm, online, divided=True) + (kind == "frozen")) * passes * weights / epochs
    return share * sent


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


def label_parts(
    recipe: Recipe, shape: ModelShape, algorithm: Algorithm, arrangement: Arrangement = ALONE
) -> dict[str, float]:
    """Memory by part while a label trains; of one that trains nothing, while it samples."""
    learns = learner(algorithm)
    work = workload(recipe, learns, arrangement.processes)
    whole = learns.family in ("Q-learning", "distillation")
    parts = training_parts(shape, recipe.adapter, recipe.model.dtype, recipe.training, work, arrangement, whole)
    if not algorithm.trains:
        at_once = replace(work, samples=recipe.generation.batch_size)
        parts |= dict.fromkeys(("adapter", "gradients", "optimizer", "activations", "logits"), 0.0)
        parts["sampling"] = sampling(shape, recipe.model.dtype, at_once)
    parts["sampling"] += whole_while_sampling(recipe, shape, learns, arrangement)
    kind = _critic(learns, recipe)
    parts["critic"] = critic_bytes(shape, kind, recipe.training.optim, arrangement)
    parts["other models"] = others_bytes(recipe, shape, algorithm, samples_while_learning(learns), arrangement)
    return parts


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
