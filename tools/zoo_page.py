"""Write docs/zoo.md: every algorithm with its loss, paper, needs, cost, settings, and what it gained in the lab.

    python -m tools.zoo_page [RUN]

RUN is a finished comparison of the recipe `zoo`. Without one the numbers that
were kept are shown again.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from prefzoo import registry
from prefzoo.recipe.key_descriptions import about, hyper_parameters

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "zoo.md"
PICTURE = ROOT / "docs" / "zoo.png"
FOUND = ROOT / "benchmarks" / "results" / "zoo.json"
HEAD = """# The zoo

Every algorithm, from its docstring (`python -m tools.zoo_page`; `prefzoo ls NAME` says the same in a terminal). *Cost*
is how many sequences a row of its data contributes to an epoch of training. Each takes `trainer`, too: any field of the
config of the trainer behind it that the comparison does not set itself.
"""
MEASURED = """`prefzoo compare zoo` (the lab, {}). Defaults are mostly of papers on models a thousand times larger: the
table says what they do here, not which method is best. For that, tune: [docs/tuning.md](tuning.md).
"""


def keep(run: Path) -> dict[str, Any]:
    """What the page shows of a finished comparison."""
    import prefzoo

    results = prefzoo.load(run)
    over_start = {v.a: v for v in results.verdicts if (v.metric, v.b) == ("gold", "start")}
    rows = {}
    for label, found in results.algorithms.items():
        verdict = over_start.get(label)
        rows[label] = {
            "algorithm": found.algorithm,
            "error": found.error,
            "over_start": verdict and verdict.difference,
            "ci95": verdict and verdict.ci95,
            "verdict": verdict and verdict.verdict,
            "kl": found.summary["kl"].mean if "kl" in found.summary else None,
            "settings": found.settings,
        }
    shutil.copy(run / "figures" / "score.png", PICTURE)
    return {"seeds": len(results.recipe["seeds"]), "prompts": results.recipe["budget"]["prompts"], "labels": rows}


def families() -> dict[str, list[str]]:
    """Family -> the algorithms of this package in it."""
    names = [name for name in registry.names() if registry.load(name).__module__.startswith("prefzoo.zoo.")]

    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(registry.load(name).family, []).append(name)
    return {family: found[family] for family in sorted(found, key=registry.family_order)}


def gained(found: dict[str, Any], name: str) -> str:
    """What an algorithm gained over the start, with its interval."""
    row = found["labels"].get(name)
    if row is None or row["over_start"] is None:
        return "not measured" if row is None else f"failed: {row['error']}"
    low, high = row["ci95"]
    return f"{row['over_start']:+.2f} [{low:+.2f}, {high:+.2f}], {row['verdict']}"


def section(name: str, found: dict[str, Any] | None) -> list[str]:
    """The lines of one algorithm."""
    cls = registry.load(name)
    algorithm, _ = registry.build(cls, {})
    lines = [f"### {name}", "", about(cls), ""]
    cost = "" if algorithm is None else f" Cost: {algorithm.replies_per_row}."
    lines.append(f"Needs: {', '.join(sorted(cls.needs)) or 'nothing'}.{cost}")
    if found is not None:
        lines.append(f"In the lab, gold over the start: {gained(found, name)}.")
    lines += ["", "| setting | default | allowed | meaning | the default is from |", "| --- | --- | --- | --- | --- |"]
    for each in hyper_parameters(cls):
        if each.name != "trainer":
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in each) + " |")
    if tunable := algorithm.tunable if algorithm is not None else cls.space:
        tried = ", ".join(f"`{key}` {each}" for key, each in tunable.items())
        lines += ["", f"Tuning tries {tried}."]
    return [*lines, ""]


def table(found: dict[str, Any]) -> list[str]:
    """What was gained, the most first."""
    rows = found["labels"]
    measured = [name for name, row in rows.items() if row["over_start"] is not None]
    open_ = [name for name in measured if rows[name]["verdict"] != "better"]
    lines = [
        f"Not shown to be better than the start, after Holm's correction for {len(measured)}: {', '.join(open_)}.",
        "",
    ]
    lines += ["| | family | gold over the start [95%] | verdict | KL | settings |"]
    lines += ["| --- | --- | ---: | --- | ---: | --- |"]
    for name in sorted(measured, key=lambda name: -rows[name]["over_start"]):
        row = rows[name]
        (low, high), family = row["ci95"], registry.load(row["algorithm"]).family
        lines.append(
            f"| [{name}](#{name}) | {family} | {row['over_start']:+.2f} [{low:+.2f}, {high:+.2f}] | {row['verdict']} "
            f"| {row['kl']:.1f} | {', '.join(said(row['settings']))} |"
        )
    return [*lines, "", f"![gold of each with its interval]({PICTURE.name})"]


def said(settings: dict[str, Any]) -> list[str]:
    """Settings that are not the defaults, in short."""
    return [
        text
        for key, value in settings.items()
        for text in (said(value) if isinstance(value, dict) else [f"{key} {value}"])
    ]


def page(found: dict[str, Any] | None) -> str:
    """The whole page."""
    lines = [HEAD]
    if found is not None:
        what = f"{found['seeds']} seeds, {found['prompts']} prompts, each at its defaults but for what the table says"
        lines += [MEASURED.format(what), *table(found), ""]
    for family, names in families().items():
        lines += [f"## {family[0].upper()}{family[1:]}", ""]
        for name in names:
            lines += section(name, found)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    if len(sys.argv) > 1:
        FOUND.write_text(json.dumps(keep(Path(sys.argv[1])), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else None), encoding="utf-8")


if __name__ == "__main__":
    main()
