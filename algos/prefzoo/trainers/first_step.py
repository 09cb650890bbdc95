"""The schedule of the learning rate: no training loses its first step to no purpose."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from transformers import get_scheduler

if TYPE_CHECKING:
    from transformers import Trainer


def learn_from_first_step(trainer: Trainer, goes_on: bool) -> None:
    """Have a trainer leave out the first step of its schedule where that has rate 0 and warms nothing up.

    A warm-up of W steps has the rates 0, 1/W, .. (W - 1)/W of the full one. Where W is 1, which is what
    `training.warmup_ratio` of a short training is rounded up to, its only step changes nothing: one step of ten is lost
    at the default ratio, and a training of one step trains nothing. A training that goes on from the policy of an
    earlier round would lose a step in each round. In both cases the schedule is that of one step more, without its
    first. All others keep TRL's, and so does a trainer whose `max_steps` the recipe sets, to more than one.

    Args:
        goes_on: whether it trains the policy of an earlier training further.
    """
    create, args = trainer.create_scheduler, trainer.args

    def create_scheduler(num_training_steps: int, optimizer: Any = None) -> Any:
        scheduler = create(num_training_steps, optimizer)
        warmup = args.get_warmup_steps(num_training_steps)
        lost = warmup == 1 and (num_training_steps == 1 or args.max_steps <= 0)
        if warmup < 1 or not (goes_on or lost) or any(scheduler.get_last_lr()):
            return scheduler
        kind, steps, particular = args.lr_scheduler_type, num_training_steps + 1, args.lr_scheduler_kwargs
        trainer.lr_scheduler = get_scheduler(kind, scheduler.optimizer, warmup, steps, particular)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # before the optimizer's: so it is
            trainer.lr_scheduler.step()
        return trainer.lr_scheduler

    trainer.create_scheduler = create_scheduler
