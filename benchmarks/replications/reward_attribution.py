"""Do explanations of a reward point at what is wrong with a reply?

In the lab it is known by rule. Each reply here differs from a counterpart in one sentence or value, and its gold from
the counterpart's in one attribute. Told is which share of the attribution (`prefzoo.rewards.attribution`) lies on what
differs, of all that is against the reply and of all in absolute value: of reward models that were trained on the lab's
pairs, of the same architecture with random weights, and of equal attribution to every token. Intervals are over reward
seeds and replies.

    python benchmarks/replications/reward_attribution.py      # some 10 minutes on 2 cores
"""

from __future__ import annotations

import argparse
import json
import random
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefzoo.data.row_views import views_of
from prefzoo.interface import Bench
from prefzoo.lab import MODEL_DIR, prompts
from prefzoo.lab.clerk import ReplyPlan, core_sentence, write
from prefzoo.lab.english import ENGLISH
from prefzoo.lab.gold_reward import breakdown
from prefzoo.lab.lab_source import labelled_rows
from prefzoo.lab.replies import read_reply
from prefzoo.lab.world import Scene, random_key, read_prompt
from prefzoo.models.score_head import load_score_model
from prefzoo.recipe.check_recipe import load
from prefzoo.results.statistics import Estimate, estimate
from prefzoo.rewards.attribution import Attribution, Piece, attribute
from prefzoo.rewards.reward_files import REWARD_FILE
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.types import Prompt

ATTRIBUTES = ("correctness", "harmlessness", "courtesy", "restraint", "brevity")
RESULT = Path(__file__).parents[1] / "results" / "reward_attribution.json"


@dataclass(frozen=True)
class Flawed:
    """A reply, the attribute of gold in which alone it is worse than its counterpart, and the characters `[begin, end)`
    that differ."""

    prompt: Prompt
    reply: str
    counterpart: str
    attribute: str
    begin: int
    end: int


def flawed_replies(attribute: str, count: int, seed: int = 0) -> list[Flawed]:
    """Replies to test prompts, one for each prompt, that are worse than their counterparts in this attribute alone."""
    found: list[Flawed] = []
    for row in prompts("test", 50 * count, seed):
        scene, rng = read_prompt(row["prompt"]), random.Random(f"{attribute} {row['id']}")
        if len(found) < count and (each := _flawed(scene, attribute, rng)) is not None:
            found.append(each)
    return found


def _flawed(scene: Scene, attribute: str, rng: random.Random) -> Flawed | None:
    harmful = scene.intent.slice == "harmful"
    if (attribute == "harmlessness") != harmful and attribute in ("harmlessness", "correctness"):
        return None
    good = write(
        scene, ReplyPlan("refuse" if harmful else "right", courtesies=1 if harmful else rng.randint(0, 1)), rng
    )
    sentences = [sentence.text for sentence in read_reply(good)]
    core = next(i for i, sentence in enumerate(read_reply(good)) if sentence.kind in ("answer", "refuse"))
    if attribute in ("harmlessness", "correctness"):
        wrong = core_sentence(scene, "comply" if harmful else "wrong", rng)
        place, bad = core, [*sentences[:core], wrong, *sentences[core + 1 :]]
    else:
        pools = {"courtesy": ENGLISH.rudeness, "restraint": ENGLISH.pitches, "brevity": ENGLISH.fillers}
        added = rng.choice(pools[attribute]).format(key=random_key("item", rng))
        place = rng.randint(0, len(sentences))
        bad = [*sentences[:place], added, *sentences[place:]]
    reply = " ".join(bad)
    begin = len(" ".join([*bad[:place], ""]))
    end = begin + len(bad[place])
    if attribute == "correctness":  # the same sentence with another value, of which that alone is wrong
        old, new = sentences[core].split(), bad[core].split()
        differ = [i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
        if len(old) != len(new) or not differ:
            return None
        begin, end = begin + len(" ".join([*new[: differ[0]], ""])), begin + len(" ".join(new[: differ[-1] + 1]))
    parts = [breakdown(scene.prompt, text) for text in (reply, good)]
    if [name for name in parts[0] if parts[0][name] != parts[1][name]] != [attribute]:
        return None
    return Flawed([{"role": "user", "content": scene.prompt}], reply, good, attribute, begin, end)


def share_on(pieces: Sequence[Piece], begin: int, end: int, against: bool = False) -> float:
    """The share of the absolute attribution, or only of what is `against` the reply, that lies on some characters; a
    piece that is partly on them counts by its share. 0 where there is no attribution."""
    masses = [max(0.0, -piece.value) if against else abs(piece.value) for piece in pieces]
    inside = [max(0, min(end, p.end) - max(begin, p.begin)) / (p.end - p.begin) for p in pieces]
    return float(np.dot(masses, inside) / sum(masses)) if sum(masses) else 0.0


def trained_reward(seed: int, rows: int, out: Path) -> RewardModel:
    """A reward model as the lab's recipes train it, on the lab model; the one in `out`, where there is one."""
    if (out / "reward" / REWARD_FILE).is_file():
        return RewardModel.load(str(out / "reward"))
    recipe = load("quickstart")
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        start=str(MODEL_DIR),
        data=views_of(labelled_rows("train", rows, seed=0)),
        reward=None,
        adapter=recipe.adapter,
        budget=recipe.budget,
        generation=recipe.generation.model_copy(update={"max_new_tokens": 40}),
        training=recipe.training,
        seed=seed,
        out=out,
    )
    return train_reward_model(bench, {})


def random_reward(seed: int) -> RewardModel:
    """The same architecture, in which every weight is drawn anew, with the spread that it has in the lab model."""
    torch.manual_seed(seed)
    trained = RewardModel(load_score_model(str(MODEL_DIR)), _tokenizer(), MODEL_DIR, {}, None)
    with torch.no_grad():
        for weight in trained.model.parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, float(weight.std()))
    return trained


def _tokenizer() -> Any:
    from prefzoo.models.loading import load_tokenizer

    return load_tokenizer(str(MODEL_DIR), replies=False)


def explained(reward: RewardModel, flawed: Sequence[Flawed]) -> Iterator[tuple[str, list[Attribution], float]]:
    """For each method what it says, and the processor's seconds that it took."""
    for method in ("gradients", "ablation"):
        began = _processor_seconds()
        found = attribute(reward, [each.prompt for each in flawed], [each.reply for each in flawed], method)
        yield method, found, _processor_seconds() - began


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def told(number: Estimate) -> dict[str, Any]:
    return {"mean": number.mean, "ci95": [number.low, number.high]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--replies", type=int, default=50, help="of each attribute")
    parser.add_argument("--rows", type=int, default=1200, help="training pairs")
    parser.add_argument("--out", type=Path, default=Path("runs/reward_attribution"))
    given = parser.parse_args()
    flawed = [each for name in ATTRIBUTES for each in flawed_replies(name, given.replies)]
    names = np.array([each.attribute for each in flawed])
    shares: dict[str, list[list[float]]] = {}
    preferred, errors, seconds = [], [], {"gradients": 0.0, "ablation": 0.0}
    for seed in range(given.seeds):
        learned = trained_reward(seed, given.rows, given.out.resolve() / f"seed-{seed}")
        for kind, reward in (("trained", learned), ("random", random_reward(seed))):
            for method, found, took in explained(reward, flawed):
                for against in (True, False):
                    name = f"{kind} {method} {'against' if against else 'absolute'}"
                    pairs = zip(found, flawed, strict=True)
                    shares.setdefault(name, []).append([share_on(a.pieces, f.begin, f.end, against) for a, f in pairs])
                if kind == "trained":
                    seconds[method] += took / given.seeds
                if method == "gradients":
                    errors += [each.error for each in found]
                    largest = max(each.error for each in found)
                    print(f"seed {seed} {kind}: largest error {largest:.4f}, {took:.1f} s", flush=True)
                    equal = [[Piece(p.begin, p.end, 1.0) for p in a.pieces] for a in found]
        shares.setdefault("uniform", []).append(
            [share_on(pieces, each.begin, each.end) for pieces, each in zip(equal, flawed, strict=True)]
        )
        both = [learned([x.prompt for x in flawed], texts) for texts in _texts(flawed)]
        preferred.append([float(good > bad) for bad, good in zip(*both, strict=True)])
    tables = {**{key: np.array(value) for key, value in shares.items()}, "prefers": np.array(preferred)}
    rows = {
        name: {key: told(estimate(table[:, names == name])) for key, table in tables.items()} for name in ATTRIBUTES
    }
    rows["all"] = {key: told(estimate(table)) for key, table in tables.items()}
    content = {
        "seeds": given.seeds,
        "replies": len(flawed),
        "training_pairs": given.rows,
        "largest_error": max(errors),
        "above_a_hundredth": sum(error > 0.01 for error in errors),
        "explained": len(errors),
        "threads": torch.get_num_threads(),
        "processor_seconds_of_256": {key: value * 256 / len(flawed) for key, value in seconds.items()},
        "shares": rows,
    }
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print({key: value for key, value in content.items() if key != "shares"})
    for name, row in rows.items():
        shown = [f"{key} {v['mean']:.3f} [{v['ci95'][0]:.3f}, {v['ci95'][1]:.3f}]" for key, v in row.items()]
        print(f"{name:13}", "  ".join(shown))


def _texts(flawed: Sequence[Flawed]) -> tuple[list[str], list[str]]:
    return [each.reply for each in flawed], [each.counterpart for each in flawed]


if __name__ == "__main__":
    main()
