"""Where Optuna's studies are opened."""

import warnings

import optuna


def new_study(
    storage: optuna.storages.BaseStorage | None = None, name: str | None = None
) -> optuna.Study:
    """An empty study that maximises; in this process's memory where no `storage` is given."""
    quieten()
    return optuna.create_study(storage=storage, study_name=name, direction="maximize")


def random_study() -> optuna.Study:
    """An empty study that suggests at random, always the same."""
    quieten()
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def quieten() -> None:
    """From then on Optuna logs no line a study and a trial, and warns of nothing experimental."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
