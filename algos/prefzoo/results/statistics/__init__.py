"""Statistics of (seeds x prompts) tables, where prompts come in groups of (seeds x groups)."""

from prefzoo.results.statistics.bootstrap import interquartile_mean, probability_of_improvement, wins
from prefzoo.results.statistics.bradley_terry import bradley_terry_ratings
from prefzoo.results.statistics.hypothesis_tests import (
    all_differ_alike,
    effect_size,
    holm,
    paired_difference,
    proportion,
    score_interval,
    sign_test,
    verdict,
)
from prefzoo.results.statistics.label_plan import LabelPlan
from prefzoo.results.statistics.power import POWER, Design, Pilot
from prefzoo.results.statistics.prediction_powered import PredictionPowered, prediction_powered
from prefzoo.results.statistics.prompt_groups import Groups, group_means, number_groups
from prefzoo.results.statistics.two_way_anova import ALPHA, SKEWED, Estimate, estimate, widened

__all__ = [
    "ALPHA",
    "POWER",
    "SKEWED",
    "Design",
    "Estimate",
    "Groups",
    "LabelPlan",
    "Pilot",
    "PredictionPowered",
    "all_differ_alike",
    "bradley_terry_ratings",
    "effect_size",
    "estimate",
    "group_means",
    "holm",
    "interquartile_mean",
    "number_groups",
    "paired_difference",
    "prediction_powered",
    "probability_of_improvement",
    "proportion",
    "score_interval",
    "sign_test",
    "verdict",
    "widened",
    "wins",
]
