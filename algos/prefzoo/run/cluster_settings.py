"""Where stages run (`--on FILE`): the settings of an engine, checked before anything is loaded."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from prefzoo.bounded_yaml import Parsed, parse_file
from prefzoo.errors import RecipeError, unknown
from prefzoo.settings import Settings
from prefzoo.validation_messages import shown, validation_problems

FROM_PLAN = "plan"
OURS = ("array", "chdir", "error", "export", "job-name", "nodes", "ntasks", "open-mode", "output", "signal", "wrap")
"""Flags of sbatch that a job is made with already; so are those that have keys of their own."""


class Cluster(Settings):
    """What a job gets, which is one stage, and how many there are.

    Attributes:
        max_jobs: in the queue or running at once.
        retries: how often a stage is tried again in one call whose job was lost: killed, cancelled, its node gone.
        cpus, gpus, memory: of a job; memory in GiB, None is the engine's default.
    """

    executor: str
    max_jobs: int = Field(16, ge=1)
    retries: int = Field(2, ge=0)
    cpus: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    memory: float | None = Field(None, gt=0)


class Slurm(Cluster):
    """Jobs of Slurm, submitted by submitit.

    Attributes:
        time: the limit of a job in minutes; `plan` is three times what `prefzoo plan` estimated for its stage.
        requeue: have Slurm run a job again that was preempted, out of time, or on a node that failed.
        flags: further flags of sbatch, without `--`; true is a flag without a value.
    """

    executor: Literal["slurm"] = "slurm"
    time: int | Literal["plan"]
    partition: str | None = None
    account: str | None = None
    requeue: bool = True
    flags: dict[str, bool | int | str] = Field({})

    @field_validator("time")
    @classmethod
    def _is_a_time(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value!r}: must be at least 1 minute, or {FROM_PLAN}")
        return value

    @field_validator("flags")
    @classmethod
    def _leaves_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        own = {"account", "partition", "requeue", "time", "mem", "cpus-per-task", "gpus-per-node", *OURS}
        if taken := sorted(own & {key.replace("_", "-").lstrip("-") for key in value}):
            raise ValueError(f"{', '.join(taken)}: set by prefzoo or by a key of this file; leave it out of flags")
        return value


class Ray(Cluster):
    """Detached actors of Ray, one for a stage.

    Attributes:
        address: of a cluster; None is the one that `ray start` began on this machine or that RAY_ADDRESS names; `local`
            is one of this call's own, which ends with it.
        resources: further resources of a job, as the cluster names them.
    """

    executor: Literal["ray"] = "ray"
    address: str | None = None
    resources: dict[str, float] = Field({})


KINDS: Mapping[str, type[Cluster]] = {"slurm": Slurm, "ray": Ray}
LOCAL = "local"
INSTALLED = {"slurm": "submitit", "ray": "ray"}


def read_cluster(on: str | Path) -> Cluster | None:
    """The settings in a file of YAML, or an engine by name with the defaults; None for `local`, which has none.

    Raises:
        RecipeError: listing every problem, with its line, the key, the value, what is allowed and the nearest spelling.
    """
    path = Path(on)
    if str(on) in (LOCAL, *KINDS) and not path.exists():
        parsed = Parsed(content={"executor": str(on)})
    elif not path.is_file():
        raise RecipeError(f"--on {on}", [f"no such file, and {unknown('executor', on, (LOCAL, *KINDS))}"])
    else:
        parsed = parse_file(path)
    content = parsed.content
    problems = [f"{path.name}:{line}: {problem}" for line, problem in parsed.problems]
    if parsed.whole and not isinstance(content, dict):
        problems.append(f"{path.name}:1: a block of keys (`executor: slurm`) is needed, not {shown(content)}")
    if problems or not isinstance(content, dict):
        raise RecipeError(f"--on {on}", problems)
    kind, found = str(content.get("executor")), dict[str, str]()
    if kind == LOCAL:
        found = {key: f"has no meaning with executor: {LOCAL}; --workers says how many" for key in content}
        found.pop("executor")
    elif kind not in KINDS:
        found["executor"] = (
            unknown("executor", content["executor"], (LOCAL, *KINDS)) if "executor" in content else "is missing"
        )
    cluster = None
    fields = {name: cls.model_fields for name, cls in KINDS.items()}
    allowed = fields.get(kind, {**fields["slurm"], **fields["ray"]})
    if kind in KINDS:
        try:
            cluster = KINDS[kind].model_validate(content)
        except ValidationError as error:
            for problem in validation_problems(error, content, lambda at: [] if at else allowed):
                found[problem.key] = problem.message
        if importlib.util.find_spec(INSTALLED[kind]) is None:
            found["executor"] = f"{kind} needs {INSTALLED[kind]}: pip install 'prefzoo[{kind}]'"
        elif kind == "slurm" and shutil.which("sbatch") is None:
            found["executor"] = "slurm: there is no sbatch on this machine; call from a login node of the cluster"
    elif kind != LOCAL:
        found |= {str(key): unknown("key", key, allowed) for key in content if key not in allowed}
    for other, names in fields.items():
        found |= {
            k: f"belongs to executor: {other}" for k in found if kind in KINDS and k in names and k not in allowed
        }
    if found:
        places = {key: f"{path.name}:{parsed.lines[key]}: " for key in found if key in parsed.lines}
        raise RecipeError(f"--on {on}", [f"{places.get(key, '')}{key}: {what}" for key, what in found.items()])
    return cluster
