"""The data stage: read, clean, fit, split, examine and seal the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefzoo.comparison.plan import Plan
from prefzoo.comparison.recipe import Recipe
from prefzoo.data import preflight, sealed, sources
from prefzoo.data.comparisons import read_rows
from prefzoo.data.formats import Dropped, Row
from prefzoo.data.reading import Options
from prefzoo.errors import DataError
from prefzoo.interface import Progress, Prompt
from prefzoo.policies.loading import load_tokenizer, resolve


@dataclass
class Gathered:
    """Everything that the recipe names, before cleaning.

    Attributes:
        rows: all of them, in order.
        splits: ids by split where the source has split them already; None where they are still to be split.
        read: records that were read, those that became no row included.
        annotators: how far they agreed, by kind of data (see `comparisons.Found`).
    """

    rows: list[Row]
    splits: dict[str, set[str]] | None = None
    read: int = 0
    annotators: dict[str, dict[str, int]] = field(default_factory=dict)


def prepare(plan: Plan, folder: Path, progress: Progress) -> None:
    """Do the work of the data stage into `folder`."""
    recipe = plan.recipe
    dropped = Dropped()
    progress("reading", 0, 3)
    gathered = gather(recipe, dropped)
    progress("fitting lengths", 1, 3)
    rendering = Tokens(resolve(recipe.model.path, recipe.model.revision), recipe.model.trust_remote_code)
    limits = (recipe.data.max_prompt_tokens, recipe.data.max_completion_tokens)
    sound = sealed.clean(gathered.rows, dropped)
    kept, shortened = sealed.fit_lengths(
        sound, dropped, lambda prompt: len(rendering.prompt(prompt)), rendering.reply_length, *limits
    )
    if gathered.splits is not None:
        splits = {name: [row for row in kept if row.id in ids] for name, ids in gathered.splits.items()}
    else:
        splits = sealed.split_by_prompt(kept, recipe.data.splits.model_dump(), recipe.data.seed)
    available = len(splits["train"])
    splits["train"] = sealed.limit_prompts(splits["train"], recipe.budget.prompts)
    progress("examining", 2, 3)
    found: dict[str, Any] = {
        "read": gathered.read,
        "made": len(gathered.rows),
        "kept": len(kept),
        "beyond_budget": available - len(splits["train"]),
        "annotators": gathered.annotators,
        "repeated": sealed.repeated(sound),
        "shortened_prompts": shortened[:20],
        "shortened_prompt_count": len(shortened),
    }
    whole = sealed.seal(splits, found, dropped)
    replace(whole, preflight={**whole.preflight, **preflight.examine(splits, shortened, rendering)}).save(folder)


def gather(recipe: Recipe, dropped: Dropped) -> Gathered:
    """The rows of the recipe's source or files.

    Raises:
        DataError: when a source gives no splits that can be used, or a file cannot be read.
    """
    if (name := recipe.source) is not None:
        wanted = sources.Wanted(recipe.budget.prompts or 1500, 0, recipe.evaluation.prompts, recipe.data.seed)
        given = sources.load(name).rows(wanted)
        if not isinstance(given, Mapping):
            return Gathered(list(given), read=len(given))
        return _already_split(name, given)
    gathered = Gathered([])
    files = recipe.data.files()
    options = Options(recipe.data.columns, recipe.data.split, recipe.data.revision, recipe.data.data_dir)
    for kind, file in files.items():
        # Ids name lines; with several files they must say of which.
        own = Dropped() if len(files) > 1 else dropped
        found = read_rows(kind, file, own, options, recipe.data.pairs)
        if own is not dropped:
            found.rows = [replace(row, id=f"{kind} {row.id}") for row in found.rows]
            for reason, rows in own.rows.items():
                for row_id, text in rows:
                    dropped.add(reason, f"{kind} {row_id}", text)
        gathered.rows += found.rows
        gathered.read += found.read
        if found.annotators:
            gathered.annotators[kind] = found.annotators
    return gathered


def _already_split(name: str, given: Mapping[str, Sequence[Row]]) -> Gathered:
    if stray := sorted(set(given) - set(sealed.SPLITS)):
        raise DataError(f"data.source: {name!r} gives a split {stray[0]!r}; allowed: {', '.join(sealed.SPLITS)}")
    rows = [row for split in sealed.SPLITS for row in given.get(split, ())]
    if len({row.id for row in rows}) < len(rows):
        raise DataError(f"data.source: {name!r} gives two rows of one id")
    return Gathered(rows, {split: {row.id for row in given.get(split, ())} for split in sealed.SPLITS}, len(rows))


class Tokens:
    """The start's tokenizer and chat template; see `preflight.Rendering`."""

    def __init__(self, base: str, trust_remote_code: bool) -> None:
        self.tokenizer = load_tokenizer(base, trust_remote_code)

    def prompt(self, prompt: Prompt) -> list[int]:
        """Token ids up to where the reply begins."""
        return self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)

    def whole(self, prompt: Prompt, reply: str) -> list[int]:
        """Token ids of the prompt and the reply, its end included."""
        turns = [*prompt, {"role": "assistant", "content": reply}]
        return self.tokenizer.apply_chat_template(turns, return_dict=False)

    def text(self, ids: Sequence[int]) -> str:
        """What these tokens spell, special ones included."""
        return self.tokenizer.decode(list(ids))

    def reply_length(self, reply: str) -> int:
        """Tokens of a reply and its end."""
        return len(self.tokenizer(reply, add_special_tokens=False)["input_ids"]) + 1
