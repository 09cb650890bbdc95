"""Algorithms that a user's own script defines, in the processes in which they train."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

from prefzoo import registry
from prefzoo.interface import Algorithm, Bench

SCRIPT = '''
from __future__ import annotations

import enum
import sys
from dataclasses import dataclass
from typing import Annotated, Literal, Optional

import pydantic
import prefzoo


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


@prefzoo.register("mine")
@dataclass(frozen=True)
class Mine(prefzoo.Algorithm):
    """Tells what it was given."""

    kind: Literal["a", "b"] = "a"
    size: Annotated[int | None, pydantic.Field(ge=1)] = 3
    level: Optional[Level] = None

    def train(self, bench: prefzoo.Bench) -> prefzoo.Policy:
        raise RuntimeError(f"given {self.kind} {self.size} {self.level}")


results = prefzoo.compare(
    {
        "extends": "base",
        "start": "none",
        "reward": {"type": "random"},
        "tracking": {"wandb": {"mode": "disabled"}},
        "budget": {"prompts": 8},
        "evaluation": {"prompts": 8},
        "generation": {"max_new_tokens": 8},
        "algorithms": {"mine": {"kind": "b", "level": "high"}},
    },
    seeds=1,
    out=sys.argv[1],
)
'''


@pytest.mark.slow
def test_postponed_annotations_of_a_script_are_known_where_it_trains(tmp_path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(path), str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mine = json.loads((tmp_path / "out" / "results.json").read_text())["algorithms"]["mine"]
    # It came as far as its own train(), with its hyper-parameters read as they are annotated.
    assert "RuntimeError: given b 3 Level.HIGH" in mine["error"]


def test_an_annotation_that_means_nothing_is_told_when_the_class_is_registered() -> None:
    before = registry.registered()

    @dataclass(frozen=True)
    class Mine(Algorithm):
        """With a hyper-parameter of an unknown type."""

        fine: int | None = 3
        size: Missing = 3  # type: ignore[name-defined]  # noqa: F821

        def train(self, bench: Bench):
            raise NotImplementedError

    with pytest.raises(ValueError, match="algorithm 'mine': the annotation of 'size', Missing, means nothing"):
        registry.register("mine")(Mine)
    assert registry.registered() == before
