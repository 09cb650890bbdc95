"""The stages of a search: those that all trials share, and one for each trial and seed, made as it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.recipe.tuning_space import tuning_seeds
from prefzoo.run.cache import result_key
from prefzoo.run.stage_graph import START, PlanBuilder, Stage

TUNING_FILE = "tuning.json"
"""What was tried and found, in the folder of a comparison."""
MEASURING = "measuring.json"
"""The part of a trial's ledger that measuring it took, in its folder."""
BASELINE = f"tune {START} seed {{}}"
"""The stage that measures the start on the validation prompts."""
METRICS: Mapping[str, Literal["gold", "win_rate", "reward"]] = {"gold": "gold", "judge": "win_rate", "reward": "reward"}


def metric_of(recipe: Recipe) -> Literal["gold", "win_rate", "reward"]:
    """What trials are scored by."""
    assert recipe.tuning is not None
    if recipe.tuning.objective != "auto":
        return METRICS[recipe.tuning.objective]
    return "win_rate" if recipe.final_judge is not None else "gold" if recipe.gold_source != "none" else "reward"


def trial_prompts(recipe: Recipe) -> int | None:
    """How many training prompts a trial has; None is all there are."""
    assert recipe.tuning is not None
    limits = [limit for limit in (recipe.tuning.budget.prompts, recipe.budget.prompts) if limit is not None]
    return min(limits, default=None)


def trial_recipe(recipe: Recipe, stage: Stage) -> Recipe:
    """The recipe that a trial trains by: its settings and its budget, and no milestones."""
    assert stage.label is not None and stage.settings is not None and recipe.tuning is not None
    epochs = recipe.tuning.budget.epochs or recipe.budget.epochs
    return recipe.model_copy(
        update={
            "algorithms": {stage.label: dict(stage.settings)},
            "budget": recipe.budget.model_copy(update={"prompts": stage.prompts, "epochs": epochs}),
            "evaluation": recipe.evaluation.model_copy(update={"milestones": 0}),
        }
    )


class SearchBuilder(PlanBuilder):
    """Builds the plan of a search, whose data, start, labels and reward are those of the comparison."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        super().__init__(recipe, out)
        self.data()
        self.start()
        if recipe.data.label_with:
            self.labels()
        self.rewards(tuning_seeds(recipe))
        for seed in tuning_seeds(recipe):
            self._add(BASELINE.format(seed), START, seed, {}, ())

    def trial_stage(
        self, label: str, number: int, settings: Mapping[str, Any], seed: int, prompts: int | None = None
    ) -> Stage:
        """Add a stage for a trial with one seed.

        Its key does not depend on the number, so that a trial whose settings come again in another search counts.

        Args:
            settings: the label's, as a recipe writes them.
            prompts: of training, where fewer than `trial_prompts`.
        """
        prompts = trial_prompts(self.recipe) if prompts is None else prompts
        tried = Stage("", "tune", self.plan.out, label=label, settings=settings, prompts=prompts)
        inputs, needs = self.training(trial_recipe(self.recipe, tried), label, seed)
        if self.final_judge is not None:
            needs = (*needs, BASELINE.format(seed))
        stage = self._add(f"tune {label} trial {number} seed {seed}", label, seed, inputs, needs)
        stage = self.plan.stages[stage.name] = replace(stage, settings=settings, prompts=prompts)
        return stage

    def _add(self, name: str, label: str, seed: int, training: Mapping[str, Any], needs: tuple[str, ...]) -> Stage:
        assert self.recipe.tuning is not None
        needs = tuple(dict.fromkeys(("data", START, *needs)))
        if (metric := metric_of(self.recipe)) == "reward":
            needs = tuple(dict.fromkeys((*needs, self.plan.reward_name(seed))))
        measuring = {
            "generation": self.dump["generation"],
            **self.truth,
            "judge": [self.final_judge, self.shared_seed] if self.final_judge is not None else None,
            "metric": metric,
            "prompts": self.recipe.tuning.prompts,
            "seed": seed,
        }
        upstream = [self.keys[need] for need in needs]
        content = {"kind": "tune", "name": label, "inputs": [training, measuring], "upstream": upstream}
        self.keys[name] = result_key(content)
        folder = self.plan.out / "trials" / f"tune-{label}-seed-{seed}-{self.keys[name][:10]}"
        stage = self.plan.stages[name] = Stage(name, "tune", folder, needs, label=label, seed=seed)
        return stage
