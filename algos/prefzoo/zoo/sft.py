"""Supervised fine-tuning: imitate replies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prefzoo.interface import Algorithm, Bench, Policy


@dataclass(frozen=True)
class SFT(Algorithm):
    """Supervised fine-tuning on replies (step 1 of Ouyang et al. 2022, https://arxiv.org/abs/2203.02155).

    The loss is the mean negative log-likelihood of the reply's tokens, its end included and the prompt's left out.

    Attributes:
        on: `chosen` takes the preferred replies of the preference pairs as demonstrations; `demonstrations` those
            that the data has, or that another algorithm made. Default: ours, so that all learn from the same pairs.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"demonstrations"})
    family: ClassVar[str] = "imitation"
    config: ClassVar[str | None] = "trl.trainer.sft_config:SFTConfig"
    divisible: ClassVar[bool] = True

    on: Literal["chosen", "demonstrations"] = "chosen"

    def train(self, bench: Bench) -> Policy:
        from trl import SFTConfig, SFTTrainer

        from prefzoo.trainers.fitting import fit

        rows = bench.data.chosen() if self.on == "chosen" else bench.data.demonstrations
        return fit(bench, SFTTrainer, SFTConfig, rows, self.trainer, divisible=True)
