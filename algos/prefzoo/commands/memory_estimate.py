"""How much memory a training and its sampling take in each process, part by part; one formula for each.

All are in bytes. They are derived from what the libraries keep for the backward pass, and hold for layers like Llama's;
`docs/scale.md` has them beside measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from prefzoo.commands.model_shape import ModelShape
from prefzoo.settings import Adapter, Training

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""TRL's fused head computes the logits of so many tokens and so much of the vocabulary at a time."""
BLOCK_4BIT, BLOCK_CONSTANTS, BLOCK_8BIT = 64, 256, 256
"""Values that share a constant: weights in 4 bits, those constants when quantized again, moments in 8 bits."""


@dataclass(frozen=True)
class Workload:
    """What one process trains at a time, and samples.

    Attributes:
        rows, length: sequences in a forward and backward pass, and the tokens of each.
        samples, prompt, reply: sequences that are sampled side by side while optimizer states are in memory, and their
            tokens; 0 samples where a training has none.
        passes_at_once: forward passes whose activations are alive together: 2 with a critic on the policy's base.
        eager: attention that keeps the scores of every token with every other.
    """

    rows: int
    length: int
    samples: int = 0
    prompt: int = 0
    reply: int = 0
    passes_at_once: int = 1
    eager: bool = False


@dataclass(frozen=True)
class Arrangement:
    """How many processes train together, and what each keeps only its share of.

    `data parallel` copies all (Li et al. 2020, https://arxiv.org/abs/2006.15704). `ZeRO-2` divides gradients and
    optimizer states, `FSDP` (or ZeRO-3) the weights too (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054;
    Zhao et al. 2023, https://arxiv.org/abs/2304.11277).
    """

    name: str
    processes: int = 1

    @property
    def weights_divided(self) -> int:
        return self.processes if self.name == "FSDP" else 1

    @property
    def states_divided(self) -> int:
        return self.processes if self.name in ("FSDP", "ZeRO-2") else 1


ALONE = Arrangement("one GPU")


def base_weights(shape: ModelShape, adapter: Adapter, dtype: str) -> float:
    """The start's weights: `dtype` for each, but in linear layers of a quantized base 1/2 byte (4 bits) or 1 (int8).

    A block of 64 weights in 4 bits has a constant in float32; with double quantization one in 8 bits, and each 256 of
    those a constant in float32: 0.127 bits a weight (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314, section
    3). int8 has a constant in float32 for each output (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339).
    """
    if adapter.type != "qlora":
        return float(shape.weights * BYTES[dtype])
    plain = (shape.weights - shape.linear) * BYTES[dtype]
    if adapter.quant_type == "int8":
        return float(plain + shape.linear + 4 * shape.linear_rows)
    constants = 4 / BLOCK_4BIT
    if adapter.double_quant:
        constants = (1 + 4 / BLOCK_CONSTANTS) / BLOCK_4BIT
    return plain + shape.linear * (0.5 + constants)


def trained_weights(shape: ModelShape, adapter: Adapter, dtype: str) -> tuple[int, int]:
    """How many weights are trained, and the bytes of each: an adapter's are float32, with full fine-tuning all are in
    the model's own dtype."""
    return (shape.weights, BYTES[dtype]) if adapter.type == "full" else (shape.adapter, 4)


def optimizer_states(trained: int, width: int, optim: str) -> float:
    """AdamW's two moments of each trained weight, in its dtype (Loshchilov & Hutter 2019,
    https://arxiv.org/abs/1711.05101), or in 8 bits with a constant in float32 for 256 of them (Dettmers et al. 2022,
    https://arxiv.org/abs/2110.02861). Paged ones are counted too, though the GPU may give them to the CPU."""
    return 2.0 * trained * (1 + 4 / BLOCK_8BIT) if optim.endswith("8bit") else 2.0 * trained * width


def key_values(shape: ModelShape, dtype: str) -> int:
    """Keys and values that are kept for each token in sampling: 2 x layers x heads of them x their width (Pope et al.
    2022, https://arxiv.org/abs/2211.05102; grouped heads: Ainslie et al. 2023, https://arxiv.org/abs/2305.13245)."""
    return 2 * shape.layers * shape.kv_heads * shape.head_width * BYTES[dtype]


def block_activations(shape: ModelShape, adapter: Adapter, dtype: str, training: Training, work: Workload) -> float:
    """What a block keeps of one token for the backward pass. Like Korthikanti et al. 2022
    (https://arxiv.org/abs/2205.05198, section 4), for what transformers and peft do with Llama's layers:

    - each of two norms its input in float32 (and, where its weight is trained, its normalized input);
    - attention its queries, keys, values (repeated for each head) and output; with eager attention also the scores and
      probabilities of all tokens before;
    - the MLP its gate, the gate's activation and the other factor;
    - each linear layer its input, where its weight is trained: layers that read the same share it, unless autocast
      makes a copy for each. An adapter's input is copied to float32, or to autocast's dtype, for each adapted layer
      unless it is float32 already; and the adapter's inner state.
    """
    own, computed = BYTES[dtype], 2 if training.bf16 or training.fp16 else BYTES[dtype]
    attended = shape.heads * shape.head_width
    shared = 2 * shape.hidden + attended + shape.inner
    full = adapter.type == "full"
    copied = computed != own if full else computed == 2
    each = 4 * shape.hidden + attended + 2 * shape.inner if full else shape.adapter_inputs
    if full:
        inputs = (4 * shape.hidden + attended + shape.inner if copied else shared) * computed
    elif not copied:
        inputs = shared * 4
    else:
        inputs = each * (2 if training.bf16 or training.fp16 else 4)
    norms = 2 * shape.hidden * (4 + (own if full else 0))
    attention = 4 * attended * computed
    if work.eager:
        attention += shape.heads * work.length * (4 + (computed if computed < 4 else 0))
    inner = 0 if full else shape.adapter_layers * adapter.r * (2 if training.bf16 or training.fp16 else 4)
    return float(norms + inputs + attention + 3 * shape.inner * computed + inner)


def activations(shape: ModelShape, adapter: Adapter, dtype: str, training: Training, work: Workload) -> float:
    """What all blocks keep of the tokens of a pass. With gradient checkpointing a block keeps its input alone (Chen et
    al. 2016, https://arxiv.org/abs/1604.06174), and one block at a time all; in the backward pass the gradients of a
    block's widest states are beside them."""
    tokens = work.rows * work.length
    computed = 2 if training.bf16 or training.fp16 else BYTES[dtype]
    one = block_activations(shape, adapter, dtype, training, work)
    ends = shape.hidden * (4 + 2 * BYTES[dtype])
    backward = 2 * (shape.inner + shape.hidden) * computed
    if training.gradient_checkpointing:
        kept = shape.layers * shape.hidden * BYTES[dtype] * work.passes_at_once + one
    else:
        kept = shape.layers * one * work.passes_at_once
    return tokens * (kept + ends + backward)


def autocast_copies(
    shape: ModelShape, adapter: Adapter, dtype: str, training: Training, arrangement: Arrangement = ALONE
) -> float:
    """Under autocast, 2 bytes of each weight in float32 that a pass multiplies by: the copy is kept for the backward
    pass (`torch.nn.functional.linear` saves what it multiplied by). With gradient checkpointing it would be needed for
    a block at a time alone; autocast keeps it until the pass has ended, but under FSDP, where a training has it forget
    (`divided_weights.prepare_dividing`)."""
    if not (training.bf16 or training.fp16):
        return 0.0
    linear = 0 if adapter.type == "qlora" or BYTES[dtype] == 2 else shape.linear
    copies = 2.0 * (linear + shape.adapter)
    at_a_time = arrangement.weights_divided > 1 and training.gradient_checkpointing
    return copies / shape.layers if at_a_time else copies


def logit_tiles(shape: ModelShape, tokens: int) -> float:
    """The logits that are in memory at a time, and their gradient, in float32. TRL's trainers never hold those of all
    tokens: tokens x vocabulary x 4 bytes would be the largest part of many trainings (`all_logits`)."""
    return 2.0 * min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_VOCABULARY) * 4


def all_logits(shape: ModelShape, tokens: int) -> float:
    """Logits of all tokens in float32, their log-probabilities and the gradient of these: what a loss takes that needs
    whole distributions, and what the losses of other trainers take."""
    return 3.0 * tokens * shape.vocabulary * 4


def sampling(shape: ModelShape, dtype: str, work: Workload) -> float:
    """Keys and values of all tokens of the sampled sequences, and of the next token its logits, these at the
    temperature, their probabilities in float32 and the sums of these in float64."""
    cache = work.samples * (work.prompt + work.reply) * key_values(shape, dtype)
    return cache + work.samples * shape.vocabulary * (3 * 4 + 8)


def gathered(shape: ModelShape, dtype: str, arrangement: Arrangement) -> float:
    """Whole weights that a process holds for a while under FSDP, in their own dtype: the block that is computed, the
    next one, and what is outside of the blocks."""
    return 0.0 if arrangement.weights_divided == 1 else (2.0 * shape.block + shape.outside) * BYTES[dtype]


def gradient_copies(gradients: float, arrangement: Arrangement) -> float:
    """Buckets in which data parallel processes average gradients: a copy of them (Li et al. 2020, section 4.2)."""
    return gradients if arrangement.name == "data parallel" else 0.0


def training_parts(
    shape: ModelShape,
    adapter: Adapter,
    dtype: str,
    training: Training,
    work: Workload,
    arrangement: Arrangement = ALONE,
    whole_distributions: bool = False,
) -> dict[str, float]:
    """Memory by part. The last ones come one after the other, the others stay."""
    count, width = trained_weights(shape, adapter, dtype)
    base = base_weights(shape, adapter, dtype)
    tokens = work.rows * work.length
    gradients = count * width / arrangement.states_divided
    copies = autocast_copies(shape, adapter, dtype, training, arrangement)
    return {
        "weights": base / arrangement.weights_divided + gathered(shape, dtype, arrangement),
        "adapter": 0.0 if adapter.type == "full" else count * width / arrangement.weights_divided,
        "gradients": gradients + gradient_copies(gradients, arrangement),
        "optimizer": optimizer_states(count, width, training.optim) / arrangement.states_divided,
        "activations": activations(shape, adapter, dtype, training, work) + copies,
        "logits": all_logits(shape, tokens) if whole_distributions else logit_tiles(shape, tokens),
        "sampling": sampling(shape, dtype, work),
    }


def peak(parts: dict[str, float]) -> float:
    """The largest memory at a time: what stays, and either what learning takes or what sampling takes."""
    passing = ("activations", "logits", "sampling")
    stays = sum(amount for part, amount in parts.items() if part not in passing)
    return stays + max(parts["activations"] + parts["logits"], parts["sampling"])
