"""Work that several trials of a comparison have in common: the first trial does it, and the others read the result.

It is the untouched start's replies to the same prompts with the same seed, a local judge's answers about the same
pairs, and the reference's log-probabilities. Each trial's ledger is charged in full, because algorithms are compared by
their cost without the others; what a trial saved is in its report under `reused`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from prefzoo.atomic_files import write_whole
from prefzoo.interface import Bench, Policy
from prefzoo.judges.judge import Judge
from prefzoo.ledger import CHARGES, Ledger
from prefzoo.models.adapters import of_adapter
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.run.cache import fingerprint, result_key
from prefzoo.run.host_lock import HostLock
from prefzoo.run.resources import peak_memory
from prefzoo.trainers.recipe_deviations import SAMPLING
from prefzoo.types import Completion, Prompt

SHARED_WORK = "kept"
"""Folder of a comparison in which such results lie."""


class SharedWork:
    """See `prefzoo.interface.Reuse`. Several processes may use one folder; a killed one leaves nothing half done.

    Args:
        folder: of the results, each in a file named after a hash of all that it depends on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def samples(
        self, bench: Bench, policy: Policy, prompts: Sequence[Prompt], n: int, seed: int
    ) -> list[list[Completion]]:
        """Replies of a policy; they are shared where it is the untouched start.

        The weights in memory are part of the key, so that a policy that was trained in place is never mistaken for the
        start that it was loaded from. The state of the random number generator stays the same in either case.
        """

        def draw(ledger: Ledger) -> list[list[Completion]]:
            return policy.sample(prompts, bench.generation, seed, n=n, ledger=ledger, progress=bench.progress)

        if type(policy) is not LanguageModelPolicy or policy.adapted or policy.start != bench.start:
            return draw(bench.ledger)

        def compute() -> dict[str, Any]:
            ledger = Ledger()
            replies = [[[c.text, c.token_ids, c.finished] for c in samples] for samples in draw(ledger)]
            charges = {name: getattr(ledger, name) for name in CHARGES}
            return {"replies": replies, "charges": charges, "sampling": bench.report.get(SAMPLING, [])}

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
            result, reused = self._once(bench, "samples", key, compute)
        for name in CHARGES:
            setattr(bench.ledger, name, getattr(bench.ledger, name) + result["charges"][name])
        if reused:
            _count_saved(bench, "generated_tokens", result["charges"]["generated_tokens"])
            for facts in result.get("sampling", []):  # they were drawn so, by whichever process
                if facts not in bench.report.setdefault(SAMPLING, []):
                    bench.report[SAMPLING].append(facts)
        return [[Completion(text, tuple(ids), end) for text, ids, end in samples] for samples in result["replies"]]

    def preferences(
        self,
        bench: Bench,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None,
    ) -> list[float]:
        """A judge's answers; they are shared where it is a model in this process. A coin's next toss depends on all
        before it, a server's answers are kept already, and of a judge without a description nothing is known.

        The judge's counts are kept with them, and its counts before are part of the key.
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
        result, reused = self._once(bench, "judgements", key, compute)
        if reused:
            _count_saved(bench, "judge_calls", result["state"]["asked"]["questions"] - judge.counts.questions)
            judge.restore(result["state"])
        return list(result["answers"])

    def reference(
        self, bench: Bench, model: torch.nn.Module, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The result of `compute` with a model whose adapter is off: numbers, and in `tokens` how many it read.

        Args:
            bench: of the trial, which charges the tokens itself.
            model: all of its weights but an adapter's are part of the key.
            key: the plain values that the numbers depend on, too.
            compute: is called where no trial has computed them.
        """
        result, reused = self._once(bench, "references", {**key, "weights": _weights(model)}, compute)
        if reused:
            _count_saved(bench, "forward_tokens", result["tokens"])
        return result

    def _once(
        self, bench: Bench, kind: str, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> tuple[dict[str, Any], bool]:
        """The result of `compute`, and True if an earlier call computed it. Its time and memory are charged in either
        case."""
        began = time.perf_counter()
        path = self.folder / f"{kind}-{result_key(key)[:20]}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = HostLock(path.with_suffix(".lock"))  # a kill lets go of it
        with lock.held(patient=True, waits=lambda: bench.progress(f"waiting for another trial's {kind}", 0, 1)):
            reused = path.is_file()
            if not reused:
                memory, start = peak_memory(), time.perf_counter()
                content = {"found": compute(), "seconds": time.perf_counter() - start}
                content["memory_bytes"] = peak_memory() - memory
                write_whole(path, json.dumps(content))
            record = json.loads(path.read_text(encoding="utf-8"))  # computed or not, of the same types
        if reused:
            bench.ledger.seconds += record["seconds"] - (time.perf_counter() - began)
            peak = peak_memory() + record["memory_bytes"]
            bench.ledger.peak_memory_bytes = max(bench.ledger.peak_memory_bytes, peak)
            _count_saved(bench, "seconds", record["seconds"])
        return record["found"], reused


def _count_saved(bench: Bench, charge: str, amount: float) -> None:
    reused = bench.report.setdefault("reused", {})
    reused[charge] = reused.get(charge, 0) + amount


def _weights(model: torch.nn.Module) -> str:
    """A hash of a model's state without adapters; it includes the constants of quantization."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if of_adapter(name):
            continue
        tensor = value.detach().reshape(-1).cpu()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
