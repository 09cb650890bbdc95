"""Does an algorithm keep what the interface promises? Each promise is tried in the lab and answered by name."""

from __future__ import annotations

from prefzoo.conformance.findings import Finding
from prefzoo.conformance.suite import check

__all__ = ["Finding", "check"]
