"""What a person needs to know of the data: as sentences, as a table, as examples with the trained part marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from prefzoo.report.annotators import annotator_facts, pair_facts

OPEN, CLOSE = "⟦", "⟧"
"""Around what carries loss, where there is no colour to tell it by."""


def data_facts(preflight: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """What was read, kept and dropped, row by row where there are few."""
    lines = _counted(preflight, manifest)
    for reason, count in preflight["dropped"].items():
        named = preflight["dropped_rows"][reason]
        more = f" and {count - len(named)} more (dropped.jsonl)" if count > len(named) else ""
        what = "Not paired" if reason in preflight["unpaired"] else "Dropped"
        lines.append(f"{what}, {in_words(reason)}: {count} ({', '.join(without_repeats(named))}{more}).")
    for kind, columns in preflight["unread_columns"].items():
        more = f" and {len(columns) - 10} more" if len(columns) > 10 else ""
        lines.append(f"Columns of the {kind} that are not read: {', '.join(columns[:10])}{more}.")
    for kind, found in preflight["rated"].items():
        spread = "{lowest:g} to {highest:g}".format(**found)
        lines.append(f"Rated ({kind}): {found['replies']} replies, with {spread}; no range is assumed.")
    lines += pair_facts(preflight.get("pairs_by", {})) + annotator_facts(preflight["annotators"])
    if groups := preflight["repeated"]:
        shown = "; ".join(" = ".join(without_repeats(ids)) for ids in groups[:10])
        more = f"; and {len(groups) - 10} more" if len(groups) > 10 else ""
        lines.append(f"Repeated prompts, kept together in one split: {len(groups)} ({shown}{more}).")
    if count := preflight["shortened_prompt_count"]:
        lines.append(f"Prompts shortened from the left to fit: {count}.")
    for name, part in preflight["splits"].items():
        if count := part["unaligned"]:
            lines.append(
                f"{name} replies whose tokens do not begin where those of the prompt end, so that tokens at the border "
                f"are trained on wrongly or not at all: {count}. The chat template or the tokenizer is the cause."
            )
    return lines + _near_facts(preflight["near_duplicates"]) + _label_facts(preflight.get("labels"))


def _counted(preflight: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """How many records and rows there are, so that a reader can add them up."""
    before, after = (sum(preflight[key].values()) for key in ("dropped_records", "dropped_after"))
    splits = [f"{part['rows']} {name}" for name, part in manifest["splits"].items()]
    if beyond := preflight["beyond_budget"]:
        splits.append(f"{beyond} training rows beyond the budget, unused")
    return [
        f"Data {manifest['sha256'][:12]}: {preflight['read']} records read = {preflight['used']} used + {before} "
        "dropped. A record is a line, row or item of what was given, blank lines included.",
        f"{preflight['made']} rows made of them = {preflight['kept']} kept + {after} dropped. A row is one pair, "
        "ranking, rated reply, demonstration or prompt: one record may make many, and several records one.",
        f"{preflight['kept']} rows kept = {' + '.join(splits)}.",
        *_to_be_labelled(preflight, manifest),
    ]


def _to_be_labelled(preflight: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    if preflight["label_with"] is None or "labels" in preflight:
        return []
    train, test = (manifest["splits"][name]["prompts"] for name in ("train", "test"))
    by = {"gold": "the truth under `gold:`", "judge": "the judge under `judge:`"}[preflight["label_with"]]
    return [
        f"No pairs yet: `prefzoo compare` makes them. The start answers each of the {train} training and {test} test "
        f"prompts twice, and {by} says which answer is better: at most {train} and {test} pairs."
    ]


def in_words(reason: str) -> str:
    """A reason for dropping as people read it; the name of a column in it stays as it is."""
    code, colon, detail = reason.partition(": ")
    return code.replace("_", " ") + colon + detail


def without_repeats(places: Sequence[str]) -> list[str]:
    """Places, the name of a file only where another one began."""
    shown, last = [], ""
    for place in places:
        found = re.fullmatch(r"(.+) ((?:line|row|item) \d.*)", place)
        if found and found[1] == last:
            shown.append(found[2])
        else:
            shown.append(place)
        last = found[1] if found else ""
    return shown


def _near_facts(near: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for split, found in near.items():
        if count := found["count"]:
            what = "an earlier training prompt" if split == "train" else "a training prompt"
            mine, other, *_ = found["examples"][0]
            lines.append(
                f"{split} prompts that are nearly the same as {what}: {count} of {found['prompts']} "
                f"({count / found['prompts']:.0%}), such as {mine} and {other}."
            )
    return lines


def _label_facts(labels: dict[str, Any] | None) -> list[str]:
    if labels is None:
        return []
    lines = []
    for split, part in labels["splits"].items():
        left_out = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in part["dropped"].items())
        lines.append(
            f"Preferences made of the start's own replies by {labels['with']}, {split}: {part['pairs']} pairs"
            + (f"; without one: {left_out}." if left_out else ".")
        )
    return [*lines, _judge_fact(labels["judge"])]


def _judge_fact(judge: dict[str, Any]) -> str:
    text = (
        f"Judge ({judge['type']}): {judge['pairs']} pairs, each asked in both orders; the orders prefer different "
        f"replies in {judge['inconsistent'] / max(1, judge['pairs']):.0%}, the reply shown first is preferred in "
        f"{judge['first_preferred'] / max(1, judge['questions']):.0%}"
    )
    if "gold_agreement" in judge:
        low, high = judge["gold_agreement_ci95"]
        text += f"; it chooses as gold does in {judge['gold_agreement']:.0%} (95% {low:.0%} to {high:.0%})"
    return text + "."


def data_cells(preflight: dict[str, Any], manifest: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A table with a row for each split: headings and cells."""
    headings = [
        "split",
        "rows",
        "prompts",
        "trained tokens",
        "prompt length",
        "reply length",
        "shortened",
        "near train",
    ]
    rows = []
    for name, part in preflight["splits"].items():
        sealed = manifest["splits"][name]
        of_prompts, of_replies = (
            "{median} / {p95} / {max}".format(**part[key]) for key in ("prompt_tokens", "chosen_tokens")
        )
        replied = [str(part["trained_tokens"]), of_prompts, of_replies] if part["replies"] else ["-", of_prompts, "-"]
        near = preflight["near_duplicates"][name]["count"]
        rows.append([name, str(sealed["rows"]), str(sealed["prompts"]), *replied, str(part["shortened"]), str(near)])
    return headings, rows


def data_table(preflight: dict[str, Any], manifest: dict[str, Any]) -> Table:
    """The same for a terminal."""
    headings, rows = data_cells(preflight, manifest)
    made = Table(title="Lengths in tokens: median / 95th percentile / longest", title_justify="left")
    for i, heading in enumerate(headings):
        made.add_column(heading, justify="left" if i == 0 else "right")
    for row in rows:
        made.add_row(*row)
    return made


def data_examples(preflight: dict[str, Any]) -> list[Text]:
    """A few training rows as the model sees them, what carries loss bold and green and in `OPEN` and `CLOSE`; prompts
    alone where nothing carries loss yet."""
    shown = []
    for example in preflight["examples"]:
        text = Text(f"{example['id']}\n", style="dim")
        text.append(example["untrained"], style="not dim")
        if example["trained"]:
            text.append(f"{OPEN}{example['trained']}{CLOSE}", style="not dim bold green")
        text.append("\n")
        shown.append(text)
    return shown
