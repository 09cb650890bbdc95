"""How much each piece of a reply contributed to its reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import regex

from prefzoo.errors import PrefzooError
from prefzoo.rewards.integrated_gradients import integrate
from prefzoo.rewards.load_reward import Ensemble, WeightedSum
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.rewards.reward_text import pair_of_texts
from prefzoo.types import Prompt, Reward

Method = Literal["gradients", "ablation"]
WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|[^\s\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]+")
"""What ablation leaves out: what stands between spaces, or a letter of a script that has none."""


@dataclass(frozen=True)
class Piece:
    """A token or word of a reply: its characters `[begin, end)`, and how much of the reward it made."""

    begin: int
    end: int
    value: float


@dataclass(frozen=True)
class Attribution:
    """Why a reply got its reward.

    Attributes:
        method: `gradients` or `ablation`.
        pieces: in the reply's order, without overlap. Spaces and what the reward does not read are in none.
        score: the reward of the reply.
        baseline: by gradients the reward where each of the reply's tokens is the baseline's; by ablation the reward of
            the empty reply.
    """

    method: Method
    pieces: list[Piece]
    score: float
    baseline: float

    @property
    def error(self) -> float:
        """How far the values of all pieces are from `score - baseline`, relative to that. By gradients it is what
        numerical integration left over; by ablation it is how far the reward is from a sum over words."""
        difference = self.score - self.baseline
        missing = abs(sum(piece.value for piece in self.pieces) - difference)
        return missing / abs(difference) if difference else float("inf") if missing > 1e-9 else 0.0


def attribute(
    reward: Reward, prompts: Sequence[Prompt], replies: Sequence[str], method: Method | None = None
) -> list[Attribution]:
    """Explain the reward of each reply.

    By `gradients` (integrated gradients, Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365, by Captum), where
    the reward is a reward model, or a sum or mean of some: along the straight line from the embedding of the end of a
    sequence, in the place of each token of the reply, to the embeddings of the reply. By `ablation`, for any reward: by
    how much it falls when a word is left out; the reward is asked once for every word.

    Args:
        method: None takes gradients where there are any.

    Raises:
        PrefzooError: by gradients, of a reward that has none, or without Captum.
    """
    models = linear_models(reward)
    if method is None:
        method = "gradients" if models else "ablation"
    if method == "ablation":
        return _by_ablation(reward, prompts, replies)
    if not models:
        raise PrefzooError(
            "method: 'gradients' needs a reward model, or a sum or a mean of reward models, and this reward is "
            f"{type(reward).__name__}; allowed: ablation"
        )
    return _summed(models, [_by_gradients(model, prompts, replies) for _, model in models])


def linear_models(reward: Reward) -> list[tuple[float, RewardModel]]:
    """The reward models, and their weights, of which a reward is the sum; none where it is something else."""
    if isinstance(reward, RewardModel):
        return [(1.0, reward)]
    if isinstance(reward, WeightedSum):
        weights = reward.weights
    elif isinstance(reward, Ensemble) and reward.combine == "mean":
        weights = [1 / len(reward.parts)] * len(reward.parts)
    else:
        return []
    parts = [linear_models(part) for part in reward.parts]
    return [(w * v, model) for w, part in zip(weights, parts, strict=True) for v, model in part] if all(parts) else []


def _by_ablation(reward: Reward, prompts: Sequence[Prompt], replies: Sequence[str]) -> list[Attribution]:
    spans = [[match.span() for match in WORD.finditer(reply)] for reply in replies]
    asked = [
        (prompt, text)
        for prompt, reply, words in zip(prompts, replies, spans, strict=True)
        for text in (reply, "", *(_without(reply, *word) for word in words))
    ]
    scores = iter(reward([prompt for prompt, _ in asked], [text for _, text in asked]))
    found = []
    for words in spans:
        score, empty = next(scores), next(scores)
        found.append(
            Attribution("ablation", [Piece(begin, end, score - next(scores)) for begin, end in words], score, empty)
        )
    return found


def _without(reply: str, begin: int, end: int) -> str:
    """The reply without a word and the spaces behind it; where it is the last, without those before it."""
    rest = reply[end:].lstrip()
    return reply[:begin] + rest if rest else reply[:begin].rstrip()


def _by_gradients(model: RewardModel, prompts: Sequence[Prompt], replies: Sequence[str]) -> list[Attribution]:
    rows = [model.tokens(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]
    spans = [token_spans(model, *each) for each in zip(prompts, replies, rows, strict=True)]
    places = [[k for at in of_row.values() for k in at] for of_row in spans]
    integrals = integrate(model, rows, places, baseline_token(model.tokenizer))
    return [
        Attribution(
            "gradients",
            [Piece(*span, sum(each.values[k] for k in at)) for span, at in of_row.items()],
            each.score,
            each.baseline,
        )
        for of_row, each in zip(spans, integrals, strict=True)
    ]


def baseline_token(tokenizer: Any) -> int:
    """The token that stands for nothing: the end of a sequence; an encoder's separator, padding, where there is
    none."""
    known = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    return next((int(token) for token in known if token is not None), 0)


def token_spans(
    model: RewardModel, prompt: Prompt, reply: str, row: dict[str, list[int]]
) -> dict[tuple[int, int], list[int]]:
    """Where a reply's tokens are: its characters `[begin, end)` to places in `row["input_ids"]`.

    Several tokens of one character are together. So is all that follows where the tokens spell another text than the
    reply, as those of a tokenizer that normalizes.
    """
    tokenizer = model.tokenizer
    if tokenizer.chat_template is None and not getattr(tokenizer, "continuation", False):
        encoded = tokenizer(*pair_of_texts(prompt, reply), return_offsets_mapping=True)
        offsets = [
            (k, span)
            for k, (span, text) in enumerate(zip(encoded["offset_mapping"], encoded.sequence_ids(), strict=True))
            if text == 1 and span[0] < span[1]
        ]
        spans: dict[tuple[int, int], list[int]] = {}
        for k, span in offsets:
            spans.setdefault(tuple(span), []).append(k)
        return spans
    before, ids = tokenizer.parts([[*prompt, {"role": "assistant", "content": reply}]])[0]
    if [*before, *ids] != row["input_ids"]:
        raise PrefzooError(
            f"method: 'gradients' does not find the reply among the tokens of {model.folder}; allowed: ablation"
        )
    return _spelled(tokenizer, ids, reply, len(before))


def _spelled(tokenizer: Any, ids: Sequence[int], reply: str, first: int) -> dict[tuple[int, int], list[int]]:
    """The tokens of a reply and what follows it, by the characters of the reply that they spell."""
    spans: dict[tuple[int, int], list[int]] = {}
    special, position = set(tokenizer.all_special_ids), 0
    group: list[int] = []
    for k, token in enumerate(ids):
        if position == len(reply) or (token in special and not group):
            continue
        group.append(k)
        text = tokenizer.decode([ids[j] for j in group], clean_up_tokenization_spaces=False)
        blank = len(reply[position:]) - len(reply[position:].lstrip())
        for begin, spelled in ((position, text), (position, text.lstrip()), (position + blank, text.strip())):
            if spelled and reply.startswith(spelled, begin):
                position = begin + len(spelled)
                spans[begin, position] = [first + j for j in group]
                group = []
                break
    if group and reply[position:].strip():
        spans[position, len(reply)] = [first + j for j in group if ids[j] not in special]
    return spans


def _summed(models: Sequence[tuple[float, RewardModel]], found: Sequence[Sequence[Attribution]]) -> list[Attribution]:
    """The weighted sum of each reply's attributions; pieces that overlap become one."""
    if len(found) == 1 and models[0][0] == 1:
        return list(found[0])
    weights = [weight for weight, _ in models]
    whole = []
    for same in zip(*found, strict=True):
        pieces: list[Piece] = []
        weighted = [
            (piece.begin, piece.end, weight * piece.value)
            for weight, each in zip(weights, same, strict=True)
            for piece in each.pieces
        ]
        for begin, end, value in sorted(weighted):
            if pieces and begin < pieces[-1].end:
                last = pieces.pop()
                pieces.append(Piece(last.begin, max(last.end, end), last.value + value))
            else:
                pieces.append(Piece(begin, end, value))
        score, baseline = (
            sum(w * getattr(each, name) for w, each in zip(weights, same, strict=True))
            for name in ("score", "baseline")
        )
        whole.append(Attribution("gradients", pieces, score, baseline))
    return whole
