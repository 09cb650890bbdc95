"""A negative control."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefzoo.types import Prompt


class RandomReward:
    """A negative control: noise that depends on the text and the seed, and on nothing that could be learned."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        return [self._noise(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]

    def _noise(self, prompt: Prompt, text: str) -> float:
        digest = hashlib.sha256(repr((self.seed, [turn["content"] for turn in prompt], text)).encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def spec(self, folder: Path) -> dict[str, Any]:
        return {"type": "random", "seed": self.seed}
