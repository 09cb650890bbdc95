"""The audit stage: measure one of the recipe's judges on held-out pairs."""

from __future__ import annotations

import random
from pathlib import Path

from prefzoo.data import splits
from prefzoo.data.row_views import distinct_pairs
from prefzoo.errors import PrefzooError
from prefzoo.judges.judge_audit import AUDIT_FILE
from prefzoo.judges.judge_audit_measures import audit as audit_judge
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.stages.recipe_inputs import gold_function, judge_of
from prefzoo.types import Progress


def audit(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Audit one of the recipe's judges on held-out pairs, as many as its `audit_pairs` says.

    Raises:
        PrefzooError: when there are none.
    """
    recipe = plan.recipe
    settings = {"judge": recipe.judge, "final judge": recipe.final_judge}[str(stage.label)]
    assert settings is not None
    test = splits.load_split(plan.stages[plan.rows_name].folder, "test")
    pairs = distinct_pairs(test)
    sample = random.Random("audit").sample(pairs, min(settings.audit_pairs, len(pairs)))
    progress("asking the judge", 0, 1)
    judge = judge_of(plan, settings, progress=progress)
    result = audit_judge(judge, sample, gold_function(recipe), labelled=recipe.data.label_with != "judge")
    if result is None:
        raise PrefzooError(f"of {len(test)} test rows, not one is a pair of replies of which one is known to be better")
    (folder / AUDIT_FILE).write_text(result.model_dump_json(indent=1), encoding="utf-8")
