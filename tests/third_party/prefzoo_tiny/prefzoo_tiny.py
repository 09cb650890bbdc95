"""An algorithm in a package of its own: imitation with a loss that wrong labels cannot pull far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo import Algorithm, Bench, Policy


@dataclass(frozen=True)
class RobustImitation(Algorithm):
    """Imitation of chosen replies with generalized cross entropy (Zhang & Sabuncu 2018,
    https://arxiv.org/abs/1805.07836).

    The loss of a reply's token that the policy gives probability p is (1 - p^q) / q, averaged over tokens.

    Attributes:
        q: 1 is the mean absolute error, which ignores what the policy finds unlikely; towards 0, cross entropy.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    config: ClassVar[str | None] = "trl.trainer.sft_config:SFTConfig"

    q: Annotated[float, Field(gt=0, le=1)] = 0.3

    @property
    def replies_per_row(self) -> int:
        return 1

    def train(self, bench: Bench) -> Policy:
        from trl import SFTConfig, SFTTrainer

        from prefzoo.policies.fitting import fit

        q = self.q

        class Trainer(SFTTrainer):
            def compute_loss(
                self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
            ) -> Any:
                labels = inputs["labels"][:, 1:]
                logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
                kept = labels != -100
                log_p = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0][kept]
                # Over the tokens of the whole optimizer step, of which this batch may be a part.
                return ((1 - (q * log_p).exp()) / q).sum() / (num_items_in_batch or kept.sum())

        return fit(bench, Trainer, SFTConfig, bench.data.chosen(), self.trainer)
