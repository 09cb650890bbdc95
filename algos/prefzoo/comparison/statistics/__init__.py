"""What a comparison computes from tables of seeds by prompts."""

from prefzoo.comparison.statistics.aggregates import interquartile_mean, probability_of_improvement, wins
from prefzoo.comparison.statistics.corrections import holm, verdict
from prefzoo.comparison.statistics.estimates import ALPHA, Estimate, effect_size, estimate
from prefzoo.comparison.statistics.power import POWER, Design, Pilot
from prefzoo.comparison.statistics.ratings import ratings
from prefzoo.comparison.statistics.unseen import difference, share, sign_test, unvaried

__all__ = [
    "ALPHA",
    "POWER",
    "Design",
    "Estimate",
    "Pilot",
    "difference",
    "effect_size",
    "estimate",
    "holm",
    "interquartile_mean",
    "probability_of_improvement",
    "ratings",
    "share",
    "sign_test",
    "unvaried",
    "verdict",
    "wins",
]
