"""Keep libraries from writing to a terminal what says nothing to a person there."""

from __future__ import annotations

import warnings


def quiet() -> None:
    """For a command that loads models at a terminal: no bars, no remarks of transformers below errors, and nothing of
    what one library will have to change for the next version of another."""
    from transformers.utils import logging

    without_bars()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)


def without_bars() -> None:
    """No progress bars of transformers, datasets and the hub's client in this process."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
