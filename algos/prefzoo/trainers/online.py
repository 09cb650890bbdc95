"""Hand a bench to a TRL trainer that samples its own replies: one set of sampling and batch settings for all."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.weight_counts import critic_of, weights_of
from prefzoo.settings import Shaping
from prefzoo.trainers.fitting import fit
from prefzoo.trainers.rollouts import with_rollouts
from prefzoo.types import Prompt


def fit_online(
    bench: Bench,
    trainer_class: Any,
    config_class: Any,
    settings: dict[str, Any],
    generations: int,
    passes: int = 1,
    rollout: int = 1,
    scored_anew: bool = True,
    *,
    missing_eos_penalty: float,
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
        scored_anew: whether the policy passes over each rollout once more for the log-probabilities it was drawn with.
        missing_eos_penalty: taken off the score of a reply that was cut, after shaping, unless such replies are kept
            (`generation.unfinished`).
        more: further arguments of the trainer.

    Raises:
        PrefzooError: when the classes are of another kind, when there are fewer prompts than one rollout takes,
            or when nothing is sampled (temperature 0).
    """
    training = bench.training
    _check_classes(trainer_class, config_class)
    _check_prompts(bench, rollout)
    policy = LanguageModelPolicy.start_of(bench)
    if bench.adapter.type != "full" and (share := getattr(bench.reward, "share_base", None)):
        share(policy.model, bench.start)
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
    if bench.generation.unfinished == "keep":
        missing_eos_penalty = 0.0
    scorer = _Scorer(bench, policy, generations, passes, shared["beta"] > 0, scored_anew, missing_eos_penalty)
    return fit(
        bench.replace(latest=bench.latest or policy),
        with_rollouts(trainer_class),
        config_class,
        [{"prompt": list(prompt)} for prompt in bench.data.prompts],
        shared,
        callbacks=[scorer],
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

    def __init__(
        self,
        bench: Bench,
        policy: LanguageModelPolicy,
        generations: int,
        passes: int,
        reference: bool,
        scored_anew: bool,
        penalty: float,
    ) -> None:
        self.bench, self.policy, self.generations, self.passes = bench, policy, generations, passes
        self.reference, self.scored_anew, self.penalty = reference, scored_anew, penalty

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        self.weights, self.critic = weights_of(model), critic_of(model)

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
        return [score - self.penalty * missing for score, missing in zip(scores, cut, strict=True)]

    def _charge(self, prompt_tokens: int, reply_tokens: int) -> None:
        ledger, tokens = self.bench.ledger, prompt_tokens + reply_tokens
        ledger.generated(reply_tokens, self.weights.passed)
        ledger.forwarded(prompt_tokens, self.weights.passed)
        if self.reference:
            ledger.forwarded(tokens, self.weights.start)
        if self.scored_anew:
            ledger.forwarded(tokens, self.weights.passed)
        ledger.trained(self.passes * tokens, self.weights.passed, self.weights.trained)
        if self.critic:  # its values, and then its learning
            ledger.forwarded(tokens, self.critic.passed)
            ledger.trained(self.passes * tokens, self.critic.passed, self.critic.trained)


def shaped(scores: list[float], shaping: Shaping, memory: dict[str, Any]) -> list[float]:
    """Return scores normalized and clipped as `shaping` says. The running mean and variance of all scores so far, those
    of other processes included (Welford 1962), are kept in `memory`."""
    if shaping.normalize:
        count, mean, squares = memory.get("scores", (0, 0.0, 0.0))
        for score in gather_object(scores):  # in the order of the processes, so that all get the same numbers
            count += 1
            before = score - mean
            mean += before / count
            squares += before * (score - mean)
        memory["scores"] = (count, mean, squares)
        std = math.sqrt(squares / count) if squares > 0 else 1.0
        scores = [(score - mean) / std for score in scores]
    if shaping.clip is not None:
        scores = [min(max(score, -shaping.clip), shaping.clip) for score in scores]
    return scores
