"""What a person reads of a comparison: tables, words, pictures, from results made by hand."""

from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prefzoo import lab
from prefzoo.cli.options import show
from prefzoo.data.formats import Row
from prefzoo.judges.build_judge import RandomJudge
from prefzoo.judges.judge_audit_measures import audit
from prefzoo.recipe.check_recipe import load
from prefzoo.report import axes, report_files
from prefzoo.report.figures import draw, drawn_labels, pictures
from prefzoo.report.render_pages import inline_svg, render_html, render_markdown
from prefzoo.report.render_terminal import print_sections
from prefzoo.report.replies_section import side_by_side
from prefzoo.report.sections import Fold, Picture, Points, Section, Table, Text, tables
from prefzoo.report.summary_text import column_notes, open_note, power_note, seeds_note, sentence, title
from prefzoo.report.verdict_section import facts, grouped_warnings
from prefzoo.results.caveats import notes
from prefzoo.results.number_format import fixed, interval, with_error
from prefzoo.results.results_file import load as load_results
from prefzoo.results.results_schema import Milestone, Results, Summary, Verdict, Warning
from reported import made


def markdown(results: Results, out: Path) -> str:
    """`report.md`, with a picture that is not drawn."""
    picture = Picture("score", "caption", "text", "", b"")
    return render_markdown(report_files.all_sections(results, out, {"score": picture}))


def test_policies_without_a_result_for_one_reason_are_one_line(tmp_path) -> None:
    results = made(tmp_path)
    for label, said in (("start", "seed 0: was not run"), ("dpo", "seed 0: was not run"), ("rejection_sampling", "x")):
        results.algorithms[label].status, results.algorithms[label].error = "skipped", said
    assert facts(results)[:2] == ["start, dpo skipped: seed 0: was not run", "rejection_sampling skipped: x"]


def test_the_title_says_what_was_compared(tmp_path) -> None:
    results = made(tmp_path)
    prompts = results.recipe["evaluation"]["prompts"]
    assert title(results) == f"dpo and rejection_sampling against the start: 2 seeds, {prompts} test prompts"
    results.algorithms |= {f"dpo-{i}": results.algorithms["dpo"] for i in range(5)}
    assert title(results).startswith("dpo, rejection_sampling, dpo-0, dpo-1, dpo-2 and 2 more against the start")
    results.recipe["seeds"] = [4]
    assert "1 seed," in title(results)
    assert "with one seed, not other trainings" in column_notes(results)["±"]


def test_words_are_those_of_the_metric_that_decides(tmp_path) -> None:
    known, unknown = made(tmp_path / "a"), made(tmp_path / "b", gold=False)
    assert sentence(known) == "Better than the start in gold reward: dpo; no difference shown: rejection_sampling."
    assert "higher gold reward" in column_notes(known)["win_rate"] and "proxy" not in column_notes(known)
    assert "higher proxy reward" in column_notes(unknown)["win_rate"] and "gold" not in column_notes(unknown)
    assert "nats" in column_notes(known)["kl"] and "Holm" in column_notes(known)["verdict"]


def test_the_page_is_whole_and_in_order(tmp_path) -> None:
    results = made(tmp_path)
    report_files.write(results, tmp_path)
    page = (tmp_path / "report.html").read_text()
    order = [
        "<h1>dpo and",
        "Better than the start in",
        "<td>dpo</td>",
        "<svg",
        "Read before believing</h2>",
        "How to read the table",
        "Curves</h2>",
    ]
    order += ["Cost</h2>", "2,000", "Side by side</h2>", "report</h2>", "rounds.1.kept", "To repeat it</h2>"]
    places = [page.index(part) for part in order]
    assert places == sorted(places)
    assert "http://" not in page and "https://" not in page and "<link" not in page and page.count("<script") == 1
    assert page.count("<table>") == page.count('class="scroll"') == 6
    assert '<meta name="viewport"' in page and "prefers-color-scheme: dark" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)
    assert '<td class="better">better</td>' in page and "&lt;script&gt;" in page


def test_every_medium_renders_the_same_sections() -> None:
    table = Table((["policy", "cost"], [["dpo", "3 | 4"]]), "what it took", key="cost")
    parts = [
        Text("Seconds of all.", "heading"), table, Text("Read it so."), Text("For eyes.", only=("html",)),
        Fold("dpo", [Table((["fact", "seed 0"], [["kept", "3"]]), "facts", key="facts")]), Points(["one", "two"]),
    ]  # fmt: skip
    sections = [Section("verdict", "All", [Text("It won.", "verdict")]), Section("believing", "Facts", parts)]
    sections += [Section("cost", "For Markdown", [table], only=("markdown",)), Section("judge", "Nothing", [])]
    page = render_html(sections)
    assert "<h1>All</h1>" in page and '<p class="verdict">It won.</p>' in page and "<td>3 | 4</td>" in page
    assert '<h2 id="believing">Facts</h2>' in page and page.count("<li>") == 2 and "For eyes." in page
    assert page.count("<a href=") == 1 and "For Markdown" not in page and "Nothing" not in page
    assert render_markdown(sections) == (
        "# All\n\n**It won.**\n\n## Facts\n\nSeconds of all.\n\n"
        "| policy | cost |\n| --- | ---: |\n| dpo | 3 \\| 4 |\n\n"
        "Read it so.\n\n### dpo\n\n| fact | seed 0 |\n| --- | ---: |\n| kept | 3 |\n\n- one\n- two\n\n"
        "## For Markdown\n\n| policy | cost |\n| --- | ---: |\n| dpo | 3 \\| 4 |\n"
    )
    console = Console(width=80, file=io.StringIO())
    print_sections(sections[:2], console)
    lines = [line.strip() for line in console.file.getvalue().splitlines() if line.strip()]
    assert lines[0] == "It won." and "dpo     3 | 4" in lines and lines[-2:] == ["- one", "- two"]
    assert {t.key for t in tables(parts)} == {"cost", "facts"}


def test_differences_of_a_run_without_a_win_matrix_stand_under_their_own_title(tmp_path) -> None:
    text = markdown(made(tmp_path), tmp_path)  # as results of older versions are
    assert text.index("## Cost") < text.index("## All pairs") < text.index("| dpo - start |")


def test_each_judge_has_a_picture_and_an_anchor_of_its_own(tmp_path) -> None:
    rows = [
        Row(str(i), [{"role": "user", "content": each["prompt"]}], each["chosen"], each["rejected"])
        for i, each in enumerate(lab.preferences("test", 40, 5))
    ]
    results = made(tmp_path)
    audits = {name: audit(RandomJudge(seed), rows, None) for seed, name in enumerate(("judge", "final judge"))}
    results.judge = {"audits": {name: found.model_dump(mode="json") for name, found in audits.items() if found}}
    page = render_html(report_files.all_sections(results, tmp_path, {}))
    assert (
        page.count("Is it right as often as it is sure?") == 2 == page.count("the number of pairs at each point.</fig")
    )
    assert '<h2 id="judge">The judge</h2>' in page and '<h2 id="judge-2">The final judge</h2>' in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) and "<img" not in page


def test_markdown_tables_stay_whole_whatever_is_in_a_cell(tmp_path) -> None:
    text = markdown(made(tmp_path), tmp_path)
    assert text.startswith("# dpo and rejection_sampling against the start")
    assert "| note | x\\|y | x\\|y |" in text and "| dpo | 2,000 |" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
        ("see [here](http://x) or ![a][b]", r"see [here\](http://x) or ![a\][b]"),
        ("*a* __b__ ~~c~~ best_of_n [+0.84, +1.16]", r"\*a\* \_\_b\_\_ \~~c\~~ best_of_n [+0.84, +1.16]"),
        ("say `data.columns`, or ` alone", "say `data.columns`, or \\` alone"),
        ("a\n\n# title", "a # title"),
        ("&lt;b&gt; & c", "&amp;lt;b&amp;gt; & c"),
        ("# no heading", "\\# no heading"),
        ("a\x00b\ud800", "a\ufffdb\ufffd"),
    ],
)
def test_markdown_shows_what_comes_from_data_as_it_is(text: str, shown: str) -> None:
    table = Table((["policy", text], [["dpo", text]]), "x")
    written = render_markdown([Section("verdict", "Title", [Points([text]), Text(text, "note"), table])])
    assert f"\n- {shown}\n" in written and f"\n\n{shown}\n\n" in written
    assert written.count(f"| {shown} |") == 2
    written.encode()


def test_prompts_on_which_policies_differ_most_come_first_with_the_roles_of_their_turns(tmp_path) -> None:
    results = made(tmp_path)
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    prompts = [[{"role": "user", "content": "plain"}], turns, [{"role": "user", "content": "same"}]]
    scores = {"start": (0.0, 0.0, 1.0), "dpo": (1.0, 3.0, 1.0), "rejection_sampling": (0.5, 0.0, 1.0)}
    for label, result in results.algorithms.items():
        rows = [{"prompt": p, "reply": "r", "gold": g} for p, g in zip(prompts, scores[label], strict=True)]
        (tmp_path / result.seeds["0"].replies).write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, third = side_by_side(results, tmp_path)
    assert first.prompt == "system: Be kind.\nuser: Hi" and first.spread == 3.0
    assert (second.prompt, third.prompt) == ("plain", "same"), "who says one turn of the user need not be said"
    assert [each.prompt for each in side_by_side(results, tmp_path, most=1)] == [first.prompt]
    page = render_html(report_files.all_sections(results, tmp_path, {}))
    assert '<span class="role">system</span> Be kind.' in page and "reward differs most" in page
    assert page.index("Be kind.") < page.index("<summary>plain") < page.index("<summary>same")


def test_ticks_do_not_touch_and_a_run_of_one_step_has_a_scale_of_steps() -> None:
    boxes: list[Any] = []

    def crowded(plot: Any) -> None:
        plot.set_xticks([i / 100 for i in range(60)], [f"{i / 100:.3f}" for i in range(60)])
        plot.set_xlim(0, 0.6)
        boxes.append(plot)

    draw("x", "", "", crowded, 3.0)
    labels = [tick.label1 for tick in boxes[0].xaxis.get_major_ticks() if tick.label1.get_visible()]
    ends = [(box.x0, box.x1) for box in (label.get_window_extent() for label in labels)]
    assert len(ends) > 3 and all(a[1] < b[0] for a, b in itertools.pairwise(ends))
    curves = {"dpo": [[{"step": 1, "loss": 2e-8}]]}
    draw("y", "", "", lambda plot: boxes.append(plot) or axes.training(plot, ["dpo"], curves, "loss", "loss"), 3.0)
    assert boxes[1].get_xlim() == (0, 2) and all(tick == int(tick) for tick in boxes[1].get_xticks())
    low, high = boxes[1].get_ylim()
    assert high - low > 1e-4


def test_the_terminal_ends_with_the_headline_the_table_and_the_places(tmp_path) -> None:
    results = made(tmp_path)
    results.preflight["dropped"], results.preflight["dropped_rows"] = (
        {"empty_prompt": 2},
        {"empty_prompt": ["a line 3"]},
    )
    results.warnings = [Warning("length", "dpo", "dpo: replies got longer.", 1.0, (0.5, 1.5))]
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prefzoo.cli.options.Console", lambda **more: Console(file=shown, width=160))
        show(results, Path("runs/x"), "Weights & Biases: 9 runs kept offline")
    text = shown.getvalue()
    places, tracked = "runs/x/report.html, runs/x/results.json\n", "Weights & Biases: 9 runs kept offline\n"
    facts_first = ["replies got longer", "Reward (trained)", "Data 000000000000"]
    order = [*facts_first, "Better than the start in gold", "over start", "wins: share", places, tracked]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert text.endswith(order[-1]) and "not used: empty prompt 2" in text
    assert len([line for line in text.splitlines() if "rows" in line or "records" in line]) == 1
    assert "a line 3" in render_markdown(report_files.all_sections(results, tmp_path, {})), "the report has all of it"


def test_pictures_are_drawn_of_what_was_measured_alone(tmp_path) -> None:
    results = made(tmp_path)
    assert drawn_labels(results) == ["dpo", "rejection_sampling", "start"]
    curves = {"dpo": [[{"step": 1, "loss": 0.7, "entropy": 2.0}, {"step": 5, "loss": 0.5}]] * 2, "start": [[]]}
    found = {each.name: each for each in pictures(results, curves)}
    assert list(found) == ["score", "frontier", "cost_flops", "cost_seconds", "curve_loss", "curve_entropy"]
    assert found["score"].text.startswith("dpo 1.50 (1.25 to 1.75), rejection_sampling 0.50 (0.25 to 0.75)")
    assert "dpo 0.7 to 0.5" in found["curve_loss"].text and "start" not in found["curve_loss"].text
    for each in found.values():
        assert each.png.startswith(b"\x89PNG") and each.svg.startswith("<?xml")
        assert "http" not in inline_svg(each) and "currentColor" in inline_svg(each)
    for each in results.algorithms.values():
        each.summary = {"gold": each.summary["gold"], "proxy": Summary(mean=1.0, ci95=None)}
    assert [each.name for each in pictures(results, {})][:2] == ["score", "gold_proxy"]


def test_the_loss_of_what_learns_from_its_samples_is_not_drawn(tmp_path) -> None:
    curves = {"dpo": [[{"step": 1, "loss": 0.0, "reward": 1.0}, {"step": 2, "loss": 0.0, "reward": 2.0}]]}
    names = [each.name for each in pictures(made(tmp_path), curves)]
    assert "curve_reward" in names and "curve_loss" not in names


def test_milestones_are_on_the_frontier_and_in_the_table_for_programs(tmp_path) -> None:
    results = made(tmp_path)
    trial = results.algorithms["dpo"].seeds["0"]
    trial.metrics = {"gold": 1.5, "kl": 4.0}
    without = {each.name: each.svg for each in pictures(results, {})}["frontier"]
    trial.milestones = [Milestone(name="round 1", metrics={"gold": 0.7, "kl": 1.0}, ledger={"flops": 5.0})]
    assert {each.name: each.svg for each in pictures(results, {})}["frontier"] != without
    trial.ledger["flops"] = 10.0
    report_files.write_csv(results, tmp_path / "results.csv")
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "policy,seed,milestone,metric,value"
    assert {"dpo,0,round 1,gold,0.7", "dpo,0,round 1,ledger/flops,5.0", "dpo,0,,gold,1.5"} <= set(lines)
    assert "start,1,,ledger/seconds,1.0" in lines


def test_the_sentence_says_who_is_highest_and_who_cannot_be_told_from_it(tmp_path) -> None:
    results = made(tmp_path)
    results.verdicts[1] = results.verdicts[1].model_copy(update={"verdict": "better"})
    pair = {"metric": "gold", "a": "rejection_sampling", "b": "dpo", "difference": -1, "ci95": (-2, 0), "p_adjusted": 1}
    results.verdicts.append(Verdict(**pair, verdict="inconclusive"))
    said = sentence(results)
    assert said.startswith("Highest gold reward: dpo, not told apart from rejection_sampling; better than the start")
    results.verdicts[-1] = Verdict(**pair, verdict="worse")
    assert sentence(results).startswith("Highest gold reward: dpo, ahead of every other policy; ")


def test_the_highest_is_the_highest_of_all_and_not_of_those_that_are_better(tmp_path) -> None:
    results = made(tmp_path)
    results.algorithms["noisy"] = results.algorithms["dpo"].model_copy(
        update={"summary": {"gold": Summary(mean=2.0, ci95=(-1.0, 5.0))}}
    )
    open_one = {"metric": "gold", "difference": 0.5, "ci95": (-2, 3), "p_adjusted": 1, "verdict": "inconclusive"}
    results.verdicts += [Verdict(a="noisy", b=b, **open_one) for b in ("start", "dpo", "rejection_sampling")]
    results.verdicts.append(Verdict(a="rejection_sampling", b="dpo", **open_one))
    assert sentence(results) == (
        "Highest gold reward: noisy, but not shown to be better than the start; highest of those that are: dpo, not "
        "told apart from noisy, rejection_sampling; better than the start in gold reward: dpo; no difference shown: "
        "rejection_sampling, noisy."
    )
    results.verdicts.append(Verdict(a="third", b="dpo", **open_one))
    assert "dpo, not told apart from any other policy; better than" in sentence(results)
    results.verdicts.pop()
    results.verdicts[2] = results.verdicts[2].model_copy(update={"verdict": "better"})
    results.verdicts[1] = results.verdicts[1].model_copy(update={"verdict": "worse"})
    assert sentence(results) == (  # what is worse than the start is not alike to what is better
        "Highest gold reward: noisy, not told apart from dpo; better than the start in gold reward: dpo, noisy; worse: "
        "rejection_sampling."
    )


def test_with_one_seed_the_headline_says_so(tmp_path) -> None:
    results = made(tmp_path)
    results.recipe["seeds"] = [4]
    assert sentence(results).startswith("With one seed, and so of these trainings alone, better than the start")
    results.verdicts = results.verdicts[1:]
    assert sentence(results) == "No difference shown: rejection_sampling."
    results.verdicts = [results.verdicts[0].model_copy(update={"verdict": "worse"})]
    assert "worse than the start in gold reward: rejection_sampling" in sentence(results)


def test_the_first_screen_says_what_two_seeds_are_worth_and_what_to_do_about_inconclusive(tmp_path) -> None:
    results = made(tmp_path)
    assert seeds_note(results) is not None and "Two seeds" in " ".join(results.notes)
    assert power_note(results, tmp_path) is None, "results of older versions do not know the size"
    results.power_difference = 0.3
    text = markdown(results, tmp_path)
    assert text.index("Two seeds: ") < text.index(f"prefzoo power {tmp_path} --difference 0.3") < text.index("## ")
    assert "prefzoo power '/a run' --difference 0.3" in str(power_note(results, Path("/a run")))
    assert "(rejection_sampling) means not shown" in text
    for verdict in results.verdicts:
        verdict.verdict = "inconclusive"
    assert seeds_note(results) is None, "nothing is claimed"
    results.recipe["seeds"] = [0]
    assert "cannot be told from one seed" in str(power_note(results, None))
    for verdict in results.verdicts:
        verdict.verdict = "better"
    results.recipe["seeds"] = [0, 1, 2]
    assert seeds_note(results) is None and power_note(results, None) is None


def test_an_interval_whose_ends_are_not_as_far_away_is_shown_whole() -> None:
    assert with_error(0.5, (0.25, 0.75)) == "0.50 ±0.25" and with_error(0.5, None, "+") == "+0.50"
    assert with_error(0.02, (0.01, 0.07)) == "0.02 [0.01, 0.07]" and with_error(1.0, (1.0, 1.0)) == "1.00 ±0.00"


def test_where_an_interval_and_its_verdict_disagree_the_first_screen_says_why(tmp_path) -> None:
    results = made(tmp_path)
    assert open_note(results) is None and "inconclusive†" not in markdown(results, tmp_path)
    results.verdicts[1] = results.verdicts[1].model_copy(
        update={"ci95": (0.1, 0.9), "p_adjusted": 0.19, "family_size": 2}
    )
    why = (
        "† Inconclusive although its interval leaves out 0: the verdict is corrected for the 2 comparisons with the "
        "start (Holm: rejection_sampling p = 0.190), the interval is not."
    )
    assert open_note(results) == why
    text = markdown(results, tmp_path)
    assert "[+0.10, +0.90] | inconclusive† |" in text and text.index(why) < text.index("![score]")
    results.warnings = [
        Warning("slice", "rejection_sampling", "rejection_sampling: x.", 1.0, (0.5, 1.5)),
        Warning("length", "rejection_sampling", "rejection_sampling: y.", 1.0, (0.5, 1.5)),
        Warning("slice", "dpo", "dpo: z.", 1.0, (0.5, 1.5)),
    ]
    assert grouped_warnings(results) == [
        "rejection_sampling: x. Corrected for 2 comparisons, the difference in gold reward over all prompts is not "
        "shown.",
        "rejection_sampling: y.",
        "dpo: z.",
    ]
    report_files.write(results, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.index('<td class="inconclusive">inconclusive†</td>') < page.index(why) < page.index("<svg")
    assert page.index("Corrected for 2 comparisons, the difference") > page.index(why)


def test_a_warning_that_is_the_same_of_several_policies_is_one(tmp_path) -> None:
    results = made(tmp_path)
    results.warnings = [
        Warning("length", "a (one)", "a (one): replies got longer.", 1.0, (0.5, 1.5)),
        Warning("judge", None, "The judge errs.", 1.0, (0.5, 1.5)),
        Warning("length", "a (two)", "a (two): replies got longer.", 1.0, (0.5, 1.5)),
        Warning("length", "b", "b: replies got much longer.", 1.0, (0.5, 1.5)),
    ]
    assert grouped_warnings(results) == [
        "a (one), a (two): replies got longer.", "The judge errs.", "b: replies got much longer."
    ]  # fmt: skip


def test_no_policy_has_the_colour_of_the_start(tmp_path) -> None:
    from matplotlib.colors import to_rgb

    labels = ["start", *(f"p{i:02}" for i in range(63))]
    looks = [tuple(axes.style_of(label, labels).values()) for label in labels]
    assert len(set(looks)) == len(labels)
    for colour, _ in looks[1:]:
        red, green, blue = to_rgb(colour)
        assert max(red, green, blue) - min(red, green, blue) > 0.2  # no grey


def test_no_zero_has_a_minus_and_no_end_of_an_interval_is_a_zero_that_it_is_not() -> None:
    assert (fixed(-0.001), fixed(-0.001, "+.2f"), fixed(-0.006)) == ("0.00", "+0.00", "-0.01")
    assert interval(-0.14, -0.004) == "[-0.140, -0.004]" and interval(-0.14, -0.1) == "[-0.14, -0.10]"
    assert interval(0.0, 0.0) == "[+0.00, +0.00]" == interval(-1e-17, 1e-17)
    assert interval(0.00021, 1.0, sign="") == "[0.0002, 1.0000]"


def test_tables_and_warnings_write_numbers_so(tmp_path) -> None:
    results = made(tmp_path)
    results.algorithms["start"].summary["kl"] = Summary(mean=-0.001, ci95=None)
    results.verdicts[1] = results.verdicts[1].model_copy(update={"difference": -0.001, "ci95": (-0.5, -0.002)})
    text = markdown(results, tmp_path)
    assert "-0.00 " not in text and text.count("| +0.00 [-0.500, -0.002] |") == 2  # the first table and all pairs


def test_what_no_interval_covers_is_said(tmp_path) -> None:
    results = made(tmp_path)
    assert "covers other trainings and prompts, but not another start: " in column_notes(results)["±"]
    some = {"seconds": 1.0}
    results.shared["reward"] = some
    assert "but not another start or another reward model: what is made once" in column_notes(results)["±"]
    results.shared = {"start (vA)": some, "start (vB)": some, "reward seed 0": some, "reward seed 1": some}
    assert "but not another start: " in column_notes(results)["±"]
    results.shared = {}
    assert column_notes(results)["±"].endswith("covers other trainings and prompts.")


def test_warnings_are_in_the_page_and_in_markdown_and_survive_the_file(tmp_path) -> None:
    results = made(tmp_path)
    assert "Warnings" not in markdown(results, tmp_path)
    results.warnings = [Warning("length", "dpo", "dpo: replies got <b>longer</b>.", 5.0, (4.0, 6.0))]
    report_files.write(results, tmp_path)
    assert "dpo: replies got &lt;b&gt;longer&lt;/b&gt;." in (tmp_path / "report.html").read_text()
    assert "## Warnings" in (tmp_path / "report.md").read_text()
    assert load_results(tmp_path).warnings == results.warnings


def test_arguments_of_ones_own_are_one_sentence_for_all_labels(tmp_path) -> None:
    results = made(tmp_path)
    results.algorithms["dpo"].differs = {"learning_rate": 0.005579, "max_steps": 4}
    results.algorithms["rejection_sampling"].differs = {"learning_rate": 1e-4}
    recipe = load("quickstart", [], ["dpo", "rejection_sampling"])
    told = notes(recipe, results.algorithms, results.reward, results.manifest)
    assert [sentence for sentence in told if "arguments of their own" in sentence] == [
        "Trained with arguments of their own, beside those given to all: dpo (learning_rate 0.005579, max_steps 4), "
        "rejection_sampling (learning_rate 0.0001)."
    ]


def test_it_is_said_that_policies_used_the_proxy_only_when_some_did(tmp_path) -> None:
    results = made(tmp_path, gold=False)
    assert [n for n in results.notes if "proxy" in n] == [
        "No truth is known here: the verdict is by the proxy reward, which rejection_sampling used: a gain "
        "there may be an error of the reward."
    ]
    recipe = load("quickstart", ["gold=none"], ["dpo"])
    algorithms = {label: results.algorithms[label] for label in ("start", "dpo")}
    said = notes(recipe, algorithms, results.reward, results.manifest)
    assert [n for n in said if "proxy" in n] == [
        "No truth is known here: the verdict is by the proxy reward, which no policy used."
    ]
