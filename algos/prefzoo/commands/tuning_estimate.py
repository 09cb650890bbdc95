"""What tuning adds to the stages of a comparison, for an estimate of what all will take."""

from __future__ import annotations

from dataclasses import replace

from prefzoo.recipe.tuning_space import UNTUNED, tuned
from prefzoo.run.stage_graph import Plan, Stage, make_plan
from prefzoo.run.tuning_graph import trial_prompts
from prefzoo.run.tuning_search import Search

TUNING_ROW = "tuning {}, made once"


def with_tuning(plan: Plan, train: int, validation: int) -> Plan:
    """The plan with stages in the place of the trials that are still to come, and of the settings as written that are
    compared with what they find; of a search that is done, the plan of what it found.

    A trial is a training and a measuring, which cost what those of the comparison do in proportion to `prompts`. Labels
    that get the same FLOPs or seconds are taken to have `trials` trials; the cheap ones have more.

    Args:
        train: training prompts of the comparison.
        validation: prompts in the validation split.
    """
    recipe, tuning = plan.recipe, plan.recipe.tuning
    if tuning is None:
        return plan
    search = Search(recipe, plan.out)
    search.replay()
    if search.complete:
        return replace(make_plan(tuned(recipe, search.winners()), plan.out), written=recipe.algorithms)
    epochs = (tuning.budget.epochs or recipe.budget.epochs) / recipe.budget.epochs
    trained = round(min(train, trial_prompts(recipe) or train) * epochs)
    stages = dict(plan.stages)

    def add(name: str, like: Stage, label: str, prompts: int | None, needs: tuple[str, ...]) -> None:
        stages[name] = replace(
            like, name=name, folder=plan.out / "estimate" / name, label=label, seed=None, prompts=prompts, needs=needs
        )

    for label, each in search.labels.items():
        training, measuring = (plan.stages[f"{kind} {label} seed {recipe.seeds[0]}"] for kind in ("train", "evaluate"))
        before = training.needs
        for number in range(each.told, each.most):
            for seed in search.seeds:
                name = f"trial {number} of {label}, seed {seed}"
                add(name, training, label, trained, before)
                add(f"measuring {name}", measuring, label, min(tuning.prompts, validation), (name,))
            before = training.needs if number + 1 < each.free else (f"measuring {name}",)
        for seed in recipe.seeds:
            name = f"train {UNTUNED.format(label)} seed {seed}"
            add(name, training, label, None, training.needs)
            add(f"evaluate {UNTUNED.format(label)} seed {seed}", measuring, label, None, (name,))
    return replace(plan, stages=stages)
