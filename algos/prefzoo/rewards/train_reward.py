"""Train a reward model on pairs, ratings or rankings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prefzoo.interface import Bench
from prefzoo.models.adapters import adapter_config, check_modules
from prefzoo.models.dropout import own_dropout
from prefzoo.models.loading import load_tokenizer, tokenizer_arguments
from prefzoo.rewards.reward_files import REWARD_FILE, RewardLoss
from prefzoo.rewards.reward_model import RewardModel, classifier
from prefzoo.trainers.checkpoints import resumable
from prefzoo.trainers.fitting import Progress, arguments, run_trainer
from prefzoo.views import text_alone


def train_reward_model(bench: Bench, settings: dict[str, Any], loss: RewardLoss = "bradley_terry") -> RewardModel:
    """Train on what people said in the bench's data and save to `bench.out / "reward"`.

    The loss of a pair is -log sigmoid(score of chosen - score of rejected) (`bradley_terry`, TRL's RewardTrainer;
    Ouyang et al. 2022, https://arxiv.org/abs/2203.02155); that of a rated reply (score - normalised rating)^2
    (`regression`); that of a ranking its negative log-likelihood (`plackett_luce`; see `rating_losses`).
    """
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    set_seed(bench.seed)
    tokenizer = load_tokenizer(bench.start, replies=False, **tokenizer_arguments(bench.loading))
    model, _ = classifier(bench.start, tokenizer, **bench.loading)
    check_modules(model, bench.adapter, head=False)
    if loss == "bradley_terry":
        trainer = resumable(RewardTrainer)(
            model=model,
            args=arguments(bench, RewardConfig, settings),
            train_dataset=Dataset.from_list(text_alone(bench.data.preferences)),
            processing_class=tokenizer,
            # Without the head among the saved modules, a loaded reward model would score with a new random one.
            peft_config=adapter_config(bench.adapter, "SEQ_CLS", modules_to_save=["score"], model=model),
            callbacks=[Progress(bench, "RewardTrainer")],
        )
    else:
        from prefzoo.rewards.rating_losses import rating_trainer

        trainer = rating_trainer(bench, model, tokenizer, loss, settings)
    run_trainer(trainer, bench)
    folder = bench.out / "reward"
    folder.mkdir(parents=True, exist_ok=True)
    with own_dropout(trainer.model):
        trainer.model.save_pretrained(str(folder))
    description: dict[str, Any] = {"loading": dict(bench.loading)}
    if bench.adapter.type == "full":
        tokenizer.save_pretrained(str(folder))
    else:
        local = Path(bench.start).is_dir()
        description["base"] = os.path.relpath(bench.start, folder) if local else bench.start
    (folder / REWARD_FILE).write_text(json.dumps(description), encoding="utf-8")
    return RewardModel.load(str(folder))
