"""For authors of algorithms: the conformance suite as a pytest fixture, there wherever prefzoo is installed.

    def test_mine(prefzoo_conformance):
        prefzoo_conformance("mine")

The test fails with every promise that is broken and how. The name is that of an entry point of your package, or of a
class that the test module registers with `@prefzoo.register("mine")`. Expect minutes: the last two promises train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest


@pytest.fixture(scope="session")
def prefzoo_conformance() -> Callable[..., None]:
    """`prefzoo_conformance(name, seed=0, sets=())` tries every promise; see `prefzoo.conformance.check`."""

    def conforms(name: str, seed: int = 0, sets: Sequence[str] = ()) -> None:
        from prefzoo.conformance import check

        broken = [str(finding) for finding in check(name, seed, sets=sets) if finding.status == "broken"]
        if broken:
            pytest.fail(f"{name} breaks {len(broken)} of its promises:\n" + "\n".join(broken), pytrace=False)

    return conforms
