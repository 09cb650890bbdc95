"""Conversations as tokens: one rule for what is trained on, counted, sampled, judged and scored."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from transformers import BatchEncoding, PreTrainedTokenizerBase

from prefzoo.types import Completion, Prompt

BREAK = "\uf8fe\uf8fd\uf8fe"
"""Splits text where tokens must not merge; in no text."""
LEADS = ("\n", "a", "0")
"""Texts of which one is sure not to merge with what follows it."""
_TURNS = [{"role": role, "content": BREAK} for role in ("user", "assistant", "user")]


class ChatRendering(PreTrainedTokenizerBase):
    """Mixed into a tokenizer, so that all who call `apply_chat_template`, TRL's trainers among them, get the same:

    - Text is text: what spells a control token inside a message becomes the tokens of its letters. Control tokens are
      special tokens, and those with which the chat template parts the turns.
    - A conversation that ends with a reply begins with the tokens from which the reply would be sampled (where
      `aligned`). What the generation prompt adds and conversations leave out, such as `<think>`, stays before the
      reply; where the template puts something else there, the reply is taken as it stands.
    - A last message with `token_ids` ends the conversation with them: a reply in the tokens that were sampled.

    With `continuation` there is no template: the messages are plain text, begun as the tokenizer begins any text, and a
    reply goes on from there up to an end-of-sequence token.
    """

    continuation: ClassVar[bool] = False
    aligned: ClassVar[bool] = True
    _last: tuple[Any, list[int]] = (None, [])
    realigned: int = 0
    """How many replies so far the chat template wrote behind something else than the generation prompt."""

    def apply_chat_template(self, conversation: Any, *args: Any, **more: Any) -> Any:
        """As in transformers; see the class."""
        batched = bool(conversation) and isinstance(conversation[0], (list, tuple))
        rows = list(conversation) if batched else [conversation]
        if self.continuation and not more.get("tokenize", True):
            texts = [self._text(row) for row in rows]
            return texts if batched else texts[0]
        if not self.continuation and (
            not more.get("tokenize", True) or more.get("continue_final_message") or not any(map(self._careful, rows))
        ):
            return super().apply_chat_template(conversation, *args, **more)
        template = {key: value for key, value in more.items() if key not in _OUTPUT}
        pairs = self.parts(rows, **template)
        ids = [[*before, *reply] for before, reply in pairs]
        if not more.get("return_dict", True):
            return ids if batched else ids[0]
        if more.get("return_assistant_tokens_mask") and not self.continuation:
            written = super().apply_chat_template(conversation, *args, **more)
            if written["input_ids"] == (ids if batched else ids[0]):
                return written  # which knows earlier replies too
        output = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
        if more.get("return_assistant_tokens_mask"):
            output["assistant_masks"] = [[0] * len(before) + [1] * len(reply) for before, reply in pairs]
        if tensors := more.get("return_tensors"):
            return self.pad({"input_ids": ids}, padding=True, return_tensors=tensors)
        return BatchEncoding(output if batched else {key: value[0] for key, value in output.items()})

    def text_ids(self, text: str) -> list[int]:
        """The tokens of a text by itself, without control tokens."""
        return self.ids_of_texts([text])[0]

    def ids_of_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """`text_ids` of each of these, which is faster for many together."""
        return self._encoded([self._broken(text) for text in texts])

    def markers_in(self, text: str) -> tuple[set[str], set[str]]:
        """What in a text reads like the chat template's own: control tokens, which are encoded as text, and words that
        the template writes as plain text itself, which nothing can tell apart."""
        return set(self._controls.findall(text)), {word for word in self._template_words if word in text}

    def text_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """What tokens spell behind other ones, without special tokens: a space before the first word stays."""
        first = list(before[-4:])
        whole = self.decode([*first, *ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        part = self.decode(first, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(whole).removeprefix(str(part))

    def encoded_again(self, prompt: Prompt, reply: Completion, eos_ids: Collection[int]) -> EncodedAgain:
        """What the text of a sampled reply becomes behind its prompt: the tokens that were sampled, others that spell
        the same, or others that do not, as where a tokenizer loses the space before a text."""
        turns = [*prompt, {"role": "assistant", "content": reply.text}]
        ((before, again),) = self.parts([turns])
        ids = list(reply.token_ids[:-1] if reply.finished else reply.token_ids)
        if again[: len(ids)] == ids and (len(again) == len(ids) or again[len(ids)] in eos_ids):
            return "same"
        end = next((i for i, token in enumerate(again) if token in eos_ids), len(again))
        return "other tokens" if self.text_after(before, again[:end]) == self.text_after(before, ids) else "other text"

    def _careful(self, turns: Sequence[Any]) -> bool:
        """Whether the template alone may not give the tokens of this conversation."""
        return (self.aligned and _replied(turns)) or any(
            isinstance(t["content"], str) and self._controls.search(t["content"]) for t in turns
        )

    def parts(
        self, rows: Sequence[Sequence[Any]], begun: Sequence[list[int]] | None = None, **template: Any
    ) -> list[tuple[list[int], list[int]]]:
        """The tokens of conversations, and apart from them those of the reply that ends each, if one does.

        Args:
            begun: the tokens from which the reply to each would be sampled, where they are known.
        """
        template.pop("return_assistant_tokens_mask", None)
        prompt = template.pop("add_generation_prompt", False)
        rows = [[{key: value for key, value in turn.items() if value is not None} for turn in turns] for turns in rows]
        replied = [not prompt and _replied(turns) for turns in rows]
        prompts = [turns[:-1] for turns, reply in zip(rows, replied, strict=True) if reply]
        befores = iter(self._befores(prompts, template) if begun is None else begun)
        sampled = [turns[-1].get("token_ids") if reply else None for turns, reply in zip(rows, replied, strict=True)]
        unsampled = [turns for turns, ids in zip(rows, sampled, strict=True) if ids is None]
        written = iter(self._written(unsampled, prompt, **template))
        parts = []
        for turns, reply, ids in zip(rows, replied, sampled, strict=True):
            before = next(befores) if reply else []
            if ids is not None:
                parts.append((before, list(ids)))
            elif reply:
                parts.append(self._parted(turns, before, next(written), template))
            else:
                parts.append((next(written), []))
        return parts

    def _parted(
        self, turns: Sequence[Any], before: list[int], written: list[int], template: dict[str, Any]
    ) -> tuple[list[int], list[int]]:
        """The tokens of a prompt and those of its reply, given those of both together."""
        end = [self.eos_token_id] if self.continuation and self.eos_token_id is not None else []
        if written[: len(before)] == before or not (self.aligned or self.continuation):
            return written[: len(before)], [*written[len(before) :], *end]
        if self.continuation:
            return before, [*self._after(self._broken(turns[-1]["content"])), *end]
        self.realigned += 1
        return before, self._after(self._reply_text(turns, **template))

    def _befores(self, prompts: Sequence[Sequence[Any]], template: dict[str, Any]) -> list[list[int]]:
        """The tokens of prompts; those of the last one are kept, for its next reply."""
        keys = [(turns, template, self.chat_template) for turns in prompts]
        new = [key[0] for key, last in zip(keys, [self._last[0], *keys], strict=False) if key != last]
        made = iter(self._written(new, True, **template))
        befores = []
        for key in keys:
            if self._last[0] != key:
                self._last = key, next(made)
            befores.append(list(self._last[1]))
        return befores

    def _written(self, rows: Sequence[Sequence[Any]], prompt: bool = False, **template: Any) -> list[list[int]]:
        """The tokens of conversations as the template writes them, or as plain text, less the end of the last turn."""
        if not rows:
            return []
        if self.continuation:
            texts = [self._joined(turns, _replied(turns) and not prompt) for turns in rows]
            ids = self._encoded([self._broken(text) for text in texts], add_special_tokens=True)
            return [row[:-1] if row and row[-1] == self.eos_token_id else row for row in ids]  # some end every text
        broken = [[self._broken_turn(turn) for turn in turns] for turns in rows]
        more = {**template, "tokenize": False, "add_generation_prompt": prompt}
        return self._encoded(super().apply_chat_template(broken, **more))

    def _encoded(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[list[int]]:
        """The tokens of texts whose control tokens are broken, encoded together."""
        whole = [text for text in texts if BREAK not in text]
        ids = iter(self(whole, add_special_tokens=add_special_tokens)["input_ids"] if whole else ())
        return [self._without_breaks(t, add_special_tokens) if BREAK in t else list(next(ids)) for t in texts]

    def _reply_text(self, turns: Sequence[Any], **template: Any) -> str:
        """What follows the generation prompt: the reply, less the beginning of a thought that the prompt has opened
        for it, and the end of the turn. Its control tokens are broken."""

        def text(turns: Sequence[Any], prompt: bool = False) -> str:
            more = {**template, "tokenize": False, "add_generation_prompt": prompt}
            return str(super(ChatRendering, self).apply_chat_template(turns, **more))

        prompt, reply = turns[:-1], self._broken_turn(turns[-1])
        before, whole = text(prompt, True), text([*prompt, reply])
        if whole.startswith(before):  # tokens merge across the border
            return whole[len(before) :]
        written_before, found, end = text([*prompt, {**reply, "content": BREAK}]).partition(BREAK)
        if not found:
            return whole[len(_common(before, whole)) :]
        opened = before[len(_common(before, written_before)) :].strip()
        said = str(reply["content"])
        if opened and said.lstrip().startswith(opened):
            said = said.lstrip()[len(opened) :].lstrip("\n")
        return said + end

    def _text(self, turns: Sequence[Any]) -> str:
        """Messages as plain text, with the end of a reply."""
        return self._joined(turns, _replied(turns)) + (str(self.eos_token or "") if _replied(turns) else "")

    @staticmethod
    def _joined(turns: Sequence[Any], replied: bool) -> str:
        """Messages as plain text: those of a prompt are parted by an empty line, a reply follows at once."""
        *before, last = [str(turn["content"]) for turn in turns]
        return "\n\n".join(before) + last if replied else "\n\n".join([*before, last])

    def _without_breaks(self, text: str, add_special_tokens: bool = False) -> list[int]:
        first, *pieces = text.split(BREAK)
        ids = list(self(first, add_special_tokens=add_special_tokens)["input_ids"])
        return [*ids, *(i for piece in pieces for i in self._after(piece))]

    def _after(self, text: str) -> list[int]:
        """The tokens of a text that follows another one, in which no token merges with what is before it and no space
        is put there."""
        whole, *pieces = text.split(BREAK, 1)
        rest = self._after(pieces[0]) if pieces else []
        for lead in LEADS:
            ids, first = (self(each, add_special_tokens=False)["input_ids"] for each in (lead + whole, lead))
            if ids[: len(first)] == first:
                return [*ids[len(first) :], *rest]
        return [*self(whole, add_special_tokens=False)["input_ids"], *rest]

    def _broken_turn(self, turn: Any) -> Any:
        text = turn["content"]
        return {**turn, "content": self._broken(text)} if isinstance(text, str) else turn

    def _broken(self, text: str) -> str:
        """The text with each control token in it broken in two, where its letters part into tokens."""

        def break_up(match: re.Match[str]) -> str:
            token = match[0]
            ids = self(token, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            first = self.decode(ids[:1]).strip()
            at = len(first) if len(ids) > 1 and first and token.startswith(first) and first != token else 1
            return token[:at] + BREAK + token[at:]

        return self._controls.sub(break_up, text)

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        added = self.added_tokens_decoder.values()
        special = {*self.all_special_tokens, *(str(token.content) for token in added if token.special)}
        parting = {str(token.content) for token in added if _marks(str(token.content))}
        parting = {token for token in parting if token in self._between_turns}
        tokens = sorted((token for token in special | parting if token.strip()), key=lambda t: (-len(t), t))
        return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")

    @cached_property
    def _between_turns(self) -> str:
        """What the chat template writes around the messages of a conversation, and behind a reply that ends one."""
        if self.continuation or self.chat_template is None:
            return ""
        try:
            two, three = (
                str(super(ChatRendering, self).apply_chat_template(_TURNS[:n], tokenize=False)) for n in (2, 3)
            )
            return three.replace(BREAK, "\n") + two.rpartition(BREAK)[2]
        except Exception:  # a template may refuse anything; its special tokens are known all the same
            return ""

    @cached_property
    def _template_words(self) -> set[str]:
        words = self._controls.sub(" ", self._between_turns).split()
        return set(filter(_marks, words))


EncodedAgain = Literal["same", "other tokens", "other text"]
_OUTPUT = ("tokenize", "return_dict", "return_tensors", "padding", "truncation", "max_length")


def with_rendering(tokenizer: Any, continuation: bool = False, aligned: bool = True) -> Any:
    """Mix `ChatRendering` into a tokenizer, under the name of its class."""
    base = type(tokenizer)
    attributes = {"continuation": continuation, "aligned": aligned, "__module__": base.__module__}
    tokenizer.__class__ = type(base.__name__, (ChatRendering, base), attributes)
    return tokenizer


def _replied(turns: Sequence[Any]) -> bool:
    return len(turns) > 1 and bool(turns[-1]["role"] == "assistant")


def _marks(word: str) -> bool:
    """Whether a word that a template writes stands out from ordinary text."""
    return len(word) > 2 and not word.isalnum() and not word.isspace()


def _common(one: str, other: str) -> str:
    """What both texts begin with."""
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]
