"""Train a reward model on pairs, ratings, rankings or labelled replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefzoo.interface import Bench
from prefzoo.models.adapters import adapter_config, check_modules
from prefzoo.models.dropout import own_dropout
from prefzoo.models.loading import load_tokenizer, to_be_divided, tokenizer_arguments
from prefzoo.models.score_head import load_score_model
from prefzoo.rewards.reward_files import REWARD_FILE, RewardLoss, relative_path
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.trainers.checkpoints import resumable
from prefzoo.trainers.divided_weights import whole_model
from prefzoo.trainers.fitting import Progress, run_trainer
from prefzoo.trainers.trainer_arguments import arguments
from prefzoo.views import text_alone, with_margins, without_margins


def train_reward_model(
    bench: Bench,
    settings: dict[str, Any],
    loss: RewardLoss = "bradley_terry",
    margins: bool = False,
    label_smoothing: float = 0.0,
    attribute: str | None = None,
) -> RewardModel:
    """Train on what people said in the bench's data and save to `bench.out / "reward"`.

    Losses (those of all but pairs are in `rating_losses`):

    - `bradley_terry`, of a pair: -log sigmoid(score of chosen - score of rejected), with `margins` of that difference
      less the pair's margin (TRL's RewardTrainer; Ouyang et al. 2022, https://arxiv.org/abs/2203.02155); with
      `label_smoothing` e, 1 - e times that, and e times the loss of the pair with its labels swapped;
    - `regression`, of a rated reply: (score - normalised rating)^2, with the rating of an `attribute`, if one is given;
    - `plackett_luce`, of a ranking: its negative log-likelihood;
    - `logistic`, of a single reply: -log sigmoid(score) where it is liked, -log sigmoid(-score) where not.
    """
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    set_seed(bench.seed)
    tokenizer = load_tokenizer(bench.start, replies=False, **tokenizer_arguments(bench.loading))
    with to_be_divided():
        model = load_score_model(bench.start, **bench.loading)
    check_modules(model, bench.adapter, head=False)
    if loss == "bradley_terry":
        pairs = (with_margins if margins else without_margins)(bench.data.preferences)
        trainer = resumable(smoothed(RewardTrainer, label_smoothing))(
            model=model,
            args=arguments(bench, RewardConfig, settings),
            train_dataset=Dataset.from_list(text_alone(pairs)),
            processing_class=tokenizer,
            # Without the head among the saved modules, a loaded reward model would score with a new random one.
            peft_config=adapter_config(bench.adapter, "SEQ_CLS", modules_to_save=["score"], model=model),
            callbacks=[Progress(bench, "RewardTrainer")],
        )
    else:
        from prefzoo.rewards.rating_losses import rating_trainer

        trainer = rating_trainer(bench, model, tokenizer, loss, settings, attribute)
    run_trainer(trainer, bench)
    folder = bench.out / "reward"
    model = whole_model(trainer)
    if trainer.is_world_process_zero():
        _save(model, tokenizer, folder, bench)
    trainer.accelerator.wait_for_everyone()
    return RewardModel.load(str(folder), bench.loading)


def smoothed(trainer_class: Any, label_smoothing: float) -> Any:
    """Return TRL's `RewardTrainer`, or the same under its own name with smoothed labels: with d the difference of a
    pair's scores, less its margin, -log sigmoid(-d) = -log sigmoid(d) + d, so that label_smoothing * d is added."""
    if not label_smoothing:
        return trainer_class

    class Smoothed(trainer_class):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            margin = inputs.get("margin", 0.0)
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **more)
            chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
            loss = loss + label_smoothing * (chosen - rejected - margin).mean()
            return (loss, outputs) if return_outputs else loss

    Smoothed.__name__ = trainer_class.__name__
    return Smoothed


def _save(model: Any, tokenizer: Any, folder: Path, bench: Bench) -> None:
    """Write the adapter with its head, or the whole model with its tokenizer, and `reward.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    description: dict[str, Any] = {"loading": dict(bench.loading)}
    if bench.adapter.type == "full":
        # Elsewhere a text's end is looked for before the pad token, which must then not be what ends it.
        ends = tokenizer.pad_token_id == tokenizer.eos_token_id
        model.config.get_text_config().pad_token_id = None if ends else tokenizer.pad_token_id
        tokenizer.save_pretrained(str(folder))
    else:
        local = Path(bench.start).is_dir()
        description["base"] = relative_path(bench.start, folder) if local else bench.start
    with own_dropout(model):
        model.save_pretrained(str(folder))
    (folder / REWARD_FILE).write_text(json.dumps(description), encoding="utf-8")
