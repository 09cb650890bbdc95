"""Reward models from other data than pairs: regression on ratings, Plackett-Luce on rankings, logistic on labels."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl import RewardConfig

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.models.adapters import adapter_config
from prefzoo.rewards.reward_model import pooled_scores
from prefzoo.trainers.checkpoints import resumable
from prefzoo.trainers.fitting import Progress
from prefzoo.trainers.trainer_arguments import arguments

RatingLoss = Literal["regression", "plackett_luce", "logistic"]


def regression(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean squared difference of scores (B,) and targets (B,), a scalar."""
    return functional.mse_loss(scores, targets)


def logistic(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean negative log-likelihood of labels (B,), 1 where a reply is liked and 0 where not, a scalar; a score (B,)
    is the logit of being liked."""
    return functional.binary_cross_entropy_with_logits(scores, targets)


def plackett_luce(scores: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """The mean over rankings of their negative log-likelihood, a scalar (Luce 1959, Plackett 1975).

    A ranking is drawn place by place, each reply with probability proportional to the exponential of its score among
    those that are left. Of two replies this is Bradley-Terry.

    Args:
        scores: (sum of sizes,): the replies of each ranking, best first, one ranking after the other.
        sizes: how many replies each ranking has.
    """
    losses = []
    for ranked in scores.split(list(sizes)):
        left = ranked.flip(0).logcumsumexp(0).flip(0)  # at each place, over the replies that are left
        losses.append((left - ranked).sum())
    return torch.stack(losses).mean()


def normalised(ratings: Sequence[float]) -> list[float]:
    """Ratings less their mean, over their standard deviation (of the population).

    Raises:
        PrefzooError: when they are all the same, so that there is nothing to learn.
    """
    spread = statistics.pstdev(ratings) if ratings else 0.0
    if spread == 0:
        raise PrefzooError(f"reward.loss: 'regression' needs ratings that differ; all {len(ratings)} are the same")
    mean = statistics.fmean(ratings)
    return [(rating - mean) / spread for rating in ratings]


def rating_trainer(
    bench: Bench,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    loss: RatingLoss,
    settings: dict[str, Any],
    attribute: str | None = None,
) -> Trainer:
    """A trainer of `model`'s head (and adapter) on the bench's ratings, rankings or labelled replies; a row of a batch
    is one rated reply, one ranking, or two labelled replies. With an `attribute` the ratings are those in that respect.

    Raises:
        PrefzooError: when the bench has none.
    """
    if loss == "regression":
        rated = bench.data.ratings
        targets = normalised([row["attributes"][attribute] if attribute else row["rating"] for row in rated])
        groups = [
            {"prompt": row["prompt"], "replies": [row["completion"]], "target": target}
            for row, target in zip(rated, targets, strict=True)
        ]
    elif loss == "logistic":
        groups = [
            {"prompt": row["prompt"], "replies": [row["completion"][-1]["content"]], "target": float(row["label"])}
            for row in bench.data.unpaired
        ]
    else:
        groups = [{"prompt": row["prompt"], "replies": row["ranking"], "target": 0.0} for row in bench.data.rankings]
    if not groups:
        raise PrefzooError(f"reward.loss: {loss!r} was given no rows to train on")

    def tokens(prompt: Any, reply: str) -> list[int]:
        turns = [*prompt, {"role": "assistant", "content": reply}]
        return list(tokenizer.apply_chat_template(turns, return_dict=False))

    rows = [
        {"replies": [tokens(group["prompt"], reply) for reply in group["replies"]], "target": group["target"]}
        for group in groups
    ]
    per_example = 2 if loss == "logistic" else 1
    # Without the head among the saved modules, a loaded reward model would score with a new random one.
    config = adapter_config(bench.adapter, "SEQ_CLS", modules_to_save=["score"], model=model)
    trainer = resumable(_RatingTrainer)(
        model=model if config is None else get_peft_model(model, config),
        args=arguments(
            bench,
            RewardConfig,
            {"remove_unused_columns": False, **settings},
            per_example=per_example,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=_Flatten(tokenizer),
        callbacks=[Progress(bench, "RewardTrainer")],
        loss=loss,
    )
    trainer.rows_per_example = per_example
    return trainer


class _Flatten:
    """Pads all replies of all rows of a batch into one, right-hand side."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        flat = [ids for row in rows for ids in row["replies"]]
        padded = self.tokenizer.pad({"input_ids": flat}, padding=True, padding_side="right", return_tensors="pt")
        sizes = torch.tensor([len(row["replies"]) for row in rows])
        return {**padded, "sizes": sizes, "targets": torch.tensor([row["target"] for row in rows])}


class _RatingTrainer(Trainer):
    def __init__(self, loss: RatingLoss, **more: Any) -> None:
        super().__init__(**more)
        self.rating_loss = loss
        # The loss is a mean over its own micro-batch: the trainer must divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: PreTrainedModel | PeftModel, inputs: dict[str, Any], *more: Any, **named: Any
    ) -> torch.Tensor:
        scores = pooled_scores(model, inputs["input_ids"], inputs["attention_mask"])
        if self.rating_loss == "regression":
            return regression(scores, inputs["targets"].float())
        if self.rating_loss == "logistic":
            return logistic(scores, inputs["targets"].to(scores.dtype))
        return plackett_luce(scores, inputs["sizes"].tolist())
