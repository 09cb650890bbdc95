"""An algorithm in a package of its own: imitation with a loss of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from prefzoo import Algorithm, Bench, Policy


@dataclass(frozen=True)
class EqualVoices(Algorithm):
    """Imitation of chosen replies in which every reply counts alike, however long it is
    (the length normalisation of RRHF, Yuan et al. 2023, https://arxiv.org/abs/2304.05302, without its ranking).

    The loss is the mean over replies of the mean negative log-likelihood of a reply's tokens; plain supervised
    fine-tuning takes the mean over all tokens, in which long replies weigh more.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    config: ClassVar[str | None] = "trl.trainer.sft_config:SFTConfig"

    @property
    def replies_per_row(self) -> int:
        return 1

    def train(self, bench: Bench) -> Policy:
        from trl import SFTConfig, SFTTrainer

        from prefzoo.policies.fitting import fit

        class Trainer(SFTTrainer):
            def compute_loss(
                self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
            ) -> Any:
                labels = inputs["labels"][:, 1:]  # (B, T)
                logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
                log_p = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
                kept = labels != -100
                loss = -((log_p * kept).sum(1) / kept.sum(1)).mean()
                # Told the number of items, the trainer leaves the mean over accumulated batches to the loss.
                return loss if num_items_in_batch is None else loss / self.current_gradient_accumulation_steps

        return fit(bench, Trainer, SFTConfig, bench.data.chosen(), self.trainer)
