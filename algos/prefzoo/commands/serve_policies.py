"""Serve the policies of a finished comparison, or of a plain model folder."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefzoo import registry
from prefzoo.commands.sample_policies import choose_policy
from prefzoo.errors import PrefzooError, os_errors_told, unknown
from prefzoo.machine import is_loopback
from prefzoo.models.policy_kinds import POLICY_FILE, load_policy
from prefzoo.report.canary_section import FEEDBACK, note_feedback_file
from prefzoo.run.stage_graph import PLAN_FILE, START, Plan, load_plan
from prefzoo.run.subprocesses import quiet
from prefzoo.serving.traffic import Canary
from prefzoo.settings import Generation

TOKEN = "PREFZOO_SERVE_TOKEN"
"""The environment variable that holds the token of a server; else one is drawn."""
PLAIN_LENGTH = 512
"""Tokens of a reply of a model folder that says nothing of them."""


@dataclass(frozen=True)
class Servable:
    """A policy that can be served, and is not yet loaded.

    Attributes:
        name: in the server.
        folder: of the policy, as it was saved; None for the start of a comparison.
        generation: how it was measured.
        load: loads it.
        start: gives the folder of the comparison's start, and how it is read.
    """

    name: str
    folder: Path | None
    generation: Generation
    load: Callable[[], Any]
    start: Callable[[], tuple[str, dict[str, Any]]]


@os_errors_told("serving")
def serve(
    folder: Path,
    labels: Sequence[str] = (),
    canary: str | None = None,
    seed: int | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    feedback: Path | None = None,
    engine: str = "transformers",
    vllm_python: str | None = None,
    run_code: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        folder: of a comparison, of a saved policy or of a plain model.
        labels: which policies; the first is what the chat page talks to. None: all that finished.
        canary: `LABEL=SHARE`: a second policy, which answers that share of the conversations.
        seed: of the trials; None is the first.
        host, port: where; on any host but loopback a token is asked for.
        feedback: the file that feedback goes to; in the folder of the comparison by default.
        engine: `transformers`, or `vllm`.
        vllm_python: the interpreter of an environment with vllm; None is that of the run's recipe, or this one's.
        run_code: whether code may run that the folder names (`load_policy`).
        say: is told where the server is.

    Raises:
        PrefzooError: before anything is loaded, when something is not there or cannot be served.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise PrefzooError("prefzoo serve needs FastAPI and uvicorn: pip install 'prefzoo[people]'") from None
    from prefzoo.feedback.store import FeedbackStore
    from prefzoo.serving.openai_routes import LIVE, serving_app
    from prefzoo.serving.page_routes import add_page
    from prefzoo.serving.run_server import address_of, listen, run
    from prefzoo.serving.traffic import Traffic

    second = read_canary(canary)
    policies = find_policies(folder, labels, second, seed, run_code)
    if LIVE in (policy.name for policy in policies):
        raise PrefzooError(f"a policy named {LIVE!r} cannot be served: it is the name of what the chat page talks to")
    token = None if is_loopback(host) else os.environ.get(TOKEN) or secrets.token_urlsafe(24)
    listener = listen(host, port)
    path = feedback or _feedback_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    store = FeedbackStore(path)
    if (folder / PLAN_FILE).is_file():
        note_feedback_file(folder, path)
    traffic = Traffic(path, policies[0].name, second)
    quiet()
    running = _engine(engine, policies, vllm_python)
    app = serving_app(running, traffic, token)
    add_page(app, running, traffic, store, "Chat")
    address = address_of(listener)
    split = f", {second.policy} in {second.share:.0%} of the conversations" if second is not None else ""
    say(f"{LIVE} is {traffic.main}{split}; also served: {', '.join(running.policies)}")
    say(f"Chat page: {address}/{'' if token is None else f'?token={token}'}")
    say(f"OpenAI API: {address}/v1{'' if token is None else f' with the API key {token}'}")
    say(f"Feedback: {path}")
    run(app, running, listener)


def read_canary(text: str | None) -> Canary | None:
    """`LABEL=SHARE` as it is given on the command line."""
    if text is None:
        return None
    label, _, share = text.rpartition("=")
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not label or not 0 < number < 1:
        raise PrefzooError(f"--canary {text}: give LABEL=SHARE with a share between 0 and 1, such as dpo=0.1")
    return Canary(label, number)


def find_policies(
    folder: Path, labels: Sequence[str], canary: Canary | None, seed: int | None, run_code: bool
) -> list[Servable]:
    """The policies to be served, that of the canary last; nothing is loaded."""
    if not (folder / PLAN_FILE).is_file() and any((folder / f).is_file() for f in (POLICY_FILE, "config.json")):
        return [_of_folder(folder, labels, canary, run_code)]
    plan = load_plan(folder).with_lengths() if (folder / PLAN_FILE).is_file() else None
    wanted = list(dict.fromkeys(labels))
    if not wanted and plan is not None:
        of_seed = plan.recipe.seeds[0] if seed is None else seed
        finished = {s.label for s in plan.stages.values() if s.kind == "train" and s.seed == of_seed and s.done}
        kinds = {label: _kind(plan.stages[f"train {label} seed {of_seed}"].folder / "policy") for label in finished}
        wanted = [label for label in plan.recipe.algorithms if label in finished and _why_not(kinds[label]) is None]
        wanted.append(START)
    if canary is not None:
        if wanted[:1] == [canary.policy]:
            raise PrefzooError(f"--canary {canary.policy}: is the policy itself; name another one")
        wanted = [*wanted, *([canary.policy] if canary.policy not in wanted else [])]
    chosen = [choose_policy(folder, label, seed) for label in wanted or [START]]
    servable = []
    for each in chosen:
        place = each.stage.folder / "policy" if each.label != START else None
        if place is not None and (why := _why_not(_kind(place))):
            raise PrefzooError(f"{each.label} {why}")
        load, start = partial(each.load, run_code), partial(_start_of, each.plan)
        servable.append(Servable(each.label, place, each.plan.recipe.generation, load, start))
    return servable


def _start_of(plan: Plan) -> tuple[str, dict[str, Any]]:
    from prefzoo.run.stages.recipe_inputs import loading
    from prefzoo.run.stages.start_stage import start_path

    return start_path(plan), loading(plan.recipe, plan.recipe.adapter)


def _of_folder(folder: Path, labels: Sequence[str], canary: Canary | None, run_code: bool) -> Servable:
    name = folder.resolve().name
    if canary is not None:
        raise PrefzooError(f"--canary {canary.policy}: {folder} is one model; a run has several policies")
    if any(label != name for label in labels):
        raise PrefzooError(unknown("policy", next(label for label in labels if label != name), [name]))
    saved = (folder / POLICY_FILE).is_file()
    if saved and (why := _why_not(_kind(folder))):
        raise PrefzooError(f"{folder} {why}")

    def load() -> Any:
        from prefzoo.models.language_model import LanguageModelPolicy

        if saved:
            return load_policy(folder, run_code)
        return LanguageModelPolicy.from_start(str(folder.resolve()), trust_remote_code=run_code)

    return Servable(name, folder, _generation_of(folder), load, lambda: (str(folder.resolve()), {}))


def _generation_of(folder: Path) -> Generation:
    """How a model folder says that it samples, as `prefzoo export` writes it."""
    file = folder / "generation_config.json"
    try:
        said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise PrefzooError(f"{file} is no JSON: {error}") from None
    heat = 0.0 if said.get("do_sample") is False else said.get("temperature") or 1.0
    return Generation(max_new_tokens=said.get("max_new_tokens") or PLAIN_LENGTH, temperature=heat)


def _kind(folder: Path) -> str:
    return str(json.loads((folder / POLICY_FILE).read_text(encoding="utf-8"))["kind"])


def _why_not(kind: str) -> str | None:
    """Why a policy of this kind cannot be served; None where it can, or where loading it will show."""
    if kind in registry.BUILT_IN_POLICIES and kind not in ("adapter", "model"):
        return (
            f"is not one model but a way of sampling ({kind}), which has no likelihood of its own to serve; serve what "
            "it is made of, or one that was distilled from it"
        )
    return None


def _feedback_file(folder: Path) -> Path:
    if (folder / PLAN_FILE).is_file():
        return folder / FEEDBACK
    return Path("runs") / folder.resolve().name / FEEDBACK


def _engine(engine: str, policies: Sequence[Servable], vllm_python: str | None = None) -> Any:
    generation = {each.name: each.generation for each in policies}
    if engine == "vllm":
        from prefzoo.serving.vllm_engine import start_vllm, vllm_policies

        served = vllm_policies({each.name: each.folder for each in policies}, *policies[0].start())
        return start_vllm(served, generation, vllm_python or policies[0].generation.vllm.python)
    from prefzoo.models import shared_base
    from prefzoo.models.language_model import LanguageModelPolicy
    from prefzoo.serving.local_engine import LocalEngine

    if len(policies) == 1:
        policy = policies[0].load()
        # The base of one policy alone may change; in 4 bits a sum would be rounded, so that those stay as they are.
        if isinstance(policy, LanguageModelPolicy) and not policy.loading.get("quantization"):
            policy = policy.merged()
        loaded = {policies[0].name: policy}
    else:
        with shared_base.shared():
            loaded = {each.name: each.load() for each in policies}
    for name, policy in loaded.items():
        if getattr(type(policy), "sample", None) is not LanguageModelPolicy.sample:
            raise PrefzooError(f"{name} samples in a way of its own ({type(policy).__name__}) and cannot be served")
    return LocalEngine(loaded, generation)
