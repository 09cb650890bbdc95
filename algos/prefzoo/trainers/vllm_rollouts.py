"""Rollouts that vLLM samples: what TRL's trainers ask in the place of their own `VLLMGeneration`, and how far the
sampler's probabilities were from the trainer's.

TRL's needs vllm in this process's environment, and a GPU to hand weights over. Its correction is used as it is: in
GRPOTrainer each token's loss is multiplied by min(p_trainer / p_sampler, C), truncated importance sampling (Yao et al.
2025, https://fengyao.notion.site/off-policy-rl). RLOOTrainer has none, and is given the same for a reply as a whole.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prefzoo.interface import Bench
from prefzoo.models.language_model import LanguageModelPolicy, derived_seed
from prefzoo.models.vllm_client import Drawn
from prefzoo.models.vllm_sampling import VllmSampler

IMPORTANCE = "importance_sampling"
"""In `Bench.report`, and while a training lasts in `Bench.memory`: ratios of the trainer's probabilities to the
sampler's."""
MODE = "token_truncate"
"""TRL's own default throws away replies whose ratio is too high; truncation keeps all."""
CLIP_MAX = 3.0
"""C of a reply's ratio, as TRL's default."""


class VllmRollouts:
    """Samples rollouts from a trainer's weights, which are handed over with each.

    Args:
        trainer: of TRL's, which samples by itself.
        bench: of the training.
    """

    def __init__(self, trainer: Any, bench: Bench) -> None:
        self.trainer, self.generation = trainer, bench.generation
        model = trainer.accelerator.unwrap_model(trainer.model)
        policy = LanguageModelPolicy(model, trainer.processing_class, bench.start, dict(bench.loading))
        self.sampler = VllmSampler(policy, bench.generation.vllm, bench.progress)
        self.drawn: list[Drawn] = []
        self.checked = False

    def sync_weights(self) -> None:
        """TRL asks for it after each step; here a rollout brings its weights along."""

    def generate(self, prompts: Sequence[Sequence[int]], **more: Any) -> tuple[Any, ...]:
        """One reply to each prompt: `(prompts, tokens, log-probabilities of tokens in lists of one, None)`. The seeds
        depend on the training's seed, the step, the process and the row, so that a training that resumes goes on to
        the same replies."""
        trainer = self.trainer
        part = (trainer.args.seed, trainer.state.global_step, trainer.accelerator.process_index)
        seeds = [derived_seed("rollout", *part, i) for i in range(len(prompts))]
        drawn = self.sampler.draw(prompts, seeds, self.generation, checked=not self.checked)
        self.checked = self.sampler.server.turn is None  # from now on the ratios tell, unless all weights are replaced
        self.drawn = [reply for (reply,) in drawn]
        tokens = [list(reply.token_ids) for reply in self.drawn]
        return prompts, tokens, [[[p] for p in reply.logprobs] for reply in self.drawn], None


def correct(trainer: Any, batch: dict[str, Any], bench: Bench) -> None:
    """Give RLOO's advantages the truncated ratios of their replies, and note how far the ratios of a rollout are from
    1, before they are truncated."""
    mask = batch["completion_mask"].bool()
    if "sampling_per_token_logps" in batch and "old_per_token_logps" in batch:
        away = (batch["old_per_token_logps"] - batch["sampling_per_token_logps"])[mask]
        most = trainer.vllm_importance_sampling_clip_max
        _note(bench, away, away.exp(), most, "token", trainer.vllm_importance_sampling_mode)
    elif "old_logps" in batch:
        sampled = [sum(reply.logprobs) for reply in trainer.vllm_generation.drawn]
        away = batch["old_logps"] - torch.tensor(sampled, device=mask.device)
        ratios = reply_ratios(batch["old_logps"], torch.tensor(sampled, device=mask.device))
        batch["advantages"] = batch["advantages"] * ratios
        _note(bench, away, away.exp(), CLIP_MAX, "reply", "sequence_truncate")


def reply_ratios(trained: Tensor, sampled: Tensor) -> Tensor:
    """min(exp(trained - sampled), C) of the log-probabilities of whole replies, (B,); 1 where one is not known."""
    return torch.nan_to_num((trained - sampled).exp(), nan=1.0).clamp(max=CLIP_MAX)


def _note(bench: Bench, away: Tensor, ratios: Tensor, most: float | None, of: str, mode: str) -> None:
    sums: MutableMapping[str, Any] = bench.machinery.memory.setdefault(
        IMPORTANCE, {"count": 0, "ratio": 0.0, "truncated": 0, "away": 0.0, "most": 0.0}
    )
    known = away.isfinite()
    away, ratios = away[known].double(), ratios[known].double()
    if not len(away):
        return
    sums["count"] += len(away)
    sums["ratio"] += float(ratios.sum())
    sums["truncated"] += int((ratios > most).sum()) if most is not None else 0
    sums["away"] += float(away.abs().sum())
    sums["most"] = max(sums["most"], float(away.abs().max()))
    bench.report[IMPORTANCE] = {
        "of": of,
        "mode": mode,
        "clip_max": most,
        "count": sums["count"],
        "mean_ratio": sums["ratio"] / sums["count"],
        "truncated_share": sums["truncated"] / sums["count"],
        "mean_difference": sums["away"] / sums["count"],
        "largest_difference": sums["most"],
    }
