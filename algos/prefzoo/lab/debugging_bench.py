"""A bench in the lab, to try an algorithm by hand within seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefzoo.data.row_views import views_of
from prefzoo.interface import Bench
from prefzoo.lab.gold_reward import gold
from prefzoo.lab.lab_source import labelled_rows
from prefzoo.settings import Adapter, Budget, Generation, Training
from prefzoo.types import Prompt


class GoldReward:
    """The lab's gold reward as a reward to learn from."""

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        return [gold(prompt[-1]["content"], text) for prompt, text in zip(prompts, completions, strict=True)]

    def spec(self, folder: Path) -> dict[str, Any]:
        return {"type": "function", "path": f"{__file__}:gold_scores"}


gold_scores = GoldReward()


class GoldJudge:
    """Prefers the reply with the higher gold reward; grades are gold scaled to 0 to 10."""

    def __init__(self) -> None:
        self.questions = 0

    def __call__(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> list[float]:
        self.questions += len(prompts)
        scores = zip(gold_scores(prompts, first), gold_scores(prompts, second), strict=True)
        return [0.5 if one == other else float(one > other) for one, other in scores]

    def grade(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float | None]:
        self.questions += len(prompts)
        return [min(10.0, max(0.0, 5.0 + 5.0 * score / 3.0)) for score in gold_scores(prompts, completions)]

    def report(self) -> dict[str, Any]:
        return {"questions": self.questions}


def bench(rows: int = 32, seed: int = 0, out: Path | str | None = None, **changes: Any) -> Bench:
    """A bench on the lab's model and rows, small enough for a training of a few seconds on a CPU.

    The reward and the judge are the lab's gold reward, so that what is learned can be seen at once:

        trial = prefzoo.lab.bench(rows=32)
        policy = prefzoo.get("dpo").train(trial)
        replies = trial.sample(policy, trial.data.prompts, n=1, seed=0)
        print(trial.score(trial.data.prompts, [reply[0].text for reply in replies]))

    Args:
        rows: how many training prompts, each with a preference and a demonstration.
        seed: of the rows and of the training.
        out: the trial's folder; a new temporary one by default.
        changes: any field of `Bench` or `Machinery`, such as `adapter=Adapter(type="qlora")`.
    """
    folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="prefzoo-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    small = Bench(
        start=str(Path(__file__).parent / "model"),
        data=views_of(labelled_rows("train", rows, seed)),
        reward=gold_scores,
        judge=GoldJudge(),
        adapter=Adapter(r=4, alpha=8),
        budget=Budget(prompts=rows),
        generation=Generation(max_new_tokens=24),
        training=Training(batch_size=8, learning_rate=1e-3),
        seed=seed,
        out=folder,
    )
    adapter = changes.get("adapter", small.adapter)
    return small.replace(**{"loading": {"dtype": "float32", "quantization": adapter.quantization}, **changes})
