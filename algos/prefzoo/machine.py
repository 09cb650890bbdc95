"""What this machine has: GPUs that may be used, cores, an address that is its own alone, and how it was launched."""

from __future__ import annotations

import ipaddress
import math
import os
from importlib.metadata import version
from pathlib import Path

from prefzoo.errors import PrefzooError

VISIBLE = "CUDA_VISIBLE_DEVICES"


QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""What a container may use of its processors: microseconds of a period, and the period."""

DIVIDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""What `accelerate launch` sets in the environment to have weights divided over processes."""

FSDP_NEEDS = {
    "VERSION": ("2", "1"),
    "CPU_RAM_EFFICIENT_LOADING": ("false", "false"),
    "OFFLOAD_PARAMS": ("false", "false"),
    "ACTIVATION_CHECKPOINTING": ("false", "false"),
}
"""Of the launcher's `fsdp_..` settings, as `FSDP_..` in the environment, those that may have one value alone: that
value, and accelerate's where the variable is not set."""


FSDP_OLDEST = {"torch": (2, 13), "accelerate": (1, 15)}
"""The oldest versions with which dividing is tested. An older torch may not know that a head whose weights are read, as
TRL's trainers do, and which is not called, belongs to a pass; an older accelerate divides a model's head again before
modules beside the model have read its states."""


def divides_weights() -> bool:
    """Whether the processes that train together each keep a share of all weights (FSDP); one process keeps all."""
    return _is_set("ACCELERATE_USE_FSDP") and int(os.environ.get("WORLD_SIZE", 1)) > 1


def refuse_divided_weights() -> None:
    """Refuse to train where a launcher divides weights over processes in another way than FSDP2 on this machine's
    devices.

    Raises:
        PrefzooError: naming what was asked for.
    """
    for variable, name in DIVIDING.items():
        if _is_set(variable) and name != "FSDP":
            raise PrefzooError(
                f"{variable}={os.environ[variable]}: weights that {name} divides over processes cannot be saved here. "
                "Launch with FSDP (recipes/accelerate/fsdp.yaml) or with data parallel processes (`accelerate launch "
                "--multi_gpu`), or let a model that is too large for one GPU fit by adapter.type=qlora; `prefzoo plan "
                "RECIPE --gpu NAME` says what fits"
            )
    if not _is_set("ACCELERATE_USE_FSDP"):
        return
    for package, oldest in FSDP_OLDEST.items():
        if tuple(map(int, version(package).split(".")[:2])) < oldest:
            needed = ".".join(map(str, oldest))
            raise PrefzooError(f"{package} {version(package)}: weights are divided (FSDP) from {package} {needed} on")
    for name, (needed, default) in FSDP_NEEDS.items():
        value = os.environ.get(f"FSDP_{name}", default).lower()
        if value != needed:
            raise PrefzooError(
                f"fsdp_{name.lower()}: {value} is not supported. Allowed: {needed}. recipes/accelerate/fsdp.yaml is a "
                "launch that works; activations are recomputed by training.gradient_checkpointing"
            )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1", "yes")


def gpus() -> list[str]:
    """NVIDIA's GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; asks the system, not CUDA."""
    if (visible := os.environ.get(VISIBLE)) is not None:
        return [name for entry in visible.split(",") if (name := entry.strip()) and name != "-1"]
    return [str(i) for i in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def may_have_gpu() -> bool:
    """Whether torch may find a GPU: one of NVIDIA's, of AMD's or of a Windows host; on Windows itself nobody knows."""
    if VISIBLE in os.environ:
        return bool(gpus())
    return bool(gpus()) or os.name == "nt" or any(Path(place).exists() for place in ("/dev/kfd", "/dev/dxg"))


def cores() -> int:
    """Cores that this process may use: those it is held to, or fewer where a container has a quota of time."""
    held = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(float, QUOTA.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no such file here, or `max`, which is no limit
        return held
    return max(1, min(held, math.ceil(quota / period)))


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach what listens on this name or address."""
    name = host.lower().strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
