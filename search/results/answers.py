"""What trials answer on the validation rows of their sweep, from the weights that were kept."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmm.manifest_csv import read_manifest
from mmm.training.batches import SplitData
from mmm.training.config import make_config
from mmm.training.evaluate import probabilities
from mmm.training.features import dims_of, load_features
from mmm.training.own_system import load_recorded
from mmm.training.run import build_model
from search.ledger.data import data_changes, describe, with_classes_of
from search.ledger.files import best_weights
from search.ledger.history import History
from search.ledger.trial import Trial

CHANGED = "were the manifest, the features or the weights changed since the sweep?"


class SweepData:
    """What a sweep was run on. Raises as `read_manifest`."""

    def __init__(self, history: History) -> None:
        self.spec = history.spec
        self.history = history
        self.whole = with_classes_of(history, read_manifest(self.spec.manifest, check_audio=False))
        self.manifest = self.whole.without_test()
        self.features = Path(self.spec.features)

    def changes_since(self, trial: Trial) -> str:
        """What has changed since a trial was trained, as far as the ledger tells."""
        config = make_config(dict(trial.settings))
        now = describe(
            self.manifest,
            self.features,
            [load_features(self.manifest, self.features, *self.spec.features_key(config))],
        )
        accepted = self.history.data_changes[self.history.data_of(trial.number) - 1 :]
        found = [
            *(what for _, note in accepted for what in note.changed),
            *data_changes(self.history, now).what,
        ]
        return f"since then the data were changed: {'; '.join(found)}." if found else CHANGED


@dataclass(frozen=True, eq=False)
class Answers:
    """Of one trial's best epoch on the validation rows."""

    trial: Trial
    rows: SplitData
    probabilities: Tensor  # (N, C)


def weights_of(history: History, sweep: Path, trial: Trial) -> dict[str, Tensor] | None:
    """Of a trial's best epoch; None over folds, and where they were not kept. Raises ValueError
    where they are damaged.
    """
    if trial.num_folds > 1:
        return None
    trained = trial if trial.copied_from is None else history.trials[trial.copied_from]
    return best_weights(
        sweep, trained.number, trained.checkpoints, is_unfinished=trial.state == "running"
    )


def answers_of(data: SweepData, sweep: Path, trial: Trial) -> Answers:
    """Computed on the CPU. Raises ValueError or FileNotFoundError where weights or features are not
    there.
    """
    if (weights := weights_of(data.history, sweep, trial)) is None:
        raise ValueError(f"the weights of trial {trial.number} were not kept")
    load_recorded(trial.settings)
    config = make_config(dict(trial.settings))
    features = load_features(data.manifest, data.features, *data.spec.features_key(config))
    dims = dims_of(features, config)
    model = build_model(config, dims)
    model.load_state_dict(weights)
    policy = "published" if config.label_policy == "published" else "expand"
    rows = SplitData(features, config, dims, data.manifest.rows("dev"), policy)
    return Answers(trial, rows, probabilities(model.eval(), rows, torch.device("cpu")))
