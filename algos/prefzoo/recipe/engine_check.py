"""What samples: which engine `auto` is, and what a recipe asks of vLLM that it cannot do or that is not here."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefzoo.machine import may_have_gpu
from prefzoo.models.vllm_server import RANKS
from prefzoo.recipe.model_check import judge_blocks, trainer_blocks
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.settings import VllmServer

SAY_TRANSFORMERS = "Say generation.engine: transformers, or"


def with_engine(recipe: Recipe) -> Recipe:
    """This recipe with the engine that `auto` is here; see `Generation`."""
    if recipe.generation.engine != "auto":
        return recipe
    server = recipe.generation.vllm
    at_hand = may_have_gpu() and (find_spec("vllm") is not None or server.python or server.url)
    asked = _with(recipe, engine="vllm")
    usual = recipe.adapter.type == "lora"  # whole models are handed over by requests that need no key
    if at_hand and usual and not vllm_problems(asked):
        return asked
    return _with(recipe, engine="transformers", vllm=VllmServer())


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"generation": recipe.generation.model_copy(update=changes)})


def vllm_problems(recipe: Recipe) -> list[str]:
    """What vLLM cannot do of a recipe that asks for it, or what of it is not installed."""
    if recipe.generation.engine != "vllm":
        return []
    return [*_server_problems(recipe), *_policy_problems(recipe)]


def _server_problems(recipe: Recipe) -> list[str]:
    server, problems = recipe.generation.vllm, []
    if server.url is None and server.python is None and find_spec("vllm") is None:
        problems.append(
            "generation.engine: 'vllm' needs vllm, which is not installed here. Say generation.vllm.python: the "
            "interpreter of an environment that has it, or generation.vllm.url: a server (docs/sampling-engines.md)"
        )
    if server.python is not None and (lacks := lacks_vllm(str(Path(server.python).expanduser()))) is not None:
        problems.append(f"generation.vllm.python: {server.python!r} {lacks}")
    if server.url is None:
        return problems
    if recipe.adapter.type == "full":
        problems.append(
            "generation.vllm.url: whole models (adapter.type: 'full') would take the place of the weights that this "
            "server has. Allowed: generation.vllm.python, which starts one for the comparison alone"
        )
    if recipe.start.algorithm != "none":
        problems.append(
            "generation.vllm.url: a running server holds the model that it was started with, and the start of this "
            f"comparison is made by it (start: {recipe.start.algorithm}). Say start: none, or generation.vllm.python"
        )
    return problems + [
        f"{key}.path: {judge.path!r} is not what the server in generation.vllm.url holds, which the judge's answers "
        "(verdict: generated) would be sampled from. Allowed: null, or generation.vllm.python in the place of url"
        for key, judge in judge_blocks(recipe).items()
        if judge.type == "local" and judge.verdict == "generated" and judge.path not in (None, recipe.model.path)
    ]


@lru_cache(maxsize=8)
def lacks_vllm(python: str) -> str | None:
    """Why an interpreter cannot run vLLM; None where it has it. Nothing of vLLM is imported."""
    if not (Path(python).is_file() and os.access(python, os.X_OK)):
        return "is no interpreter; it is a file such as /path/to/env/bin/python"
    asked = "import importlib.util as u, sys; sys.exit(0 if u.find_spec('vllm') else 3)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        code = subprocess.run([python, "-c", asked], env=environment, capture_output=True, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    if code == 0:
        return None
    return "has no vllm: install it there" if code == 3 else f"is no Python interpreter: it ended with exit code {code}"


def _policy_problems(recipe: Recipe) -> list[str]:
    """vLLM serves one model in full precision, and plain LoRA adapters on it."""
    adapter, cannot = recipe.adapter, []
    if adapter.type == "qlora":
        cannot.append("adapter.type: 'qlora' would need the quantized base in vLLM; allowed: lora, full")
    cannot += [
        f"adapter.{name}: vLLM does not read such adapters; allowed: {allowed}"
        for name, allowed in (("use_dora", "false"), ("modules_to_save", "[]"))
        if getattr(adapter, name)
    ]
    if adapter.type == "lora" and adapter.r > RANKS[-1]:
        cannot.append(f"adapter.r: {adapter.r}, and vLLM takes adapters of rank {RANKS[-1]} at most")
    if recipe.model.trust_remote_code:
        cannot.append("model.trust_remote_code: true, and vLLM is given no code of a model's own; allowed: false")
    for label, algorithm in recipe.sound_algorithms.items():
        learner = algorithm.build_learner() if hasattr(algorithm, "build_learner") else algorithm
        if not (algorithm.plain_sampling and learner.plain_sampling):
            cannot.append(
                f"algorithms.{label}: it samples from more than a language model (Q-values beside it), which vLLM does "
                "not serve"
            )
    cannot += [
        f"{key}.use_vllm: true is TRL's own vLLM, beside generation.engine: vllm; leave it out"
        for key, block in trainer_blocks(recipe).items()
        if block.get("use_vllm") is True
    ]
    return [f"{problem}. {SAY_TRANSFORMERS} change this" for problem in cannot]


def trl_vllm_problems(recipe: Recipe) -> list[str]:
    """TRL's own vLLM samples within the trainer's process and hands weights over on a GPU."""
    keys = [key for key, block in trainer_blocks(recipe).items() if block.get("use_vllm") is True]
    if find_spec("vllm") is None:
        lacks = "the package vllm, which is not installed here"
    elif not may_have_gpu():
        lacks = "a GPU, and there is none here"
    else:
        return []
    else_say = "Or say generation.engine: vllm, which samples everything"
    return [f"{key}.use_vllm: true needs {lacks}. {else_say}" for key in keys]
