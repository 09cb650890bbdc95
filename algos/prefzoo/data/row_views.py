"""Rows as the views that an algorithm sees, and as the pairs that a reward or a judge is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from prefzoo.data.formats import Row
from prefzoo.views import Views, assistant_turn, prompt_key


def views_of(rows: Sequence[Row]) -> Views:
    """All views of these rows."""
    distinct = {prompt_key(row.prompt): row.prompt for row in reversed(rows)}
    return Views(
        prompts=[distinct[key] for key in dict.fromkeys(prompt_key(row.prompt) for row in rows)],
        preferences=[
            {
                "prompt": row.prompt,
                "chosen": _turn(row, "chosen"),
                "rejected": _turn(row, "rejected"),
                **({} if row.margin is None else {"margin": row.margin}),
            }
            for row in rows
            if row.chosen is not None and row.rejected is not None
        ],
        demonstrations=[
            {"prompt": row.prompt, "completion": assistant_turn(row.demonstration)}
            for row in rows
            if row.demonstration is not None
        ],
        ratings=[
            {
                "prompt": row.prompt,
                "completion": row.reply,
                "rating": row.rating,
                **({} if row.attributes is None else {"attributes": row.attributes}),
            }
            for row in rows
            if row.reply is not None and row.rating is not None
        ],
        rankings=_rankings(rows),
        labelled=[
            {"prompt": row.prompt, "completion": assistant_turn(row.reply), "label": row.liked}
            for row in rows
            if row.liked is not None
        ],
    )


def _turn(row: Row, side: str) -> list[dict[str, Any]]:
    return assistant_turn(getattr(row, side), (row.token_ids or {}).get(side))


def cluster_of(row: Row) -> str:
    """Return what pairs that are not independent have in common: the group of their prompt, else the prompt."""
    return row.group or prompt_key(row.prompt)


def distinct_pairs(rows: Sequence[Row]) -> list[Row]:
    """Each pair of replies to one prompt once, as most of its rows have it, so that no reward or judge is measured
    several times on the same pair. Rows without a pair, and pairs on which as many rows say the opposite, are left out.
    """
    by_pair: dict[tuple[str, frozenset[str | None]], list[Row]] = {}
    for row in rows:
        if row.chosen is not None and row.rejected is not None:
            by_pair.setdefault((prompt_key(row.prompt), frozenset((row.chosen, row.rejected))), []).append(row)
    distinct = []
    for same_pair in by_pair.values():
        agreeing = [row for row in same_pair if row.chosen == same_pair[0].chosen]
        opposed = [row for row in same_pair if row.chosen != same_pair[0].chosen]
        if len(agreeing) != len(opposed):
            distinct.append(max(agreeing, opposed, key=len)[0])
    return distinct


def _rankings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    ranked = {(prompt_key(row.prompt), *pair) for row in rows for pair in combinations(row.ranking or (), 2)}
    rankings = []
    for row in rows:
        if row.ranking is not None:
            rankings.append({"prompt": row.prompt, "ranking": row.ranking})
        elif row.chosen is not None and (prompt_key(row.prompt), row.chosen, row.rejected) not in ranked:
            rankings.append({"prompt": row.prompt, "ranking": [row.chosen, row.rejected]})
    return rankings
