"""TRL's KTOTrainer with the loss of BCO, and how single replies are handed to it."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import KTOTrainer

from prefzoo.interface import Bench
from prefzoo.trainers.pairwise_trainer import reply_log_probabilities

SHIFT = "bco_rewards"
"""Key of `Bench.machinery.memory`: `[sum, number]` of the rewards so far of bad replies, and of good ones."""


def single_replies(
    bench: Bench, weights: tuple[float | None, float | None]
) -> tuple[list[dict[str, Any]], list[float]]:
    """Return the rows to train on, in the order in which they are taken, and the weights of losses of good and of bad
    replies; what was found is put into the bench's report.

    Args:
        weights: as the recipe has them. Where neither is given, the rarer side's is raised until both sides weigh the
            same, as far as there are replies of both.
    """
    rows = bench.data.unpaired
    random.Random(bench.seed).shuffle(rows)  # TRL takes them in order, and a neighbour's reply for KTO's KL
    good = sum(bool(row["label"]) for row in rows)
    bad = len(rows) - good
    balanced = [1.0, 1.0]
    if weights == (None, None) and good and bad:
        balanced = [max(1.0, bad / good), max(1.0, good / bad)]
    used = [default if weight is None else weight for weight, default in zip(weights, balanced, strict=True)]
    bench.report["unpaired"] = {
        "liked": good,
        "not_liked": bad,
        "weight_of_liked": used[0],
        "weight_of_not_liked": used[1],
        "replies_a_step": 2 * bench.training.batch_size,
    }
    return rows, used


class BCOTrainer(KTOTrainer):
    """Trains with the loss of `prefzoo.zoo.bco.BCO`; batches, reference and optimizer steps are TRL's.

    The shift is half the mean reward of all good replies so far plus half that of all bad ones, over all processes.

    Attributes:
        memory: of the bench; checkpoints keep it.
    """

    memory: ClassVar[dict[str, Any]]

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        log_probabilities = reply_log_probabilities(model, inputs)
        if self.precompute_ref_logps:
            reference = inputs["ref_logps"]
        else:
            reference = self.compute_ref_log_probs(self.ref_model or self.model, inputs)[0]
        rewards = self.beta * (log_probabilities - reference)
        good = inputs["label"].to(rewards.device).bool()
        shift = self._shift(rewards.detach(), good)
        sign = torch.where(good, 1.0, -1.0)
        weight = torch.where(good, self.desirable_weight, self.undesirable_weight)
        loss = (-weight * logsigmoid(sign * (rewards - shift))).mean()
        self._record(rewards.detach(), log_probabilities.detach(), good, shift, int(inputs["attention_mask"].sum()))
        return (loss, None) if return_outputs else loss

    def _shift(self, rewards: Tensor, good: Tensor) -> float:
        """Add the rewards of a batch to those so far, and return the shift."""
        sides = [torch.stack([rewards[side].sum(), side.sum().to(rewards.dtype)]) for side in (~good, good)]
        gathered = self.accelerator.gather(torch.stack(sides)[None]).sum(0)
        so_far = torch.tensor(self.memory.get(SHIFT, [[0.0, 0.0], [0.0, 0.0]]), dtype=torch.float64)
        if self.model.training:
            so_far = so_far + gathered.cpu()
            self.memory[SHIFT] = so_far.tolist()
        means = [float(total / number) for total, number in so_far if number]
        return sum(means) / 2

    def _record(self, rewards: Tensor, log_probabilities: Tensor, good: Tensor, shift: float, tokens: int) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["shift"].append(shift)
        means = {}
        for name, side in (("chosen", good), ("rejected", ~good)):
            sums = torch.stack([rewards[side].sum(), log_probabilities[side].sum(), side.sum().to(rewards.dtype)])
            reward, log_probability, number = self.accelerator.gather(sums[None]).sum(0).tolist()
            if number:
                means[name] = reward / number
                metrics[f"rewards/{name}"].append(reward / number)
                metrics[f"logps/{name}"].append(log_probability / number)
        if len(means) == 2:
            metrics["rewards/margins"].append(means["chosen"] - means["rejected"])
        self._total_train_tokens += int(self.accelerator.gather(torch.tensor(tokens, device=rewards.device)).sum())
        metrics["num_tokens"] = [self._total_train_tokens]


def bco_trainer(bench: Bench) -> type[BCOTrainer]:
    """A `BCOTrainer` whose shift is kept with the bench."""
    return type("BCOTrainer", (BCOTrainer,), {"memory": bench.machinery.memory})
