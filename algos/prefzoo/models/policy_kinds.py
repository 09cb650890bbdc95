"""How a policy is told apart on disk by its kind, loaded, and given a KL by what it can do; imports no torch."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefzoo import registry
from prefzoo.errors import PrefzooError
from prefzoo.interface import HasKL, HasLogProbabilities, Policy
from prefzoo.stored_code import allowing, check_code
from prefzoo.types import Completion, Prompt

POLICY_FILE = "policy.json"
"""Holds the kind of the policy in its folder, the place of its start, and what its class adds."""
EXTRA = "extra_modules"
"""Attribute of a model in training: the names of the modules that were put on it beside the adapter."""


def write_policy_file(folder: Path, kind: str, start: str, **more: Any) -> None:
    """Write `policy.json`. A start on this disk is written relative to `folder`, so that a run can be moved whole.

    Args:
        folder: of the policy; made if need be.
        kind: as `prefzoo.register_policy` knows it.
        start: folder or hub id of the start policy.
        more: plain values that the kind's `load` needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    local = Path(start).is_dir()
    place = os.path.relpath(Path(start).resolve(), folder.resolve()) if local else start
    content = {"kind": kind, "start": place, "start_is_relative": local, **more}
    (folder / POLICY_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def load_policy(folder: Path | str, run_code: bool = False) -> Policy:
    """Load a policy that `save` wrote.

    Args:
        folder: holds `policy.json`.
        run_code: whether code may run that the folder names, of its model or of a reward's function. Within a stage of
            a comparison that of its recipe may run in any case.

    Raises:
        FileNotFoundError: when `folder` holds no policy.
        PrefzooError: when its kind is not registered in this process, or it names code that may not run.
    """
    folder = Path(folder)
    content = json.loads((folder / POLICY_FILE).read_text(encoding="utf-8"))
    start = str((folder / content["start"]).resolve()) if content["start_is_relative"] else content["start"]
    try:
        cls: Any = registry.policy_class(content["kind"])
    except PrefzooError as error:
        raise PrefzooError(f"{folder}: {error}") from None
    with allowing(None) if run_code else contextlib.nullcontext():
        check_code(content, folder)
        policy: Policy = cls.load(folder, start, content)
    return policy


def kl_to_start(
    policy: Policy,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    temperature: float,
    start: Callable[[], HasLogProbabilities],
) -> list[float] | None:
    """Return KL(policy || start) of each reply in nats, as well as the policy can tell it.

    Args:
        completions: sampled by `policy` at `temperature`, one to each prompt.
        start: loads the start policy; called only where it is needed.

    Returns:
        What `policy.kl_to_start` gives, where it has that. Else, from `policy.log_probabilities`, the log-ratio of each
        reply: unbiased, with more variance, negative for some replies. None for a policy that has neither.
    """
    if isinstance(policy, HasKL):
        return policy.kl_to_start(prompts, completions, temperature)
    if not isinstance(policy, HasLogProbabilities):
        return None
    own = policy.log_probabilities(prompts, completions, temperature)
    reference = start().log_probabilities(prompts, completions, temperature)
    return [sum(ours) - sum(theirs) for ours, theirs in zip(own, reference, strict=True)]
