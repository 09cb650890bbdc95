"""Hand a bench to a trainer that samples its own replies: one set of sampling and batch settings for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench, Prompt
from prefzoo.policies.fitting import fit
from prefzoo.policies.language_model import LanguageModelPolicy
from prefzoo.settings import Shaping


def fit_online(
    bench: Bench,
    trainer_class: Any,
    config_class: Any,
    settings: dict[str, Any],
    generations: int,
    passes: int = 1,
    learners: int = 1,
    rollout: int = 1,
    forward_passes: int = 1,
    **more: Any,
) -> LanguageModelPolicy:
    """Train on the policy's own replies to the bench's prompts, scored by its reward.

    A row of a batch is a prompt, as for every other algorithm: an optimizer step learns from `generations` replies to
    each of `training.batch_size` prompts. A forward pass holds as many replies as it holds rows elsewhere; several
    generations make more forward passes a step, not larger ones.

    Args:
        settings: what is particular to the algorithm, for its config.
        generations: replies to each prompt.
        passes: how often each rollout is learned from.
        learners: models that learn from it: 1, or 2 with a critic; charged.
        rollout: optimizer steps that a rollout is divided into.
        forward_passes: passes over a rollout without gradients (reference, old log-probabilities, values), charged.
        more: further arguments of the trainer.

    Raises:
        PrefzooError: when there are fewer prompts than one rollout takes, or nothing is sampled (temperature 0).
    """
    training = bench.training
    _check_prompts(bench, rollout)
    policy = LanguageModelPolicy.from_start(bench.start, **bench.loading)
    if bench.adapter.type != "full" and (share := getattr(bench.reward, "share_base", None)):
        share(policy.model, bench.start)
    shared = {
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
    }
    return fit(
        bench.replace(latest=bench.latest or policy),
        trainer_class,
        config_class,
        [{"prompt": list(prompt)} for prompt in bench.data.prompts],
        {**shared, **settings},
        reward_funcs=_scorer(bench, policy, passes * learners, forward_passes),
        **more,
    )


def _check_prompts(bench: Bench, rollout: int) -> None:
    """Refuse what cannot be sampled; note the prompts that no rollout takes."""
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


def _scorer(bench: Bench, policy: LanguageModelPolicy, passes: int, forward_passes: int) -> Callable[..., list[float]]:
    parameters = policy.parameters

    def reward(
        prompts: Sequence[Prompt], completions: Any, completion_ids: Sequence[Sequence[int]], **_: Any
    ) -> list[float]:
        """The bench's reward of exactly what was generated; charges the ledger for the rollout and its use."""
        read = sum(len(policy.render(prompt)) for prompt in prompts)
        written = sum(map(len, completion_ids))
        bench.ledger.generated(written, parameters)
        bench.ledger.flops += 2.0 * parameters * (read + forward_passes * (read + written))
        bench.ledger.trained(passes * (read + written), parameters)
        texts = [policy.tokenizer.decode(list(ids), skip_special_tokens=True) for ids in completion_ids]
        return shaped(bench.score(prompts, texts), bench.shaping, bench.memory)

    return reward


def shaped(scores: list[float], shaping: Shaping, memory: dict[str, Any]) -> list[float]:
    """Scores as `shaping` wants them; the running moments of all scores so far (Welford 1962) are in `memory`."""
    if shaping.normalize:
        count, mean, squares = memory.get("scores", (0, 0.0, 0.0))
        for score in scores:
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
