"""A space of settings that were written down complete: which of them is the one choice."""

import json
from pathlib import Path

from optuna import Trial

from mmm.training.config import Params
from spaces import Space

CHOICE = "finalist"  # the one parameter


def fixed_space(path: Path) -> Space:
    """The space of a JSON file: an object of objects, whose `settings` are a trial's. No linear
    baseline is fitted beside it. Raises ValueError or FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; begin again with: mmm-search confirm")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        by_name: dict[str, Params] = {name: dict(one["settings"]) for name, one in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not an object of finalists with their settings ({type(error).__name__}:"
            f" {error}); bring it back from a copy"
        ) from None

    def suggest(trial: Trial) -> Params:
        """One of them as it is written."""
        return dict(by_name[trial.suggest_categorical(CHOICE, list(by_name))])

    return Space(suggest, has_baseline=False)
