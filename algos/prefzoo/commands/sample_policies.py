"""Ask the trained policies of a comparison."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from prefzoo.commands.merge_runs import merged_from
from prefzoo.errors import PrefzooError, unknown
from prefzoo.interface import Policy
from prefzoo.models.policy_kinds import load_policy
from prefzoo.run.stage_graph import PLAN_FILE, START, Plan, load_plan
from prefzoo.stored_code import allowing, check_code
from prefzoo.types import Prompt


def open_policy(folder: Path, label: str, seed: int | None = None, run_code: bool = False) -> Policy:
    """The trained policy of a label, or the start.

    Args:
        folder: of a comparison.
        label: of the policy.
        seed: of its trial; None is the first.
        run_code: whether code may run that the folder names (`load_policy`).

    Raises:
        PrefzooError: when the comparison has no such label or seed, that trial did not finish, the folder holds a
            merged report, or names code that may not run.
    """
    from prefzoo.run.stages.start_stage import start_path, start_policy

    plan = _plan(folder)
    labels = (START, *plan.recipe.algorithms)
    if label not in labels:
        raise PrefzooError(unknown("policy", label, labels))
    seeds = plan.recipe.seeds
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise PrefzooError(f"seed {seed} was not run; there are {', '.join(map(str, seeds))}")
    if label == START:
        with allowing(None) if run_code else contextlib.nullcontext():
            check_code(plan.recipe.model.model_dump(), folder)
        return start_policy(plan.recipe, start_path(plan))
    stage = plan.stages[f"train {label} seed {seed}"]
    if not stage.done:
        raise PrefzooError(f"{label}, seed {seed}: the trial did not finish")
    return load_policy(stage.folder / "policy", run_code)


def answer(
    folder: Path,
    prompt: str | Prompt,
    seed: int | None = None,
    temperature: float = 0.0,
    labels: Iterable[str] | None = None,
    run_code: bool = False,
) -> dict[str, str]:
    """The answer of each policy of a comparison to a prompt; `labels` keeps some, `run_code` is as in `open_policy`.

    A policy with an adapter is merged first, so that the answer is that of the exported model.
    """
    plan = _plan(folder)
    generation = plan.recipe.generation.model_copy(update={"temperature": temperature})
    messages: Prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    of_seed = plan.recipe.seeds[0] if seed is None else seed
    finished = {s.label: None for s in plan.stages.values() if s.kind == "train" and s.seed == of_seed and s.done}
    answers = {}
    for label in labels if labels is not None else [START, *map(str, finished)]:
        policy = open_policy(folder, label, seed, run_code)
        policy = policy.merged() if hasattr(policy, "merged") else policy
        answers[label] = policy.sample([messages], generation, seed=seed or 0)[0][0].text
    return answers


def _plan(folder: Path) -> Plan:
    if not (folder / PLAN_FILE).is_file() and (runs := merged_from(folder)):
        names = ", ".join(map(os.path.normpath, runs))
        raise PrefzooError(
            f"{folder} holds a merged report and no policies; name one of the runs it came from: {names}"
        )
    return load_plan(folder)
