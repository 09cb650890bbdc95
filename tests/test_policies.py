"""Sampling, log-probabilities, KL, saving, merging, exporting."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch

from prefzoo import get
from prefzoo.errors import PrefzooError
from prefzoo.lab import MODEL_DIR
from prefzoo.ledger import Ledger
from prefzoo.models import shared_base
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import PLAIN_TEMPLATE, device, end_of_turn, load_model, load_tokenizer, resolve
from prefzoo.models.policy_kinds import load_policy
from prefzoo.rewards.best_of_n_policy import BestOfNPolicy
from prefzoo.rewards.load_reward import RandomReward, load_reward
from prefzoo.scoring_function import FunctionReward
from prefzoo.settings import Adapter, Generation
from prefzoo.trainers.fitting import adapter_config
from prefzoo.types import Completion

GENERATION = Generation(max_new_tokens=24, batch_size=8)


@pytest.fixture(scope="module")
def start() -> LanguageModelPolicy:
    return LanguageModelPolicy.from_start(str(MODEL_DIR))


@pytest.fixture(scope="module")
def prompts(lab_rows):
    return [row.prompt for row in lab_rows]


def noisy(seed: int = 0) -> LanguageModelPolicy:
    """The lab model with an adapter that does something."""
    from peft import get_peft_model

    policy = LanguageModelPolicy.from_start(str(MODEL_DIR))
    torch.manual_seed(seed)
    model = get_peft_model(policy.model, adapter_config(Adapter(r=4, alpha=8), "CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    return LanguageModelPolicy(model.eval(), policy.tokenizer, policy.start)


def test_a_seed_repeats_its_replies_and_another_does_not(start, prompts) -> None:
    first, again, other = (start.sample(prompts, GENERATION, seed=s, n=2) for s in (1, 1, 2))
    assert first == again != other
    assert [len(each) for each in first] == [2] * len(prompts)


def test_replies_come_back_in_the_order_of_the_prompts(start, prompts) -> None:
    greedy = GENERATION.model_copy(update={"temperature": 0.0})
    together = start.sample(prompts, greedy, seed=0)
    assert together[::-1] == start.sample(prompts[::-1], greedy, seed=0)
    assert together[3] == start.sample([prompts[3]], greedy, seed=0)[0]


def test_a_completion_is_what_was_generated(start, prompts) -> None:
    ledger = Ledger()
    replies = [each[0] for each in start.sample(prompts, GENERATION, seed=0, ledger=ledger)]
    assert ledger.generated_tokens == sum(len(reply.token_ids) for reply in replies)
    for reply in replies:
        ended = reply.token_ids[-1] in start.eos_ids
        assert ended == reply.finished
        assert not any(token in start.eos_ids for token in reply.token_ids[:-1])
        assert start.tokenizer.decode(reply.token_ids, skip_special_tokens=True) == reply.text
        assert len(reply.token_ids) <= 24


def test_log_probabilities_do_not_depend_on_the_batch_and_agree_with_a_plain_forward(start, prompts) -> None:
    replies = [each[0] for each in start.sample(prompts, GENERATION, seed=0)]
    together = start.log_probabilities(prompts, replies)
    for i in (0, 5, 11):
        alone = start.log_probabilities([prompts[i]], [replies[i]])[0]
        assert together[i] == pytest.approx(alone, abs=1e-4)
        ids = start.render(prompts[i]) + list(replies[i].token_ids)
        with torch.no_grad():
            plain = start.model(torch.tensor([ids], device=device())).logits[0].log_softmax(-1)
        first = len(ids) - len(replies[i].token_ids)
        by_hand = [plain[first + t - 1, token].item() for t, token in enumerate(replies[i].token_ids)]
        assert alone == pytest.approx(by_hand, abs=1e-4)


def test_sampled_tokens_have_the_frequency_that_their_log_probability_says(start, prompts) -> None:
    """Generation and scoring are the same distribution: no hidden top-k, top-p or penalty."""
    one = Generation(max_new_tokens=1, batch_size=256)
    drawn = start.sample([prompts[0]], one, seed=3, n=2000)[0]
    counts: dict[int, int] = {}
    for completion in drawn:
        counts[completion.token_ids[0]] = counts.get(completion.token_ids[0], 0) + 1
    for token, count in sorted(counts.items(), key=lambda pair: -pair[1])[:4]:
        expected = math.exp(start.log_probabilities([prompts[0]], [Completion("", (token,), False)])[0][0])
        assert count / 2000 == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 2000) + 1e-3)


def test_kl_is_zero_for_the_start_and_for_a_fresh_adapter(start, prompts) -> None:
    from peft import get_peft_model

    replies = [each[0] for each in start.sample(prompts, GENERATION, seed=0)]
    assert start.kl_to_start(prompts, replies) == pytest.approx([0.0] * len(prompts), abs=1e-5)
    fresh = LanguageModelPolicy.from_start(str(MODEL_DIR))
    model = get_peft_model(fresh.model, adapter_config(Adapter(), "CAUSAL_LM")).eval()
    adapted = LanguageModelPolicy(model, fresh.tokenizer, fresh.start)
    assert adapted.kl_to_start(prompts, replies) == pytest.approx([0.0] * len(prompts), abs=1e-5)


def test_kl_agrees_with_the_mean_log_ratio_of_samples(start, prompts) -> None:
    """The per-token exact sum and the plain log-ratio estimate the same number."""
    policy = noisy()
    many = list(prompts[:4]) * 100
    replies = [each[0] for each in policy.sample(many, Generation(max_new_tokens=24, batch_size=200), seed=5)]
    exact = policy.kl_to_start(many, replies)
    own, reference = policy.log_probabilities(many, replies), start.log_probabilities(many, replies)
    ratios = [sum(a) - sum(b) for a, b in zip(own, reference, strict=True)]
    assert min(exact) >= -1e-5
    mean, spread = sum(ratios) / 400, torch.tensor(ratios).std().item()
    assert sum(exact) / 400 == pytest.approx(mean, abs=3.5 * spread / 20)
    assert sum(exact) / 400 > 0.05


def test_an_adapter_is_saved_merged_and_exported_without_change(tmp_path, start, prompts) -> None:
    policy = noisy()
    replies = [each[0] for each in policy.sample(prompts, GENERATION, seed=0)]
    before = policy.log_probabilities(prompts, replies)
    unadapted = start.log_probabilities(prompts, replies)
    assert max(abs(a - b) for x, y in zip(before, unadapted, strict=True) for a, b in zip(x, y, strict=True)) > 0.05
    policy.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("*.bin"))
    loaded = load_policy(tmp_path / "saved")
    assert isinstance(loaded, LanguageModelPolicy) and loaded.adapted
    for a, b in zip(before, loaded.log_probabilities(prompts, replies), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    loaded.export(tmp_path / "plain")
    whole = LanguageModelPolicy.from_start(str(tmp_path / "plain"))
    for a, b in zip(before, whole.log_probabilities(prompts, replies), strict=True):
        assert a == pytest.approx(b, abs=1e-3)


def test_a_trained_policy_is_read_from_its_folder_only_when_it_is_used(make_bench, prompts, monkeypatch) -> None:
    loads = []

    def counted(path: str, **more):
        loads.append(path)
        return load_model(path, **more)

    monkeypatch.setattr(shared_base, "load_model", counted)
    bench = make_bench()
    policy = get("sft", trainer={"max_steps": 2}).train(bench)
    assert isinstance(policy, LanguageModelPolicy)
    assert len(loads) == 1, "the start, to train on; what was saved is not read yet"
    with pytest.raises(AttributeError, match="no attribute 'modle'"):
        policy.modle  # noqa: B018
    assert len(loads) == 1
    replies = [each[0] for each in policy.sample(prompts[:2], GENERATION, seed=0)]
    assert not any(weight.is_inference() for weight in policy.model.parameters()), "a later round trains on them"
    saved = load_policy(bench.out / "policy")
    assert policy.log_probabilities(prompts[:2], replies) == saved.log_probabilities(prompts[:2], replies)
    assert policy.adapted and policy.start == bench.start
    assert len(loads) == 3, "once each, however often it is used"


def test_an_export_answers_alike_in_a_process_without_prefzoo(tmp_path, prompts) -> None:
    policy = noisy().merged()
    greedy = Generation(max_new_tokens=24, temperature=0.0)
    expected = policy.sample([prompts[0]], greedy, seed=0)[0][0].text
    policy.export(tmp_path / "plain")
    code = f"""
import sys
sys.modules["prefzoo"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(tmp_path / "plain")!r})
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "plain")!r})
ids = tokenizer.apply_chat_template({prompts[0]!r}, add_generation_prompt=True, return_tensors="pt")
output = model.generate(**ids, max_new_tokens=24, do_sample=False)
print(tokenizer.decode(output[0, ids["input_ids"].shape[1]:], skip_special_tokens=True), end="")
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer == expected


def test_the_tokenizer_pads_with_something_else_than_the_end(tmp_path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(MODEL_DIR))
    real_pad = tokenizer.pad_token
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = None
    tokenizer.save_pretrained(str(tmp_path))
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.pad_token_id != loaded.eos_token_id
    assert loaded.chat_template == PLAIN_TEMPLATE
    assert real_pad in loaded.get_vocab()


def test_the_plain_template_renders_the_prompt_as_a_prefix() -> None:
    tokenizer = load_tokenizer(str(MODEL_DIR))
    tokenizer.chat_template = PLAIN_TEMPLATE
    prompt = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello there"}]
    alone = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": "Hi you"}], return_dict=False)
    assert whole[: len(alone)] == alone
    assert whole.count(tokenizer.eos_token_id) == 1


class LongestWins:
    """Prefers long replies."""

    def __call__(self, prompts, completions):
        return [float(len(text)) for text in completions]

    def spec(self, folder):
        return {}


def test_best_of_n_gives_the_best_of_its_candidates_and_is_charged_for_all(start, prompts) -> None:
    ledger = Ledger()
    policy = BestOfNPolicy(start, LongestWins(), 4)
    answers = policy.sample(prompts, GENERATION, seed=9, ledger=ledger)
    candidates = start.sample(prompts, GENERATION, seed=9, n=4)
    for answer, group in zip(answers, candidates, strict=True):
        assert len(answer) == 1
        assert len(answer[0].text) == max(len(c.text) for c in group)
    assert ledger.generated_tokens == sum(len(c.token_ids) for group in candidates for c in group)
    assert ledger.reward_calls == 4 * len(prompts)
    assert policy.kl_bound == pytest.approx(math.log(4) - 0.75)


def test_what_is_no_reward_model_is_refused() -> None:
    """Its head would be drawn anew in every process, and score at random."""
    from prefzoo.rewards.reward_model import RewardModel

    with pytest.raises(PrefzooError, match="not a reward model"):
        RewardModel.load(str(MODEL_DIR))


def test_a_hub_model_becomes_a_folder_of_its_revision(monkeypatch) -> None:
    import huggingface_hub

    asked = {}

    def snapshot_download(path, revision, allow_patterns):
        asked.update(path=path, revision=revision)
        return str(MODEL_DIR)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve("someone/model", "abc") == str(MODEL_DIR)
    assert asked == {"path": "someone/model", "revision": "abc"}
    monkeypatch.undo()
    with pytest.raises(PrefzooError, match="could not be had"):
        resolve("no/such")


def test_kl_of_many_replies_goes_in_parts(start, prompts, monkeypatch) -> None:
    policy = noisy()
    replies = [each[0] for each in policy.sample(prompts, GENERATION, seed=0)]
    whole = policy.kl_to_start(prompts, replies)
    monkeypatch.setattr(LanguageModelPolicy, "_vocabulary", 2**22)
    assert policy.kl_to_start(prompts, replies) == pytest.approx(whole, abs=1e-5)


def test_a_reward_function_and_noise_come_back_from_their_description(tmp_path) -> None:
    file = tmp_path / "score.py"
    file.write_text("def shortest(prompts, completions):\n    return [-len(c) for c in completions]\n")
    reward = FunctionReward(f"{file}:shortest")
    again = load_reward(json.loads(json.dumps(reward.spec(tmp_path))), tmp_path)
    assert reward([[]] * 2, ["a", "bbb"]) == again([[]] * 2, ["a", "bbb"]) == [-1.0, -3.0]
    with pytest.raises(Exception, match="Did you mean 'shortest'"):
        FunctionReward(f"{file}:shortes")
    noise = RandomReward(1)
    prompt = [{"role": "user", "content": "q"}]
    assert noise([prompt], ["a"]) == load_reward(noise.spec(tmp_path), tmp_path)([prompt], ["a"])
    assert noise([prompt], ["a"]) != RandomReward(2)([prompt], ["a"])


def test_the_end_of_a_turn_is_read_from_the_template() -> None:
    tokenizer = load_tokenizer(str(MODEL_DIR))
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id
    tokenizer.chat_template = PLAIN_TEMPLATE
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"  # ends in no special token
    assert end_of_turn(tokenizer) is None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' <turn>\n' }}{% endfor %}"
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<turn>")
