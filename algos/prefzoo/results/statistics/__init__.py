"""Statistics of (seeds x prompts) tables."""

from prefzoo.results.statistics.bootstrap import interquartile_mean, probability_of_improvement, wins
from prefzoo.results.statistics.bradley_terry import bradley_terry_ratings
from prefzoo.results.statistics.hypothesis_tests import (
    all_differ_alike,
    effect_size,
    holm,
    paired_difference,
    proportion,
    sign_test,
    verdict,
)
from prefzoo.results.statistics.power import POWER, Design, Pilot
from prefzoo.results.statistics.two_way_anova import ALPHA, Estimate, estimate

__all__ = [
    "ALPHA",
    "POWER",
    "Design",
    "Estimate",
    "Pilot",
    "all_differ_alike",
    "bradley_terry_ratings",
    "effect_size",
    "estimate",
    "holm",
    "interquartile_mean",
    "paired_difference",
    "probability_of_improvement",
    "proportion",
    "sign_test",
    "verdict",
    "wins",
]
