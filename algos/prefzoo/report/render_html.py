"""Sections as one page without a network, light or dark, with a search through the replies."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader

from prefzoo.report.sections import Part, Section


def render_html(sections: Sequence[Section]) -> str:
    """Return the page; the title of the first section is its title."""
    environment = Environment(
        loader=PackageLoader("prefzoo.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    assert environment.loader is not None
    script = environment.loader.get_source(environment, "filter.js")[0]
    shown: list[tuple[Section, Sequence[Part], bool]] = []
    for section in sections:
        if parts := section.shown("html"):
            shown.append((section, parts, all(section.id != other.id for other, *_ in shown)))
    return environment.get_template("report.html.jinja").render(
        sections=shown,
        links=[section for section, _, is_first in shown[1:] if section.linked and is_first],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
