"""Prompts that differ, but hardly: of one split against another, and in families among the test prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefzoo.atomic_files import text_sha256
from prefzoo.data.formats import Row
from prefzoo.data.words import words
from prefzoo.types import Prompt
from prefzoo.views import prompt_key

NEAR = 0.8
"""Two prompts are near-duplicates when their sets of three-word sequences have at least this Jaccard index."""
TEMPLATE_PROMPTS, TEMPLATE_SHARE = 50, 0.5
"""A sequence that stands in at least so many of the examined prompts, and in more than this share of them, is part of a
template, and says nothing of how alike two prompts are."""
SAMPLE = 2000
"""As many prompts are looked at for a template."""
BANDS, BAND = 12, 5
"""Of the hashes of a prompt: 12 bands of 5. Two prompts at the threshold share a band with probability 0.99."""
NEIGHBOURS = 16
"""As many of the prompts that share a band with one are compared with it, those with the likest hashes first."""
LIKELY = 0.65
"""Two prompts are compared in full when at least this share of their hashes is the same."""
MOST_MISSES = 8
"""So often may a prompt turn out not to be near another one; then likely pairs of two such prompts are left out."""
TOGETHER = 4096
"""Prompts, or pairs of them, that are computed at a time."""
SHOWN = 5


@dataclass(frozen=True)
class NearDuplicates:
    """What was found.

    Attributes:
        by_split: `count`, prompts that are near to a training prompt (within `train`: to an earlier one), `prompts`,
            how many there are, and `examples`: `[id, training id, text, training text]`.
        families: the key (see `prompt_key`) of each test prompt -> the keys of its family, in their order: it, the test
            prompts near it, those near these, and so on.
    """

    by_split: dict[str, dict[str, Any]]
    families: dict[str, list[str]]


def near_duplicates(splits: Mapping[str, Sequence[Row]]) -> NearDuplicates:
    """Find near-duplicates of `test` and `validation` in `train`, within `train`, and families within `test`.

    Candidates share a band of their MinHash signatures (Broder 1997; locality-sensitive hashing); each is compared in
    full, so that none is counted wrongly. For each prompt the number of candidates is limited, so that the time grows
    with the number of prompts and not with its square; where very many prompts are alike, but not near, some that are
    near may be missed.
    """
    names = ("train", "validation", "test")
    distinct = {
        name: list({prompt_key(row.prompt): row for row in reversed(splits[name])}.values())[::-1] for name in names
    }
    rows = [row for name in names for row in distinct[name]]
    split = np.repeat(np.arange(3), [len(distinct[name]) for name in names])
    nearest, roots = _search([row.prompt for row in rows], split)
    by_split = {}
    for number, name in enumerate(names):
        near = [int(i) for i in np.flatnonzero((split == number) & (nearest < len(rows)))]
        pairs = [(rows[i], rows[nearest[i]]) for i in near[:SHOWN]]
        examples = [[row.id, other.id, _text(row), _text(other)] for row, other in pairs]
        by_split[name] = {"count": len(near), "prompts": len(distinct[name]), "examples": examples}
    families: dict[int, list[str]] = {}
    keys = {int(i): prompt_key(rows[i].prompt) for i in np.flatnonzero(split == 2)}
    for i, key in keys.items():
        families.setdefault(int(roots[i]), []).append(key)
    return NearDuplicates(by_split, {key: families[int(roots[i])] for i, key in keys.items()})


def with_test_groups(rows: Sequence[Row], families: Mapping[str, Sequence[str]]) -> list[Row]:
    """Test rows, each with a group: the data's, that of a near-duplicate which has one, else one a family."""
    given = {prompt_key(row.prompt): row.group for row in rows if row.group is not None}
    grouped = []
    for row in rows:
        key = prompt_key(row.prompt)
        of_family = min((given[other] for other in families[key] if other in given), default=None)
        group = given.get(key) or of_family or text_sha256(min(families[key]))[:12]
        grouped.append(replace(row, group=group))
    return grouped


def _search(prompts: Sequence[Prompt], split: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each prompt the first training prompt that it is near (the number of prompts where there is none), and the
    root of its family among test prompts.

    Args:
        prompts: distinct, those of `train` first.
        split: of each, 0 for `train`, 2 for `test`.
    """
    count = len(prompts)
    nearest, roots = np.full(count, count), np.arange(count)
    misses = np.zeros(count, np.int64)
    sets, starts = _shingles(prompts)
    signatures = _signatures(sets, starts)
    weights = _odd(BAND)
    bands = [signatures[:, k * BAND : (k + 1) * BAND].astype(np.uint64) @ weights for k in range(BANDS)]
    for k in range(BANDS):
        # Within a band, prompts that share the next ones too stand side by side.
        order = np.lexsort([bands[(k + step) % BANDS] for step in (3, 2, 1, 0)])
        for distance in range(1, min(NEIGHBOURS, count - 1) + 1):
            ends = np.stack([order[:-distance], order[distance:]])
            ends = np.sort(ends[:, bands[k][ends[0]] == bands[k][ends[1]]], axis=0)
            first, second = ends[:, _open(ends, split, nearest, roots, misses)]
            alike = _alike(signatures, first, second)
            for i, j in zip(first[alike].tolist(), second[alike].tolist(), strict=True):
                if not _open(np.array([[i], [j]]), split, nearest, roots, misses)[0]:
                    continue
                if _jaccard(sets[starts[i] : starts[i + 1]], sets[starts[j] : starts[j + 1]]) < NEAR:
                    misses[[i, j]] += 1
                elif split[i] == 0:
                    nearest[j] = i
                else:
                    roots[roots == roots[j]] = roots[i]
    return nearest, roots


def _open(
    ends: NDArray[np.int64],
    split: NDArray[np.int64],
    nearest: NDArray[np.int64],
    roots: NDArray[np.int64],
    misses: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Of which pairs (the lower number first) it would be news that they are near."""
    first, second = ends
    leak = (split[first] == 0) & (first < nearest[second])
    family = (split[first] == 2) & (split[second] == 2) & (roots[first] != roots[second])
    return (leak | family) & (np.minimum(misses[first], misses[second]) < MOST_MISSES)


def _shingles(prompts: Sequence[Prompt]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The hashed three-word sequences of all prompts, sorted within each, one prompt after the other, and where each
    prompt's begin. Those of a template are left out, but for a prompt that has no others."""
    sets = [_shingles_of(prompt) for prompt in prompts]
    sample = sets[:: max(1, len(sets) // SAMPLE)]
    if sets and len(sample) >= TEMPLATE_PROMPTS:
        values, counts = np.unique(np.concatenate(sample), return_counts=True)
        common = values[counts >= max(TEMPLATE_PROMPTS, TEMPLATE_SHARE * len(sample))]
        if len(common):
            for i, own in enumerate(sets):
                rest = own[common[np.searchsorted(common, own).clip(max=len(common) - 1)] != own]
                sets[i] = rest if len(rest) else own
    starts = np.cumsum([0, *map(len, sets)])
    return np.concatenate([*sets, np.empty(0, np.uint32)]), starts


def _shingles_of(prompt: Prompt) -> NDArray[np.uint32]:
    said = words(" ".join(turn["content"] for turn in prompt).lower())
    hashed = np.fromiter(map(_word_hash, said), np.uint64, len(said))
    hashed = np.concatenate([hashed, np.zeros(max(0, 3 - len(said)), np.uint64)])
    first, second, third = _odd(3)
    mixed = hashed[:-2] * first + hashed[1:-1] * second + hashed[2:] * third
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "little")


@lru_cache
def _odd(count: int) -> NDArray[np.uint64]:
    """Odd numbers to hash with, always the same."""
    return np.random.default_rng(count).integers(0, 1 << 63, count, np.uint64) * np.uint64(2) + np.uint64(1)


def _signatures(sets: NDArray[np.uint32], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """MinHash signatures, a row for each prompt."""
    signatures = np.empty((len(starts) - 1, BANDS * BAND), np.uint32)
    multipliers = _odd(BANDS * BAND)
    for begin in range(0, len(signatures), TOGETHER):
        end = min(begin + TOGETHER, len(signatures))
        hashed = sets[starts[begin] : starts[end]].astype(np.uint64)
        for p, multiplier in enumerate(multipliers):
            mixed = (hashed * multiplier >> np.uint64(32)).astype(np.uint32)
            signatures[begin:end, p] = np.minimum.reduceat(mixed, starts[begin:end] - starts[begin])
    return signatures


def _alike(signatures: NDArray[np.uint32], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of which pairs at least the share `LIKELY` of the hashes is the same."""
    alike = np.empty(len(first), np.bool_)
    for begin in range(0, len(first), TOGETHER):
        part = slice(begin, begin + TOGETHER)
        alike[part] = (signatures[first[part]] == signatures[second[part]]).mean(axis=1) >= LIKELY
    return alike


def _jaccard(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> float:
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def _text(row: Row) -> str:
    return " ".join(" ".join(turn["content"] for turn in row.prompt).split())[:300]
