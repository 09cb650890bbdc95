"""Hand a bench to a TRL trainer: the one place where trainers are built, so that all are built alike."""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import TrainerCallback, set_seed

from prefzoo import registry
from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench, Policy
from prefzoo.machine import divides_weights
from prefzoo.models.adapters import adapter_config, check_modules, of_adapter, restore
from prefzoo.models.decoding import NO_PROBABILITIES
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import to_be_divided
from prefzoo.models.policy_kinds import load_policy
from prefzoo.models.policy_with_modules import PolicyWithModules
from prefzoo.models.saved_policy import SavedPolicy
from prefzoo.models.shared_beginnings import shared_beginnings
from prefzoo.models.weight_counts import BACKBONE, HEAD, REFERENCE, is_finite
from prefzoo.trainers.charging import Charging
from prefzoo.trainers.checkpoints import Checkpoints, resumable
from prefzoo.trainers.config_audit import requested_and_actual, training_facts
from prefzoo.trainers.curves import CURVES, Curves, guard_trackers, losses
from prefzoo.trainers.divided_weights import (
    all_finite,
    divided_blocks,
    prepare_dividing,
    refuse_indivisible,
    whole_model,
    without_numbers,
)
from prefzoo.trainers.extra_modules import add_module
from prefzoo.trainers.first_step import learn_from_first_step
from prefzoo.trainers.head_positions import learned_positions_alone
from prefzoo.trainers.milestones import Milestones
from prefzoo.trainers.recipe_deviations import SAMPLED_REPLIES, TRAININGS
from prefzoo.trainers.trainer_arguments import arguments
from prefzoo.types import Completion
from prefzoo.validation_messages import diverged
from prefzoo.views import REPLIES, rows_per_example, text_alone

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments


@learned_positions_alone()
@to_be_divided()
def fit(
    bench: Bench,
    trainer_class: type[Trainer],
    config_class: type[TrainingArguments],
    rows: list[dict[str, Any]],
    settings: dict[str, Any],
    reference: int = 0,
    extra_passes: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
    policy_kind: type[PolicyWithModules] | None = None,
    policy_settings: Mapping[str, Any] | None = None,
    divisible: bool = False,
    **more: Any,
) -> Any:
    """Train a fresh adapter on the start (or go on with `bench.latest`), save it, and return what was saved, which is
    read when it is first used. TRL's trainer turns the messages of the rows into tokens by the chat template of the
    tokenizer.

    Args:
        bench: gives the start, the adapter, the shared training arguments, the seed and the folder.
        trainer_class, config_class: a trainer of TRL's or transformers', and its config.
        rows: the training rows, in the format that the trainer takes. An optimizer step takes `training.batch_size` of
            them, or twice as many where they are unpaired (`views.rows_per_example`).
        settings: what is particular to the algorithm; overrides the shared arguments.
        reference: how often the start passes over the same tokens too, forward only (0 or 1 in most methods); charged
            where the trainer has not done that itself (`PrecomputedReference`).
        extra_passes: how often the policy passes over the same tokens beside learning from them, forward only.
        callbacks: of the trainer, beside those that all have.
        policy_kind: what the trained language model becomes a part of; its modules (those of `bench.latest`, where that
            has them) are put on the trainer's model under their names, and learn with it. None keeps the language
            model alone.
        policy_settings: of the policy kind.
        divisible: whether the trainer can train weights that FSDP divides over processes: it passes through its model
            by `forward`, or within `divided_weights.as_forward_pass`, and samples within `whole_weights` of that file.
        more: further arguments of the trainer.

    Raises:
        PrefzooError: when there are no rows, the policy kind is not registered, or the loss stopped being a number.
    """
    if not divisible:
        refuse_indivisible(trainer_class.__name__)
    if not rows:
        raise PrefzooError(f"{trainer_class.__name__} was given no rows to train on")
    if policy_kind is not None:
        registry.policy_class(policy_kind.kind)  # raises before the training what loading would raise after it
    latest = current_policy(bench)
    modules = latest.modules if isinstance(latest, PolicyWithModules) else None
    learner = latest.policy if isinstance(latest, PolicyWithModules) else latest
    assert isinstance(learner, LanguageModelPolicy)
    rows = _as_sampled(bench, learner, rows)
    weights = _unfreeze_adapter(learner.model) if learner.adapted else {}
    if not learner.adapted:
        check_modules(learner.model, bench.adapter)
    goes_on = learner.adapted or isinstance(latest, SavedPolicy | PolicyWithModules)
    if goes_on and not learner.adapted:  # of a whole model TRL takes the one that it is given for the reference
        learner.model.config._name_or_path = bench.start
    if not learner.adapted and _takes(trainer_class, "ref_model"):
        more["ref_model"] = _reference_model(bench, learner, more.get("ref_model"), goes_on, used=bool(reference))
    set_seed(bench.seed)  # the adapter is drawn here; TRL seeds that itself only from 1.15
    peft_config = None if learner.adapted else adapter_config(bench.adapter, "CAUSAL_LM", model=learner.model)
    args = arguments(bench, config_class, settings, rows_per_example(rows))
    model = learner.model
    if _takes(trainer_class, "peft_config"):
        more["peft_config"] = peft_config
    elif peft_config is not None:
        model = get_peft_model(model, peft_config)
        if args.gradient_checkpointing:
            model.enable_input_require_grads()
    trainer = resumable(trainer_class)(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=learner.tokenizer,
        callbacks=[Progress(bench, trainer_class.__name__), *callbacks],
        **more,
    )
    trainer.rows_per_example = rows_per_example(rows)
    if learner.adapted:
        _begin_with(trainer.model, weights, self_play=bench.machinery.self_play)
    if policy_kind is not None:
        for name, module in (modules or policy_kind.new_modules(learner.model)).items():
            add_module(trainer, name, module)

    def policy(model: Any) -> Policy:
        trained = LanguageModelPolicy(model, learner.tokenizer, bench.start, learner.loading)
        return trained if policy_kind is None else policy_kind(trained, **(policy_settings or {}))

    charged_already = bench.data.sampled or settings.get("include_num_input_tokens_seen") == "no"
    prompts = 0 if charged_already else _prompts(rows)
    if getattr(trainer, "reference_is_charged", False):
        reference = 0
    charging = Charging(trainer, bench, prompts, reference, extra_passes)
    run_trainer(trainer, bench, not goes_on, charging, policy)
    folder = bench.out / "policy"
    model = whole_model(trainer)
    if trainer.is_world_process_zero():
        policy(model).save(folder)
    trainer.accelerator.wait_for_everyone()
    return SavedPolicy(folder) if policy_kind is None else load_policy(folder, run_code=True)


def current_policy(bench: Bench) -> Policy:
    """Return the policy to go on from: `bench.latest`, or the start where there is none."""
    return bench.latest or LanguageModelPolicy.start_of(bench)


@to_be_divided()
def start_shared_with_reward(bench: Bench) -> LanguageModelPolicy:
    """Return the start of a training that scores what it samples: under an adapter its frozen weights take the place of
    the equal ones of a reward model."""
    start = LanguageModelPolicy.start_of(bench)
    lends_base = bench.adapter.type != "full" and not divides_weights()
    if lends_base and (share := getattr(bench.reward, "share_base", None)):
        share(start.model, bench.start)
    return start


def _as_sampled(bench: Bench, learner: LanguageModelPolicy, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in which a sampled reply keeps its `token_ids` only where its text would become another text when it is
    encoded again, or would get an end that was never written; the bench's report counts them."""
    if not any("token_ids" in turn for row in rows for key in REPLIES for turn in row.get(key, ())):
        return rows
    counts = {"replies": 0, "other_tokens_of_the_same_text": 0, "kept_tokens": 0, "cut": 0}
    trained: list[dict[str, Any]] = []
    for row, plain in zip(rows, text_alone(rows), strict=True):
        new = dict(plain)
        for key in REPLIES:
            if not (turns := row.get(key)) or (ids := turns[-1].get("token_ids")) is None:
                continue
            reply = Completion(turns[-1]["content"], tuple(ids), bool(ids) and ids[-1] in learner.eos_ids)
            again = learner.encoded_again(row["prompt"], reply)
            counts["replies"] += 1
            counts["cut"] += not reply.finished
            counts["other_tokens_of_the_same_text"] += reply.finished and again == "other tokens"
            counts["kept_tokens"] += reply.finished and again == "other text"
            if not reply.finished or again == "other text":
                new[key] = turns
        trained.append(new)
    bench.report.setdefault(SAMPLED_REPLIES, []).append(counts)
    return trained


def _takes(trainer_class: type[Trainer], argument: str) -> bool:
    """Whether a trainer takes an argument. TRL's take `peft_config` and wrap the model themselves; transformers' own
    wants it wrapped."""
    initializers = [vars(cls)["__init__"] for cls in trainer_class.__mro__[:-1] if "__init__" in vars(cls)]
    return any(argument in inspect.signature(init).parameters for init in initializers)


def _reference_model(bench: Bench, learner: LanguageModelPolicy, given: Any, goes_on: bool, used: bool) -> Any:
    """Return the model that a trainer is given for its reference; None leaves it to TRL.

    TRL would take the policy itself where a whole model goes on, and where weights are divided load one to where there
    is no room for it, also for losses that have no use for it.
    """
    divided = divides_weights() and bench.adapter.type == "full"
    if given is None and used and (goes_on or divided):
        self_play = goes_on and bench.machinery.self_play
        given = copy.deepcopy(learner.model) if self_play else LanguageModelPolicy.start_of(bench).model
    return divided_blocks(given or without_numbers(learner.model)) if divided else given


def _unfreeze_adapter(model: Any) -> dict[str, torch.Tensor]:
    """Let the adapter of a loaded model be trained on, and return a copy of its weights."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(of_adapter(name))
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def _begin_with(model: Any, weights: dict[str, torch.Tensor], self_play: bool) -> None:
    """Give the adapter these weights, and in self-play the reference, too, for which TRL has made an adapter of its
    own. Else the reference stays the start, with the adapter off."""
    if REFERENCE in model.peft_config and not self_play:
        model.delete_adapter(REFERENCE)
    for name, weight in model.named_parameters():
        if name in weights:
            weight.data = weights[name]
        elif (own := name.replace(f".{REFERENCE}.", ".default.")) in weights:
            weight.data = weights[own].clone()


def _prompts(rows: list[dict[str, Any]]) -> int:
    """How many prompts there are in training rows; a row without one stands for itself."""
    return len({json.dumps(row.get("prompt", row), sort_keys=True, default=str) for row in rows})


def run_trainer(
    trainer: Trainer,
    bench: Bench,
    new: bool = True,
    charging: Charging | None = None,
    policy: Callable[[Any], Policy] | None = None,
) -> None:
    """Train (or go on with a training that was killed), charge the ledger, keep the curves in `curves.json` and what
    was used, beside what was asked for, in the bench's report.

    Args:
        trainer: built by a class that `resumable` returned.
        new: whether it begins at the start, with a new adapter.
        charging: its account; None charges what was trained on alone.
        policy: makes a policy of its model, where that is one, so that it can be kept on the way.

    Raises:
        PrefzooError: when a logged loss is not a finite number.
    """
    charging = charging or Charging(trainer, bench)
    if bench.adapter.type != "full":
        # TRL rounds what is trained on a quantized base to bfloat16, in which small steps are lost.
        if new:
            restore(trainer.model)
        head = getattr(torch, bench.loading.get("dtype", "float32"))
        for name, weight in trainer.model.named_parameters():
            if weight.requires_grad:
                # Nor are critics and reward heads, which cast what they are given, as a module in a policy does not.
                full = "lora_" in name or ".score." in name or name.startswith((HEAD, BACKBONE))
                weight.data = weight.data.to(torch.float32 if full else head)
    learn_from_first_step(trainer, goes_on=not new)
    trainer.add_callback(Curves(bench.out / CURVES))
    guard_trackers(trainer, bench)
    checkpoints = Checkpoints(bench, trainer)
    if bench.machinery.milestones and policy is not None:
        trainer.add_callback(Milestones(bench, trainer, charging, checkpoints.folder, policy))
    trainer.add_callback(checkpoints)  # last, for it clears its folder when the training ends
    prepare_dividing(trainer)
    try:
        with shared_beginnings(trainer.model):
            checkpoints.train()
    except Exception as error:
        if isinstance(error, PrefzooError) or (NO_PROBABILITIES not in str(error) and is_finite(trainer.model)):
            raise
        step, last = trainer.state.global_step, trainer.state.max_steps
        raise PrefzooError(diverged(f"it gives no probabilities after step {step} of {last}")) from error
    charging.settle()
    bench.report["model"] = requested_and_actual(bench, trainer)
    bench.report.setdefault(TRAININGS, []).append(training_facts(trainer))
    logged = [
        (float(entry.get("loss", entry.get("train_loss", 0.0))), entry["step"]) for entry in losses(trainer.state)
    ]
    bad = [(loss, step) for loss, step in logged if not math.isfinite(loss)]
    # The last steps may be in no log: what they did to the weights is.
    if not all_finite(trainer) or bad:
        loss, step = bad[0] if bad else logged[-1]
        raise PrefzooError(
            diverged(f"the loss is {loss} at step {step} of {trainer.state.max_steps}, or weights are not finite")
        )


class Progress(TrainerCallback):
    """Tells the bench's watcher how many optimizer steps are done."""

    def __init__(self, bench: Bench, what: str) -> None:
        self.bench, self.what = bench, what.removesuffix("Trainer")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        self.bench.progress(self.what, state.global_step, state.max_steps)
