"""Hand a bench to a TRL trainer that samples its own replies: one set of sampling and batch settings for all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.weight_counts import critic_of, frozen_critic, weights_of
from prefzoo.settings import NO_SHAPING, RewardShaping
from prefzoo.trainers.fitting import fit, start_shared_with_reward
from prefzoo.trainers.loss_facts import loss_facts
from prefzoo.trainers.reward_shaping import length_terms, prefix_lengths, shaped
from prefzoo.trainers.rollouts import with_rollouts
from prefzoo.trainers.vllm_rollouts import MODE
from prefzoo.types import Prompt


def fit_online(
    bench: Bench,
    trainer_class: Any,
    config_class: Any,
    settings: dict[str, Any],
    generations: int,
    passes: int = 1,
    rollout: int = 1,
    *,
    missing_eos_penalty: float,
    shaping: RewardShaping = NO_SHAPING,
    **more: Any,
) -> LanguageModelPolicy:
    """Train on the policy's own replies to the bench's prompts, scored by its reward.

    A row of a batch is a prompt, as for every other algorithm: an optimizer step learns from `generations` replies to
    each of `training.batch_size` prompts. A forward pass holds as many replies as it holds rows elsewhere; several
    generations make more forward passes a step, not larger ones.

    Args:
        trainer_class, config_class: TRL's GRPOTrainer or RLOOTrainer, and its config, or subclasses of them.
        settings: what is particular to the algorithm, for its config; with a `beta` above 0 a reference passes over
            each rollout.
        generations: replies to each prompt.
        passes: how often each rollout is learned from.
        rollout: optimizer steps that a rollout is divided into.
        missing_eos_penalty: taken off the score of a reply that was cut, after `reward.normalize` and `reward.clip`,
            unless such replies are kept (`generation.unfinished`).
        shaping: what is added to the reward beside; its potential is for trainers with a reward for each token.
        more: further arguments of the trainer.

    Raises:
        PrefzooError: when the classes are of another kind, when there are fewer prompts than one rollout takes,
            or when nothing is sampled (temperature 0).
    """
    training = bench.training
    _check_classes(trainer_class, config_class)
    _check_prompts(bench, rollout)
    policy = start_shared_with_reward(bench)
    shared: dict[str, Any] = {
        "num_generations": generations,
        "num_iterations": passes,
        "gradient_accumulation_steps": training.accumulation * generations,
        "steps_per_generation": training.accumulation * generations * rollout,
        "max_completion_length": bench.generation.max_new_tokens,
        "temperature": bench.generation.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "shuffle_dataset": True,
        "include_num_input_tokens_seen": "no",
        "remove_unused_columns": False,
        **settings,
    }
    if bench.generation.engine == "vllm" and issubclass(config_class, GRPOConfig):
        shared.setdefault("vllm_importance_sampling_mode", MODE)
    if bench.generation.unfinished == "keep":
        missing_eos_penalty, shaping = 0.0, shaping.model_copy(update={"overlong": 0.0})
    scorer = _Scorer(bench, policy, generations, passes, shared["beta"] > 0, missing_eos_penalty)
    scorer.shaping, scorer.moving = shaping, more.get("reference_decay") is not None
    if shaping.potential is not None:
        more["potential"] = scorer.potentials
    bench.report["loss"] = loss_facts(trainer_class, config_class, shared, passes * rollout, more)
    if added := {key: value for key, value in shaping.model_dump().items() if value != getattr(NO_SHAPING, key)}:
        bench.report["shaping"] = added
    return fit(
        bench.replace(latest=bench.latest or policy),
        with_rollouts(trainer_class, bench),
        config_class,
        [{"prompt": list(prompt)} for prompt in bench.data.prompts],
        shared,
        callbacks=[scorer],
        divisible=True,
        reward_funcs=scorer,
        **more,
    )


def _check_classes(trainer_class: Any, config_class: Any) -> None:
    """Refuse classes that do not sample by the settings of TRL's GRPO and RLOO, which `fit_online` gives them."""
    for trainer, config in ((GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)):
        if issubclass(trainer_class, trainer) and issubclass(config_class, config):
            return
    raise PrefzooError(
        f"fit_online trains subclasses of GRPOTrainer with a GRPOConfig, and of RLOOTrainer with an RLOOConfig, not "
        f"{trainer_class.__name__} with {config_class.__name__}. Another online method samples with bench.sample and "
        "scores with bench.score in rounds, and trains on what that gives with prefzoo.fit or an algorithm, as in "
        "docs/examples/rounds_of_dpo.py."
    )


def _check_prompts(bench: Bench, rollout: int) -> None:
    """Refuse what cannot be sampled, and report how many prompts are in no rollout."""
    if bench.generation.temperature == 0:
        raise PrefzooError("generation.temperature is 0: an algorithm that learns from its own samples must sample")
    count, size = len(bench.data.prompts), bench.training.batch_size
    if count < size * rollout:
        raise PrefzooError(
            f"{count} prompts are fewer than the {size * rollout} of one rollout (training.batch_size {size}, "
            f"{rollout} batches a rollout)"
        )
    if unused := count % (size * rollout):
        bench.report["prompts_left_over"] = unused  # an epoch ends with the last whole rollout


class _Scorer(TrainerCallback):
    """Scores exactly what was generated with the bench's reward; charges the ledger for each rollout and its use."""

    __name__ = "reward"  # under which TRL logs it
    shaping = NO_SHAPING
    moving = False
    """Whether the reference has an adapter of its own."""

    def __init__(
        self,
        bench: Bench,
        policy: LanguageModelPolicy,
        generations: int,
        passes: int,
        reference: bool,
        penalty: float,
    ) -> None:
        self.bench, self.policy, self.generations, self.passes = bench, policy, generations, passes
        self.reference, self.penalty = reference, penalty

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        self.weights, self.critic, self.frozen = weights_of(model), critic_of(model), frozen_critic(model)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Any, completion_ids: Sequence[Sequence[int]], **_: Any
    ) -> list[float]:
        replies = Counter(map(json.dumps, prompts))  # each prompt is here once for each of its replies
        prompt_tokens = sum(count * len(self.policy.render(json.loads(prompt))) for prompt, count in replies.items())
        self._charge(prompt_tokens, sum(map(len, completion_ids)))
        self.bench.ledger.prompts += len(prompts) // self.generations
        texts = [self.policy.reply_text(prompt, ids) for prompt, ids in zip(prompts, completion_ids, strict=True)]
        scores = shaped(self.bench.score(prompts, texts), self.bench.machinery.shaping, self.bench.machinery.memory)
        cut = [not ids or ids[-1] not in self.policy.eos_ids for ids in completion_ids]
        longest = self.bench.generation.max_new_tokens
        off = [length_terms(len(ids), longest, self.shaping) for ids in completion_ids]
        return [score - self.penalty * c - o for score, c, o in zip(scores, cut, off, strict=True)]

    def potentials(self, prompts: Sequence[Prompt], completion_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the score of each reply up to before each of its tokens, normalized and clipped like those of whole
        replies; charged as scores are."""
        lengths = [prefix_lengths(len(ids), self.shaping.every) for ids in completion_ids]
        places = [(i, length) for i, row in enumerate(lengths) for length in dict.fromkeys(row)]
        asked = [prompts[i] for i, _ in places]
        texts = [self.policy.reply_text(prompts[i], completion_ids[i][:length]) for i, length in places]
        scores = self.bench.score(asked, texts) if places else []
        machinery = self.bench.machinery
        found = dict(zip(places, shaped(scores, machinery.shaping, machinery.memory, learn=False), strict=True))
        return [[found[i, length] for length in row] for i, row in enumerate(lengths)]

    def _charge(self, prompt_tokens: int, reply_tokens: int) -> None:
        ledger, tokens = self.bench.ledger, prompt_tokens + reply_tokens
        ledger.generated(reply_tokens, self.weights.passed)
        ledger.forwarded(prompt_tokens, self.weights.passed)
        if self.reference:
            ledger.forwarded(tokens, self.weights.passed if self.moving else self.weights.start)
        ledger.trained(self.passes * tokens, self.weights.passed, self.weights.trained)
        if self.critic:  # its values, and then its learning
            if self.frozen:  # the head alone, on states that are there already
                ledger.flops += (2.0 + 6.0 * self.passes) * tokens * self.critic.trained
            else:
                ledger.forwarded(tokens, self.critic.passed)
                ledger.trained(self.passes * tokens, self.critic.passed, self.critic.trained)
