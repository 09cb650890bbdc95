"""Ask the trained policies of a comparison."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prefzoo.data.prompt_context import PromptContext
from prefzoo.errors import PrefzooError, os_errors_told, unknown
from prefzoo.interface import Policy
from prefzoo.models.policy_kinds import load_policy
from prefzoo.run.stage_graph import PLAN_FILE, START, Plan, Stage, load_plan
from prefzoo.run.subprocesses import quiet
from prefzoo.stored_code import allowing, check_code
from prefzoo.types import Prompt


@dataclass(frozen=True)
class Chosen:
    """A policy of a comparison that is there, and not yet loaded.

    Attributes:
        stage: the stage that made it.
    """

    plan: Plan
    label: str
    seed: int
    stage: Stage

    def load(self, run_code: bool = False) -> Policy:
        """Load it, which imports torch; `run_code`: whether code may run that the folder names (`load_policy`).

        Raises:
            PrefzooError: when it names code that may not run.
        """
        from prefzoo.run.stages.start_stage import start_path, start_policy

        if self.label != START:
            return load_policy(self.stage.folder / "policy", run_code)
        with allowing(None) if run_code else contextlib.nullcontext():
            check_code(self.plan.recipe.model.model_dump(), self.plan.out)
        return start_policy(self.plan.recipe, start_path(self.plan))


def choose_policy(folder: Path, label: str, seed: int | None = None) -> Chosen:
    """Find the trained policy of a label, or the start, without loading anything.

    Args:
        folder: of a comparison.
        label: of the policy.
        seed: of its trial; None is the first.

    Raises:
        PrefzooError: when the comparison has no such label or seed, that trial did not finish, or the folder holds a
            merged report.
    """
    plan = _plan(folder)
    labels = (START, *plan.recipe.algorithms)
    if label not in labels:
        raise PrefzooError(unknown("policy", label, labels))
    seeds = plan.recipe.seeds
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise PrefzooError(f"seed {seed} was not run; there are {', '.join(map(str, seeds))}")
    stage = plan.stages[START if label == START else f"train {label} seed {seed}"]
    if not stage.done:
        unfinished = "the start" if label == START else f"{label}, seed {seed}: the trial"
        raise PrefzooError(f"{unfinished} did not finish")
    return Chosen(plan, label, seed, stage)


def open_policy(folder: Path, label: str, seed: int | None = None, run_code: bool = False) -> Policy:
    """The trained policy of a label, or the start. Raises PrefzooError like `choose_policy` and `Chosen.load`."""
    return choose_policy(folder, label, seed).load(run_code)


@os_errors_told("sampling")
def answer(
    folder: Path,
    prompt: str | Prompt,
    seed: int | None = None,
    temperature: float = 0.0,
    labels: Iterable[str] | None = None,
    run_code: bool = False,
) -> dict[str, str]:
    """The answer of each policy of a comparison to a prompt; `labels` keeps some, `run_code` is as in `Chosen.load`.

    Passages are put before it as before those of the comparison, whatever their length. A policy with an adapter is
    merged first, so that the answer is that of the exported model.
    """
    plan = _plan(folder)
    generation = plan.recipe.generation.model_copy(update={"temperature": temperature, "engine": "transformers"})
    messages: Prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if (context := plan.recipe.context) is not None:
        messages = PromptContext.of(context).around(messages)
    of_seed = plan.recipe.seeds[0] if seed is None else seed
    finished = {s.label: None for s in plan.stages.values() if s.kind == "train" and s.seed == of_seed and s.done}
    names = labels if labels is not None else [START, *map(str, finished)]
    chosen = [choose_policy(folder, label, seed) for label in names]
    quiet()
    answers = {}
    for each in chosen:
        policy = each.load(run_code)
        policy = policy.merged() if hasattr(policy, "merged") else policy
        answers[each.label] = policy.sample([messages], generation, seed=seed or 0)[0][0].text
    return answers


def _plan(folder: Path) -> Plan:
    if not (folder / PLAN_FILE).is_file():
        from prefzoo.commands.merge_runs import merged_from  # the statistics, which take a while to import

        if runs := merged_from(folder):
            names = ", ".join(map(os.path.normpath, runs))
            raise PrefzooError(
                f"{folder} holds a merged report and no policies; name one of the runs it came from: {names}"
            )
    return load_plan(folder).with_lengths()
