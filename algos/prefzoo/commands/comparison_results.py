"""What `prefzoo.compare` and `prefzoo.load` return: the results, and where they lie; shown by a notebook as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from prefzoo.report.figures import frontier
from prefzoo.report.render_pages import render_summary
from prefzoo.report.summary_text import sentence, title
from prefzoo.results.results_schema import Results

if TYPE_CHECKING:
    import pandas

REPORT = "report.html"


class ComparisonResults(Results):
    """What is in `results.json`, with the folder that it lies in."""

    _folder: Path = PrivateAttr()
    _tracked: str = PrivateAttr("")

    @classmethod
    def of(cls, results: Results, folder: Path, tracked: str = "") -> ComparisonResults:
        """The same results, of the comparison in `folder`."""
        made = cls.model_construct(**{name: getattr(results, name) for name in Results.model_fields})
        made._folder, made._tracked = folder.absolute(), tracked
        return made

    @property
    def folder(self) -> Path:
        """The comparison's folder, with every reply, every trained policy and `results.json`."""
        return self._folder

    @property
    def report(self) -> Path:
        """The report, one page; of a comparison that did not come to its end it may not be there yet."""
        return self.folder / REPORT

    @property
    def tracked(self) -> str:
        """A line that says where this call logged its runs, and how to upload them; empty where it logged none."""
        return self._tracked

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each trial: policy, algorithm, seed, every metric, and what it used as `ledger/<name>`."""
        import pandas

        rows = [
            {
                "policy": label,
                "algorithm": result.algorithm,
                "seed": int(seed),
                **trial.metrics,
                **{f"ledger/{name}": amount for name, amount in trial.ledger.items()},
            }
            for label, result in self.algorithms.items()
            for seed, trial in result.seeds.items()
        ]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        return f"<{title(self)}. {sentence(self)} {self.report}>"

    __str__ = __repr__

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Results) and self.model_dump() == other.model_dump()

    def _repr_html_(self) -> str:
        return render_summary(self, frontier(self), self.report if self.report.is_file() else None)
