"""The stage that audits the recipe's judge."""

from __future__ import annotations

import random
from pathlib import Path

from prefzoo.comparison.plan import Plan, Stage
from prefzoo.comparison.stages.given import gold_function
from prefzoo.comparison.stages.judging import judge_of
from prefzoo.data import sealed
from prefzoo.errors import PrefzooError
from prefzoo.feedback.judges import audit as audits
from prefzoo.interface import Progress


def audit(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Audit the recipe's judge on held-out pairs, as many as `judge.audit_pairs` says.

    Raises:
        PrefzooError: when there are none.
    """
    recipe = plan.recipe
    test = sealed.load_split(plan.stages[plan.rows_name].folder, "test")
    pairs = [row for row in test if row.chosen is not None and row.rejected is not None]
    drawn = random.Random("audit").sample(pairs, min(recipe.judge.audit_pairs, len(pairs)))
    progress("asking the judge", 0, 1)
    found = audits.audit(
        judge_of(recipe, recipe.judge), drawn, gold_function(recipe), labelled=recipe.data.label_with != "judge"
    )
    if found is None:
        raise PrefzooError(f"of {len(test)} test rows, not one is a pair of replies of which one is known to be better")
    (folder / audits.AUDIT_FILE).write_text(found.model_dump_json(indent=1), encoding="utf-8")
