"""RLAIF, constitutional AI, a judge as the reward: what is asked, what is learned from, what is on record."""

from __future__ import annotations

import json
import math

import pytest

from prefzoo import get, lab
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.judges import ai_preferences, constitution
from prefzoo.judges.build_judge import RandomJudge, build_judge, gold_judge
from prefzoo.judges.constitution import Constitution
from prefzoo.judges.critique_revision import TRANSCRIPTS, by_principle, revise
from prefzoo.judges.judge import Judge
from prefzoo.ledger import Ledger
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.rewards.judge_reward import JudgeReward, load_judge_reward, start_replies
from prefzoo.types import Completion
from prefzoo.views import prompt_key
from prefzoo.zoo.feedback_loop import FeedbackLoop


def truth(prompts, completions):
    return [{"gold": lab.gold(p[-1]["content"], c)} for p, c in zip(prompts, completions, strict=True)]


@pytest.fixture
def bench(make_bench):
    """With an oracle to ask, a constitution, and an assistant that answers by what it is asked."""
    return make_bench().replace(
        judge=gold_judge(truth),
        constitution=constitution.load("lab"),
        assistant=lambda requests, seed, ledger=None: [f"{len(r)} letters" for r in requests],
    )


@pytest.fixture
def start(bench):
    return LanguageModelPolicy.start_of(bench)


class Taught(Exception):
    """Carries what a learner was given."""


@pytest.fixture
def given(monkeypatch):
    """What learners were given, one entry a call; nothing is trained."""
    calls = []

    def learn(self, bench, prompts, pairs):
        calls.append((bench, list(prompts), pairs))
        return LanguageModelPolicy.start_of(bench)

    monkeypatch.setattr(FeedbackLoop, "learn", learn)
    return calls


def test_two_replies_make_a_pair_only_where_that_means_something() -> None:
    def reply(text, finished=True):
        return Completion(text, (1, 2), finished)

    prompts = [[{"role": "user", "content": str(i)}] for i in range(6)]
    drawn = [
        (reply("a"), reply("b")),
        (reply("a"), reply("b")),
        (reply("a"), reply("a")),
        (reply("a", False), reply("b")),
        (reply("  "), reply("b")),
        (reply("a"), reply("b")),
    ]
    found = ai_preferences.label_pairs(prompts, drawn, [0.9, 0.2, 0.7, 0.9, 0.9, 0.5])
    assert [(each.chosen, each.rejected) for each in found[:2]] == [("a", "b"), ("b", "a")]
    assert [each.dropped for each in found[2:]] == ["identical_pair", "unfinished_reply", "empty_reply", "tied_replies"]
    assert ai_preferences.counts(found) == {
        "prompts": 6, "pairs": 2, "identical_pair": 1, "unfinished_reply": 1, "empty_reply": 1, "tied_replies": 1,
    }  # fmt: skip
    assert [pair["chosen"][0]["content"] for pair in ai_preferences.preferences(found)] == ["a", "b"]


def test_rlaif_hands_on_what_the_judge_prefers(bench, given) -> None:
    get("rlaif").train(bench)
    ((_, prompts, pairs),) = given
    assert sorted(map(prompt_key, prompts)) == sorted(map(prompt_key, bench.data.prompts))
    assert len(pairs) > 12
    for pair in pairs:
        scores = [lab.gold(pair["prompt"][0]["content"], pair[side][0]["content"]) for side in ("chosen", "rejected")]
        assert scores[0] > scores[1]
    counts = bench.report["rlaif"][0]
    assert counts["pairs"] == len(pairs)
    assert sum(v for k, v in counts.items() if k not in ("prompts", "by_people", "by_people_wanted")) == 24
    assert bench.ledger.judge_calls == bench.report["judge"]["questions"] == 48


def test_a_share_of_the_pairs_is_peoples(bench, given) -> None:
    get("rlaif", human_fraction=0.25).train(bench)
    ((_, _, pairs),) = given
    people = [pair for pair in pairs if pair in bench.data.preferences]
    assert len(people) == bench.report["rlaif"][0]["by_people"] == 6
    assert bench.ledger.judge_calls == 2 * 18, "prompts that people compared are not judged"
    assert bench.ledger.prompts == 18 + 6, "nor sampled from"
    assert get("rlaif", human_fraction=0.25).required == {"prompts", "judge", "preferences"}


def test_rounds_divide_the_prompts_and_go_on_from_the_latest_policy(bench, given) -> None:
    get("rlaif", rounds=3).train(bench)
    assert [len(prompts) for _, prompts, _ in given] == [8, 8, 8]
    assert len({prompt_key(p) for _, prompts, _ in given for p in prompts}) == 24
    assert [each.latest is not None for each, _, _ in given] == [False, True, True]
    kept = sorted((bench.out / "milestones").iterdir())
    assert [json.loads((k / "milestone.json").read_text())["name"] for k in kept] == ["round 1", "round 2"]


class Refreshed:
    """In the place of a reward model: what it was trained on, and the length of a reply as its score."""

    def __init__(self, bench, settings):
        self.pairs, self.folder = list(bench.data.preferences), bench.out

    def __call__(self, prompts, completions):
        return [float(len(text)) for text in completions]


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [({}, ["24 + 1", "24 + 2", "24 + 3"]), ({"people": False, "pairs": "latest"}, ["0 + 1", "0 + 1", "0 + 1"])],
)
def test_iterated_rlhf_refreshes_the_reward_with_what_the_judge_says_of_each_round(
    bench, given, monkeypatch, settings, sizes
) -> None:
    monkeypatch.setattr("prefzoo.rewards.train_reward.train_reward_model", Refreshed)
    algorithm = get("iterated_rlhf", **settings)
    algorithm.train(bench)
    rounds = bench.report["iterated_rlhf"]
    new = [counts["pairs"] for counts in rounds]
    for i, ((taught, prompts, pairs), size) in enumerate(zip(given, sizes, strict=True)):
        people, labelled = map(int, size.split(" + "))
        assert taught.reward.folder == bench.out / f"round-{i + 1}" and len(prompts) == 8 and len(pairs) == new[i]
        assert len(taught.reward.pairs) == people + sum(new[i + 1 - labelled : i + 1])
        assert taught.reward.pairs[-new[i] :] == pairs and (taught.latest is None) == (i == 0)
        longer = [len(p["chosen"][0]["content"]) - len(p["rejected"][0]["content"]) for p in pairs]
        agrees = sum((gap > 0) + 0.5 * (gap == 0) for gap in longer) / len(longer)
        assert rounds[i].get("old_reward_agrees") == (None if i == 0 else pytest.approx(agrees))
    assert bench.ledger.reward_calls == 2 * sum(new[1:]), "those of the old rewards; learners are charged elsewhere"
    assert algorithm.replies_per_row == get("reinforce").replies_per_row + (2 if settings else 4 + 6)
    with pytest.raises(RecipeError, match="'dpo' learns from no reward"):
        get("iterated_rlhf", learner="dpo")


def test_rejection_sampling_goes_on_from_the_latest_policy(bench, start, monkeypatch) -> None:
    sampled, trained = [], []

    def draw(self, policy, prompts, n, seed):
        sampled.append(policy)
        return [[Completion("a reply", (1, 2), True)] * n for _ in prompts]

    def train(self, bench):
        trained.append(bench.latest)
        return f"policy {len(trained)}"

    monkeypatch.setattr("prefzoo.interface.Bench.sample", draw)
    monkeypatch.setattr("prefzoo.zoo.sft.SFT.train", train)
    bench = bench.replace(reward=lambda prompts, texts: [0.0] * len(texts))
    learner = get("rejection_sampling", n=2, iterations=2)
    assert learner.train(bench.replace(latest=start)) == "policy 2"
    assert sampled == [start, "policy 1"] and trained == [start, "policy 1"]
    trained.clear()
    learner.train(bench)
    assert trained == sampled[2:] and trained[1] == "policy 1", "what was sampled from is trained, and read once"
    assert isinstance(trained[0], LanguageModelPolicy) and not trained[0].adapted, "the start: it gets a fresh adapter"


def test_direct_rlaif_learns_from_the_judges_score(bench, given) -> None:
    get("rlaif", learner="grpo", mode="direct").train(bench)
    ((learner, prompts, _),) = given
    greedy = start_replies(bench, prompts[:4])
    texts = ["This is not allowed."] * 4
    golds = [[lab.gold(p[0]["content"], t) for p, t in zip(prompts, side, strict=False)]
             for side in (texts, [greedy[prompt_key(p)] for p in prompts[:4]])]  # fmt: skip
    signs = [(a > b) - (a < b) for a, b in zip(*golds, strict=True)]
    assert learner.reward(prompts[:4], texts) == pytest.approx([s * math.log(0.999 / 0.001) for s in signs])


def test_a_judge_as_a_reward_by_hand(tmp_path) -> None:
    prompts = [[{"role": "user", "content": "hello"}]] * 3
    answers = {"good": 0.8, "bad": 0.2, "sure": 1.0}

    def say(prompts, first, second, questions):
        return [answers[a] if b == "the start's" else 1 - answers[b] for a, b in zip(first, second, strict=True)]

    judge = Judge(say, lambda prompts, replies: [{"good": 8.0, "bad": None, "sure": 10.0}[r] for r in replies])
    by_comparison = JudgeReward(judge, "comparison", {prompt_key(prompts[0]): "the start's"})
    ledger = Ledger()
    scores = ledger.scored(by_comparison, prompts, ["good", "bad", "sure"])
    assert scores == pytest.approx([math.log(4), -math.log(4), math.log(999)])
    assert (ledger.reward_calls, ledger.judge_calls) == (3, 6)
    assert JudgeReward(judge, "grade", {})(prompts, ["good", "bad", "sure"]) == [3.0, 3.0, 5.0]
    assert judge.report()["failures"] == 1
    with pytest.raises(PrefzooError, match="no reply of the start"):
        by_comparison([[{"role": "user", "content": "other"}]], ["good"])
    judge = build_judge({"settings": {"type": "gold"}, "gold": "lab", "model": "lab", "loading": {}, "seed": 0})
    kept = JudgeReward(judge, "comparison", {prompt_key(prompts[0]): "hi"})
    assert load_judge_reward(kept.spec(tmp_path), tmp_path).references == kept.references


def test_revisions_are_on_record_with_the_principle_that_caused_them(bench, start) -> None:
    asked = []

    def assistant(requests, seed, ledger=None):
        asked.append(list(requests))
        return ["" if i == 1 else f"answer {len(asked)}.{i}" for i in range(len(requests))]

    bench = bench.replace(assistant=assistant)
    found = revise(bench, start, bench.data.prompts[:4], revisions=2)
    whole = [each for each in found if each.dropped is None]
    assert found and len(asked) == 4
    assert all(len(each.steps) == 2 for each in whole) and whole
    lost = [each for each in found if each.dropped == "no_critique"]
    assert lost and len(lost[0].steps) == 1, "what has no critique is not revised again"
    first = whole[0]
    text = first.prompt[0]["content"]
    questions = {p.id: p.critique for p in bench.constitution.principles}
    assert f"{text}\nReply: {first.reply}\n{questions[first.steps[0].principle]}" in asked[0]
    assert f"{text}\nReply: {first.reply}\nFlaws: {first.steps[0].critique}\nRewrite:" in asked[1]
    assert f"{text}\nReply: {first.steps[0].revision}\n{questions[first.steps[1].principle]}" in asked[2]
    assert first.final == first.steps[1].revision == first.transcript()["steps"][1]["revision"]


def test_what_principles_did_is_counted_by_hand(tmp_path) -> None:
    prompt = [{"role": "user", "content": "hello"}]
    step = {"principle": "kind", "critique": "rude", "revision": "better"}
    again = {"principle": "kind", "critique": "none", "revision": "better"}
    records = [
        {"prompt": prompt, "reply": "bad", "steps": [step, again], "dropped": None},
        {"prompt": prompt, "reply": "bad", "steps": [{**step, "revision": ""}], "dropped": "no_revision"},
        {"prompt": prompt, "principle": "brief", "first": "a", "second": "b"},
        {"prompt": prompt, "principle": "kind", "first": "a", "second": "b"},
    ]
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in records))
    gold = lambda prompts, replies: [{"gold": {"bad": -1.0, "better": 2.0}[r]} for r in replies]  # noqa: E731
    found = by_principle(file, gold, None)
    assert found == {
        "brief": {"revisions": 0, "unrevised": 0, "comparisons": 1},
        "kind": {"revisions": 3, "unrevised": 1, "comparisons": 1, "changed": 0.5, "gold": 1.5},
    }


def test_constitutional_ai_imitates_revisions_and_demonstrations(bench, given, monkeypatch) -> None:
    imitated = []

    def train(self, bench):
        imitated.append(bench.data.demonstrations)
        return LanguageModelPolicy.start_of(bench)

    monkeypatch.setattr("prefzoo.zoo.sft.SFT.train", train)
    get("constitutional_ai", helpful_share=0.25).train(bench)
    (rows,) = imitated
    human = [row for row in rows if row in bench.data.demonstrations]
    revised = [row for row in rows if row["completion"][0]["content"].endswith("letters")]
    assert len(human) == 6 and len(human) + len(revised) == len(rows) > 6
    lines = [json.loads(line) for line in (bench.out / TRANSCRIPTS).read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["supervised"] * 18 + ["preferences, round 1"] * 24
    assert {line["principle"] for line in lines[18:]} <= {p.id for p in bench.constitution.principles}
    ((learner, _, pairs),) = given
    assert learner.training.learning_rate == bench.training.learning_rate / 4
    assert learner.latest is not None and len(pairs) == bench.report["preferences"][0]["pairs"]


def test_a_principle_is_drawn_by_weight_where_it_applies(bench) -> None:
    import random

    each = {"critique": "?", "revision": "?", "preference": "?"}
    law = Constitution.model_validate(
        {
            "critique_prompt": "{{ reply }}",
            "revision_prompt": "{{ critique }}",
            "principles": [
                {"id": "often", "weight": 3, "where": "(?i)hello", **each},
                {"id": "seldom", "where": "hello|bye", **each},
            ],
        }
    )
    rng = random.Random(0)
    greeting, parting, other = ([{"role": "user", "content": text}] for text in ("Say hello", "say bye", "what?"))
    drawn = [law.draw(greeting, rng).id for _ in range(400)]
    assert 0.68 < drawn.count("often") / 400 < 0.82
    assert law.draw(parting, rng).id == "seldom" and law.draw(other, rng) is None
    assert not law.principles[1].applies([{"role": "user", "content": "Hello"}])


def test_what_no_principle_applies_to_is_left_out_of_both_phases_and_counted(bench, given, monkeypatch) -> None:
    law = bench.constitution.model_dump()
    for each in law["principles"]:
        each["where"] = "(?i)order"
    ordering = [prompt for prompt in bench.data.prompts if "order" in prompt[0]["content"].lower()]
    assert 0 < len(ordering) < 24
    monkeypatch.setattr("prefzoo.zoo.sft.SFT.train", lambda self, bench: LanguageModelPolicy.from_start(bench.start))
    bench = bench.replace(constitution=Constitution.model_validate(law))
    get("constitutional_ai").train(bench)
    first = bench.report["supervised"]
    assert first["no_principle_applies"] + first.get("unfinished_reply", 0) >= 24 - len(ordering)
    assert first["revised"] <= len(ordering)
    counts = bench.report["preferences"][0]
    assert counts["prompts"] == 24 and counts["no_principle_applies"] == 24 - len(ordering)
    assert bench.ledger.judge_calls == 2 * len(ordering)


def test_a_coin_gives_other_answers_with_another_seed(bench) -> None:
    prompts = bench.data.prompts[:8]
    texts = ["a"] * 8
    assert RandomJudge(0)(prompts, texts, texts) == RandomJudge(0)(prompts, texts, texts)
    assert RandomJudge(0)(prompts, texts, texts) != RandomJudge(1)(prompts, texts, texts)
