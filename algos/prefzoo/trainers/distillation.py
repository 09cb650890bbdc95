"""TRL's DistillationTrainer on the policy's own replies or on the data's, with the reward beside the divergence.

What is overridden of TRL: `_generate_single_turn` (the data's replies in the place of samples),
`_generate_and_score_completions` (to score and to charge), `_compute_loss` (to add the reward's term). The divergence,
its average over the tokens of an optimizer step, sampling and gradient accumulation stay TRL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from trl import DistillationConfig, DistillationTrainer

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.machine import divides_weights
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import to_be_divided
from prefzoo.models.policy_kinds import POLICY_FILE, load_policy
from prefzoo.models.weight_counts import weights_of
from prefzoo.trainers.divided_weights import divided_model
from prefzoo.trainers.fitting import current_policy, fit
from prefzoo.trainers.reward_shaping import shaped
from prefzoo.trainers.rollouts import prompts_and_replies, with_rollouts

REPLY = "reply_ids"
"""Of a training row: the tokens of the data's reply."""


def distill(
    bench: Bench,
    teacher: LanguageModelPolicy,
    rows: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    reward_weight: float = 0.0,
    missing_eos_penalty: float = 0.0,
) -> Any:
    """Bring the policy's next-token distribution close to a teacher's.

    Args:
        teacher: a language model with the policy's vocabulary.
        rows: with a `prompt` alone, to which the policy replies; or with a `completion` too, which is learned on.
        settings: of `DistillationConfig`.
        reward_weight: of the reward's term in the loss, on the policy's own replies.
        missing_eos_penalty: taken off the score of a reply that was cut, unless such replies are kept
            (`generation.unfinished`).

    Raises:
        PrefzooError: when the teacher has another vocabulary, or nothing is sampled (temperature 0).
    """
    if bench.generation.temperature == 0:
        raise PrefzooError("generation.temperature is 0: an algorithm that learns from its own samples must sample")
    with to_be_divided():
        policy, latest = LanguageModelPolicy.start_of(bench), current_policy(bench)
    if teacher.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise PrefzooError(
            f"teacher: {teacher.start} has {len(teacher.tokenizer.get_vocab())} tokens and the policy "
            f"{len(policy.tokenizer.get_vocab())}, or others: what is compared is the probability of each token, so "
            "that both must have the same tokenizer"
        )
    given = [row for row in rows if "completion" in row]
    turns = [[*row["prompt"], *row["completion"]] for row in given]
    replies = [ids for _, ids in policy.tokenizer.parts(turns)] if given else []
    train_rows = [{"prompt": list(row["prompt"]), REPLY: ids} for row, ids in zip(given, replies, strict=True)]
    if bench.generation.unfinished == "keep":
        missing_eos_penalty = 0.0
    shared = {"bench": bench, "policy": policy}
    weights = {"reward_weight": reward_weight, "missing_eos_penalty": missing_eos_penalty}
    student = type("DistillationTrainer", (StudentTrainer,), {**shared, **weights})
    return fit(
        bench.replace(latest=latest),
        with_rollouts(student, bench),
        DistillationConfig,
        train_rows or [{"prompt": list(row["prompt"])} for row in rows],
        {
            "max_completion_length": bench.generation.max_new_tokens,
            "temperature": bench.generation.temperature,
            "include_num_input_tokens_seen": "no",
            "remove_unused_columns": False,
            **settings,
        },
        divisible=True,
        teacher_model=divided_model(teacher.model) if divides_weights() else teacher.model,
    )


@to_be_divided()
def load_teacher(path: str, bench: Bench) -> LanguageModelPolicy:
    """The teacher in a folder of a run (with `policy.json`), or a model of a folder or the hub, without an adapter.

    Raises:
        PrefzooError: when it is a policy without weights of its own, such as best-of-n.
    """
    folder = Path(path).expanduser()
    if not (folder / POLICY_FILE).is_file():
        return LanguageModelPolicy.from_start(str(folder) if folder.is_dir() else path, **bench.loading)
    policy = load_policy(folder)
    if not isinstance(policy, LanguageModelPolicy):
        raise PrefzooError(
            f"teacher: {path} is a {type(policy).__name__}, which gives no probabilities of tokens; "
            "`best_of_n_distillation` learns what best-of-n does"
        )
    return policy.merged()


class StudentTrainer(DistillationTrainer):
    """TRL's trainer with the house's sampling and charges; a subclass has the bench of one training.

    With `reward_weight` w the loss has -w * A * log p(token), averaged over tokens as the divergence is, where the
    advantage A is the reply's score less the mean score of the other replies of the rollout.
    """

    bench: ClassVar[Bench]
    policy: ClassVar[LanguageModelPolicy]
    reward_weight: ClassVar[float]
    missing_eos_penalty: ClassVar[float]
    _given: list[list[int]] | None = None

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.weights, self.teacher_weights = weights_of(self.model), weights_of(self.teacher_model)

    @property
    def ref_model(self) -> Any:
        """The teacher, which is shown the same rows as a reference elsewhere."""
        return self.teacher_model

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **more: Any) -> Any:
        return super()._generate_single_turn(prompt_ids, *args, **more) if self._given is None else self._given

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._given = [row[REPLY] for row in inputs] if REPLY in inputs[0] else None
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        lengths = batch["completion_mask"].sum(-1).tolist()
        self._charge(int(batch["prompt_mask"].sum()), sum(lengths), len(inputs))
        if self.reward_weight:
            replies = [ids[:n] for ids, n in zip(batch["completion_ids"].tolist(), lengths, strict=True)]
            batch["advantages"] = self._advantages([row["prompt"] for row in inputs], replies)
        return batch

    def _charge(self, prompt_tokens: int, reply_tokens: int, prompts: int) -> None:
        ledger, tokens = self.bench.ledger, prompt_tokens + reply_tokens
        ledger.prompts += prompts
        if self._given is None:
            ledger.generated(reply_tokens, self.weights.passed)
            ledger.forwarded(prompt_tokens, self.weights.passed)
        ledger.forwarded(tokens, self.teacher_weights.passed)
        passes = 2 if self.reward_weight else 1  # the reward's term takes one of its own
        ledger.trained(passes * tokens, self.weights.passed, self.weights.trained)

    def _advantages(self, prompts: list[Any], replies: list[list[int]]) -> Tensor:
        """Score of each reply of this process less the mean of all others of the rollout, (B,)."""
        texts = [self.policy.reply_text(prompt, ids) for prompt, ids in zip(prompts, replies, strict=True)]
        machinery = self.bench.machinery
        scores = torch.tensor(shaped(self.bench.score(prompts, texts), machinery.shaping, machinery.memory))
        cut = torch.tensor([not ids or ids[-1] not in self.policy.eos_ids for ids in replies])
        scores = (scores - self.missing_eos_penalty * cut).to(self.accelerator.device)
        everyone = self.accelerator.gather(scores)
        self._metrics["train"]["reward"].append(everyone.mean().item())
        return (scores - everyone.mean()) * len(everyone) / max(1, len(everyone) - 1)

    def _compute_loss(self, student: Any, inputs: dict[str, Any], tokens: Any) -> Any:
        divergence, entropy, count = super()._compute_loss(student, inputs, tokens)
        if not self.reward_weight:
            return divergence, entropy, count
        ids, attention = prompts_and_replies(inputs)
        width = inputs["completion_ids"].shape[1]
        logits = student(input_ids=ids, attention_mask=attention).logits[:, -width - 1 : -1] / self.temperature
        chosen = logits.log_softmax(-1).gather(-1, inputs["completion_ids"][..., None])[..., 0]
        gained = (inputs["advantages"][:, None] * chosen * inputs["completion_mask"]).sum() / tokens
        return divergence - self.reward_weight * gained, entropy, count
