"""Rows as tokens, and a check that the models have positions enough for the longest of them."""

from __future__ import annotations

from collections.abc import Sequence

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

    def __init__(self, base: str, trust_remote_code: bool, replies: bool = True) -> None:
        self.tokenizer = load_tokenizer(base, trust_remote_code, replies)

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

    def text(self, ids: Sequence[int]) -> str:
        """What these tokens spell, special ones included."""
        return self.tokenizer.decode(list(ids))

    def reply_length(self, reply: str) -> int:
        """Tokens of a reply and its end."""
        return len(self.tokenizer(reply, add_special_tokens=False)["input_ids"]) + 1


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
    new, data = recipe.generation.max_new_tokens, recipe.data
    lower = f"Lower data.max_prompt_tokens (now {data.max_prompt_tokens}) or "
    sampling = f"{lower}generation.max_new_tokens (now {new})."
    most = data.max_prompt_tokens + max(new, data.max_completion_tokens) + TEMPLATE
    problems = []

    def check(key: str, path: str, limit: int, longest: int, text: str, advice: str) -> None:
        if longest > limit:
            problems.append(f"{key}: {path!r} has {limit} positions, and {text} takes up to {longest}. {advice}")

    trained = any(part.type == "trained" for part in recipe.reward.parts)
    limit = positions(AutoConfig.from_pretrained(base, trust_remote_code=trusted))
    if limit is not None and limit < most:
        # A reward model that is made of it reads the end of the turn too.
        longest = max(len(rendering.whole(p, "") if trained else rendering.prompt(p)) for p in prompts)
        check("model.path", recipe.model.path, limit, longest + new, "a prompt with a reply to it", sampling)
        if trained or _learns_from_replies(recipe):
            longest = max((len(rendering.whole(row.prompt, r)) for row in rows for r in row.replies()), default=0)
            advice = f"{lower}data.max_completion_tokens (now {data.max_completion_tokens})."
            check("model.path", recipe.model.path, limit, longest, "a prompt with the data's reply to it", advice)
    problems += given_reward_problems(recipe, rows, rendering.tokenizer.get_vocab(), new, most, sampling)
    if problems:
        raise PrefzooError("\n".join(problems))


def _learns_from_replies(recipe: Recipe) -> bool:
    learners = [recipe.start_algorithm(), *map(recipe.algorithm, recipe.algorithms)]
    return any({"preferences", "demonstrations"} & learner.required for learner in learners if learner is not None)
