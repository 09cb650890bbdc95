"""The section on the judge: its audit in sentences, tables and a picture."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from prefzoo.judges.judge_audit import Audit
from prefzoo.judges.judge_audit_text import Cells, calibration_cells, cells, sentences
from prefzoo.results.results_schema import Results


@dataclass(frozen=True)
class JudgeSection:
    """What is shown of one judge; the pictures are PNGs in base64, empty where `bins` is None."""

    title: str
    sentences: list[str]
    table: Cells
    bins: Cells | None
    light: str
    dark: str


def judge_sections(results: Results) -> list[JudgeSection]:
    """A section for each judge that was audited."""
    audits = results.judge.get("audits", {})
    return [_section(f"The {name}", Audit.model_validate(found)) for name, found in audits.items() if found is not None]


def _section(title: str, audit: Audit) -> JudgeSection:
    bins = calibration_cells(audit)
    light, dark = (
        base64.b64encode(calibration_picture(audit, dark)).decode() if bins else "" for dark in (False, True)
    )
    return JudgeSection(title, sentences(audit), cells(audit), bins, light, dark)


def calibration_picture(audit: Audit, dark: bool = False) -> bytes:
    """A PNG: how often the judge is right by how sure it is, with 95% intervals, beside the line on which both are the
    same; the number of pairs stands at each point. Light on dark for `dark`."""
    import matplotlib.style
    from matplotlib.figure import Figure

    assert audit.calibration is not None, "without a truth nothing is known of calibration"
    with matplotlib.style.context(["default", "dark_background"] if dark else ["default"]):
        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([0.5, 1], [0.5, 1], color="0.6", linewidth=1, linestyle="--", label="right as often as sure")
        for each in audit.calibration.bins:
            if each.mean is not None and each.right is not None:
                low, high = each.right.ci95
                errors = [[each.right.share - low], [high - each.right.share]]
                axes.errorbar(each.mean, each.right.share, yerr=errors, fmt="o", capsize=3, color="C0")
                axes.annotate(f"{each.pairs}", (each.mean, each.right.share), (6, -14), textcoords="offset points")
        axes.set(
            xlabel="how sure the judge is of the reply it prefers",
            ylabel="how often it is right (95% interval)",
            xlim=(0.48, 1.04),
            ylim=(-0.02, 1.04),
        )
        axes.legend(loc="lower right", frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, dpi=130, format="png", transparent=dark)
    return file.getvalue()
