"""GPUs by name, and the least time that work takes on them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prefzoo.errors import PrefzooError, did_you_mean

UTILIZATION = 0.4
"""Share of a GPU's peak FLOP/s at which trainings are taken to run; an assumption, which `plan` states. Well-tuned
trainings of large models reach 0.4 to 0.6 (Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, table 5)."""
RESERVED = 1e9
FRAGMENTED = 0.05
"""Bytes of a GPU for CUDA itself and NCCL's buffers, and the share that an allocator cannot use; assumptions."""


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet.

    Attributes:
        name: of the card.
        memory: bytes.
        flops: of dense matrix products in bfloat16 a second (float16 on a T4, which has no bfloat16); None is unknown.
        bandwidth: bytes of its memory a second; None is unknown.
    """

    name: str
    memory: float
    flops: float | None = None
    bandwidth: float | None = None

    @property
    def usable(self) -> float:
        """Bytes for a training."""
        return max(0.0, self.memory * (1 - FRAGMENTED) - RESERVED)


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("T4", 16e9, 65e12, 0.30e12),
        Gpu("L4", 24e9, 121e12, 0.30e12),
        Gpu("RTX4090", 24e9, 165e12, 1.008e12),
        Gpu("A100-40", 40e9, 312e12, 1.555e12),
        Gpu("L40S", 48e9, 362e12, 0.864e12),
        Gpu("A100-80", 80e9, 312e12, 2.039e12),
        Gpu("H100", 80e9, 989e12, 3.35e12),
        Gpu("H200", 141e9, 989e12, 4.8e12),
        Gpu("B200", 180e9, 2250e12, 8.0e12),
    )
}
"""NVIDIA's data sheets, of the SXM version where there are several; GB are taken as 10^9 bytes, and what is sold as 80
GB has up to 7% more."""


def gpu_named(text: str) -> Gpu:
    """The GPU of this name, or one of so many GiB of which nothing else is known.

    Raises:
        PrefzooError: when it is neither.
    """
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    for name, gpu in GPUS.items():
        if plain == re.sub(r"[^a-z0-9]", "", name.lower()):
            return gpu
    size = re.fullmatch(r"(\d+(?:\.\d+)?)(?:gi?b)?", text.strip().lower())
    if size and float(size[1]) > 0:
        return Gpu(f"{float(size[1]):g} GiB", float(size[1]) * 2**30)
    raise PrefzooError(
        f"--gpu {text!r} is neither a GPU that is known nor a size in GiB, such as 48. Allowed: {', '.join(GPUS)}, "
        f"or a number above 0.{did_you_mean(text, list(GPUS))}"
    )


def training_flops(passed: int, trained: int, checkpointing: bool) -> float:
    """FLOPs of learning from one token: 4 for each weight that it passes through, 2 more for each that is trained (see
    `Ledger`: 6 where all are), and 2 where activations are computed twice."""
    return (4.0 + 2.0 * checkpointing) * passed + 2.0 * trained


def compute_seconds(flops: float, gpu: Gpu) -> float | None:
    """Seconds for so many FLOPs on one GPU at `UTILIZATION`; None where its speed is unknown."""
    return None if gpu.flops is None else flops / (gpu.flops * UTILIZATION)


def sampling_seconds(weights: float, cache: float, tokens: int, gpu: Gpu) -> float | None:
    """Seconds at least to sample replies of so many tokens side by side: for each token all weights are read, and half
    of what the keys and values are in the end (Pope et al. 2022, https://arxiv.org/abs/2211.05102, section 2).

    Args:
        weights: bytes.
        cache: bytes of keys and values at the end.
    """
    return None if gpu.bandwidth is None else tokens * (weights + cache / 2) / gpu.bandwidth
