"""What a comparison computes from tables of seeds by prompts."""

from prefzoo.results.statistics.aggregates import interquartile_mean, probability_of_improvement, wins
from prefzoo.results.statistics.bradley_terry import ratings
from prefzoo.results.statistics.estimates import ALPHA, Estimate, effect_size, estimate
from prefzoo.results.statistics.multiple_testing import holm, verdict
from prefzoo.results.statistics.power import POWER, Design, Pilot
from prefzoo.results.statistics.unvaried import difference, share, sign_test, unvaried

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
