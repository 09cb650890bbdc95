"""The card of a bundled model, with measured numbers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from tools.lab_model.measure import SECTIONS, Estimate, Speaker

from prefzoo.lab.lab_rows import demonstrations
from prefzoo.lab.language import Language

SEED = 1000

_HEAD = """\
# Card of the {title} model

A Llama of {parameters:,} parameters ({layers} layers, hidden {hidden}, {vocabulary} byte-level BPE tokens,
{megabytes:.2f} MB of weights in {dtype}), made from {origin} for
Prefzoo's lab:
a shop's help desk in which every reply has an exact gold reward. It is the *start* of comparisons of
preference-optimization algorithms, so its replies are those of an ordinary clerk and mediocre on purpose. It is of no
use outside the lab.

- **Training**: {steps} batches of 64 examples on generated text (dialogues at mixed quality, judging, critiquing,
  rewriting, revising by principle) after drills in reading and checking the fact sheet,
  only with prompts of the split `train`;
  seed {seed}; {minutes:.0f} minutes on two CPU threads of a machine that had other work to do.
{lengths}
- **Format**: `<|user|>...<|end|><|assistant|>...<|end|>`, an optional `<|system|>...<|end|>` in front; no BOS; padding
  is `<|pad|>`, the end of a turn `<|end|>`.

## Measured
On prompts of the split `test`, which training has never seen; seed {measure_seed}; mean ± half-width of the 95%
interval (normal approximation). Gold's best is 3. `python -m tools.lab_model.build --measure-only` measures anew.
"""

_TAIL = """
## Limits
The judge shares the world's grammar with gold: text that no clerk would write is outside what it was trained to judge.
The annotators' bias (they like length and politeness, and forgive errors and pitches; see `annotators.py`) is a
simulation with known parameters, not a claim about people.
"""


def _table(rows: dict[str, Estimate]) -> str:
    lines = [f"| {name} | {e.mean:.3f} | ± {e.margin:.3f} | {e.n} |" for name, e in rows.items()]
    return "\n".join(["| | mean | 95% | n |", "|---|---|---|---|", *lines])


_LENGTHS = """\
- **Lengths** (test split{of_language}): prompt {prompt_mean:.0f} tokens (at most {prompt_max}), ordinary reply
  {reply_mean:.0f} (at most {reply_max}), of 1,000 each."""


def _lengths(speaker: Speaker, language: Language, of_language: str) -> str:
    rows = demonstrations("test", 1000, SEED, language.code)
    prompt = [len(ids) for ids in speaker.tokenizer([row["prompt"] for row in rows])["input_ids"]]
    reply = [len(ids) for ids in speaker.tokenizer([row["completion"] for row in rows])["input_ids"]]
    return _LENGTHS.format(
        of_language=of_language, prompt_mean=statistics.fmean(prompt), prompt_max=max(prompt),
        reply_mean=statistics.fmean(reply), reply_max=max(reply),
    )  # fmt: skip


def write_card(folder: Path, languages: Sequence[Language]) -> None:
    """Measure the model in ``folder`` in each language, asked for its tasks in the same one, print the numbers, and
    write them to ``MODEL_CARD.md`` there."""
    speaker = Speaker.load(folder)
    config = speaker.model.config
    training = json.loads((folder / "training.json").read_text())
    of_language = {language: f", {language.name}" if len(languages) > 1 else "" for language in languages}
    build = "`python -m tools.lab_model.build`"
    text = _HEAD.format(
        title="lab" if len(languages) == 1 else "bilingual lab",
        origin=f"random weights by {build}" if len(languages) == 1 else f"the lab model by {build[:-1]} --bilingual`",
        parameters=speaker.model.num_parameters(), layers=config.num_hidden_layers, hidden=config.hidden_size,
        vocabulary=config.vocab_size, dtype=json.loads((folder / "config.json").read_text())["dtype"],
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6, steps=training["steps"], seed=training["seed"],
        minutes=training["seconds"] / 60, measure_seed=SEED,
        lengths="\n".join(_lengths(speaker, language, more) for language, more in of_language.items()),
    )  # fmt: skip
    for language, more in of_language.items():
        for title, measure in SECTIONS.items():
            text += f"\n### {title}{more}\n{_table(measure(speaker, SEED, language))}\n"
    (folder / "MODEL_CARD.md").write_text(text + _TAIL)
    print(text)
