"""Whether the reward models that a recipe gives by path can read its rows: their chat templates, their positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoConfig

from prefzoo.data.formats import Row
from prefzoo.models.loading import resolve
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.rewards.given_classifier import classifier_tokenizer, classifier_tokens, most_tokens
from prefzoo.rewards.reward_files import critic_problem, tokenizer_folder
from prefzoo.views import prompt_key


def given_reward_problems(
    recipe: Recipe, rows: Sequence[Row], policy: Mapping[str, int], new: int, most: int, advice: str
) -> list[str]:
    """A sentence for each reward model by path whose chat template refuses a row, or that has too few positions.

    Args:
        rows: of all splits, as they will be used.
        policy: the vocabulary of the policy, token -> id.
        new: tokens that a sampled reply has at most.
        most: more tokens than any row or sample has; a model with as many positions is not measured.
        advice: what to do where a row is too long.
    """
    trusted = recipe.model.trust_remote_code
    of_prompts = list({prompt_key(row.prompt): row for row in rows}.values())
    problems = []
    for key, part in recipe.reward.places.items():
        if part.type != "path":
            continue
        place = str(tokenizer_folder(Path(resolve(str(part.path)))))
        config = AutoConfig.from_pretrained(place, trust_remote_code=trusted)
        tokenizer = classifier_tokenizer(place, trusted, config.model_type)
        lengths, refused = [0], []
        for row in of_prompts:
            try:
                lengths.append(len(classifier_tokens(tokenizer, row.prompt, "?")["input_ids"]))
            except TemplateError as error:
                refused.append((row, str(error)))
        if refused:
            row, reason = refused[0]
            problems.append(
                f"{key}.path: the chat template of {part.path!r} refuses {len(refused)} of {len(of_prompts)} prompts, "
                f"first that of {row.id} (turns of {', '.join(turn['role'] for turn in row.prompt)}): {reason}. Take "
                "such rows out of the data, or give a reward model that reads them."
            )
        limit = most_tokens(config, tokenizer)
        # How many tokens of another tokenizer a reply will have is known when there is one; see `RewardModel`.
        longest = max(lengths) + (new if critic_problem(policy, tokenizer.get_vocab()) is None else 0)
        if limit is not None and longest > limit and limit < most:
            problems.append(
                f"{key}.path: {str(part.path)!r} has {limit} positions, and a prompt with a reply to it takes up to "
                f"{longest}. {advice}"
            )
    return problems
