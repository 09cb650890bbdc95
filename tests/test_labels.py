"""Prompts alone: the start's own replies become preferences, labelled by a scoring function."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prefzoo
from prefzoo.data import splits
from prefzoo.data.formats import Row
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.judges.build_judge import gold_judge
from prefzoo.ledger import Ledger
from prefzoo.recipe import check_recipe as recipes
from prefzoo.report.verdict_section import facts
from prefzoo.results.results_schema import Results
from prefzoo.run.stage_graph import make_plan
from prefzoo.run.stages.label_stage import label_split
from prefzoo.settings import Generation
from prefzoo.types import Completion
from tiny_base import make_base, prompts

RECIPE = """\
model: {path: MODEL}
data: {prompts: PROMPTS, label_with: gold}
gold: {path: GOLD}
training: {learning_rate: 3.0e-3}
generation: {max_new_tokens: 24}
budget: {epochs: 4}
evaluation: {prompts: 60}
algorithms:
  sft:
  dpo:
  rejection_sampling:
  best_of_n:
  ppo:
  a2c:
  reinforce:
  grpo:
  rloo:
"""
OFFLINE_LABELS = ("sft", "dpo", "rejection_sampling", "best_of_n")
GOLD = """\
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

analyzer = SentimentIntensityAnalyzer()


def kind(prompts, completions):
    return [analyzer.polarity_scores(text)["compound"] for text in completions]
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    make_base(folder / "model", steps=200)
    (folder / "prompts.txt").write_text("\n".join(prompts()))
    (folder / "gold.py").write_text(GOLD)
    text = RECIPE.replace("MODEL", str(folder / "model")).replace("PROMPTS", str(folder / "prompts.txt"))
    (folder / "mine.yaml").write_text(text.replace("GOLD", f"{folder / 'gold.py'}:kind"))
    return folder / "mine.yaml"


@pytest.mark.slow
def test_a_base_model_prompts_and_a_scoring_function_go_the_whole_way_in_small(recipe, tmp_path) -> None:
    pytest.importorskip("vaderSentiment")
    sets = ["budget={prompts: 40, epochs: 1}", "evaluation.prompts=12"]
    found = prefzoo.compare(str(recipe), seeds=1, sets=sets, out=tmp_path)
    assert {label: each.error for label, each in found.algorithms.items() if each.status != "ok"} == {}
    assert found.recipe["start"]["algorithm"] == "none"
    assert found.primary == "gold"
    labels = found.preflight["labels"]["splits"]
    assert found.manifest["labels"] == {name: part["sha256"] for name, part in labels.items()}
    assert labels["train"]["pairs"] + sum(labels["train"]["dropped"].values()) == 40
    assert found.reward["test_pairs"] == labels["test"]["pairs"]
    assert found.shared["label"]["generated_tokens"] > 0
    answered = sum(found.manifest["splits"][name]["prompts"] for name in ("train", "test"))
    assert found.shared["label"]["judge_calls"] == 2 * answered  # each pair in both orders
    assert "Preferences made of the start's own replies by gold, train:" in "\n".join(facts(found))
    made = make_plan(recipes.load(str(recipe), [*sets, "seeds=1"]), tmp_path).stages["label"]
    pairs = [row for row in splits.load_split(made.folder, "train") if row.chosen is not None]
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    score = SentimentIntensityAnalyzer().polarity_scores
    assert pairs and all(score(p.chosen)["compound"] > score(p.rejected)["compound"] for p in pairs)
    before = made.folder.stat().st_mtime_ns
    prefzoo.compare(str(recipe), seeds=1, sets=[*sets, "algorithms.dpo.beta=0.2"], out=tmp_path)
    assert made.folder.stat().st_mtime_ns == before  # other settings of an algorithm do not label again


@pytest.mark.learning
@pytest.mark.timeout(3600)
def test_and_offline_algorithms_raise_a_score_that_no_one_here_wrote(recipe, tmp_path) -> None:
    pytest.importorskip("vaderSentiment")
    assert len(recipe.read_text().splitlines()) < 20
    found: Results = prefzoo.compare(str(recipe), OFFLINE_LABELS, seeds=5, out=tmp_path)
    verdicts = {v.a: v for v in found.verdicts if v.metric == "gold" and v.b == "start"}
    assert {name: v.verdict for name, v in verdicts.items()} == dict.fromkeys(OFFLINE_LABELS, "better")


class Scripted:
    """Answers from a list, two replies a prompt."""

    def __init__(self, replies) -> None:
        self.replies = replies

    def sample(self, prompts, generation, seed, n=1, ledger=None, progress=None):
        assert n == 2 and len(prompts) == len(self.replies)
        return [[Completion(t, (1,), finished) for t, finished in pair] for pair in self.replies]

    def save(self, folder) -> None:
        raise NotImplementedError


def test_what_makes_no_pair_is_counted(tmp_path) -> None:
    names = ["better", "worse", "tied", "same", "cut", "empty"]
    rows = [Row(name, [{"role": "user", "content": name}], slice="s") for name in names]
    replies = [
        [("aaa", True), ("a", True)],
        [("a", True), ("aaa", True)],
        [("ab", True), ("ba", True)],
        [("a", True), ("a", True)],
        [("aaa", False), ("a", True)],
        [("", True), ("a", True)],
    ]
    ledger = Ledger()
    given, dropped = label_split(
        rows,
        Scripted(replies),
        gold_judge(lambda prompts, texts: [{"gold": float(len(text))} for text in texts]),
        Generation(),
        0,
        ledger,
        lambda *told: None,
    )
    assert given[: len(rows)] == rows
    assert [(r.id, r.chosen, r.rejected, r.slice) for r in given[len(rows) :]] == [
        ("better labelled", "aaa", "a", "s"),
        ("worse labelled", "aaa", "a", "s"),
    ]
    assert {reason: [i for i, _ in each] for reason, each in dropped.rows.items()} == {
        "tied_replies": ["tied"],
        "identical_pair": ["same"],
        "unfinished_reply": ["cut"],
        "empty_reply": ["empty"],
    }
    assert ledger.judge_calls == 12


def test_a_truth_that_calls_everything_equal_ends_the_comparison_in_words(recipe, tmp_path) -> None:
    (tmp_path / "flat.py").write_text("def flat(prompts, completions):\n    return [0.0 for _ in completions]\n")
    sets = [f"gold.path={tmp_path / 'flat.py'}:flat", "budget.prompts=8", "evaluation.prompts=4"]
    with pytest.raises(PrefzooError, match=r"label: data.label_with: .* not one pair .*tied_replies"):
        prefzoo.compare(str(recipe), ["dpo"], seeds=1, sets=sets, out=tmp_path / "run")


def test_demonstrations_beside_the_prompts_make_the_start(recipe, tmp_path) -> None:
    file = tmp_path / "demos.jsonl"
    file.write_text("".join(json.dumps({"prompt": p, "completion": "It was nice."}) + "\n" for p in prompts()[:20]))
    checked = recipes.load(str(recipe), [f"data.demonstrations={file}"])
    start = checked.start_algorithm()
    assert start is not None and getattr(start, "on", None) == "demonstrations"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"data": {"prompts": "a/b"}}, r"algorithms.dpo: 'dpo' learns from preferences.*data.label_with"),
        ({"data": {"prompts": "a/b"}, "start": "none"}, r"reward.type: 'trained' learns from preferences"),
        ({"data": {"prompts": "a/b"}}, r"start.on: 'chosen' is given, but the data has none"),
        ({"data": {"prompts": "a/b", "label_with": "gold"}}, "needs a truth to label with"),
        (
            {"data": {"prompts": "a/b", "label_with": "judge"}, "judge": {"type": "gold"}},
            "judge.type: 'gold' needs a truth",
        ),
        ({"data": {"prompts": "a/b", "label_with": "gld"}}, "data.label_with"),
        ({"data": {"preferences": "a/b", "label_with": "gold"}}, "has preferences already"),
        ({"data": {"source": "lab", "label_with": "gold"}}, "has preferences already"),
        (
            {"data": {"prompts": "a/b", "label_with": "gold"}, "generation": {"temperature": 0}},
            "two different replies",
        ),
        (
            {"data": {"prompts": "a/b", "label_with": "gold"}, "start": {"algorithm": "sft", "on": "chosen"}},
            "start.on: 'chosen' replies come from the start's own",
        ),
        ({"data": {"prompts": "x.txt"}}, "neither a file"),
        ({"data": {"preferences": "x.txt"}}, "neither a file"),
        ({"data": {"prompt": "x.txt"}}, "Did you mean 'prompts'"),
        ({"data": {"preferences": "a/b", "columns": {"promt": "x"}}}, "Did you mean 'prompt'"),
        ({"data": {"columns": {"prompt": "x"}}}, "data.columns: has no meaning"),
        ({"data": {"ratings": "a/b", "pairs": "some"}}, "data.pairs"),
    ],
)
def test_mistakes_are_named(content, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        recipes.check({"algorithms": {"dpo": {}}, **content})


def test_prompts_need_no_labels_where_nothing_learns_from_preferences(recipe) -> None:
    gold = f"{recipe.parent / 'gold.py'}:kind"
    content = {
        "data": {"prompts": str(recipe.parent / "prompts.txt")},
        "start": "none",
        "reward": {"type": "function", "path": gold},
        "algorithms": {"rejection_sampling": {}, "best_of_n": {}},
    }
    assert "label" not in make_plan(recipes.check(content), recipe.parent).stages
