"""Rows as tokens, and a check that the models have positions enough for the longest of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import AutoConfig

from prefzoo.data.formats import Row
from prefzoo.data.preflight import BATCH, Rendering, batches
from prefzoo.data.rejects import Rejected
from prefzoo.data.splits import surely_fits
from prefzoo.errors import PrefzooError
from prefzoo.models.loading import load_tokenizer, positions
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.run.stages.given_rewards import given_reward_problems
from prefzoo.types import Prompt

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
        (ids,) = self.prompts([prompt])
        if isinstance(ids, Rejected):
            raise ids
        return ids

    def prompts(self, prompts: Sequence[Prompt]) -> list[list[int] | Rejected]:
        """See `preflight.Rendering`."""
        if not prompts:
            return []
        try:
            turns = [list(prompt) for prompt in prompts]
            found = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
            return list(found)
        except TemplateError as error:
            if len(prompts) == 1:
                return [Rejected("refused_by_the_chat_template", shown=str(error))]
        middle = len(prompts) // 2
        return [*self.prompts(prompts[:middle]), *self.prompts(prompts[middle:])]

    def whole(self, prompt: Prompt, reply: str) -> list[int]:
        """Token ids of the prompt and the reply, its end included."""
        return self.wholes([prompt], [reply])[0]

    def wholes(
        self, prompts: Sequence[Prompt], replies: Sequence[str], begun: Sequence[list[int]] | None = None
    ) -> list[list[int]]:
        """See `preflight.Rendering`."""
        turns = [
            [*prompt, {"role": "assistant", "content": reply}] for prompt, reply in zip(prompts, replies, strict=True)
        ]
        return [before + after for before, after in self.tokenizer.parts(turns, begun)]

    def opening(self, prompt: Prompt) -> str:
        """What the generation prompt puts before a reply."""
        begun = self.tokenizer.apply_chat_template(list(prompt), return_dict=False)
        return self.text(self.prompt(prompt)[len(begun) :])

    def text(self, ids: Sequence[int]) -> str:
        """What these tokens spell, special ones included."""
        return self.tokenizer.decode(list(ids))

    def reply_length(self, reply: str) -> int:
        """Tokens of a reply and its end."""
        return self.reply_lengths([reply])[0]

    def reply_lengths(self, replies: Sequence[str]) -> list[int]:
        """The same of each of these."""
        new = [reply for reply in dict.fromkeys(replies) if reply not in self._reply_lengths]
        for some in (new[begin : begin + BATCH] for begin in range(0, len(new), BATCH)):
            ids = self.tokenizer.ids_of_texts(some)
            self._reply_lengths |= {reply: len(row) + 1 for reply, row in zip(some, ids, strict=True)}
        return [self._reply_lengths[reply] for reply in replies]

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
    for batch in batches(rows[:: max(1, len(rows) // SAMPLE)]):
        begun = rendering.prompts([row.prompt for row in batch])
        usable = [(row, ids) for row, ids in zip(batch, begun, strict=True) if not isinstance(ids, Rejected)]
        texts = list(dict.fromkeys(reply for row, _ in usable for reply in row.replies()))
        counts = dict(zip(texts, rendering.reply_lengths(texts), strict=True))
        for row, ids in usable:
            shown = row.prompt
            prompts.append(len(ids))
            replies += [counts[reply] for reply in dict.fromkeys(row.replies())]
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
    unsure = [reply for reply in good if not surely_fits(reply, lengths["max_new_tokens"])]
    cut = sum(count > lengths["max_new_tokens"] for count in rendering.reply_lengths(unsure))
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
    for controls, plain in map(rendering.markers, rows):
        count += bool(controls)
        tokens.update(controls)
        words.update(plain)
    return {"rows": count, "control_tokens": dict(tokens.most_common()), "template_words": dict(words.most_common())}


def model_positions(folder: str, trust_remote_code: bool) -> int | None:
    """How many positions the model in a folder has; None where its config states no limit."""
    return positions(AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code))


def check_positions(
    recipe: Recipe, base: str, rows: Sequence[Row], rendering: Tokens, remembered: Rendering | None = None
) -> None:
    """Refuse prompts and replies with more tokens than the recipe's model, or a given reward model, has positions.

    Beyond its positions, a model with learned ones fails in the middle of a training, and one with rotary ones goes on
    untrained. Models whose config states no limit are not checked. A given reward model must be able to read all rows.

    Args:
        base: folder of the recipe's model.
        rows: of all splits, as they will be used.
        rendering: with the tokenizer of `base`.
        remembered: the same, with what it has rendered so far.

    Raises:
        PrefzooError: naming the model, the longest row, and the keys to lower.
    """
    trusted = recipe.model.trust_remote_code
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
        longest = _longest(rows, lambda row: [""] if trained else [], limit - new, rendering, remembered)
        check("model.path", recipe.model.path, limit, longest + new, "a prompt with a reply to it", sampling)
        if trained or _learns_from_replies(recipe):
            longest = _longest(rows, Row.replies, limit, rendering, remembered)
            advice = f"{lower}data.max_completion_tokens (now {longest_reply})."
            check("model.path", recipe.model.path, limit, longest, "a prompt with the data's reply to it", advice)
    problems += given_reward_problems(recipe, rows, rendering.tokenizer.get_vocab(), new, most, sampling)
    if problems:
        raise PrefzooError("\n".join(problems))


def _longest(
    rows: Sequence[Row],
    replies: Callable[[Row], list[str]],
    limit: int,
    rendering: Tokens,
    remembered: Rendering | None,
) -> int:
    """The most tokens of a prompt, or with one of the replies to it, where that is more than `limit`; else less.

    Only what may have more than `limit` is made into tokens.
    """
    longest = 0
    for batch in batches(rows):
        begun = (remembered or rendering).prompts([row.prompt for row in batch])
        prompts = [(row, ids) for row, ids in zip(batch, begun, strict=True) if not isinstance(ids, Rejected)]
        longest = max(longest, *(len(ids) for _, ids in prompts))
        unsure = [
            (row.prompt, reply, ids)
            for row, ids in prompts
            for reply in replies(row)
            if not surely_fits(reply, limit - len(ids) - TEMPLATE)
        ]
        for some in (unsure[begin : begin + BATCH] for begin in range(0, len(unsure), BATCH)):
            longest = max(longest, *map(len, rendering.wholes(*zip(*some, strict=True))))
    return longest


def _learns_from_replies(recipe: Recipe) -> bool:
    learners = [recipe.start_algorithm(), *map(recipe.algorithm, recipe.algorithms)]
    return any(
        {"preferences", "demonstrations", "unpaired"} & learner.required for learner in learners if learner is not None
    )
