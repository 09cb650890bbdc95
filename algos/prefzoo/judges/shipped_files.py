"""Files of YAML that ship with the package under a name, or are a user's own: constitutions and dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from prefzoo.atomic_files import usable_path
from prefzoo.bounded_yaml import parse_file
from prefzoo.errors import RecipeError, unknown
from prefzoo.settings import Settings
from prefzoo.validation_messages import validation_problems

S = TypeVar("S", bound=Settings)


def refuse_repeated(ids: Sequence[str], what: str) -> None:
    """Raise ValueError where an id is given twice; each `what` needs one of its own."""
    if repeated := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"the id {repeated[0]!r} is given twice; each {what} needs one of its own")


class ShippedFiles(Generic[S]):
    """Files of one kind.

    Args:
        kind: as messages call it, `constitution`.
        folder: holds the shipped ones, each `NAME.yaml`.
        model: what one of them is.
        fields_at: the keys that are allowed at a place in one.
    """

    def __init__(self, kind: str, folder: Path, model: type[S], fields_at: Callable[[Sequence[Any]], list[str]]):
        self.kind, self.folder, self.model, self.fields_at = kind, folder, model, fields_at

    def shipped(self) -> dict[str, Path]:
        """Those that come with the package: name -> file."""
        return {path.stem: path for path in sorted(self.folder.glob("*.yaml"))}

    def find(self, name: str) -> str:
        """The file of one: of `shipped` by name, or the path that it is."""
        return str(self.shipped().get(name) or usable_path(name))

    def load(self, name: str) -> S:
        """The one of this name or file.

        Raises:
            RecipeError: listing every mistake in it.
        """
        try:
            path = Path(self.find(name))
        except ValueError as error:
            raise self._mistakes([f"{name!r} {error}"]) from None
        if not path.exists():
            raise self._mistakes([f"{unknown(self.kind, name, self.shipped())} Or a YAML file."])
        parsed = parse_file(path)
        if parsed.problems:
            raise self._mistakes([f"{path}:{line}: {problem}" for line, problem in parsed.problems])
        content = parsed.content
        if not isinstance(content, dict):
            raise self._mistakes([f"{path} must hold {', '.join(self.model.model_fields)}"])
        try:
            return self.model.model_validate(content, context={"shipped": name in self.shipped()})
        except ValidationError as error:
            mistakes = validation_problems(error, content, self.fields_at)
            raise self._mistakes([f"{path}: {problem.key}: {problem.message}" for problem in mistakes]) from None

    def problems(self, name: str) -> list[str]:
        """Every mistake in the one of this name or file, a sentence each; empty where it is sound."""
        try:
            self.load(name)
        except RecipeError as error:
            return error.problems
        return []

    def _mistakes(self, problems: list[str]) -> RecipeError:
        return RecipeError(self.kind, [f"{self.kind}: {problem}" for problem in problems])
