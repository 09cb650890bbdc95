"""Write docs/zoo.md: every algorithm with its loss, paper, needs, cost, settings, and what it gained in the lab.

    python -m tools.zoo_page [--costs RUN] [RUN ...]

Each RUN is a finished comparison of the recipe `zoo`, or of some of its algorithms. Numbers of a run with `--tune`
stand beside those of the settings as written. What no RUN has is shown as it was kept. What a prompt costs is taken
from the run after `--costs`, for which a few prompts are enough.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from prefzoo import registry
from prefzoo.recipe.key_descriptions import about, hyper_parameters

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "zoo.md"
PICTURE = ROOT / "docs" / "zoo.png"
FOUND = ROOT / "benchmarks" / "results" / "zoo.json"
HEAD = """# The zoo

Every algorithm, from its docstring (`python -m tools.zoo_page`; `prefzoo ls NAME` says the same in a terminal). What a
prompt costs is of the training alone, a teacher's included and the shared reward model's not, in the lab, whose prompts
have some 39 tokens and whose replies 17. Each takes `trainer`, too: any field of the config of the trainer behind it
that the comparison does not set itself.
"""
MEASURED = """`prefzoo compare zoo` (the lab, {seeds} seeds, {prompts} prompts), each algorithm as the recipe has it,
which is its defaults but for what its section says. Defaults are mostly of papers on models a thousand times larger:
that column says what they do here, not which method is best.
"""
TUNED = """`prefzoo compare zoo --tune {trials}`: each searched alike, {trials} settings, on validation prompts
([docs/tuning.md](tuning.md)); the winners then trained anew, with the seeds and the test prompts of the others.
Where a column has no number, that algorithm was not searched. A winner of so few settings, each tried with one seed,
may still run away with another: look at its KL. Verdicts are corrected for all policies of their own run; there were
runs of {compared} policies, tuned and as written, and fewer are told apart more easily.
"""
UNTUNED = "-untuned"
SPENT = {
    "trained_tokens": "tokens learned from",
    "generated_tokens": "tokens sampled",
    "forward_tokens": "tokens passed over without learning",
    "reward_calls": "scores",
    "judge_calls": "questions to a judge",
}
"""Of the ledger, in words."""


def keep(runs: list[Path], found: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of finished comparisons, put over what was `found` before."""
    import prefzoo

    found = {"labels": {}, **found}
    for run in runs:
        results = prefzoo.load(run)
        found |= {"seeds": len(results.recipe["seeds"]), "prompts": results.recipe["budget"]["prompts"]}
        over_start = {v.a: v for v in results.verdicts if (v.metric, v.b) == ("gold", "start")}
        tuned = results.recipe.get("tuning")
        if tuned:
            found.setdefault("tuned", {"labels": {}})["trials"] = tuned["trials"]
        for label, each in results.algorithms.items():
            if label == "start":
                continue
            verdict, name = over_start.get(label), label.removesuffix(UNTUNED)
            row = {
                "algorithm": each.algorithm,
                "error": each.error,
                "over_start": verdict and verdict.difference,
                "ci95": verdict and verdict.ci95,
                "verdict": verdict and verdict.verdict,
                "kl": each.summary["kl"].mean if "kl" in each.summary else None,
                "settings": each.settings,
                "compared": len(results.algorithms) - 1,
            }
            if results.tuning is not None and label in results.tuning.labels:
                found["tuned"]["labels"][name] = row
            if not tuned or label != name or f"{name}{UNTUNED}" not in results.algorithms:
                found["labels"][name] = row
    return found


def costs(run: Path) -> dict[str, dict[str, float]]:
    """What each training of a comparison as written used for each prompt of its budget, mean over its seeds."""
    import prefzoo

    results = prefzoo.load(run)
    prompts = results.recipe["budget"]["prompts"]
    return {
        label: {
            key: sum(seed.training.get(key, 0) for seed in each.seeds.values()) / len(each.seeds) / prompts
            for key in SPENT
        }
        for label, each in results.algorithms.items()
        if each.seeds and label != "start"
    }


def draw(found: dict[str, Any]) -> None:
    """A line for each algorithm with its gold over the start, as written and tuned; the most last, tuned where that was
    searched."""
    from matplotlib.figure import Figure

    kinds = {"as written": (found["labels"], "#888888"), "tuned": (found.get("tuned", {}).get("labels", {}), "#1f6f8b")}
    measured = {
        name: next(rows[name]["over_start"] for rows, _ in reversed(kinds.values()) if rows.get(name, {}).get("ci95"))
        for name in found["labels"]
        if any(rows.get(name, {}).get("ci95") for rows, _ in kinds.values())
    }
    names = sorted(measured, key=measured.__getitem__)
    figure = Figure(figsize=(7, 1 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots()
    for shift, (kind, (rows, colour)) in zip((0.15, -0.15), kinds.items(), strict=True):
        points = [(i + shift, rows[name]) for i, name in enumerate(names) if rows.get(name, {}).get("ci95")]
        if not points:
            continue
        places, means = [place for place, _ in points], [row["over_start"] for _, row in points]
        reach = [[mean - row["ci95"][0], row["ci95"][1] - mean] for mean, (_, row) in zip(means, points, strict=True)]
        axes.errorbar(means, places, xerr=list(zip(*reach, strict=True)), fmt="o", ms=3, lw=1, color=colour, label=kind)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(-1, len(names))
    axes.set_xlabel("gold over the start, 95% intervals")
    axes.legend(loc="upper left")
    figure.savefig(PICTURE, dpi=130)


def families() -> dict[str, list[str]]:
    """Family -> the algorithms of this package in it."""
    names = [name for name in registry.names() if registry.load(name).__module__.startswith("prefzoo.zoo.")]

    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(registry.load(name).family, []).append(name)
    return {family: found[family] for family in sorted(found, key=registry.family_order)}


def gained(row: dict[str, Any] | None) -> str:
    """What an algorithm gained over the start, with its interval."""
    if row is None or row["over_start"] is None:
        return "not measured" if row is None else f"failed: {row['error']}"
    low, high = row["ci95"]
    return f"{row['over_start']:+.2f} [{low:+.2f}, {high:+.2f}], {row['verdict']}"


def gains(found: dict[str, Any], name: str) -> str:
    """The sentence of what it gained, as the recipe has it and tuned, and by which settings."""
    row, tuned = found["labels"].get(name), found.get("tuned", {}).get("labels", {}).get(name)
    own = said(row["settings"]) if row else []
    with_own = f" ({', '.join(own)})" if own else ""
    text = f"In the lab, gold over the start: {gained(row)}{with_own}."
    if tuned is None:
        return text
    if row and tuned["settings"] == row["settings"]:
        return f"{text} The search kept these settings."
    return f"{text} Tuned: {gained(tuned)} ({', '.join(said(tuned['settings']))})."


def cost(used: dict[str, float] | None) -> str:
    """The sentence of what a prompt of the lab costs a training."""
    if used is None:
        return ""
    parts = [f"{text} {used[key]:,.0f}" for key, text in SPENT.items() if round(used[key])]
    return f" A prompt of the lab costs: {', '.join(parts)}." if parts else " It trains nothing."


def section(name: str, found: dict[str, Any] | None) -> list[str]:
    """The lines of one algorithm."""
    cls = registry.load(name)
    algorithm, _ = registry.build(cls, {})
    lines = [f"### {name}", "", about(cls), ""]
    used = cost((found or {}).get("costs", {}).get(name))
    lines.append(f"Needs: {', '.join(sorted(cls.needs)) or 'nothing'}.{used}")
    if found is not None:
        lines.append(gains(found, name))
    lines += ["", "| setting | default | allowed | meaning | the default is from |", "| --- | --- | --- | --- | --- |"]
    for each in hyper_parameters(cls):
        if each.name != "trainer":
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in each) + " |")
    if tunable := algorithm.tunable if algorithm is not None else cls.space:
        tried = ", ".join(f"`{key}` {each}" for key, each in tunable.items())
        lines += ["", f"Tuning tries {tried}."]
    return [*lines, ""]


def table(found: dict[str, Any]) -> list[str]:
    """What was gained, the most first; tuned, where that was searched."""
    written, tuned = found["labels"], found.get("tuned", {}).get("labels", {})
    names = [name for name, row in written.items() if row["over_start"] is not None]
    open_ = [name for name in names if written[name]["verdict"] != "better"]
    lines = [f"Not shown to be better than the start as written: {', '.join(open_)}."]
    if tuned:
        still = [name for name, row in tuned.items() if row["verdict"] != "better"]
        lines[0] += f" Nor tuned: {', '.join(still)}."
    more = " tuned: over the start [95%] | verdict | KL |" if tuned else ""
    lines += ["", f"| | family | as written: gold over the start [95%] | verdict | KL |{more}"]
    lines += [f"| --- | --- | ---: | --- | ---: |{' ---: | --- | ---: |' if tuned else ''}"]
    for name in sorted(names, key=lambda name: -(tuned.get(name, {}).get("over_start") or written[name]["over_start"])):
        family = registry.load(written[name]["algorithm"]).family
        sides = [cells(rows.get(name)) for rows in ((written, tuned) if tuned else (written,))]
        lines.append(f"| [{name}](#{name}) | {family} | {' | '.join(sides)} |")
    return [*lines, "", f"![gold of each with its interval]({PICTURE.name})"]


def cells(row: dict[str, Any] | None) -> str:
    """Gain, verdict and KL of one algorithm."""
    if row is None or row["over_start"] is None:
        return "- | - | -"
    low, high = row["ci95"]
    return f"{row['over_start']:+.2f} [{low:+.2f}, {high:+.2f}] | {row['verdict']} | {row['kl']:.1f}"


def said(settings: dict[str, Any]) -> list[str]:
    """Settings that are not the defaults, in short."""
    return [
        text
        for key, value in settings.items()
        for text in (said(value) if isinstance(value, dict) else [f"{key} {value}"])
    ]


def sizes_of_runs(found: dict[str, Any]) -> str:
    """How many policies the runs compared whose numbers are shown, in words."""
    rows = [*found["labels"].values(), *found["tuned"]["labels"].values()]
    *most, last = map(str, sorted({row["compared"] for row in rows}))
    return f"{', '.join(most)} and {last}" if most else last


def page(found: dict[str, Any] | None) -> str:
    """The whole page."""
    lines = [HEAD]
    if found is not None:
        lines.append(MEASURED.format(**found))
        if tuned := found.get("tuned"):
            lines.append(TUNED.format(**tuned, compared=sizes_of_runs(found)))
        lines += [*table(found), ""]
    for family, names in families().items():
        lines += [f"## {family[0].upper()}{family[1:]}", ""]
        for name in names:
            lines += section(name, found)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--costs", type=Path)
    given = parser.parse_args()
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else None
    if given.costs:
        found = {**(found or {}), "costs": costs(given.costs)}
    if given.runs:
        found = keep(given.runs, found or {})
    if found is not None and (given.costs or given.runs):
        FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        draw(found)
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
