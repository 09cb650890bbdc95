"""What prompts that all show the same leave open.

Where nothing varies, mean squares know no error; but that n prompts show the same does not say that every prompt would.
At the level of our intervals, of all prompts at most a share of 1 - (ALPHA / 2)^(1 / n) does otherwise (Clopper and
Pearson 1934, Biometrika 26:404, for n of n; nearly the rule of three). Those may be as far on the other side, as far as
anybody knows: such an interval of a difference excludes 0 from six prompts on, exactly where the sign test has a
p-value below 5%, which is 2^(1 - n) when all n differ in one direction.

Replies of several seeds to one prompt are no further prompts: seeds that agree are counted once.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prefzoo.results.statistics.estimates import ALPHA, Estimate, estimate


def unseen(n: int) -> float:
    """The largest share of prompts that do otherwise when n of n do the same."""
    return float(1 - (ALPHA / 2) ** (1 / n))


def sign_test(n: int) -> float:
    """The two-sided p-value of n differences in one direction."""
    return 2.0 ** (1 - n)


def difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """a minus b, paired by seed and prompt; both (seeds x prompts).

    It is what `estimate` says, unless all differences are equal and not 0, or prompts too few for the sign test ever to
    call a difference. Then the interval is not narrower, nor the p-value smaller, than so many prompts allow.
    """
    differences = a - b
    found = estimate(differences)
    n, prompts = effective(differences), differences.shape[1]
    few = prompts > 1 and sign_test(prompts) >= ALPHA
    if differences.size == 1 or not differences.any() or not (few or unvaried(a, b)):
        return found
    half = max(found.high - found.mean, 2 * unseen(n) * abs(found.mean))
    return replace(found, low=found.mean - half, high=found.mean + half, p=max(found.p, sign_test(n)))


def unvaried(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether all differences are equal, up to rounding."""
    rounding = 1e-12 * float(max(np.abs(a).max(), np.abs(b).max()))
    return bool(np.ptp(a - b) <= rounding)


def share(found: Estimate, table: np.ndarray) -> Estimate:
    """An estimate of a share, from a table of values from 0 to 1: where all are 0, or all 1, its interval is that of
    Clopper and Pearson."""
    if table.size == 1 or not (np.all(table == 0) or np.all(table == 1)):
        return found
    left = unseen(effective(table))
    return replace(found, low=0.0, high=left) if found.mean < 0.5 else replace(found, low=1 - left, high=1.0)


def effective(table: np.ndarray) -> int:
    """How many prompts a (seeds x prompts) table has; of one prompt, how many seeds."""
    seeds, prompts = table.shape
    return int(prompts if prompts > 1 else seeds)
