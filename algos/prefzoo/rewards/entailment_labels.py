"""Which verdict each label of an entailment model means, readable without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefzoo.judges.fact_checking import Verdict

LABELS: dict[str, Verdict] = {
    "entailment": "supported",
    "entails": "supported",
    "supported": "supported",
    "supports": "supported",
    "contradiction": "contradicted",
    "contradicts": "contradicted",
    "contradicted": "contradicted",
    "refutes": "contradicted",
    "neutral": "not_found",
    "not_entailment": "not_found",
    "not_enough_info": "not_found",
    "not_found": "not_found",
}
"""Names of labels, in small letters, with `_` for blanks and hyphens."""


def verdict_labels(config: Mapping[str, Any]) -> list[Verdict]:
    """The verdict of each label of a sequence-classification model, in their order.

    Args:
        config: the content of its `config.json`.

    Raises:
        ValueError: when a label is not known, or none means that a text supports another.
    """
    names = {int(i): str(name) for i, name in (config.get("id2label") or {}).items()}
    shown = ", ".join(repr(names[i]) for i in sorted(names)) or "labels without names"
    plain = [names[i].lower().replace(" ", "_").replace("-", "_") for i in sorted(names)]
    if "supported" not in (verdicts := [LABELS.get(name) for name in plain]) or None in verdicts:
        raise ValueError(
            f"has {shown}, and it is not known which of them means that a text supports another. Name all of them in "
            f"id2label of its config.json; known names: {', '.join(LABELS)}"
        )
    return [verdict for verdict in verdicts if verdict is not None]


def entailment_problem(path: str) -> str | None:
    """What is wrong with an entailment model, as far as its `config.json` tells; None where nothing is, and for a hub
    id, which is not looked up."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return None if path.count("/") == 1 and not folder.exists() else "is neither a folder nor a hub id (owner/name)"
    if not (folder / "config.json").is_file():
        return "is no model: there is no config.json in it"
    try:
        verdict_labels(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        return str(error)
    return None
