"""What a label of a recipe has in memory beside its policy, part by part, and what its processes send to each other.

All are in bytes. How large a training and its sampling are themselves is `memory_estimate`'s.
"""

from __future__ import annotations

from dataclasses import replace

from prefzoo.commands.memory_estimate import (
    ALONE,
    BYTES,
    Arrangement,
    Workload,
    base_weights,
    gathered,
    optimizer_states,
    sampling,
    trained_weights,
    training_parts,
)
from prefzoo.commands.model_shape import ModelShape
from prefzoo.interface import Algorithm
from prefzoo.recipe.recipe_schema import Recipe, weight_bytes

ASSUMED_TOKENS = 512
"""Of a length that is `auto`, which only the data can tell."""


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
    shared = critic_kind(algorithm, recipe) == "shared"
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


def critic_kind(algorithm: Algorithm, recipe: Recipe) -> str | None:
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
        of_critic = critic_kind(algorithm, recipe) == "frozen" and not stays
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
    critic = critic_kind(algorithm, recipe)
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
    kind = None if algorithm is None else critic_kind(algorithm, recipe)
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
    kind = critic_kind(learns, recipe)
    parts["critic"] = critic_bytes(shape, kind, recipe.training.optim, arrangement)
    parts["other models"] = others_bytes(recipe, shape, algorithm, samples_while_learning(learns), arrangement)
    return parts
