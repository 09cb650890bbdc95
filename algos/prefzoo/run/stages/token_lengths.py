"""Rows as tokens, and a check that the models have positions enough for the longest of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import AutoConfig

from prefzoo.data.formats import Row
from prefzoo.data.rejects import Rejected
from prefzoo.errors import PrefzooError
from prefzoo.models.loading import load_tokenizer, positions
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.run.stages.given_rewards import given_reward_problems
from prefzoo.types import Prompt
from prefzoo.views import prompt_key

TEMPLATE = 64
"""More tokens than a chat template puts behind a reply."""


class Tokens:
    """A model's tokenizer and chat template; see `preflight.Rendering`. The arguments are those of `load_tokenizer`."""

    def __init__(
        self, base: str, trust_remote_code: bool, replies: bool = True, chat_template: str | None = None
    ) -> None:
        self.tokenizer: Any = load_tokenizer(base, trust_remote_code, replies, chat_template)
        self._reply_lengths: dict[str, int] = {}

    def prompt(self, prompt: Prompt) -> list[int]:
        """Token ids up to where the reply begins.

        Raises:
            Rejected: when the chat template refuses it, because of the order of the turns, for example.
        """
        try:
            return self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
        except TemplateError as error:
            raise Rejected("refused_by_the_chat_template", shown=str(error)) from error

    def whole(self, prompt: Prompt, reply: str) -> list[int]:
        """Token ids of the prompt and the reply, its end included."""
        turns = [*prompt, {"role": "assistant", "content": reply}]
        return self.tokenizer.apply_chat_template(turns, return_dict=False)

    def opening(self, prompt: Prompt) -> str:
        """What the generation prompt puts before a reply."""
        begun = self.tokenizer.apply_chat_template(list(prompt), return_dict=False)
        return self.text(self.prompt(prompt)[len(begun) :])

    def text(self, ids: Sequence[int]) -> str:
        """What these tokens spell, special ones included."""
        return self.tokenizer.decode(list(ids))

    def reply_length(self, reply: str) -> int:
        """Tokens of a reply and its end."""
        if reply not in self._reply_lengths:
            self._reply_lengths[reply] = len(self.tokenizer.text_ids(reply)) + 1
        return self._reply_lengths[reply]

    def end_length(self, prompt: Prompt) -> int:
        """Tokens that stand behind a reply, its end among them."""
        return max(1, len(self.whole(prompt, "")) - len(self.prompt(prompt)))

    def markers(self, row: Row) -> tuple[set[str], set[str]]:
        """What in a row reads like the chat template's own; see `ChatRendering.markers_in`."""
        return self.tokenizer.markers_in("\n".join([*(turn["content"] for turn in row.prompt), *row.replies()]))


SAMPLE = 5000
"""Rows by which lengths are derived, where there are more."""
LEAST_PROMPT = 8
"""The least that `data.max_prompt_tokens` may be."""
WITHOUT_REPLIES = 128
"""New tokens where the data has no replies to go by."""


def derive_lengths(recipe: Recipe, rows: Sequence[Row], rendering: Tokens, limit: int | None) -> dict[str, int]:
    """The recipe's lengths, in tokens, with those that are `auto` derived from the data and the model.

    `max_new_tokens` is the 99th percentile of chosen replies and demonstrations (of all replies where there are none),
    the end included; `max_completion_tokens` and `max_prompt_tokens` are twice the 99th percentile of all replies and
    prompts. All are rounded up to a multiple of 8. Where prompt and reply do not fit into `limit` positions, replies
    get what 99 of 100 prompts leave, at least half, and prompts the rest. What the recipe says itself stays.
    """
    if not (derived := {key.rpartition(".")[2] for key in recipe.derives}):
        return recipe.lengths
    prompts, replies, good = list[int](), list[int](), list[int]()
    for row in rows[:: max(1, len(rows) // SAMPLE)]:
        try:
            prompts.append(len(rendering.prompt(row.prompt)))
        except Rejected:
            continue
        shown = row.prompt
        counts = {reply: rendering.reply_length(reply) for reply in row.replies()}
        replies += counts.values()
        liked = row.reply if row.liked else None
        good += [counts[reply] for reply in (row.chosen, row.demonstration, liked) if reply is not None]
    lengths: dict[str, Any] = {
        "max_prompt_tokens": 2 * _high(prompts or [LEAST_PROMPT]),
        "max_completion_tokens": 2 * _high(replies or [WITHOUT_REPLIES]),
        "max_new_tokens": _high(good or replies or [WITHOUT_REPLIES]),
    }
    lengths |= {
        key: getattr(recipe.data, key) for key in ("max_prompt_tokens", "max_completion_tokens") if key not in derived
    }
    lengths |= {} if "max_new_tokens" in derived else {"max_new_tokens": recipe.generation.max_new_tokens}
    if limit is not None and prompts:
        room = limit - rendering.end_length(shown)
        prompt = lengths["max_prompt_tokens"]
        needed = _high(prompts) if "max_prompt_tokens" in derived else prompt
        left = max(1, room - needed, room // 2 if "max_prompt_tokens" in derived else 1)
        lengths |= {
            key: min(lengths[key], left) for key in ("max_completion_tokens", "max_new_tokens") if key in derived
        }
        longest = max(lengths["max_completion_tokens"], lengths["max_new_tokens"])
        if "max_prompt_tokens" in derived:
            lengths["max_prompt_tokens"] = max(LEAST_PROMPT, min(prompt, room - longest))
    return lengths


def _high(lengths: Sequence[int]) -> int:
    """The 99th percentile, rounded up to a multiple of 8."""
    ordered = sorted(lengths)
    return -(-ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] // 8) * 8


def notes(preflight: dict[str, Any], rendering: Tokens, parts: Mapping[str, Sequence[Row]]) -> list[str]:
    """What is to be known of the data's tokens before anything is trained, a sentence each.

    Args:
        preflight: what the data stage found; the share of replies that would be cut is added to its `lengths`.
        parts: rows by split.
    """
    lengths, found = preflight["lengths"], preflight["markers"]
    good = [r for rows in parts.values() for row in rows for r in (row.chosen, row.demonstration) if r is not None]
    good += [row.reply for rows in parts.values() for row in rows if row.liked and row.reply is not None]
    cut = sum(rendering.reply_length(reply) > lengths["max_new_tokens"] for reply in good)
    lengths |= {"replies": len(good), "cut": cut}
    lines = []
    if lengths["derived"]:
        lines.append(
            f"Tokens, derived from the data ({', '.join(lengths['derived'])}): prompts have at most "
            f"{lengths['max_prompt_tokens']}, the data's replies {lengths['max_completion_tokens']}, sampled replies "
            f"{lengths['max_new_tokens']}."
        )
    if cut:
        lines.append(
            f"Of {len(good)} replies that are preferred or imitated {cut} ({cut / len(good):.1%}) are longer than "
            f"generation.max_new_tokens ({lengths['max_new_tokens']}), where a policy's own replies are cut."
        )
    if count := preflight["realigned"]:
        split_parts = preflight["splits"].values()
        replies = sum(part["replies"] + part.get("length_bias", {"pairs": 0})["pairs"] for part in split_parts)
        opening = rendering.opening(next(row.prompt for rows in parts.values() for row in rows))
        lines.append(
            f"{'All' if count == replies else count} of {replies} replies stand, in the conversations that the chat "
            f"template writes, behind other tokens than those of {opening!r}, behind which replies are sampled: they "
            "are trained on and counted right behind it. Should they begin otherwise, name another model.chat_template."
        )
    if tokens := found["control_tokens"]:
        lines.append(
            f"{found['rows']} rows hold text that spells control tokens of the model ({_counts(tokens)}): it is "
            "encoded as text."
        )
    if words := found["template_words"]:
        lines.append(
            f"Rows hold words with which the chat template parts turns ({_counts(words)}); they are plain text in "
            "both, and the model cannot tell them apart."
        )
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in list(counts.items())[:8])


def count_markers(rows: Sequence[Row], rendering: Tokens) -> dict[str, Any]:
    """In how many rows text reads like the chat template's own: `rows` with control tokens, and by token and word."""
    tokens, words, count = Counter[str](), Counter[str](), 0
    for row in rows:
        controls, plain = rendering.markers(row)
        count += bool(controls)
        tokens.update(controls)
        words.update(plain)
    return {"rows": count, "control_tokens": dict(tokens.most_common()), "template_words": dict(words.most_common())}


def model_positions(folder: str, trust_remote_code: bool) -> int | None:
    """How many positions the model in a folder has; None where its config states no limit."""
    return positions(AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code))


def check_positions(recipe: Recipe, base: str, rows: Sequence[Row], rendering: Tokens) -> None:
    """Refuse prompts and replies with more tokens than the recipe's model, or a given reward model, has positions.

    Beyond its positions, a model with learned ones fails in the middle of a training, and one with rotary ones goes on
    untrained. Models whose config states no limit are not checked. A given reward model must be able to read all rows.

    Args:
        base: folder of the recipe's model.
        rows: of all splits, as they will be used.
        rendering: with the tokenizer of `base`.

    Raises:
        PrefzooError: naming the model, the longest row, and the keys to lower.
    """
    trusted = recipe.model.trust_remote_code
    prompts = list({prompt_key(row.prompt): row.prompt for row in rows}.values())
    lengths = recipe.lengths
    new, longest_prompt, longest_reply = (
        lengths[key] for key in ("max_new_tokens", "max_prompt_tokens", "max_completion_tokens")
    )
    lower = f"Lower data.max_prompt_tokens (now {longest_prompt}) or "
    sampling = f"{lower}generation.max_new_tokens (now {new})."
    most = longest_prompt + max(new, longest_reply) + TEMPLATE
    problems = []

    def check(key: str, path: str, limit: int, longest: int, text: str, advice: str) -> None:
        if longest > limit:
            problems.append(f"{key}: {path!r} has {limit} positions, and {text} takes up to {longest}. {advice}")

    trained = any(part.type == "trained" for part in recipe.reward.parts)
    limit = model_positions(base, trusted)
    if limit is not None and limit < most:
        # A reward model that is made of it reads the end of the turn too.
        longest = max(len(rendering.whole(p, "") if trained else rendering.prompt(p)) for p in prompts)
        check("model.path", recipe.model.path, limit, longest + new, "a prompt with a reply to it", sampling)
        if trained or _learns_from_replies(recipe):
            longest = max((len(rendering.whole(row.prompt, r)) for row in rows for r in row.replies()), default=0)
            advice = f"{lower}data.max_completion_tokens (now {longest_reply})."
            check("model.path", recipe.model.path, limit, longest, "a prompt with the data's reply to it", advice)
    problems += given_reward_problems(recipe, rows, rendering.tokenizer.get_vocab(), new, most, sampling)
    if problems:
        raise PrefzooError("\n".join(problems))


def _learns_from_replies(recipe: Recipe) -> bool:
    learners = [recipe.start_algorithm(), *map(recipe.algorithm, recipe.algorithms)]
    return any(
        {"preferences", "demonstrations", "unpaired"} & learner.required for learner in learners if learner is not None
    )
