"""Integrals of a reward model's gradients along lines of embeddings, as exact as is asked for."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prefzoo.errors import PrefzooError
from prefzoo.models.loading import device
from prefzoo.models.merged_layers import MOST_BYTES, merged_layers
from prefzoo.models.next_token import in_parallel
from prefzoo.models.score_head import backbone
from prefzoo.models.shared_beginnings import has_full_attention, replaced_forward
from prefzoo.rewards.reward_model import GivenClassifier, RewardModel

MOST_ERROR = 0.01
"""What an integral may miss of what it should be, relative to that."""
STRETCHES = 4
"""Into so many equal stretches a line is divided at first."""
POINTS = 6
"""Points of Gauss-Legendre quadrature on a stretch."""
HALVINGS = 8
"""How often a stretch is halved at most."""
MOST_STRETCHES = 128
"""A line with so many is left as it is: in 16 bits, where scores are rounded, no number of them would do."""
ROUNDING = 4
"""A stretch that misses at most so many units in the last place of its scores is not halved: it would not help."""
PASS_TOKENS = 4096
"""Tokens that go through the model together, with gradients."""


class Stretch(NamedTuple):
    """The part `[begin, end]` of the line of a row, which goes from 0, the baseline, to 1, the reply."""

    row: int
    begin: float
    end: float

    def halves(self) -> tuple[Stretch, Stretch]:
        middle = (self.begin + self.end) / 2
        return Stretch(self.row, self.begin, middle), Stretch(self.row, middle, self.end)


class Measured(NamedTuple):
    """What the places of a stretch's row contributed along it, (T,), and what these `values` miss of the difference of
    the scores at its ends, in absolute value (`gap`)."""

    gap: float
    stretch: Stretch
    values: Tensor


@dataclass(frozen=True)
class Integral:
    """What each place of a row contributed.

    Attributes:
        values: by place in the row's `input_ids`; 0 where the line does not move.
        score, baseline: the model's scores at the line's end and beginning.
    """

    values: list[float]
    score: float
    baseline: float


def integrate(
    model: RewardModel, rows: Sequence[dict[str, list[int]]], places: Sequence[Sequence[int]], baseline_id: int
) -> list[Integral]:
    """Integrated gradients (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365, by Captum) of the model's
    scores, along the straight line from the embedding of one token to those of each row.

    What a stretch of a line should add up to is known: the difference of the scores at its ends. The stretches that
    miss most of it are halved until what all of them miss, each in absolute value, is at most `MOST_ERROR` of the
    difference of the whole line. More is missed only where that is less than rounding, or needs more than `HALVINGS`
    or `MOST_STRETCHES`. On a CPU small models work in as many threads as torch has, each on rows of its own.

    Args:
        rows: as `RewardModel.tokens` gives them.
        places: of each row, where the line moves.
        baseline_id: the token at the line's beginning.

    Raises:
        PrefzooError: without Captum.
    """
    found: dict[int, Integral] = {}

    def work(some: Sequence[int]) -> None:
        own = model
        if len(parts) > 1:  # while it works a model is changed: each thread has one of its own
            own = copy.copy(model)
            own.model = copy.deepcopy(model.model)
        each = _integrals(_Lines(own, [rows[i] for i in some], [places[i] for i in some], baseline_id))
        found.update(zip(some, each, strict=True))

    copies = MOST_BYTES // (4 * max(1, model.parameters)) if device().type == "cpu" else 1
    threads = max(1, min(torch.get_num_threads(), copies))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    parts = [part for k in range(threads) if (part := order[k::threads])]
    with merged_layers(model.model):
        in_parallel(work, parts, len(parts) > 1)
    return [found[i] for i in range(len(rows))]


def _integrals(lines: _Lines) -> list[Integral]:
    rows = lines.rows
    edges = [k / STRETCHES for k in range(STRETCHES + 1)]
    asked = [Stretch(row, *ends) for row in range(len(rows)) for ends in pairwise(edges)]
    done: list[list[Measured]] = [[] for _ in rows]
    for left in reversed(range(HALVINGS + 1)):
        for each in lines.measure(asked):
            done[each.stretch.row].append(each)
        if left == 0 or not asked:
            break
        unfinished = sorted({stretch.row for stretch in asked})
        asked = []
        for row in unfinished:
            rough = lines.rough(row, done[row])
            done[row] = [each for each in done[row] if each.stretch not in rough]
            asked += [half for stretch in rough for half in stretch.halves()]
    return [
        Integral(
            torch.stack([each.values for each in of_row]).sum(0).tolist(),
            lines.scores[row, 1.0],
            lines.scores[row, 0.0],
        )
        for row, of_row in enumerate(done)
    ]


class _Lines:
    """The lines of rows, and the scores at the points of them that were asked for."""

    def __init__(
        self,
        model: RewardModel,
        rows: Sequence[dict[str, list[int]]],
        places: Sequence[Sequence[int]],
        baseline_id: int,
    ) -> None:
        self.model, self.rows, self.places, self.baseline_id = model, rows, places, baseline_id
        self.scores: dict[tuple[int, float], float] = {}
        begins = [min(at, default=len(row["input_ids"]) - 1) for row, at in zip(rows, places, strict=True)]
        fixed = not isinstance(model, GivenClassifier) and has_full_attention(backbone(model.model))
        self.begins = begins if fixed and min(begins, default=0) > 0 else [0] * len(rows)
        """From where on each row goes through the model at every point; what is before is the same at all of them."""
        dtype = getattr(backbone(model.model), "dtype", torch.float32)
        self.rounding = ROUNDING * torch.finfo(dtype).eps

    def rough(self, row: int, measured: Sequence[Measured]) -> list[Stretch]:
        """The stretches of a row that are to be halved; none where all of them together miss little enough."""
        allowed = MOST_ERROR * abs(self.scores[row, 1.0] - self.scores[row, 0.0])
        if sum(each.gap for each in measured) <= allowed or len(measured) >= MOST_STRETCHES:
            return []
        found, kept = [], 0.0
        for gap, stretch, _ in sorted(measured, key=lambda each: each.gap):
            kept += gap
            largest = max(abs(self.scores[row, t]) for t in stretch[1:])
            if kept > allowed / 2 and gap > self.rounding * largest:
                found.append(stretch)
        return found

    def measure(self, stretches: Sequence[Stretch]) -> Iterator[Measured]:
        """What each stretch adds up to, and what that misses."""
        try:
            from captum.attr import IntegratedGradients
        except ModuleNotFoundError as error:
            raise PrefzooError(
                "method: 'gradients' needs Captum: pip install 'prefzoo[explain]'; without it, ablation"
            ) from error
        ends = sorted({(row, t) for row, *both in stretches for t in both} - self.scores.keys())
        for batch in self._batches([row for row, _ in ends]):
            part = _Part(self, [ends[k][0] for k in batch])
            found = part.scores(part.at([ends[k][1] for k in batch]))
            self.scores |= dict(zip([ends[k] for k in batch], found.tolist(), strict=True))
        for batch in self._batches([stretch.row for stretch in stretches], POINTS):
            some = [stretches[k] for k in batch]
            part = _Part(self, [row for row, _, _ in some])
            begin, end = (part.at([stretch[k] for stretch in some]) for k in (1, 2))
            values = IntegratedGradients(part.scores).attribute(
                end,
                begin,
                n_steps=POINTS,
                method="gausslegendre",
                internal_batch_size=len(some) * max(1, PASS_TOKENS // part.tokens),
            )
            for stretch, of_row in zip(some, part.by_place(values.double().sum(-1)), strict=True):
                gap = abs(float(of_row.sum()) - (self.scores[stretch[0], stretch[2]] - self.scores[stretch[:2]]))
                yield Measured(gap, stretch, of_row)

    def _batches(self, rows: Sequence[int], points: int = 1) -> list[list[int]]:
        """Which of so many rows, each at so many `points`, go through the model together, those of like length."""
        lengths = [len(self.rows[row]["input_ids"]) for row in rows]
        batches: list[list[int]] = []
        for k in sorted(range(len(rows)), key=lambda k: (lengths[k], rows[k])):
            most = 1 if self.model.batch_size == 1 else max(1, PASS_TOKENS // (points * lengths[k]))
            if batches and len(batches[-1]) < most:
                batches[-1].append(k)
            else:
                batches.append([k])
        return batches


class _Part:
    """Some lines that go through the model together: what is before them is computed once."""

    def __init__(self, lines: _Lines, which: Sequence[int]) -> None:
        self.model, self.which, self.lines = lines.model, which, lines
        self.inner: Any = backbone(self.model.model)
        self.embedding: nn.Module = self.inner.get_input_embeddings()
        self.begins = [lines.begins[row] for row in which]
        self.padded = dict(
            self.model.padded(
                [
                    {name: ids[begin:] for name, ids in lines.rows[row].items()}
                    for row, begin in zip(which, self.begins, strict=True)
                ]
            )
        )
        ids = self.padded["input_ids"]  # (B, T)
        self.tokens = ids.numel()
        self.first = self.padded["attention_mask"].argmax(1).tolist()  # where padding on the left ends
        baseline_ids = ids.clone()
        for k, row in enumerate(which):
            baseline_ids[k, self._columns(k, row)] = lines.baseline_id
        with torch.no_grad():
            self.end, self.begin = self.embedding(ids), self.embedding(baseline_ids)  # (B, T, H)
            self.known = self._read_beginnings() if min(self.begins) > 0 else None

    def _columns(self, k: int, row: int) -> list[int]:
        return [place - self.begins[k] + self.first[k] for place in self.lines.places[row]]

    def _read_beginnings(self) -> tuple[Any, Tensor, Tensor]:
        """Keys and values of different rows' beginnings, their mask, and which of them is each line's."""
        distinct = sorted(set(self.which))
        padded = self.model.padded(
            [{"input_ids": self.lines.rows[row]["input_ids"][: self.lines.begins[row]]} for row in distinct]
        )
        order = torch.tensor([distinct.index(row) for row in self.which], device=self.end.device)
        return self.inner(**padded, use_cache=True).past_key_values, padded["attention_mask"], order

    def at(self, points: Sequence[float]) -> Tensor:
        """The embeddings at a point of each line, (B, T, H)."""
        along = torch.tensor(points, dtype=self.end.dtype, device=self.end.device)[:, None, None]
        return torch.lerp(self.begin, self.end, along)

    def scores(self, embedded: Tensor) -> Tensor:
        """The scores at points of the lines, (N * B,), by their embeddings, (N * B, T, H)."""
        times = len(embedded) // len(self.which)
        padded = {name: value.repeat(times, 1) for name, value in self.padded.items()}
        with torch.set_grad_enabled(embedded.requires_grad), contextlib.ExitStack() as stack:
            stack.enter_context(_embedded_as(self.embedding, embedded))
            if self.known is not None:
                cache, mask, order = self.known
                cache, order = copy.deepcopy(cache), order.repeat(times)
                cache.batch_select_indices(order)
                stack.enter_context(_continuing(self.inner, cache, mask[order]))
            return self.model.forward(**padded)

    def by_place(self, values: Tensor) -> list[Tensor]:
        """Values by column, (B, T), as those by place of each row."""
        found = []
        for k, row in enumerate(self.which):
            of_row = torch.zeros(len(self.lines.rows[row]["input_ids"]), dtype=values.dtype)
            of_row[list(self.lines.places[row])] = values[k, self._columns(k, row)].cpu()
            found.append(of_row)
        return found


@contextlib.contextmanager
def _embedded_as(embedding: nn.Module, output: Tensor) -> Iterator[None]:
    """Within this block the embedding layer gives `output`, whatever it is asked."""
    handle = embedding.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _continuing(inner: Any, cache: Any, mask: Tensor) -> Iterator[None]:
    """Within this block the backbone reads its tokens behind those whose keys and values are in a cache, once.

    Args:
        mask: which of the cache's places are tokens, (B, P).
    """
    plain = inner.forward

    def forward(input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        return plain(
            input_ids=input_ids,
            attention_mask=torch.cat([mask, attention_mask], 1),
            position_ids=mask.sum(1, keepdim=True) + torch.arange(input_ids.shape[1], device=mask.device),
            past_key_values=cache,
            use_cache=True,
        )

    with replaced_forward(inner, forward):
        yield
