"""The data of a comparison: facts as sentences, and a table with a row for each split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from prefzoo.report.annotators import annotator_facts, pair_facts
from prefzoo.report.sections import Cells, Html, Section, Table, Text
from prefzoo.results.results_schema import Results

OPEN, CLOSE = "⟦", "⟧"
"""Stand around what carries loss, where there is no colour to tell it by."""
HEADINGS = ["split", "rows", "prompts", "trained tokens", "prompt length", "chosen length", "rejected length"]
HEADINGS += ["shortened", "near train"]
LENGTHS = "Lengths in tokens: median / 95th percentile / longest"


def data_section(results: Results) -> Section:
    """Return the section on the data."""
    table = Table(data_cells(results.preflight, results.manifest), "the data of each split", key="data")
    legend = Text(f"{LENGTHS}. Trained tokens are those of chosen replies (or demonstrations), ends included.")
    examples = Html("examples.html.jinja", {"preflight": results.preflight, "marks": (OPEN, CLOSE)})
    return Section("data", "The data", [table, legend, examples])


def data_facts(preflight: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """Return sentences on what was read, kept and dropped, row by row where there are few."""
    lines = _counted(preflight, manifest) + _source_facts(manifest.get("sources", []))
    for reason, count in preflight["dropped"].items():
        rows = preflight["dropped_rows"][reason]
        more = f" and {count - len(rows)} more (dropped.jsonl)" if count > len(rows) else ""
        what = "Not paired" if reason in preflight["unpaired"] else "Dropped"
        lines.append(f"{what}, {reason_text(reason)}: {count} ({', '.join(shorten_places(rows))}{more}).")
    for kind, columns in preflight["unread_columns"].items():
        more = f" and {len(columns) - 10} more" if len(columns) > 10 else ""
        lines.append(f"Columns of the {kind} that are not read: {', '.join(columns[:10])}{more}.")
    for kind, ratings in preflight["rated"].items():
        spread = "{lowest:g} to {highest:g}".format(**ratings)
        lines.append(f"Rated ({kind}): {ratings['replies']} replies, with {spread}; no range is assumed.")
    lines += pair_facts(preflight.get("pairs_by", {})) + annotator_facts(preflight["annotators"])
    if groups := preflight["repeated"]:
        first = "; ".join(" = ".join(shorten_places(ids)) for ids in groups[:10])
        more = f"; and {len(groups) - 10} more" if len(groups) > 10 else ""
        lines.append(f"Repeated prompts, kept together in one split: {len(groups)} ({first}{more}).")
    if count := preflight["shortened_prompt_count"]:
        lines.append(f"Prompts shortened from the left to fit: {count}.")
    lines += _length_facts(preflight["splits"].get("train", {}))
    for name, part in preflight["splits"].items():
        if count := part["unaligned"]:
            lines.append(
                f"{name} replies whose tokens do not begin where those of the prompt end, so that tokens at the border "
                f"are trained on wrongly or not at all: {count}. The chat template or the tokenizer is the cause."
            )
    lines += preflight.get("notes", [])
    lines += _context_facts(preflight.get("context"))
    lines += _near_facts(preflight["near_duplicates"]) + _group_facts(preflight.get("test_groups"))
    return lines + _label_facts(preflight.get("labels"))


def _context_facts(context: dict[str, Any] | None) -> list[str]:
    """Return how many passages stand before prompts, and how many did not fit."""
    if context is None:
        return []
    splits = context["splits"].values()
    by_passages: Counter[str] = Counter()
    for of_split in splits:
        by_passages.update(of_split["by_passages"])
    counted = ", ".join(f"{count} with {number}" for number, count in sorted(by_passages.items(), reverse=True))
    again = f", {context['duplicates']} more that repeat one left out" if context["duplicates"] else ""
    left_out, shortened = (sum(of_split[key] for of_split in splits) for key in ("left_out", "shortened"))
    return [
        f"Passages before prompts: of {context['passages']} (documents {context['documents'][:12]}{again}) at most "
        f"{context['k']} each; prompts: {counted}. Left out because they did not fit into the prompt's length: "
        f"{left_out}, of {shortened} prompts."
    ]


def _source_facts(sources: Sequence[dict[str, Any]]) -> list[str]:
    """Return how many rows came from which of several sources."""
    return [
        f"data.{source['key']}, {source['source']}: {source['read']} records, "
        f"{' + '.join(f'{count} {split}' for split, count in source['rows'].items())} rows."
        for source in sources
    ]


def data_in_brief(preflight: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """Return how much there is and what was dropped, and how many more sentences `data_facts` has."""
    splits = " + ".join(f"{part['rows']} {name}" for name, part in manifest["splits"].items())
    dropped = [f"{reason_text(reason)} {count}" for reason, count in preflight["dropped"].items()]
    more = len(data_facts(preflight, manifest)) - len(_counted(preflight, manifest)) - len(dropped)
    lines = [
        f"Data {manifest['sha256'][:12]}: {preflight['read']} records, {splits} rows; "
        f"{'not used: ' + ', '.join(dropped) if dropped else 'nothing dropped'}."
    ]
    if more:
        lines.append(f"{more} more on the data: `prefzoo data RECIPE`, and the report.")
    return lines


def _counted(preflight: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """Return how many records and rows there are, so that a reader can add them up."""
    before, after = (sum(preflight[key].values()) for key in ("dropped_records", "dropped_after"))
    splits = [f"{part['rows']} {name}" for name, part in manifest["splits"].items()]
    if beyond := preflight["beyond_budget"]:
        splits.append(f"{beyond} training rows beyond the budget, unused")
    return [
        f"Data {manifest['sha256'][:12]}: {preflight['read']} records read = {preflight['used']} used + {before} "
        "dropped. A record is a line, row or item of what was given, blank lines included.",
        f"{preflight['made']} rows made of them = {preflight['kept']} kept + {after} dropped. A row is one pair, "
        "ranking, rated or labelled reply, demonstration or prompt: one record may make many, and several records one.",
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


def reason_text(reason: str) -> str:
    """Return a reason for dropping as people read it; the name of a column in it stays as it is."""
    code, colon, detail = reason.partition(": ")
    return code.replace("_", " ") + colon + detail


def shorten_places(places: Sequence[str]) -> list[str]:
    """Return places in files with the name of a file only where another one began."""
    shortened, last = [], ""
    for place in places:
        match = re.fullmatch(r"(.+) ((?:line|row|item) \d.*)", place)
        shortened.append(match[2] if match and match[1] == last else place)
        last = match[1] if match else ""
    return shortened


def _near_facts(near: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for split, of_split in near.items():
        if count := of_split["count"]:
            what = "an earlier training prompt" if split == "train" else "a training prompt"
            one, other, *_ = of_split["examples"][0]
            lines.append(
                f"{split} prompts that are nearly the same as {what}: {count} of {of_split['prompts']} "
                f"({count / of_split['prompts']:.0%}), such as {one} and {other}."
            )
    return lines


def _length_facts(train: dict[str, Any]) -> list[str]:
    """How chosen replies differ in length from rejected ones; none where an older run did not measure it."""
    if (bias := train.get("length_bias")) is None:
        return []
    return [
        f"Chosen replies have {bias['chosen']:.1f} tokens in the mean, rejected ones {bias['rejected']:.1f}; of "
        f"{bias['pairs']} train pairs the chosen one is longer in {bias['longer']:.0%} and shorter in "
        f"{bias['shorter']:.0%}."
    ]


def _group_facts(counts: dict[str, int] | None) -> list[str]:
    """How many groups the test prompts are in; None where an older run did not count them."""
    if counts is None:
        return []
    text = f"Test prompts: {counts['prompts']}, in {counts['groups']} groups"
    if counts["groups"] == counts["prompts"]:
        return [f"{text}: none is nearly the same as another."]
    return [
        f"{text} of near-duplicates or of one `group` of the data, the largest of {counts['largest']}; the verdict "
        "counts groups, because prompts that are alike get like replies."
    ]


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


def data_cells(preflight: dict[str, Any], manifest: dict[str, Any]) -> Cells:
    """Return a table with a row for each split."""
    rows = []
    for name, part in preflight["splits"].items():
        counts = manifest["splits"][name]
        of_prompts, chosen, rejected = (
            "{median} / {p95} / {max}".format(**part[key]) if key in part else "-"
            for key in ("prompt_tokens", "chosen_tokens", "rejected_tokens")
        )
        trained = [str(part["trained_tokens"]), chosen] if part["replies"] else ["-", "-"]
        tokens = [trained[0], of_prompts, trained[1], rejected]
        near = preflight["near_duplicates"][name]["count"]
        rows.append([name, str(counts["rows"]), str(counts["prompts"]), *tokens, str(part["shortened"]), str(near)])
    return HEADINGS, rows
