"""Whether the models have positions enough for the longest prompt and its reply."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoConfig

from prefzoo.data.formats import Row
from prefzoo.errors import PrefzooError
from prefzoo.models.loading import positions
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.rewards.reward_files import critic_problem, tokenizer_folder
from prefzoo.run.stages.rendering import Tokens
from prefzoo.views import prompt_key

TEMPLATE = 64
"""More tokens than a chat template puts behind a reply."""


def check_positions(recipe: Recipe, base: str, rows: Sequence[Row], rendering: Tokens) -> None:
    """Refuse prompts and replies that are longer than the model's positions, or a given reward model's.

    Models with learned positions fail beyond them in the middle of a training, and those with rotary ones go on where
    they were never trained. A model whose config states no limit is not checked, and of one on the hub nothing is known
    here.

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

    def found(key: str, path: str, limit: int, longest: int, what: str, then: str) -> None:
        if longest > limit:
            problems.append(f"{key}: {path!r} has {limit} positions, and {what} takes up to {longest}. {then}")

    trained = any(part.type == "trained" for part in recipe.reward.parts)
    limit = positions(AutoConfig.from_pretrained(base, trust_remote_code=trusted))
    if limit is not None and limit < most:
        # A reward model that is made of it reads the end of the turn too.
        longest = max(len(rendering.whole(p, "") if trained else rendering.prompt(p)) for p in prompts)
        found("model.path", recipe.model.path, limit, longest + new, "a prompt with a reply to it", sampling)
        if trained or _learns_from_replies(recipe):
            longest = max((len(rendering.whole(row.prompt, r)) for row in rows for r in row.replies()), default=0)
            advice = f"{lower}data.max_completion_tokens (now {data.max_completion_tokens})."
            found("model.path", recipe.model.path, limit, longest, "a prompt with the data's reply to it", advice)
    for key, part in recipe.reward.places.items():
        folder = Path(str(part.path)).expanduser()
        if part.type != "path" or not folder.is_dir():
            continue
        scorer = tokenizer_folder(folder)
        limit = positions(AutoConfig.from_pretrained(scorer, trust_remote_code=trusted))
        if limit is None or limit >= most:
            continue
        scoring = Tokens(str(scorer), trusted, replies=False)
        alike = critic_problem(rendering.tokenizer.get_vocab(), scoring.tokenizer.get_vocab()) is None
        # How many tokens of another tokenizer a reply will have is known when there is one; see `RewardModel`.
        longest = max(len(scoring.whole(p, "")) for p in prompts) + (new if alike else 1)
        found(f"{key}.path", str(part.path), limit, longest, "a prompt with a reply to it", sampling)
    if problems:
        raise PrefzooError("\n".join(problems))


def _learns_from_replies(recipe: Recipe) -> bool:
    learners = [recipe.start_algorithm(), *map(recipe.algorithm, recipe.algorithms)]
    return any({"preferences", "demonstrations"} & each.required for each in learners if each is not None)
