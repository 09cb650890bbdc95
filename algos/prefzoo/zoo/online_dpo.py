"""Online and semi-online preference optimization: one training on pairs that the policy samples on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from prefzoo.interface import LEARNING_RATE, Bench, Policy
from prefzoo.types import Prompt, Range
from prefzoo.zoo.pairwise import LOSS_FIELDS, Pairwise
from prefzoo.zoo.sampled_pairs import IN_EACH_STEP, SampledPairs, Sync


@dataclass(frozen=True)
class OnlineDPO(SampledPairs):
    """Online DPO (Guo et al. 2024, https://arxiv.org/abs/2402.04792), and semi-online DPO (Lanchantin et al. 2025,
    https://arxiv.org/abs/2506.21495).

    One training, with one optimizer and one schedule, on pairs of the policy's own replies; the start stays the
    reference. Every `sync` optimizer steps the policy, as it then is, replies to the prompts of the next `sync` steps.
    Each epoch samples anew, so that every value of `sync` takes as many samples. A step's loss is the mean over its
    pairs.

    Attributes:
        learner: any algorithm of the family of pairs, by name, such as `ipo` or `simpo`: its loss is learned from.
            Default: Guo et al. 2024.
        learner_settings: that loss's hyper-parameters; of the trainer, say `trainer`. Default: the learner's own.
        sync: after how many optimizer steps the policy that samples is brought up to date: 1 is online, more is
            semi-online, `once` samples everything from the start. Default: Guo et al. 2024.
    """

    config: ClassVar[str | None] = "trl.trainer.dpo_config:DPOConfig"
    owned: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(LOSS_FIELDS, "the loss is the learner's; say `learner` and `learner_settings`"),
        **IN_EACH_STEP,
    }
    replies_per_row: ClassVar[int] = 2

    sync: Sync = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.build_learner(), Pairwise):
            raise ValueError(
                f"learner: {self.learner!r} is no loss on pairs, and this is one training on pairs. Allowed: dpo and "
                f"its family; or iterative_dpo, whose rounds take any learner: `iterative_dpo: {{learner: "
                f"{self.learner}}}`."
            )
        if "trainer" in self.learner_settings:
            raise ValueError("learner_settings.trainer: there is one training; say `trainer`")

    @property
    def tunable(self) -> dict[str, Range]:
        return {key: tried for key, tried in super().tunable.items() if key != f"learner_settings.{LEARNING_RATE}"}

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.online_pairs import fit_online_pairs

        def pairs(bench: Bench, policy: Policy, prompts: Sequence[Prompt], seed: int) -> Any:
            samples = bench.sample(policy, prompts, self.n, seed)
            return self.labelled_pairs(bench, prompts, samples, seed)

        return fit_online_pairs(bench, self.build_learner(), pairs, self.sync, self.trainer)
