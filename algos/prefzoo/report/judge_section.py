"""The sections on the judges: their audits in sentences, tables and a picture."""

from __future__ import annotations

from functools import partial

from prefzoo.judges.judge_audit import Audit
from prefzoo.judges.judge_audit_text import calibration_cells, cells, sentences
from prefzoo.report import axes
from prefzoo.report.figures import draw
from prefzoo.report.sections import PROSE, Figures, Fold, Part, Picture, Points, Section, Table
from prefzoo.results.results_schema import Results


def judge_sections(results: Results) -> list[Section]:
    """Return a section for each judge that was audited."""
    audits = results.judge.get("audits", {})
    return [_section(name, Audit.model_validate(audit)) for name, audit in audits.items() if audit is not None]


def _section(name: str, audit: Audit) -> Section:
    title = f"The {name}"
    table = Table(cells(audit), "how far the judge is to be trusted", key=title)
    parts: list[Part] = [Points(sentences(audit)), table]
    if bins := calibration_cells(audit):
        table = Table(bins, "reliability of the judge's probabilities")
        picture = calibration_picture(audit, f"calibration_{name.replace(' ', '_')}")
        parts.append(Fold("Is it right as often as it is sure?", [table, Figures([picture])], only=("html",)))
    return Section("judge", title, parts)


def calibration_picture(audit: Audit, name: str = "judge_calibration") -> Picture:
    """Draw how often the judge is right by how sure it is, with 95% intervals, beside the line on which both are the
    same; the number of pairs stands at each point."""
    assert audit.calibration is not None, "without a truth nothing is known of calibration"
    text = ", ".join(
        f"{b.right.share:.2f} where it is sure to {b.mean:.2f}"
        for b in audit.calibration.bins
        if b.mean is not None and b.right is not None
    )
    drawing = partial(axes.calibration, bins=audit.calibration.bins)
    return draw(name, PROSE["calibration_picture"], text, drawing, height=4.0)
