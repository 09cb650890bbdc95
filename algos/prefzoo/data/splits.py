"""Clean the rows, split them by prompt, and seal them under one hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import text_sha256
from prefzoo.data.formats import Row
from prefzoo.data.rejects import Rejected, Rejects, in_order
from prefzoo.data.shorten_prompts import LETTERS, shorten
from prefzoo.errors import DataError, PrefzooError
from prefzoo.types import Prompt
from prefzoo.views import prompt_key

SPLITS = ("train", "validation", "test")
SHOWN_PLACES = 20


@dataclass(frozen=True)
class SealedSplits:
    """Three splits that share no prompt, and what was done to get them.

    Attributes:
        splits: rows by split, in their final order.
        manifest: `{"sha256": of everything, "splits": {name: {"rows", "prompts", "sha256"}}}`, and `context`,
            where passages are put before prompts.
        preflight: what was read, kept, dropped and why, shortened, repeated, left unused.
        dropped: each row that is not used, with its reason.
    """

    splits: dict[str, list[Row]]
    manifest: dict[str, Any]
    preflight: dict[str, Any]
    dropped: Rejects

    def save(self, folder: Path) -> None:
        """Write `{split}.jsonl`, `manifest.json`, `preflight.json` and `dropped.jsonl`."""
        save_splits(self.splits, folder)
        (folder / "manifest.json").write_text(json.dumps(self.manifest, indent=1), encoding="utf-8")
        (folder / "preflight.json").write_text(json.dumps(self.preflight, indent=1), encoding="utf-8")
        with (folder / "dropped.jsonl").open("w", encoding="utf-8") as file:
            rejects = [(*row, reason) for reason, rows in self.dropped.rows.items() for row in rows]
            for row_id, text, reason in sorted(rejects, key=lambda reject: (in_order(reject[0]), reject[2])):
                file.write(json.dumps({"reason": reason, "row": row_id, "text": text}, ensure_ascii=False) + "\n")
            for reason, count in sorted(self.dropped.unlisted.items()):
                file.write(json.dumps({"reason": reason, "more": count}) + "\n")


def save_splits(splits: Mapping[str, Sequence[Row]], folder: Path) -> None:
    """Write `{split}.jsonl` for `load_split` to read."""
    for name, rows in splits.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(_content(row), ensure_ascii=False) + "\n" for row in rows)


_must_not_see_test: list[str] = []
"""What this process is doing that must not see the test split."""


@contextlib.contextmanager
def sealed_test_split(doing: str) -> Iterator[None]:
    """While the block runs, reading the test split is an error in the whole process; `doing` says what is done."""
    _must_not_see_test.append(doing)
    try:
        yield
    finally:
        _must_not_see_test.pop()


def load_split(folder: Path, split: str) -> list[Row]:
    """The rows of one sealed split.

    Raises:
        PrefzooError: for the test split within `sealed_test_split`.
    """
    if split == "test" and _must_not_see_test:
        raise PrefzooError(f"{_must_not_see_test[-1]} may not read the test split, which decides once, at the end")
    with (folder / f"{split}.jsonl").open(encoding="utf-8") as file:
        return [Row(**json.loads(line)) for line in file]


def clean(rows: Sequence[Row], dropped: Rejects) -> list[Row]:
    """Rows without empty replies, identical pairs, exact duplicates and halves of characters, which cannot be written
    to a file; what is left out is named in `dropped`."""
    sound, seen = [], set()
    for row in rows:
        replies = (row.chosen, row.rejected, row.vote, row.demonstration, row.reply, row.liked, *(row.ranking or []))
        key = _digest(prompt_key(row.prompt), *replies)
        if not _writable(row):
            dropped.add("half_a_character", row.id, row.prompt[-1]["content"])
        elif any(not reply.strip() for reply in row.replies()):
            dropped.add("empty_reply", row.id, row.prompt[-1]["content"])
        elif row.chosen is not None and row.chosen == row.rejected:
            dropped.add("identical_pair", row.id, row.chosen)
        elif key in seen:
            dropped.add("duplicate_row", row.id, row.prompt[-1]["content"])
        else:
            seen.add(key)
            sound.append(row)
    return sound


def _writable(row: Row) -> bool:
    try:
        "".join([*(turn["content"] for turn in row.prompt), *row.replies()]).encode()
    except UnicodeEncodeError:
        return False
    return True


def fit_lengths(
    rows: Sequence[Row],
    dropped: Rejects,
    prompt_tokens: Callable[[Sequence[Prompt]], Sequence[int | Rejected]],
    reply_tokens: Callable[[Sequence[str]], Sequence[int]],
    max_prompt_tokens: int,
    max_completion_tokens: int,
) -> tuple[list[Row], list[str]]:
    """Make every row fit, once for all algorithms, so that no trainer drops or cuts rows on its own.

    A long prompt loses its beginning (see `shorten`); a row with a reply that is too long is dropped, and so is one
    whose prompt `prompt_tokens` rejects. Returns the rows and the ids of those whose
    prompt was shortened.
    """
    long = _too_long([reply for row in rows for reply in row.replies()], reply_tokens, max_completion_tokens)
    short = [row for row in rows if long.isdisjoint(row.replies())]
    prompts = iter(shorten([row.prompt for row in short], prompt_tokens, max_prompt_tokens))
    fitting, shortened = [], []
    for row in rows:
        if not long.isdisjoint(row.replies()):
            dropped.add("reply_too_long", row.id, max(row.replies(), key=len))
            continue
        prompt = next(prompts)
        if isinstance(prompt, Rejected):
            dropped.add(prompt.reason({}), row.id, prompt.shown or row.prompt[-1]["content"])
        elif prompt is None:
            dropped.add("prompt_too_long", row.id, row.prompt[-1]["content"])
        else:
            if prompt != row.prompt:
                shortened.append(row.id)
            fitting.append(replace(row, prompt=prompt))
    return fitting, shortened


def _too_long(replies: Sequence[str], tokens: Callable[[Sequence[str]], Sequence[int]], limit: int) -> set[str]:
    """Those of more than `limit` tokens; of one that is far too long, only the beginning is made into tokens."""
    unsure = [reply for reply in replies if not surely_fits(reply, limit)]
    begun = tokens([reply[: LETTERS * limit] for reply in unsure])
    long = {reply for reply, count in zip(unsure, begun, strict=True) if count > limit}
    rest = [reply for reply in unsure if len(reply) > LETTERS * limit and reply not in long]
    return long | {reply for reply, count in zip(rest, tokens(rest), strict=True) if count > limit}


def surely_fits(reply: str, limit: int) -> bool:
    """Whether a reply has so few letters that it cannot have more than `limit` tokens, its end included: a token is at
    least a letter, where those are ASCII, and some tokenizers put one before."""
    return reply.isascii() and len(reply) + 2 <= limit


def with_joined_groups(rows: Sequence[Row]) -> list[Row]:
    """Rows of which those of one prompt are of one group: groups that share a prompt become one, under the name that is
    the first in alphabetical order, and a row without a group is of its prompt's."""
    names: dict[str, str] = {}

    def name_of(group: str) -> str:
        while names.setdefault(group, group) != group:
            group = names[group]
        return group

    by_prompt: dict[str, str] = {}
    for row in rows:
        if row.group is not None:
            first, second = sorted((name_of(row.group), name_of(by_prompt.get(prompt_key(row.prompt), row.group))))
            names[second] = by_prompt[prompt_key(row.prompt)] = first
    if not by_prompt:
        return list(rows)
    joined = {key: name_of(group) for key, group in by_prompt.items()}
    return [replace(row, group=joined.get(prompt_key(row.prompt))) for row in rows]


def split_by_prompt(rows: Sequence[Row], fractions: dict[str, float], seed: int) -> dict[str, list[Row]]:
    """Rows by split. A prompt's split depends on its own text alone, or that of its group, so that neither a prompt
    nor a group (see `with_joined_groups`) falls into two."""
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in rows:
        place = _fraction(f"{seed} {prompt_key(row.prompt) if row.group is None else row.group}")
        for name in SPLITS:
            place -= fractions[name]
            if place < 0 or name == SPLITS[-1]:
                splits[name].append(row)
                break
    return splits


def add_to_train(splits: Mapping[str, Sequence[Row]], rows: Sequence[Row], dropped: Rejects) -> list[Row]:
    """Those of these rows that can be trained on beside splits that stay as they are: all but those on prompts, or of
    groups, of the other splits, which are named in `dropped`. So the test is the same however many are added."""
    held_out = [row for name in SPLITS[1:] for row in splits[name]]
    prompts, groups = {prompt_key(row.prompt) for row in held_out}, {row.group for row in held_out} - {None}
    groups_of = {prompt_key(row.prompt): row.group for row in splits["train"]}
    added = []
    for row in rows:
        if prompt_key(row.prompt) in prompts or row.group in groups:
            dropped.add("held_out_prompt", row.id, row.prompt[-1]["content"])
        else:
            added.append(replace(row, group=groups_of.get(prompt_key(row.prompt), row.group)))
    return added


def limit_prompts(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """Rows of at most `limit` distinct prompts, chosen by the hash of their text, in the order they came in."""
    keys = set() if limit is None else {prompt_key(row.prompt) for row in rows}
    if limit is None or len(keys) <= limit:
        return list(rows)
    chosen = set(sorted(keys, key=_fraction)[:limit])
    return [row for row in rows if prompt_key(row.prompt) in chosen]


def seal(
    splits: dict[str, list[Row]], preflight: dict[str, Any], dropped: Rejects, context: dict[str, Any] | None = None
) -> SealedSplits:
    """Hash the splits, and with them what was put before their prompts (`PromptContext.identity`).

    Raises:
        DataError: when the train or the test split is empty, or two splits share a prompt or a group.
    """
    groups = {name: {row.group for row in rows} - {None} for name, rows in splits.items()}
    for name in ("train", "test"):
        if not splits[name]:
            count = len(set().union(*groups.values()))
            whole = f" The rows are of {count} groups (column 'group'), and a group stays whole." if count else ""
            raise DataError(
                f"data: the {name} split is empty ({ {n: len(rows) for n, rows in splits.items()} } rows by split); "
                f"dropped: {dropped.counts()}.{whole} Give more rows, or other data.splits."
            )
    keys = {name: {_digest(prompt_key(row.prompt)) for row in rows} for name, rows in splits.items()}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for what, own in (("prompts", keys), ("groups", groups)):
            if shared := own[first] & own[second]:
                raise DataError(f"data: {len(shared)} {what} are in both {first} and {second}")
    hashes: dict[str, dict[str, Any]] = {
        name: {"rows": len(rows), "prompts": len(keys[name]), "sha256": sha256_of(rows)}
        for name, rows in splits.items()
    }
    for name, rows in splits.items():
        if groups[name]:
            hashes[name]["groups_sha256"] = text_sha256(json.dumps([row.group for row in rows]))
    by_context = {"context": context} if context is not None else {}
    total = text_sha256(json.dumps({**hashes, **by_context}, sort_keys=True))
    first_places = {reason: places[:SHOWN_PLACES] for reason, places in dropped.places().items()}
    preflight = {**preflight, "dropped": dropped.counts(), "dropped_rows": first_places}
    return SealedSplits(splits, {"sha256": total, "splits": hashes, **by_context}, preflight, dropped)


def repeated(rows: Sequence[Row]) -> list[list[str]]:
    """Groups of row ids that share a prompt; they are kept, and always in one split."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for row in rows:
        groups[_digest(prompt_key(row.prompt))].append(row.id)
    return [ids for ids in groups.values() if len(ids) > 1]


def _digest(*parts: Any) -> bytes:
    """A short name of these, so that not all texts are in memory once more."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def _fraction(text: str) -> float:
    return int(text_sha256(text)[:16], 16) / 2**64


def sha256_of(rows: Sequence[Row]) -> str:
    """A hash of what the rows say, in order. Where a row came from (its id) is no part of it: the same preferences
    written in another format are the same data. Nor is its group, which a test row gets after it was sealed."""
    hashed = hashlib.sha256()
    for row in rows:
        content = {k: v for k, v in _content(row).items() if k not in ("id", "group") and v is not None}
        hashed.update(json.dumps(content, sort_keys=True, ensure_ascii=False).encode())
    return hashed.hexdigest()


def _content(row: Row) -> dict[str, Any]:
    """What is written of a row."""
    return {field.name: getattr(row, field.name) for field in fields(row)}
