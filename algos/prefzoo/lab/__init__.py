"""The lab: a small world in which a small model is fluent and every reply has an exact gold reward.

A shop's help desk: a fact sheet and a customer's question make a prompt, a clerk replies. See ``gold_reward`` for the
gold rule, ``simulated_annotators`` for how preferences are labelled, ``tasks`` for judging, critiquing and rewriting,
and ``tools/lab_model`` for how the bundled model in ``MODEL_DIR`` was made. ``bench`` makes a bench to try an algorithm
by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefzoo.lab.gold_reward import ATTRIBUTES, breakdown, gold
from prefzoo.lab.lab_rows import demonstrations, preferences, prompts

MODEL_DIR: Path = Path(__file__).parent / "model"
BILINGUAL_MODEL_DIR: Path = Path(__file__).parent / "bilingual_model"
MODELS = {"lab": MODEL_DIR, "lab_bilingual": BILINGUAL_MODEL_DIR}
"""The bundled models, by the name that a recipe's `path` gives them."""

if TYPE_CHECKING:
    from prefzoo.lab.debugging_bench import bench as bench

__all__ = ["ATTRIBUTES", "MODEL_DIR", "bench", "breakdown", "demonstrations", "gold", "preferences", "prompts"]


def __getattr__(name: str) -> Any:
    if name == "bench":  # imported on first use: it needs the data's formats, which import this package
        from prefzoo.lab.debugging_bench import bench

        return bench
    raise AttributeError(f"module 'prefzoo.lab' has no attribute {name!r}")
