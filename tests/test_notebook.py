"""What a notebook and a Python prompt show of a comparison."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import prefzoo
from prefzoo.commands.comparison_results import ComparisonResults
from prefzoo.errors import PrefzooError
from prefzoo.run.progress_display import Watcher
from prefzoo.run.stage_graph import Stage
from reported import MEANS, made

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def results(tmp_path) -> ComparisonResults:
    return ComparisonResults.of(made(tmp_path), tmp_path)


def test_only_what_is_offered_is_listed() -> None:
    names = {name for name in dir(prefzoo) if not name.startswith("__")}
    assert names == set(prefzoo.__all__) >= {"compare", "load", "load_policy"}
    code = "import prefzoo, prefzoo.cli; print(*dir(prefzoo)); prefzoo.load, prefzoo.compare"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == sorted(dir(prefzoo)), "submodules that are imported are not listed either"


def test_a_result_is_one_line_at_a_prompt_and_a_table_in_a_notebook(results, tmp_path) -> None:
    assert repr(results) == str(results) and len(repr(results)) < 400
    assert (
        "dpo and rejection_sampling against the start" in repr(results)
        and "better than the start" in repr(results).lower()
    )
    results.notes.append(HOSTILE)
    (tmp_path / "report.html").write_text("")
    shown = results._repr_html_()
    rows = re.findall(r"<tr>(.*?)</tr>", shown)
    assert [re.findall(r"<td[^>]*>(.*?)</td>", row)[:2] for row in rows[1:]] == [
        ["dpo", "better"], ["rejection_sampling", "inconclusive"], ["start", ""]
    ]  # fmt: skip
    assert 'src="data:image/png;base64,iVBOR' in shown and "nats" in shown and HOSTILE not in shown
    assert str(tmp_path / "report.html") in shown and results.report == tmp_path / "report.html"
    assert results.folder == tmp_path and results.model_dump() == made(tmp_path / "again").model_dump() | {
        "notes": results.notes
    }


def test_a_table_of_numbers_for_pandas(results) -> None:
    table = results.to_dataframe()
    assert len(table) == 6 and set(table.policy) == set(MEANS) and set(table.seed) == {0, 1}
    row = table[(table.policy == "dpo") & (table.seed == 1)].iloc[0]
    assert (row.proxy, row["ledger/trained_tokens"], row.algorithm) == (0.5, 3000, "dpo")


def test_a_run_is_read_again_finished_or_not(small_run, tmp_path) -> None:
    ran, out = small_run
    found = prefzoo.load(str(out))
    assert found.model_dump() == ran.model_dump() and found.folder == ran.folder == out
    partial = tmp_path / "run"
    partial.mkdir()
    for name in ("stages", "trials"):
        (partial / name).symlink_to(out / name)
    (partial / "plan.json").write_bytes((out / "plan.json").read_bytes())
    unfinished = prefzoo.load(partial)
    assert unfinished.algorithms["dpo"].summary == ran.algorithms["dpo"].summary
    assert {file.name for file in partial.iterdir()} == {"stages", "trials", "plan.json"}, "nothing is written"
    with pytest.raises(PrefzooError, match="holds no prefzoo run"):
        prefzoo.load(tmp_path)


def test_progress_in_a_notebook_is_one_line_that_changes(monkeypatch) -> None:
    written: list[tuple[str, str]] = []

    class Handle:
        def update(self, content: dict[str, str], raw: bool) -> None:
            written.append(("update", content["text/plain"]))

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Handle:
        written.append(("new", content["text/plain"]))
        return Handle()

    monkeypatch.setitem(sys.modules, "IPython", type(sys)("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", type(sys)("IPython.display"))
    monkeypatch.setattr(sys.modules["IPython.display"], "display", display, raising=False)
    monkeypatch.setattr(Console, "print", lambda *given, **more: written.append(("line", str(given[1]))))
    stages = [Stage(f"train dpo seed {i}", "train", Path("x"), label="dpo", seed=i) for i in range(30)]
    with Watcher(30, 1, Console(force_jupyter=True)) as watcher:
        watcher.expect(stages)
        for stage in stages:
            watcher.started(stage)
            watcher.progressed(stage, "training", 3, 7)
            watcher.tick()
            status, error = ("failed", "no memory") if stage.seed == 4 else ("ok", None)
            watcher.ended(stage, status, error, 1.0, reused=False)
    kinds = [kind for kind, _ in written]
    assert kinds.count("new") == 1 and [text for kind, text in written if kind == "line"] == [
        "[5/30] train dpo seed 4: FAILED: no memory"
    ]
    assert "training 3/7" in written[0][1] and written[-1] == ("update", "[30/30] done")


def test_a_real_kernel_shows_the_table_the_frontier_and_one_line_of_progress(small_run, tmp_path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from conftest import SMALL

    out = tmp_path / "run"  # of others' tests is what a call writes down of itself
    shutil.copytree(small_run[1], out, symlinks=True)
    cells = [
        f"import prefzoo\nprefzoo.compare('quickstart', seeds=2, sets={SMALL!r}, out={str(out)!r})",
        f"prefzoo.load({str(out)!r})",
        f"len(repr(prefzoo.load({str(out)!r})))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    before = dict(os.environ)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    assert dict(os.environ) == before

    def shown(i: int) -> list[Any]:
        return [each.data for each in notebook.cells[i].outputs if "data" in each]

    for i in (0, 1):
        page = shown(i)[-1]["text/html"]
        assert "<td>dpo</td>" in page and "data:image/png" in page
    assert len(shown(0)) <= 3, "progress does not flood the notebook"
    assert int(shown(2)[0]["text/plain"]) < 600
