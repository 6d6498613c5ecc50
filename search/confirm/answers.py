"""What models answered on the validation rows, and which of these rows are alike."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmm.bundle.evaluate import predict_rows
from mmm.bundle.read import load_bundle
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.training.baselines import fitted
from mmm.training.batches import LabelledRows, SplitData, labelled_rows
from mmm.training.config import FeaturesKey, Params, TrainConfig, make_config
from mmm.training.evaluate import probabilities
from mmm.training.features import Features, dims_of, load_features
from mmm.training.own_system import load_recorded
from mmm.training.run import build_model
from mmm.training.tensor_file import load_checked
from search.confirm.scores import Array, counts_of, scores_of
from search.confirm.units import Units, choose_units
from search.ledger.data import with_classes_of
from search.ledger.files import answers_file, best_weights
from search.ledger.history import History
from search.ledger.trial import Trial

_SCORE_TOLERANCE = 0.01  # another machine's sums may move a row over the edge between classes
_CPU = torch.device("cpu")


class Validation:
    """The validation rows of a sweep, without the test split, and what models say to them; over
    folds the rows of all of them, each answered by a model that was trained without its fold.
    """

    def __init__(self, history: History, folder: Path) -> None:
        self.history, self.folder, self.spec = history, folder, history.spec
        manifest = read_manifest(self.spec.manifest, check_audio=False)
        self.manifest: Manifest = with_classes_of(history, manifest).without_test()
        self.folds = range(1, 1 + (self.spec.folds or 0))
        self.rows = self.manifest.rows_in_folds() if self.folds else self.manifest.rows("dev")
        self._features: dict[FeaturesKey, Features] = {}
        first = next(trial for trial in history.trials.values() if trial.settings)
        self.units: Units = choose_units(self._groupings(self._features_of(first)))
        self._cell = dict(zip(self.rows, self.units.cells.tolist(), strict=True))

    def _features_of(self, trial: Trial) -> Features:
        key = self.spec.features_key(make_config(dict(trial.settings)))
        if key not in self._features:
            self._features[key] = load_features(self.manifest, Path(self.spec.features), *key)
        return self._features[key]

    def _groupings(self, features: Features) -> Mapping[str, list[str]]:
        """Speaker, dialogue and audio content of each row; the content by its file's name where
        the store does not know it.
        """
        utterances = [self.manifest.utterances[row] for row in self.rows]
        hashes = features.speech.audio_hashes[features.speech_rows.numpy()[self.rows]]
        return {
            "speaker": [one.speaker for one in utterances],
            "dialogue": [one.dialogue_id for one in utterances],
            "audio": [
                found.tobytes().hex() if found.any() else one.audio
                for one, found in zip(utterances, hashes, strict=True)
            ],
        }

    def of_trial(self, trial: Trial) -> Array:
        """(P, C, C) counts of a trial's best epoch. Raises ValueError where its weights or answers
        are gone, or do not score what the ledger says.
        """
        best = trial.best(self.spec.metric)
        if best is None:
            raise self._gone(trial)
        load_recorded(trial.settings)
        config = make_config(dict(trial.settings))
        if self.folds:
            parts = [self._of_fold(trial, config, fold, best[0]) for fold in self.folds]
        else:
            parts = [self._of_weights(trial, config)]
        scores = [scores_of(counts.sum(axis=0), self.spec.metric) for counts in parts]
        if abs((score := float(np.mean(scores))) - best[1]) > _SCORE_TOLERANCE:
            raise ValueError(
                f"trial {trial.number} of sweep {self.spec.name!r}: what it left scores"
                f" {self.spec.metric} {score:.4f} and the ledger says {best[1]:.4f}; were the"
                " manifest, the features or the weights changed since? Confirm under another name"
                " with --as"
            )
        return np.asarray(sum(parts))

    def _of_weights(self, trial: Trial, config: TrainConfig) -> Array:
        weights = best_weights(self.folder, trial.number, trial.checkpoints)
        if weights is None:
            raise self._gone(trial)
        features = self._features_of(trial)
        dims = dims_of(features, config)
        model = build_model(config, dims)
        model.load_state_dict(weights)
        data = SplitData(features, config, dims, self.rows, _policy(config))
        return self._counts(data, probabilities(model.eval(), data, _CPU).argmax(dim=1))

    def _of_fold(self, trial: Trial, config: TrainConfig, fold: int, epoch: int) -> Array:
        path = answers_file(self.folder, trial.number, fold)
        if not path.is_file():
            raise self._gone(trial)
        answers = load_checked(path.read_bytes())[0]["answers"]
        held_out = self.manifest.fold_rows(fold)[1]
        return self._counts(
            labelled_rows(self.manifest, held_out, _policy(config)), answers[epoch - 1].long()
        )

    def _gone(self, trial: Trial) -> ValueError:
        what = "answers on every fold" if self.folds else "weights"
        return ValueError(
            f"trial {trial.number} of sweep {self.spec.name!r} has no {what} any more; confirm"
            " under another name with --as"
        )

    def of_bundle(self, path: Path) -> Array:
        """(P, C, C) counts of a bundle. Raises as `load_bundle`."""
        data, shares = predict_rows(
            load_bundle(path), self.manifest, Path(self.spec.features), self.rows, _CPU
        )
        return self._counts(data, shares.argmax(dim=1))

    def of_linear(self, settings: Params) -> Array:
        """(P, C, C) counts over folds of the linear system, fitted without each."""
        config, features = make_config(dict(settings)), Path(self.spec.features)
        parts = []
        for fold in self.folds:
            run = fitted(config, self.manifest, features, self.spec.metric, fold)
            parts.append(
                self._counts(run.dev, probabilities(run.model, run.dev, _CPU).argmax(dim=1))
            )
        return np.asarray(sum(parts))

    def of_majority(self) -> Array:
        """(P, C, C) counts of what always answers with the most frequent class of the training
        rows; over folds of those of the other folds.
        """
        splits = [self.manifest.fold_rows(fold) for fold in self.folds] or [
            (self.manifest.rows("train"), self.rows)
        ]
        parts = []
        for train, held_out in splits:
            frequent = labelled_rows(self.manifest, train, "expand").truth.bincount().argmax()
            rows = labelled_rows(self.manifest, held_out, "expand")
            parts.append(self._counts(rows, frequent.expand(len(rows.truth))))
        return np.asarray(sum(parts))

    def _counts(self, rows: LabelledRows | SplitData, answers: Tensor) -> Array:
        cells = np.array([self._cell[row] for row in rows.indices.tolist()], dtype=np.int64)
        predicted: npt.NDArray[np.int64] = answers.numpy()
        truth: npt.NDArray[np.int64] = rows.truth.numpy()
        counts = counts_of(truth, predicted[None], cells, self.units.num_cells, len(rows.names))
        return np.asarray(counts[0])


def _policy(config: TrainConfig) -> str:
    return "published" if config.label_policy == "published" else "expand"
