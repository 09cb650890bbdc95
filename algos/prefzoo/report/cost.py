"""What each policy took, and what each algorithm itself reports, as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prefzoo.results.results_schema import Results
from prefzoo.trainers.departures import SAMPLING, TRAININGS

Cells = tuple[list[str], list[list[str]]]
"""Headings, and rows of as many cells."""

COLUMNS = {
    "prompts": "prompts",
    "trained_tokens": "trained tokens",
    "forward_tokens": "forward only",
    "sampled_tokens": "sampled in training",
    "inference_tokens": "sampled to answer",
    "reward_calls": "reward calls",
    "judge_calls": "judge calls",
    "flops": "FLOPs",
    "training_seconds": "seconds to train",
    "answering_seconds": "seconds to answer",
    "peak_memory_bytes": "peak memory",
}
LEGEND = (
    "A row for each policy holds the mean of its trials (of the peak memory, the largest): what training and answering "
    "the test prompts took. What is made once all trials share; a policy with reward calls rests on the reward's row "
    "too. A prompt counts each time that replies to it are sampled or a row with it is learned from. Tokens trained on "
    "include those of the prompts; forward only passed those of prompts to sample from, of references, old "
    "log-probabilities and values. FLOPs are counted as 2 a weight and token forward, 2 more back through every weight "
    "and 2 for the gradient of each that is trained (Kaplan et al. 2020), of the frozen base, the adapter, references, "
    "rewards and judges alike. A trial that reads what another one has sampled or judged is charged as if it had done "
    "so itself. What measuring costs is in no row. "
)
FACTS = 60
"""Rows of one algorithm's own facts that a page shows."""


def cost_cells(results: Results) -> Cells:
    """The compute ledger: a row for each label with a result, then for each shared stage that cost anything; columns of
    nothing but zeros are left out."""
    used = {
        label: mean_ledger([_split(s.ledger, s.training) for s in each.seeds.values()])
        for label, each in results.algorithms.items()
        if each.seeds
    }
    used |= {
        f"{name}, made once": _split(ledger, ledger) for name, ledger in results.shared.items() if any(ledger.values())
    }
    columns = [c for c in COLUMNS if any(ledger.get(c) for ledger in used.values())]
    rows = [[name, *[charge(c, ledger.get(c, 0)) for c in columns]] for name, ledger in used.items()]
    return ["policy", *[COLUMNS[c] for c in columns]], rows


ELSEWHERE = ("principles", "transcripts", TRAININGS, SAMPLING)
"""Facts that a section of their own shows, or a note where they depart from the recipe."""


def detail_cells(results: Results) -> dict[str, Cells]:
    """What each algorithm reported by itself: label -> a row for each fact, a column for each seed; labels that
    reported nothing are left out."""
    found = {}
    for label, each in results.algorithms.items():
        flat = {
            seed: dict(_flat({key: fact for key, fact in trial.details.items() if key not in ELSEWHERE}))
            for seed, trial in each.seeds.items()
        }
        names = list(dict.fromkeys(name for facts in flat.values() for name in facts))
        rows = [[name, *[flat[seed].get(name, "-") for seed in flat]] for name in names[:FACTS]]
        if len(names) > FACTS:
            rows.append([f"{len(names) - FACTS} more in results.json", *["" for _ in flat]])
        if rows:
            found[label] = (["fact", *[f"seed {seed}" for seed in flat]], rows)
    return found


def _split(ledger: Mapping[str, float], training: Mapping[str, float]) -> dict[str, float]:
    """A ledger with the tokens and the seconds of training, or of making something, apart from those of answering."""
    seconds = training.get("seconds", 0.0)
    return {
        **ledger,
        "sampled_tokens": ledger["generated_tokens"] - ledger["inference_tokens"],
        "training_seconds": seconds,
        "answering_seconds": ledger["seconds"] - seconds,
    }


def cost_words(results: Results) -> str:
    """How to read the table of costs."""
    at_a_time = ", then ".join(map(str, results.workers))
    beside = f"stages that ran {at_a_time} at a time" if at_a_time else "stages that may have run side by side"
    return (
        f"{LEGEND}Seconds are by the clock, of {beside} on one machine, and hold what each took from the others and "
        "what else the machine did: the same training may well take twice as long beside others. Compare algorithms by "
        "FLOPs and tokens, or by seconds of a comparison that ran with --workers 1."
    )


def mean_ledger(ledgers: list[dict[str, float]]) -> dict[str, float]:
    """The mean of several trials' ledgers; of the peak memory, the largest."""
    total = {name: sum(each[name] for each in ledgers) / len(ledgers) for name in ledgers[0]}
    return {**total, "peak_memory_bytes": max(each["peak_memory_bytes"] for each in ledgers)}


def charge(name: str, value: float) -> str:
    """An entry of a ledger in words."""
    from matplotlib.ticker import EngFormatter

    if name == "flops":
        return EngFormatter(places=1)(value) if value else "0"
    if name.endswith("seconds"):
        return f"{value:,.1f}"
    if name == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB"
    return f"{value:,.0f}"


def _flat(details: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as pairs of a dotted name and a short text; items of a list are counted from 1."""
    if isinstance(details, Mapping):
        items = [(str(key), value) for key, value in details.items()]
    elif isinstance(details, list):
        items = [(str(i), value) for i, value in enumerate(details, 1)]
    else:
        yield name, f"{details:.4g}" if isinstance(details, float) else str(details)
        return
    for key, value in items:
        yield from _flat(value, f"{name}.{key}" if name else key)
