"""Intervals of shares."""

from __future__ import annotations

from scipy import stats


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share (Wilson 1927)."""
    z = float(stats.norm.ppf(0.975))
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    # The share lies within; at 0 and 1 rounding would leave it outside by a hair, which no error bar can be drawn of.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
