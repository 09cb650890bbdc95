"""Distillation: the policy learns a teacher's next-token distribution."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.errors import unknown
from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.registry import get, load, names
from prefzoo.types import Range
from prefzoo.zoo.online_bases import NO_TOOLS, ONLINE_MANAGED_FIELDS

SAMPLING = [
    "gradient_accumulation_steps",
    "auto_find_batch_size",
    "max_completion_length",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "generation_kwargs",
    "vllm_structured_outputs_regex",
    "chat_template_kwargs",
]
TEACHER = ("teacher_model_name_or_path", "teacher_model_revision", "teacher_model_init_kwargs")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Distill(Algorithm):
    """Distillation (GKD, Agarwal et al. 2024, https://arxiv.org/abs/2306.13649; policy distillation, Rusu et al. 2015,
    https://arxiv.org/abs/1511.06295): the policy's next-token distribution is brought close to a teacher's.

    The loss is the mean over tokens of a divergence between the two distributions, on replies that the policy samples
    as it learns, or on the data's. With a reward, `reward_weight` times the gradient of REINFORCE is added: the score
    of a reply less the mean of the others in its batch, times the log-probability of its tokens. The teacher must have
    the policy's tokenizer.

    Attributes:
        teacher: an algorithm by name, which is trained first, in this trial, from the same start with the same seed,
            and charged to it; or the folder of a trained policy (in a run: `trials/train-.../policy`), of a model, or
            a hub id. Default: ours, the cheapest that gains from a reward.
        teacher_settings: hyper-parameters of a teacher that is trained here. Default: its own.
        divergence: 0 is the forward KL (of the teacher to the policy), 1 the reverse, between them the generalized
            Jensen-Shannon divergence with that weight. Default: ours, half of each.
        on: `samples` of the policy; `chosen` replies of pairs, or `demonstrations`. Default: Agarwal et al. 2024.
        reward_weight: how much a unit of reward counts beside a nat of divergence. Default: ours, nothing.
        missing_eos_penalty: taken off the score of a reply that was cut at the length limit. Default: Huang et al.
            2024, of PPO.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "distillation"
    config: ClassVar[str | None] = "trl.trainer.distillation_config:DistillationConfig"
    owned: ClassVar[Mapping[str, str]] = {
        **{field: ONLINE_MANAGED_FIELDS[field] for field in SAMPLING},
        **NO_TOOLS,
        **dict.fromkeys(TEACHER, "teacher"),
        "beta": "divergence",
    }
    space: ClassVar[Mapping[str, Range]] = {"divergence": Range(0.0, 1.0, source="Agarwal et al. 2024 compare 0 to 1")}

    teacher: str = "rejection_sampling"
    teacher_settings: dict[str, Any] = field(default_factory=dict)
    divergence: Annotated[float, Field(ge=0, le=1)] = 0.5
    on: Literal["samples", "chosen", "demonstrations"] = "samples"
    reward_weight: Annotated[float, Field(ge=0)] = 0.0
    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0

    def __post_init__(self) -> None:
        if (installed := version("trl")).split(".")[:2] in (["1", "14"], ["1", "15"]):
            raise ValueError(f"its trainer is in TRL from 1.16 on, and {installed} is installed")
        if self.reward_weight and self.on != "samples":
            raise ValueError(f"reward_weight: the policy's own replies are scored, and `on: {self.on}` samples none")
        if self.teacher in names():
            taught = get(self.teacher, **self.teacher_settings)  # raises where they are unsound
            ends = {self.teacher, getattr(taught, "learner", self.teacher)} & set(names())  # what its rounds train
            # ILQL's policy is its language model and its Q-values together; SAC's is a language model.
            if "ilql" in ends or not all(load(name).trains for name in ends):
                raise ValueError(
                    f"teacher: {self.teacher!r} is no distribution that a language model computes by itself. Allowed: "
                    "an algorithm that trains one; `best_of_n_distillation` learns what best-of-n does"
                )
        elif self.teacher_settings:
            raise ValueError(
                f"teacher_settings: {self.teacher!r} is no algorithm; nothing is trained that has settings"
            )
        elif not Path(self.teacher).expanduser().is_dir() and not HUB_ID.fullmatch(self.teacher):
            raise ValueError(f"teacher: {unknown('algorithm', self.teacher, names())}; nor is it a folder or a hub id")

    @property
    def required(self) -> frozenset[str]:
        of_teacher = get(self.teacher, **self.teacher_settings).required if self.teacher in names() else frozenset()
        rows = {"samples": "prompts", "chosen": "preferences", "demonstrations": "demonstrations"}[self.on]
        return of_teacher | {rows} | ({"reward"} if self.reward_weight else set())

    @property
    def divisible(self) -> bool:
        """Whether a teacher that is trained here is."""
        return self.teacher not in names() or get(self.teacher, **self.teacher_settings).divisible

    @property
    def reads(self) -> tuple[str, ...]:
        return () if self.teacher in names() else (self.teacher,)

    @property
    def replies_per_row(self) -> int:
        """Of the teacher's training, where it is trained here, and of the policy's."""
        return 1 + (get(self.teacher, **self.teacher_settings).replies_per_row if self.teacher in names() else 0)

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.distillation import distill, load_teacher

        teacher = self.teacher
        if teacher in names():
            taught = bench.replace(out=bench.out / "teacher", milestones=0)
            get(teacher, **self.teacher_settings).train(taught)
            teacher = str(taught.out / "policy")
        rows = {
            "samples": [{"prompt": prompt} for prompt in bench.data.prompts],
            "chosen": bench.data.chosen(),
            "demonstrations": bench.data.demonstrations,
        }[self.on]
        settings = {"beta": self.divergence, **self.trainer}
        return distill(
            bench, load_teacher(teacher, bench), rows, settings, self.reward_weight, self.missing_eos_penalty
        )
