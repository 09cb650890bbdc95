"""Prompts that are not independent of each other, such as near-duplicates, are analysed as one.

What is estimated is a mean over groups of prompts, in which each group counts once, however many prompts of it were
drawn: a table of (seeds x prompts) becomes one of the means of groups (seeds x groups), and the analysis of variance
sees groups where it saw prompts. A mean over prompts with errors clustered by group would let one large family make
the number, and its error, from G clusters that differ much in size, is known too badly (Cameron and Miller 2015,
Journal of Human Resources 50:317, VI.B; measured in docs/calibration.md).

Groups are an array with the number of each prompt's group, from 0 on, or None where every prompt is its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

Groups = np.ndarray | None


def number_groups(names: Sequence[Hashable | None]) -> Groups:
    """Return the groups of prompts, from each one's name of its group; one of None is alone."""
    numbers: dict[object, int] = {}
    groups = [numbers.setdefault(i if name is None else (name,), len(numbers)) for i, name in enumerate(names)]
    return np.array(groups) if len(numbers) < len(groups) else None


def group_means(table: np.ndarray, groups: Groups) -> np.ndarray:
    """Average a (.. x prompts) table within groups: (.. x groups). A table of one column is a number for the whole, and
    stays as it is."""
    if groups is None or table.shape[-1] == 1:
        return table
    sizes = np.bincount(groups)
    sums = np.add.reduceat(table[..., np.argsort(groups, kind="stable")], np.cumsum(sizes) - sizes, axis=-1)
    return np.asarray(sums / sizes)
