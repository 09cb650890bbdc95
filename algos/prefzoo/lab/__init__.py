"""The lab: a small world in which a small model is fluent and every reply has an exact gold reward.

A shop's help desk: a fact sheet and a customer's question make a prompt, a clerk replies. See ``scoring`` for the gold
rule, ``annotators`` for how preferences are labelled, ``tasks`` for judging, critiquing and rewriting, and ``build``
for how the bundled model in ``MODEL_DIR`` was made.
"""

from __future__ import annotations

from pathlib import Path

from prefzoo.lab.gold_reward import ATTRIBUTES, breakdown, gold
from prefzoo.lab.lab_rows import demonstrations, preferences, prompts

MODEL_DIR: Path = Path(__file__).parent / "model"

__all__ = ["ATTRIBUTES", "MODEL_DIR", "breakdown", "demonstrations", "gold", "preferences", "prompts"]
