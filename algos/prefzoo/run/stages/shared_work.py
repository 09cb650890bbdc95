"""Work that several trials of a comparison have in common is done by the first, and read by the others.

That is what an untouched start replies to the same prompts with the same seed, what a model in this process judges of
the same pairs, and how likely the reference finds their replies. A trial's ledger is charged in full as if it had done
all itself, because algorithms are compared by what they cost, and not by what the comparison saved; what was saved is
in the trial's report under `reused`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from prefzoo.interface import Bench, Policy
from prefzoo.judges.judge import Judge
from prefzoo.ledger import CHARGES, Ledger
from prefzoo.models.adapters import of_adapter
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.run.cache import fingerprint, versions
from prefzoo.run.stages.time_and_memory import peak_memory
from prefzoo.types import Completion, Prompt

KEPT = "kept"
"""Folder of a comparison in which such results lie."""


class KeptWork:
    """See `prefzoo.interface.Reuse`. Several processes may use one folder; a killed one leaves nothing half done.

    Args:
        folder: where results lie, each in a file named after a hash of everything that it depends on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def samples(
        self, bench: Bench, policy: Policy, prompts: Sequence[Prompt], n: int, seed: int
    ) -> list[list[Completion]]:
        """Replies of a policy, kept where it is the untouched start.

        The weights in memory are part of the key, so that a policy that was trained in place is never mistaken for the
        start that it was loaded from. The generator of random numbers is left as it was, read or sampled.
        """

        def draw(ledger: Ledger) -> list[list[Completion]]:
            return policy.sample(prompts, bench.generation, seed, n=n, ledger=ledger, progress=bench.progress)

        if type(policy) is not LanguageModelPolicy or policy.adapted or policy.start != bench.start:
            return draw(bench.ledger)

        def compute() -> dict[str, Any]:
            ledger = Ledger()
            replies = [[[c.text, c.token_ids, c.finished] for c in each] for each in draw(ledger)]
            return {"replies": replies, "charges": {name: getattr(ledger, name) for name in CHARGES}}

        key = {
            "weights": _weights(policy.model),
            "loading": policy.loading,
            "prompts": [policy.render(prompt) for prompt in prompts],
            "ends": policy.eos_ids,
            "generation": bench.generation.model_dump(),
            "n": n,
            "seed": seed,
        }
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            found, reused = self._once(bench, "samples", key, compute)
        for name in CHARGES:
            setattr(bench.ledger, name, getattr(bench.ledger, name) + found["charges"][name])
        if reused:
            _note(bench, "generated_tokens", found["charges"]["generated_tokens"])
        return [[Completion(text, tuple(ids), finished) for text, ids, finished in each] for each in found["replies"]]

    def preferences(
        self,
        bench: Bench,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None,
    ) -> list[float]:
        """A judge's answers, kept where it is a model in this process: a coin's next toss depends on all before it, a
        server's answers are kept already, and of a judge that is not described nothing is known.

        Kept beside them is what the judge had counted by then, which is the same for every judge that had counted the
        same before.
        """
        judge = bench.judge
        assert judge is not None
        if not isinstance(judge, Judge) or judge.spec is None or judge.spec["settings"]["type"] != "local":
            return judge(prompts, first, second, questions)
        settings = judge.spec["settings"]
        files = (settings["path"] or judge.spec["model"], settings["prompt"], settings["grading_prompt"])

        def compute() -> dict[str, Any]:
            answers = judge(prompts, first, second, questions)
            return {"answers": answers, "state": judge.state()}

        key = {
            "judge": {name: value for name, value in judge.spec.items() if name not in ("cache", "seed")},
            "files": [fingerprint(path) for path in files],
            "state": judge.state(),
            "asked": [prompts, first, second, questions],
        }
        found, reused = self._once(bench, "judgements", key, compute)
        if reused:
            _note(bench, "judge_calls", found["state"]["asked"]["questions"] - judge.counts.questions)
            judge.restore(found["state"])
        return list(found["answers"])

    def reference(
        self, bench: Bench, model: torch.nn.Module, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What `compute` finds with a model whose adapter is off: numbers, and in `tokens` how many passed through it.

        Args:
            bench: of the trial, which charges the tokens itself.
            model: all of its weights but an adapter's are part of the key.
            key: what else the numbers depend on, plain values.
            compute: finds them; called where they are not there.
        """
        found, reused = self._once(bench, "references", {**key, "weights": _weights(model)}, compute)
        if reused:
            _note(bench, "forward_tokens", found["tokens"])
        return found

    def _once(
        self, bench: Bench, kind: str, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> tuple[dict[str, Any], bool]:
        """What `compute` gives, and whether another call computed it; the time and memory that it took there are
        charged here."""
        began = time.perf_counter()
        text = json.dumps({**key, "versions": versions()}, sort_keys=True)
        path = self.folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(path, lambda: bench.progress(f"waiting for another trial's {kind}", 0, 1)):
            reused = path.is_file()
            if not reused:
                memory, start = peak_memory(), time.perf_counter()
                made = {"found": compute(), "seconds": time.perf_counter() - start}
                made["memory_bytes"] = peak_memory() - memory
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(made), encoding="utf-8")
                os.replace(partial, path)
            kept = json.loads(path.read_text(encoding="utf-8"))  # computed or not, of the same types
        if reused:
            bench.ledger.seconds += kept["seconds"] - (time.perf_counter() - began)
            peak = peak_memory() + kept["memory_bytes"]
            bench.ledger.peak_memory_bytes = max(bench.ledger.peak_memory_bytes, peak)
            _note(bench, "seconds", kept["seconds"])
        return kept["found"], reused


@contextlib.contextmanager
def _alone(path: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Nobody else is here for the same `path` meanwhile; `waits` is called if somebody is at first. A process that is
    killed lets go."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waits()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _note(bench: Bench, what: str, amount: float) -> None:
    noted = bench.report.setdefault("reused", {})
    noted[what] = noted.get(what, 0) + amount


def _weights(model: torch.nn.Module) -> str:
    """A hash of all that a model's state holds, an adapter left out, the constants of quantization included."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if of_adapter(name):
            continue
        tensor = value.detach().reshape(-1).cpu()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
