"""Base of policy kinds that are a language model with trained modules beside it, such as a value head; imports no
torch until it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prefzoo.ledger import Ledger
from prefzoo.models.policy_kinds import EXTRA, load_policy, write_policy_file
from prefzoo.settings import Generation
from prefzoo.types import Completion, Progress, Prompt

if TYPE_CHECKING:
    from torch import nn

    from prefzoo.models.language_model import LanguageModelPolicy

LANGUAGE_MODEL, MODULES = "language_model", "modules.safetensors"
"""What the folder of such a policy holds beside `policy.json`."""


class PolicyWithModules:
    """A language model and modules of an author's own, saved and loaded together.

    A subclass sets `kind`, makes its modules in `new_modules`, and overrides `sample`. It has a KL if it has
    `kl_to_start` or `log_probabilities` (`prefzoo.interface`). `prefzoo.register_policy(kind, cls)` makes it loadable,
    `fit(..., policy_kind=cls, policy_settings={...})` trains it.

    Args:
        policy: the language model.
        modules: the modules by name; None takes those that a trainer put on the language model.
        settings: plain values, saved with it.
    """

    kind: ClassVar[str]

    def __init__(
        self, policy: LanguageModelPolicy, modules: dict[str, nn.Module] | None = None, **settings: Any
    ) -> None:
        self.policy, self.start, self.settings = policy, policy.start, settings
        names = getattr(policy.model, EXTRA, ())
        self.modules = {name: getattr(policy.model, name) for name in names} if modules is None else modules

    @classmethod
    def new_modules(cls, model: Any) -> dict[str, nn.Module]:
        """Make the modules, by name, as a training on this transformers model begins with them."""
        raise NotImplementedError

    def sample(
        self,
        prompts: Sequence[Prompt],
        generation: Generation,
        seed: int,
        n: int = 1,
        ledger: Ledger | None = None,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """The language model's replies."""
        return self.policy.sample(prompts, generation, seed, n=n, ledger=ledger, progress=progress)

    def save(self, folder: Path) -> None:
        """Write the language model into a folder of its own, and the modules in safetensors."""
        from safetensors.torch import save_file

        write_policy_file(folder, self.kind, self.start, settings=self.settings)
        self.policy.save(folder / LANGUAGE_MODEL)
        weights = {f"{name}.{key}": w for name, m in self.modules.items() for key, w in m.state_dict().items()}
        save_file({key: weight.detach().cpu().contiguous() for key, weight in weights.items()}, folder / MODULES)

    @classmethod
    def load(cls, folder: Path, start: str, content: dict[str, Any]) -> PolicyWithModules:
        """Read what `save` wrote."""
        import torch
        from safetensors.torch import load_file

        policy: Any = load_policy(folder / LANGUAGE_MODEL)
        with torch.device("meta"):  # draws no random numbers
            modules = cls.new_modules(policy.model)
        saved = load_file(folder / MODULES, device=str(policy.model.device))
        for name, module in modules.items():
            own = {key.removeprefix(f"{name}."): weight for key, weight in saved.items() if key.startswith(f"{name}.")}
            module.load_state_dict(own, assign=True)
        return cls(policy, modules, **content["settings"])
