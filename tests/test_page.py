"""The report as a browser shows it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reported import made, searched

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTILE = '</p><img src="https://example.com/x.png" onerror="document.title=1"><script>document.title = 2</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with (
        sync_api.sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as opened,
    ):
        yield opened


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with three prompts, of which a reply tries to be part of the page."""
    import json

    from prefzoo.report import report_files
    from prefzoo.results.results_schema import Warning
    from prefzoo.results.tuning_results import explained
    from prefzoo.results.tuning_schema import Tuning

    out = tmp_path_factory.mktemp("page")
    results = made(out)
    results.warnings = [Warning("length", "dpo", f"dpo: {HOSTILE}", 1.0, (0.5, 1.5))]
    search = Tuning.model_validate(searched({"dpo": [-0.5, 0.25, None, 1.0]}))
    results.tuning = explained(search, results.verdicts, "gold")
    for label, each in results.algorithms.items():
        for number, trial in enumerate(each.seeds.values()):
            trial.metrics = {"gold": each.summary["gold"].mean + 0.1 * number, "kl": 2.0 + number, "proxy": 1.0}
            records = [
                {"prompt": [{"role": "user", "content": f"question {i}"}], "slice": part, "length": 3, "gold": 0.5,
                 "reply": f"{label} says {word}"}
                for i, (part, word) in enumerate((("benign", "yes"), ("harmful", "no"), ("harmful", HOSTILE)))
            ]  # fmt: skip
            (out / trial.replies).write_text("".join(json.dumps(each) + "\n" for each in records))
    report_files.write(results, out)
    return out / "report.html"


def opened(browser: Any, file: Path, problems: list[str], **more: Any) -> Any:
    """The page in a window of its own; what it complains of or asks the network for is added to `problems`."""
    page = browser.new_context(**more).new_page()
    page.on("console", lambda said: problems.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda asked: asked.url == file.as_uri() or problems.append(asked.url))
    page.goto(file.as_uri())
    return page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_it_opens_from_a_file_without_a_complaint_or_a_request(browser, page_file, width, scheme, tmp_path) -> None:
    problems: list[str] = []
    page = opened(browser, page_file, problems, viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert page.title().startswith("dpo and rejection_sampling against the start")  # and no reply has changed it
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # tables scroll, the page does not
    assert page.get_by_role("img", name="Expected best validation score").count() == 1
    first = page.locator("figure svg text").first
    ink, paper = (first.evaluate(f"e => getComputedStyle({of}).{what}") for of, what in
                  (("e", "fill"), ("document.body", "backgroundColor")))  # fmt: skip
    assert ink == page.evaluate("getComputedStyle(document.body).color") != paper
    texts = "[...document.querySelectorAll('figure svg text')]"
    smallest = page.evaluate(f"Math.min(...{texts}.map(text => text.getBoundingClientRect().height))")
    assert smallest >= 8
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert problems == []


def test_figures_and_controls_can_be_read_without_eyes(browser, page_file) -> None:
    page = opened(browser, page_file, [])
    pictures = page.get_by_role("img")
    assert pictures.count() == page.locator("figure").count() >= 4
    for i in range(pictures.count()):
        assert "dpo" in pictures.nth(i).get_attribute("aria-label")  # numbers, not only a title
    assert page.get_by_role("searchbox", name="Text").count() == page.get_by_role("combobox", name="Slice").count() == 1
    assert page.locator("th:not([scope])").count() == 0


def test_replies_are_found_by_text_slice_and_policy(browser, page_file) -> None:
    problems: list[str] = []
    page = opened(browser, page_file, problems)

    def shown() -> tuple[int, int, str]:
        visible = page.locator("details.answered:visible")
        return visible.count(), page.locator(".answer:not([hidden])").count(), page.locator("#shown").inner_text()

    assert shown() == (3, 9, "3 of 3 prompts shown")
    page.get_by_role("combobox", name="Slice").select_option("harmful")
    assert shown()[0] == 2
    page.get_by_role("searchbox").fill("DPO says no")
    assert shown() == (1, 9, "1 of 3 prompts shown")
    page.get_by_role("checkbox", name="dpo").uncheck()
    assert shown() == (0, 6, "0 of 3 prompts shown")  # what is hidden is not searched
    page.get_by_role("button", name="Show everything").click()
    page.wait_for_function("document.getElementById('shown').textContent.startsWith('3 of')")
    assert shown() == (3, 9, "3 of 3 prompts shown")
    page.get_by_role("button", name="Close all").click()
    assert page.locator("details.answered[open]").count() == 0
    page.get_by_role("button", name="Open all").click()
    assert page.get_by_text(HOSTILE).count() == 4  # three replies and a warning, as text
    assert problems == []


def test_it_is_whole_without_javascript(browser, page_file) -> None:
    page = opened(browser, page_file, [], java_script_enabled=False)
    assert page.locator("#filters").is_hidden() and page.locator("details.answered").count() == 3
    assert page.get_by_text("dpo says yes").is_visible()
    assert page.get_by_text("Better than the start in gold reward: dpo").is_visible()


def test_on_a_phone_the_verdict_is_whole_and_wide_tables_say_that_they_scroll(browser, tmp_path) -> None:
    from prefzoo.report.render_pages import render_html
    from prefzoo.report.sections import Section, Table

    headings = ["policy", "verdict", "over start [95%]", "gold", "proxy", "tokens"]
    names = ("dpo", "rejection_sampling", "expert_iteration_of_more_rounds (the_other_run)")
    rows = [[name, "inconclusive†", "+0.14 [-7.32, +7.61]", "0.09 ±0.66", "0.07", "19.59"] for name in names]
    small = Table((["a", "b"], [["1", "2"]]), "small")
    page_of = [Section("verdict", "x", [Table((headings, rows), "verdicts", verdicts=True), small])]
    (tmp_path / "page.html").write_text(render_html(page_of))
    page = opened(browser, tmp_path / "page.html", [], viewport={"width": 390, "height": 844})
    ends = "[...document.querySelectorAll('td:nth-child(2)')].map(cell => cell.getBoundingClientRect().right)"
    assert max(page.evaluate(ends)) <= 390
    assert page.evaluate("document.querySelector('td').offsetHeight") < 40, "a short name is not broken"
    hint = "[...document.querySelectorAll('.scroll')].map(box => getComputedStyle(box, '::after').content)"
    assert ["scroll sideways" in text for text in page.evaluate(hint)] == [True, False]
    page.set_viewport_size({"width": 1280, "height": 844})
    page.locator("[data-wide]").wait_for(state="detached")


def test_every_section_is_linked_backticks_are_code_and_nothing_unprintable_is_left(browser, tmp_path) -> None:
    from prefzoo.report.render_pages import render_html
    from prefzoo.report.sections import Points, Section, Text

    texts = [Text("say `data.columns`", "note"), Points(["<b>`a<b`</b> \x00\x1b[31m \ud800"])]
    names = ("verdict", "warnings", "judge", "judge", "repeat")
    (tmp_path / "page.html").write_text(render_html([Section(name, name.title(), texts) for name in names]), "utf-8")
    page = opened(browser, tmp_path / "page.html", [])
    links = page.evaluate("[...document.querySelectorAll('nav a')].map(link => link.getAttribute('href'))")
    assert links == ["#warnings", "#judge", "#judge-2", "#repeat"]
    assert all(page.locator(link).count() == 1 for link in links)
    assert page.locator("code").all_inner_texts()[:2] == ["data.columns", "a<b"] and page.locator("li b").count() == 0
    assert "`" not in page.inner_text("body") and not re.search("[\x00\x1b]", page.content())


def test_a_table_of_many_policies_fits_on_paper(browser, tmp_path) -> None:
    from prefzoo.report.render_pages import render_html
    from prefzoo.report.sections import Section, Table

    names = [f"rejection_sampling (run {i})" for i in range(21)]
    rows = [[name, *["0.57*"] * len(names)] for name in names]
    wide = Table((["policy", *names], rows), "Win rates", "Win rates", [[0.5] * len(names)] * len(names))
    (tmp_path / "wide.html").write_text(render_html([Section("pairs", "All pairs", [wide])]))
    page = opened(browser, tmp_path / "wide.html", [], viewport={"width": 718, "height": 1000})  # A4 within its margins
    fits = "document.querySelector('table').getBoundingClientRect().right <= innerWidth"
    assert not page.evaluate(fits)  # on a screen it scrolls
    page.emulate_media(media="print")
    assert page.evaluate(fits)
    assert page.evaluate("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)") > 7  # pixels: 5 points
    assert page.evaluate("[...document.querySelectorAll('td + td')].every(cell => cell.offsetHeight < 20)")  # unbroken
