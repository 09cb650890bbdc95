"""RLAIF, constitutional AI, a judge as the reward: what is asked, what is learned from, what is on record."""

from __future__ import annotations

import json
import math

import pytest

from prefzoo import compare, get, lab
from prefzoo.comparison.recipe import check as recipes
from prefzoo.comparison.report.constitution import principle_cells
from prefzoo.data.views import prompt_key
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.feedback import ai_labels, constitution
from prefzoo.feedback.constitution import Constitution
from prefzoo.feedback.judge_reward import JudgeReward, load_judge_reward, start_replies
from prefzoo.feedback.judges.build import build
from prefzoo.feedback.judges.controls import gold_judge, random_judge
from prefzoo.feedback.judges.judge import Judge
from prefzoo.feedback.transcripts import TRANSCRIPTS, by_principle, revise
from prefzoo.interface import Completion
from prefzoo.ledger import Ledger
from prefzoo.policies.language_model import LanguageModelPolicy
from prefzoo.zoo.teaching import Teaching


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
    return LanguageModelPolicy.from_start(bench.start, **bench.loading)


class Taught(Exception):
    """Carries what a learner was given."""


@pytest.fixture
def given(monkeypatch):
    """What learners were given, one entry a call; nothing is trained."""
    calls = []

    def learn(self, bench, prompts, pairs):
        calls.append((bench, list(prompts), pairs))
        return LanguageModelPolicy.from_start(bench.start, **bench.loading)

    monkeypatch.setattr(Teaching, "learn", learn)
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
    found = ai_labels.labelled(prompts, drawn, [0.9, 0.2, 0.7, 0.9, 0.9, 0.5])
    assert [(each.chosen, each.rejected) for each in found[:2]] == [("a", "b"), ("b", "a")]
    assert [each.dropped for each in found[2:]] == ["identical_pair", "unfinished_reply", "empty_reply", "tied_replies"]
    assert ai_labels.counts(found) == {
        "prompts": 6, "pairs": 2, "identical_pair": 1, "unfinished_reply": 1, "empty_reply": 1, "tied_replies": 1,
    }  # fmt: skip
    assert [pair["chosen"][0]["content"] for pair in ai_labels.preferences(found)] == ["a", "b"]


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
    assert trained == [None, "policy 1"], "the start itself gets a fresh adapter"


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
    kept = JudgeReward(build({"settings": {"type": "gold"}, "gold": "lab", "model": "lab", "loading": {}, "seed": 0}),
                       "comparison", {prompt_key(prompts[0]): "hi"})  # fmt: skip
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
        return LanguageModelPolicy.from_start(bench.start, **bench.loading)

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


@pytest.mark.parametrize("name", constitution.shipped())
def test_shipped_constitutions_are_sound(name: str) -> None:
    assert constitution.problems(name) == []


def test_every_mistake_of_a_constitution_is_told(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "critique_prompt: '{{ replly }}'\nrevision_prompt: '{{ principle.critque }}'\n"
        "principles:\n  - {id: a, critique: x, revision: y, preference: z, wheight: 2, where: '('}\n  - {id: a}\n"
    )
    said = "\n".join(constitution.problems(str(file)))
    for part in (
        "'replly'",
        "'reply'",
        "critque",
        "wheight",
        "weight",
        "no regular expression",
        "principles.1.critique",
    ):
        assert part in said, part
    with pytest.raises(RecipeError, match="Did you mean 'lab'"):
        recipes.check({"constitution": "labb", "algorithms": {"constitutional_ai": {}}})


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("rlaif", {"learner": "dpp"}, "Did you mean"),
        ("rlaif", {"learner": "rlaif"}, "needs judge"),
        (
            "rlaif",
            {"learner_settings": {"betta": 1}},
            "learner_settings.betta: unknown key 'betta'. Did you",
        ),
        ("rlaif", {"mode": "direct"}, "learns from a reward, not 'dpo'"),
        ("rlaif", {"mode": "direct", "learner": "ppo", "rounds": 2}, "rounds and human_fraction have no meaning"),
        ("rlaif", {"score": "grade"}, "must be 'direct'"),
        ("rlaif", {"learner": "best_of_n", "rounds": 2}, "trains nothing, and cannot go on"),
        ("constitutional_ai", {"learner": "best_of_n"}, "trains nothing, and cannot go on"),
        ("rlaif", {"human_fraction": 1.5}, "human_fraction"),
        ("constitutional_ai", {"phase": "supervised", "rounds": 2}, "rounds: 2 has no meaning"),
        ("constitutional_ai", {"phase": "preferences", "revisions": 2}, "have no meaning with phase 'preferences'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(name: str, settings: dict, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipes.check({"algorithms": {name: settings}})
    assert said in str(error.value)


def test_the_gold_judge_needs_a_truth() -> None:
    with pytest.raises(RecipeError, match=r"judge\.type: 'gold' needs a truth for algorithms.rlaif"):
        recipes.check({"judge": {"type": "gold"}, "gold": "none", "algorithms": {"rlaif": {}}})


SMALL = {
    "extends": "base",
    "start": "none",
    "tracking": {"wandb": {"mode": "disabled"}},
    "budget": {"prompts": 48},
    "evaluation": {"prompts": 16},
    "generation": {"max_new_tokens": 32},
    "reward": {"type": "judge"},
    "judge": {"type": "gold"},
    "algorithms": {
        "rlaif": {"rounds": 2},
        "by-ppo": {"algorithm": "rlaif", "learner": "ppo"},
        "constitutional_ai": {},
        "grpo": {},
    },
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ai"
    return compare(SMALL, seeds=1, out=out), out


def test_a_whole_comparison_of_ai_feedback(found) -> None:
    results, _ = found
    assert {label: each.status for label, each in results.algorithms.items()} == dict.fromkeys(
        ["start", *SMALL["algorithms"]], "ok"
    ), [each.error for each in results.algorithms.values()]
    trial = results.algorithms["constitutional_ai"].seeds["0"]
    assert [m.name for m in trial.milestones] == ["supervised phase"]
    assert trial.milestones[0].metrics.keys() == trial.metrics.keys()
    assert 0 < trial.milestones[0].ledger["trained_tokens"] < trial.ledger["trained_tokens"]
    principles = trial.details["principles"]
    made = sum(row["revisions"] - row["unrevised"] for row in principles.values())
    assert made == trial.details["supervised"]["revised"] > 0
    assert sum(row["comparisons"] for row in principles.values()) == 48
    assert [m.name for m in results.algorithms["rlaif"].seeds["0"].milestones] == ["round 1"]
    for label in ("rlaif", "by-ppo", "constitutional_ai", "grpo"):
        assert results.algorithms[label].seeds["0"].ledger["judge_calls"] > 0
    assert results.algorithms["grpo"].seeds["0"].ledger["judge_calls"] == 2 * 4 * 48
    audit = results.judge["audits"]["judge"]
    assert audit["agreement"]["share"] == 1.0 and audit["first_preferred"]["share"] == 0.5, "gold judges"


def test_the_order_of_the_oracles_reward_is_golds(found) -> None:
    results, out = found
    start = results.algorithms["start"].seeds["0"]
    records = [json.loads(line) for line in (out / start.replies).read_text().splitlines()]
    signs = {(math.copysign(1, r["proxy"]) if r["proxy"] else 0.0) for r in records}
    assert signs <= {-1.0, 0.0, 1.0} and len(signs) > 1
    assert results.reward["test_accuracy"] > 0.6


def test_a_coin_gives_other_answers_with_another_seed(bench) -> None:
    prompts = bench.data.prompts[:8]
    texts = ["a"] * 8
    assert random_judge(0)(prompts, texts, texts) == random_judge(0)(prompts, texts, texts)
    assert random_judge(0)(prompts, texts, texts) != random_judge(1)(prompts, texts, texts)


def test_the_report_says_what_principles_did(found) -> None:
    results, out = found
    page = (out / "report.html").read_text()
    trial = results.algorithms["constitutional_ai"].seeds["0"]
    assert f'href="{trial.details["transcripts"]}"' in page and (out / trial.details["transcripts"]).is_file()
    headings, rows = principle_cells(results)["constitutional_ai"]
    assert headings[1:] == ["revisions", "came to nothing", "changed the reply", "gold", "reward", "comparisons"]
    counted = {row[0]: (int(row[1]), int(row[6])) for row in rows}
    assert counted == {k: (v["revisions"], v["comparisons"]) for k, v in trial.details["principles"].items()}
