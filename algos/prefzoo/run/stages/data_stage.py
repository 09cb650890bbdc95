"""The data stage: read, clean, fit, split, examine and seal the rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefzoo.data import preflight, splits
from prefzoo.data.formats import Row
from prefzoo.data.near_duplicates import near_duplicates, with_test_groups
from prefzoo.data.prompt_context import PromptContext
from prefzoo.data.read_result import ReadResult
from prefzoo.data.rejects import Rejected, Rejects
from prefzoo.errors import DataError, PrefzooError
from prefzoo.models.chat_templates import template_text
from prefzoo.models.loading import resolve
from prefzoo.recipe.model_check import downloaded_problems
from prefzoo.recipe.recipe_schema import GoldFunction, Recipe
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.stages.read_sources import added_sources, read_data, source_name
from prefzoo.run.stages.token_lengths import (
    SAMPLE,
    Tokens,
    check_positions,
    count_markers,
    derive_lengths,
    model_positions,
    notes,
)
from prefzoo.scoring_function import FunctionReward
from prefzoo.types import Progress, Prompt


def prepare(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Do the work of the data stage into `folder`."""
    with _tokenizer_threads():
        _prepare(plan.recipe, folder, progress)


@contextmanager
def _tokenizer_threads() -> Iterator[None]:
    """Have tokenizers use all cores: elsewhere they may not, for processes are forked there."""
    before = os.environ.get("TOKENIZERS_PARALLELISM", "false")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = before


def _prepare(recipe: Recipe, folder: Path, progress: Progress) -> None:
    progress("reading", 0, 1)
    results, split_ids = read_data(recipe)
    base = resolve(recipe.model.path, recipe.model.revision)
    if problems := downloaded_problems(recipe, base):
        raise PrefzooError("\n".join(problems))
    template = template_text(recipe.model.chat_template)
    rendering = Tokens(base, recipe.model.trust_remote_code, chat_template=template)
    dropped = Rejects()
    sound = splits.clean([row for result in results.values() for row in result.rows], dropped)
    added = {row.id for key, result in results.items() if key in added_sources(recipe) for row in result.rows}
    positions = model_positions(base, recipe.model.trust_remote_code)
    derived = list(recipe.derives)
    context = PromptContext.of(recipe.context) if recipe.context is not None else None
    # Of the first sources alone, so that labels that are added later change no test prompt.
    first = [row for row in sound if row.id not in added]
    lengths = derive_lengths(recipe, _with_passages(first, context), rendering, positions)
    recipe = recipe.with_lengths(lengths)
    remembered = preflight.RememberedPrompts(rendering, lengths["max_prompt_tokens"])
    fitting, shortened = _fit(recipe, sound, dropped, rendering, remembered, progress)
    parts, usable_rows = _split(recipe, fitting, added, split_ids, dropped)
    available = len(parts["train"])
    parts["train"] = splits.limit_prompts(parts["train"], recipe.budget.prompts)
    plain, context_facts = parts, dict[str, Any]()
    if context is not None:  # after the split, so that other documents leave every prompt in its split
        parts, context_facts = _put_before(context, parts, remembered, lengths["max_prompt_tokens"])
    dropped_records = _merged(result.dropped for result in results.values())
    unpaired = _merged(result.unpaired for result in results.values())
    facts = {
        "read": sum(result.read for result in results.values()),
        "used": sum(result.used for result in results.values()),
        "made": sum(len(result.rows) for result in results.values()),
        "kept": len(usable_rows),
        "dropped_records": dropped_records.counts(),
        "dropped_after": dropped.counts(),
        "unpaired": unpaired.counts(),
        **_facts_of_files(recipe, results, available - len(parts["train"])),
        "repeated": splits.repeated(sound),
        "shortened_prompts": shortened[:20],
        "shortened_prompt_count": len(shortened),
        "lengths": {**lengths, "positions": positions, "derived": derived},
        "markers": count_markers(usable_rows, rendering),
        **({"context": context_facts} if context_facts else {}),
    }
    facts["sources"] = _kept_by_source(facts, results, parts)
    dropped.merge(dropped_records)
    dropped.merge(unpaired)
    del results, sound, fitting, usable_rows  # rows in use are in `parts`; the others hold prompts before they were cut
    progress("sealing", 0, 1)
    sealed = splits.seal(parts, facts, dropped, context.identity if context is not None else None)
    if len(facts["sources"]) > 1:
        sealed.manifest["sources"] = facts["sources"]
    _check_kinds(recipe, parts["train"], dropped)
    check_positions(recipe, base, [row for rows in parts.values() for row in rows], rendering, remembered)
    _try_functions(recipe, parts["train"])
    _examined(sealed, plain, shortened, rendering, remembered, progress).save(folder)


def _split(
    recipe: Recipe,
    rows: list[Row],
    added: set[str],
    split_ids: Mapping[str, set[str]] | None,
    dropped: Rejects,
) -> tuple[dict[str, list[Row]], list[Row]]:
    """The rows of each split, and those of all; rows of sources that are `added` are in the training split alone."""
    usable = splits.with_joined_groups([row for row in rows if row.id not in added])
    if split_ids is not None:
        return {name: [row for row in usable if row.id in ids] for name, ids in split_ids.items()}, usable
    parts = splits.split_by_prompt(usable, recipe.data.splits.model_dump(), recipe.data.seed)
    later = splits.add_to_train(parts, [row for row in rows if row.id in added], dropped)
    parts["train"] += later
    return parts, usable + later


def _examined(
    sealed: splits.SealedSplits,
    plain: Mapping[str, list[Row]],
    shortened: list[str],
    rendering: Tokens,
    remembered: preflight.RememberedPrompts,
    progress: Progress,
) -> splits.SealedSplits:
    """The splits with what is told of them before a training, and with the families of near-duplicates in the test
    split, which are looked for without passages: two prompts that share some are no duplicates.

    Args:
        plain: the splits before passages were put before their prompts.
        shortened: ids of the rows whose prompt was cut.
    """
    progress("near-duplicates", 0, 1)
    parts, near = sealed.splits, near_duplicates(plain)
    groups = [row.group for row in with_test_groups(plain["test"], near.families)]
    test = [replace(row, group=group) for row, group in zip(parts["test"], groups, strict=True)]
    rendering.tokenizer.realigned = 0
    examined = {**sealed.preflight, **preflight.examine(parts, shortened, remembered, progress)}
    examined["realigned"] = rendering.tokenizer.realigned
    examined["near_duplicates"] = near.by_split
    examined["test_groups"] = preflight.group_counts(test)
    examined["notes"] = notes(examined, rendering, parts)
    return replace(sealed, splits={**parts, "test": test}, preflight=examined)


def _merged(all_rejects: Iterable[Rejects]) -> Rejects:
    """All of these in one."""
    merged = Rejects()
    for rejects in all_rejects:
        merged.merge(rejects)
    return merged


def _with_passages(rows: Sequence[Row], context: PromptContext | None) -> Sequence[Row]:
    """Enough of these rows, with all of their passages, to derive lengths by."""
    if context is None:
        return rows
    some = rows[:: max(1, len(rows) // SAMPLE)]
    return [replace(row, prompt=list(context.around(row.prompt))) for row in some]


def _put_before(
    context: PromptContext, parts: Mapping[str, list[Row]], rendering: preflight.RememberedPrompts, limit: int
) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """See `PromptContext.put_before`; of each split."""
    put = {name: context.put_before(rows, rendering.prompts, limit) for name, rows in parts.items()}
    documents = context.documents
    facts = {
        **context.identity,
        "passages": len(documents.passages),
        "duplicates": documents.duplicates,
        "splits": {name: of_split for name, (_, of_split) in put.items()},
    }
    return {name: rows for name, (rows, _) in put.items()}, facts


def _facts_of_files(recipe: Recipe, results: Mapping[str, ReadResult], beyond_budget: int) -> dict[str, Any]:
    """What is told of each kind of data, and how many rows the budget leaves unused."""
    return {
        "pairs_by": {kind: recipe.data.pairs for kind in ("rankings", "ratings") if kind in recipe.data.files()},
        "unread_columns": {kind: result.unread for kind, result in results.items() if result.unread},
        "rated": {kind: result.rated for kind, result in results.items() if result.rated},
        "label_with": recipe.data.label_with,
        "beyond_budget": beyond_budget,
        "annotators": {kind: result.annotators for kind, result in results.items() if result.annotators},
        "sources": [
            {"key": key, "source": source_name(file), "read": results[key].read, "made": len(results[key].rows)}
            for key, (_, file) in recipe.data.places().items()
        ],
    }


def _kept_by_source(
    facts: dict[str, Any], results: Mapping[str, ReadResult], parts: Mapping[str, Sequence[Row]]
) -> list[dict[str, Any]]:
    """How many rows of each source are in which split."""
    kept = {name: Counter(row.id for row in rows) for name, rows in parts.items()}
    return [
        {
            **source,
            "rows": {name: sum(ids[row.id] for row in results[source["key"]].rows) for name, ids in kept.items()},
        }
        for source in facts["sources"]
    ]


def _fit(
    recipe: Recipe,
    rows: Sequence[Row],
    dropped: Rejects,
    rendering: Tokens,
    remembered: preflight.RememberedPrompts,
    progress: Progress,
) -> tuple[list[Row], list[str]]:
    """See `splits.fit_lengths`."""
    fitting, shortened = list[Row](), list[str]()
    most_prompt, most_reply = (recipe.lengths[key] for key in ("max_prompt_tokens", "max_completion_tokens"))

    def prompt_lengths(prompts: Sequence[Prompt]) -> list[int | Rejected]:
        return [ids if isinstance(ids, Rejected) else len(ids) for ids in remembered.prompts(prompts)]

    done = 0
    for batch in preflight.batches(rows):
        kept, cut = splits.fit_lengths(batch, dropped, prompt_lengths, rendering.reply_lengths, most_prompt, most_reply)
        remembered.forget(but=[row.prompt for row in kept])
        fitting += kept
        shortened += cut
        done += len(batch)
        progress("fitting lengths", done, len(rows))
    return fitting, shortened


def _try_functions(recipe: Recipe, rows: list[Row]) -> None:
    """Have the recipe's scoring functions score two replies, so that a wrong one is told before anything is trained.

    Raises:
        PrefzooError: naming the key of one that raises, or gives anything but a finite number for each reply.
    """
    gold = {"gold.path": recipe.gold.path} if isinstance(recipe.gold, GoldFunction) else {}
    rewards = {f"{key}.path": part.path for key, part in recipe.reward.places.items() if part.type == "function"}
    prompts = [row.prompt for row in rows[:2]]
    replies = [row.chosen or row.demonstration or row.reply or "A reply." for row in rows[:2]]
    for key, path in {**gold, **rewards}.items():
        score = FunctionReward(str(path), key=key)
        try:
            score(prompts, replies)
        except PrefzooError as error:
            raise PrefzooError(f"{key}: {error}") from error


LABELS_ALONE = (
    "Replies that were liked, or not, are there: kto, bco and `reward: {loss: logistic}` learn from them, and `start: "
    "none` needs no data. "
)


def _check_kinds(recipe: Recipe, train: Sequence[Row], dropped: Rejects) -> None:
    """Refuse data of which nothing is left that the recipe learns from, before a model is loaded to learn from it.

    Raises:
        DataError: when the train split has no pairs, no labelled replies, or no demonstrations, and something needs
            them.
    """
    algorithms = [recipe.start_algorithm(), *map(recipe.algorithm, recipe.algorithms)]
    imitated = {getattr(algorithm, "on", None) for algorithm in algorithms}
    by_pairs = recipe.reward.type == "trained" and recipe.reward.loss == "bradley_terry"
    by_ratings = [algorithm for algorithm in algorithms if getattr(algorithm, "rewards", None) == "ratings"]
    needed = {need for each in algorithms if each is not None and each not in by_ratings for need in each.needs}
    by_pairs |= "preferences" in needed
    made = recipe.data.label_with is not None
    labelled, paired = any(row.liked is not None for row in train), any(row.chosen for row in train)
    by_labels = any(part.type == "trained" and part.loss == "logistic" for part in recipe.reward.parts)
    missing = []
    if by_pairs and not (made or paired):
        missing.append("pair of a better and a worse reply")
    if "chosen" in imitated and not (made or paired or any(row.liked for row in train)):
        missing.append("reply that was preferred or liked")
    if ("unpaired" in needed or by_labels) and not (made or paired or labelled):
        missing.append("reply that was liked or not")
    if "demonstrations" in imitated and not any(row.demonstration for row in train):
        missing.append("demonstration")
    if by_ratings and not any(row.rating is not None for row in train):
        missing.append("reply with a rating")
    by_margins = any(getattr(algorithm, "margins", None) == "data" for algorithm in algorithms)
    if (by_margins or any(part.margins for part in recipe.reward.parts)) and not any(row.margin for row in train):
        missing.append("margin between the replies of a pair (column 'margin')")
    if missing:
        raise DataError(
            f"data: the train split has {len(train)} rows and among them not one "
            f"{' and not one '.join(missing)}, which this recipe learns from. "
            f"{LABELS_ALONE if labelled and not paired else ''}Dropped, or not paired: {dropped.counts()}."
        )
