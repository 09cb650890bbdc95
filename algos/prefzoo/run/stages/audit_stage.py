"""The stages that audit the recipe's judges."""

from __future__ import annotations

import random
from pathlib import Path

from prefzoo.data import splits
from prefzoo.data.row_views import once_each
from prefzoo.errors import PrefzooError
from prefzoo.judges.judge_audit import AUDIT_FILE
from prefzoo.judges.judge_audit_measures import audit as audit_judge
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.stages.judge_for_stage import judge_of
from prefzoo.run.stages.recipe_inputs import gold_function
from prefzoo.types import Progress


def audit(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Audit one of the recipe's judges on held-out pairs, as many as its `audit_pairs` says.

    Raises:
        PrefzooError: when there are none.
    """
    recipe = plan.recipe
    assert stage.label is not None
    judge = {"judge": recipe.judge, "final judge": recipe.final_judge}[stage.label]
    assert judge is not None
    test = splits.load_split(plan.stages[plan.rows_name].folder, "test")
    pairs = once_each(test)
    drawn = random.Random("audit").sample(pairs, min(judge.audit_pairs, len(pairs)))
    progress("asking the judge", 0, 1)
    asked = judge_of(plan, judge, progress=progress)
    found = audit_judge(asked, drawn, gold_function(recipe), labelled=recipe.data.label_with != "judge")
    if found is None:
        raise PrefzooError(f"of {len(test)} test rows, not one is a pair of replies of which one is known to be better")
    (folder / AUDIT_FILE).write_text(found.model_dump_json(indent=1), encoding="utf-8")
