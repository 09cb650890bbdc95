"""TRL's SFTTrainer with the losses of ILQL beside imitation, and the replies with their rewards that it learns from."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from trl import SFTConfig, SFTTrainer

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench, Policy
from prefzoo.models.loading import count_parameters
from prefzoo.models.q_value_policy import Q_HEADS, V_HEAD, QValuePolicy
from prefzoo.models.score_head import backbone
from prefzoo.trainers.fitting import fit
from prefzoo.trainers.pairwise_trainer import token_log_probabilities
from prefzoo.views import assistant_turn


def rewarded_replies(bench: Bench, rewards: str) -> list[dict[str, Any]]:
    """Return single replies whose `label` is the reward at their end; what was found is put into the bench's report.

    Args:
        rewards: `labels`: 1 for chosen and liked replies, -1 for others; `ratings`: from -1 for the lowest rating of
            the training rows to 1 for the highest. Were all of them above 0, tokens that replies have would seem better
            than those they lack, whatever the labels say.

    Raises:
        PrefzooError: when there are no ratings, or all are alike.
    """
    if rewards == "labels":
        rows = [{**row, "label": 1.0 if row["label"] else -1.0} for row in bench.data.unpaired]
    else:
        ratings = [row["rating"] for row in bench.data.ratings]
        if len(set(ratings)) < 2:
            raise PrefzooError(
                f"rewards: 'ratings' needs ratings that differ, and the {len(ratings)} training rows with one have "
                f"{len(set(ratings))} different ones; allowed otherwise: labels"
            )
        low, high = min(ratings), max(ratings)
        rows = [
            {
                "prompt": row["prompt"],
                "completion": assistant_turn(row["completion"]),
                "label": 2 * (row["rating"] - low) / (high - low) - 1,
            }
            for row in bench.data.ratings
        ]
    bench.report["q_learning"] = {
        "rewards": rewards,
        "replies": len(rows),
        "mean_reward": sum(row["label"] for row in rows) / max(1, len(rows)),
        "replies_a_step": 2 * bench.training.batch_size,
    }
    return rows


def q_targets(values: Tensor, rewards: Tensor, mask: Tensor, gamma: float, td_lambda: float) -> Tensor:
    """What the Q-value of each token of each reply is drawn to, (B, T): the reward at the last token, before it gamma *
    ((1 - td_lambda) * V of the next state + td_lambda * the next token's target).

    Args:
        values: V of the state that each token is chosen in, (B, T).
        rewards: of each reply, (B,).
        mask: which positions are tokens of the reply, without gaps, (B, T).
    """
    following = torch.zeros_like(rewards)
    inside = torch.zeros_like(mask[:, 0])
    targets = torch.zeros_like(values)
    for t in reversed(range(mask.shape[1])):
        after = values[:, t + 1] if t + 1 < mask.shape[1] else following
        ahead = gamma * ((1 - td_lambda) * after + td_lambda * following)
        following = torch.where(inside, ahead, rewards)
        targets[:, t], inside = following, mask[:, t]
    return targets * mask


def expectile_loss(difference: Tensor, tau: float) -> Tensor:
    """|tau - 1(difference < 0)| * difference^2 of each element: at 0.5 half the square, above it less is lost where a
    value is above what it is drawn to (Kostrikov et al. 2021, https://arxiv.org/abs/2110.06169)."""
    return torch.where(difference < 0, 1 - tau, tau) * difference.square()


def head_losses(
    q: list[Tensor], v: Tensor, averaged: Tensor, aim: Tensor, tokens: Tensor, tau: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses of the V head (`v`) and of both Q heads together (`q` and `cql`) at each of N tokens, (N,), and
    the smaller Q-value of each token, (N,).

    Args:
        q: of each head, (N, vocabulary).
        v: (N,).
        averaged: the smaller Q-value of the token by the averaged heads, without a gradient, (N,).
        aim: what Q-values are drawn to, (N,).
        tokens: their ids, (N,).
        tau: expectile that V is drawn to.
    """
    first, second = (each.gather(1, tokens[:, None])[:, 0] for each in q)
    losses = {
        "v": expectile_loss(averaged - v, tau),
        "q": (first - aim).square() + (second - aim).square(),
        "cql": torch.stack([cross_entropy(each, tokens, reduction="none") for each in q]).sum(0),
    }
    return losses, torch.minimum(first, second)


class _RewardCollator:
    """TRL's collator, and the reward of each row, from the column `name`, as `rewards`."""

    def __init__(self, inner: Any, name: str) -> None:
        self.inner, self.name = inner, name

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        rewards = torch.tensor([row[self.name] for row in examples], dtype=torch.float)
        rest = [{key: value for key, value in row.items() if key != self.name} for row in examples]
        return {**self.inner(rest), "rewards": rewards}


class QLearningTrainer(SFTTrainer):
    """Trains a `QValuePolicy` with the losses of `prefzoo.zoo.ilql.ILQL`.

    Each loss is the mean over the tokens of a reply, and then over replies: accumulation changes nothing.

    Attributes:
        algorithm, bench: whose settings are used, and whose ledger is charged.
        target_heads: weights of the averaged Q heads, by head and name, in float32; checkpoints keep them. None before
            the first step.
    """

    algorithm: ClassVar[Any]
    bench: ClassVar[Bench]
    reward_column: ClassVar[str] = "label"

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.data_collator: Any = _RewardCollator(self.data_collator, self.reward_column)
        self.model_accepts_loss_kwargs = False  # the mean over passes is the Trainer's
        self.target_heads: dict[str, dict[str, Tensor]] | None = None
        self.target_heads_step = -1

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.reward_column not in self._signature_columns:
            self._signature_columns.append(self.reward_column)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        batch = {**inputs, "completion_mask": (inputs["labels"] != -100).long()}
        trained, states = self.accelerator.unwrap_model(model), list[Tensor]()
        hook = backbone(trained).register_forward_hook(lambda module, given, out: states.append(out.last_hidden_state))
        try:
            log_probabilities = token_log_probabilities(model, batch)
        finally:
            hook.remove()
        mask = batch["completion_mask"][:, 1:].bool()  # (B, T): positions at which a token of the reply is chosen
        losses = self._losses(trained, states[0][:, :-1][mask].float(), inputs["input_ids"][:, 1:][mask], mask, inputs)
        losses["imitation"] = -log_probabilities[mask]
        means = self._means(losses, mask, inputs)
        loss = sum(getattr(self.algorithm, f"{name}_weight") * mean for name, mean in means.items())
        return (loss, None) if return_outputs else loss

    def _means(self, losses: dict[str, Tensor], mask: Tensor, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The mean of each loss over the tokens of a reply, and then over replies; logged, and tokens counted."""
        tokens = mask.sum(1, keepdim=True).expand_as(mask)[mask]
        means = {name: (loss / tokens).sum() / len(mask) for name, loss in losses.items()}
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, mean in means.items():
            metrics[f"losses/{name}"].append(self.accelerator.gather(mean.detach()).mean().item())
        self._total_train_tokens += int(self.accelerator.gather(inputs["attention_mask"].sum()).sum())
        metrics["num_tokens"] = [self._total_train_tokens]
        return means

    def _losses(
        self, model: Any, states: Tensor, tokens: Tensor, mask: Tensor, inputs: dict[str, Any]
    ) -> dict[str, Tensor]:
        """The losses of the heads at each of the N tokens of a batch's replies.

        Args:
            states: in which they are chosen, (N, H), float32.
            tokens: their ids, (N,).
            mask: where they are in the batch, (B, T).
        """
        ours, heads = self.algorithm, [getattr(model, name) for name in Q_HEADS]
        v = getattr(model, V_HEAD)(states)[:, 0].float()
        grid = torch.zeros(mask.shape, device=v.device)
        grid[mask] = v.detach()
        aim = q_targets(grid, inputs["rewards"].to(v.device), mask, ours.gamma, ours.td_lambda)[mask]
        q = [head(states).float() for head in heads]
        averaged = self._target_q(heads, states.detach()).gather(1, tokens[:, None])[:, 0]
        losses, smaller = head_losses(q, v, averaged, aim, tokens, ours.tau)
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in (("q", smaller), ("v", v)):
            metrics[f"values/{name}"].append(self.accelerator.gather(value.detach().mean()).mean().item())
        return losses

    @torch.no_grad()
    def _target_q(self, heads: list[Any], states: Tensor) -> Tensor:
        """The smaller of the averaged Q-values of each token of the vocabulary in each state, (N, vocabulary). The
        averages follow the heads once in each optimizer step."""
        if self.target_heads is None:
            named = {name: dict(head.named_parameters()) for name, head in zip(Q_HEADS, heads, strict=True)}
            self.target_heads = {
                name: {key: w.detach().clone() for key, w in weights.items()} for name, weights in named.items()
            }
            self.target_heads_step = self.state.global_step
        elif self.target_heads_step < self.state.global_step:
            self.target_heads_step = self.state.global_step
            for name, head in zip(Q_HEADS, heads, strict=True):
                for key, weight in head.named_parameters():
                    self.target_heads[name][key].lerp_(weight, self.algorithm.polyak)
        self.bench.ledger.flops += 2.0 * len(states) * sum(map(count_parameters, heads))
        both = [functional_call(h, self.target_heads[n], states) for n, h in zip(Q_HEADS, heads, strict=True)]
        return torch.minimum(*both).float()


def fit_q_values(bench: Bench, algorithm: Any) -> Policy:
    """Train a `QValuePolicy` by the settings of `algorithm`, a `prefzoo.zoo.ilql.ILQL`."""
    rows = rewarded_replies(bench, algorithm.rewards)
    trainer = type("QLearningTrainer", (QLearningTrainer,), {"algorithm": algorithm, "bench": bench})
    beta = {"decode_beta": algorithm.decode_beta}
    kind: dict[str, Any] = {"policy_kind": QValuePolicy, "policy_settings": beta}
    policy: Policy = fit(bench, trainer, SFTConfig, rows, algorithm.trainer, divisible=True, **kind)
    return policy
