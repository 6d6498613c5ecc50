"""What models answered on the validation rows, and which of these rows are alike."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mmm.bundle.evaluate import predict_rows
from mmm.bundle.read import load_bundle
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.training.batches import SplitData
from mmm.training.config import FeaturesKey, make_config
from mmm.training.evaluate import probabilities
from mmm.training.features import Features, dims_of, load_features
from mmm.training.own_system import load_recorded
from mmm.training.run import build_model
from search.confirm.scores import Array, counts_of, scores_of
from search.confirm.units import Units, choose_units
from search.ledger.data import with_classes_of
from search.ledger.files import best_weights
from search.ledger.history import History, Trial

_SCORE_TOLERANCE = 0.01  # another machine's sums may move a row over the edge between classes
_CPU = torch.device("cpu")


class Validation:
    """The validation rows of a sweep, without the test split, and what models say to them."""

    def __init__(self, history: History, folder: Path) -> None:
        self.history, self.folder, self.spec = history, folder, history.spec
        manifest = read_manifest(self.spec.manifest, check_audio=False)
        self.manifest: Manifest = with_classes_of(history, manifest).without_test()
        self.rows = self.manifest.rows("dev")
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
        """(P, C, C) counts of a trial's best epoch. Raises ValueError where its weights are gone,
        or do not score what the ledger says.
        """
        weights = best_weights(self.folder, trial.number, trial.checkpoints)
        best = trial.best(self.spec.metric)
        if weights is None or best is None:
            raise ValueError(
                f"trial {trial.number} of sweep {self.spec.name!r} has no weights any more; confirm"
                " under another name with --as"
            )
        load_recorded(trial.settings)
        config = make_config(dict(trial.settings))
        features = self._features_of(trial)
        dims = dims_of(features, config)
        model = build_model(config, dims)
        model.load_state_dict(weights)
        policy = "published" if config.label_policy == "published" else "expand"
        data = SplitData(features, config, dims, self.rows, policy)
        counts = self._counts(data, probabilities(model.eval(), data, _CPU))
        score = float(scores_of(counts.sum(axis=0), self.spec.metric))
        if abs(score - best[1]) > _SCORE_TOLERANCE:
            raise ValueError(
                f"trial {trial.number} of sweep {self.spec.name!r}: its weights score"
                f" {self.spec.metric} {score:.4f} and the ledger says {best[1]:.4f}; were the"
                " manifest, the features or the weights changed since? Confirm under another name"
                " with --as"
            )
        return counts

    def of_bundle(self, path: Path) -> Array:
        """(P, C, C) counts of a bundle. Raises as `load_bundle`."""
        data, shares = predict_rows(
            load_bundle(path), self.manifest, Path(self.spec.features), self.rows, _CPU
        )
        return self._counts(data, shares)

    def _counts(self, data: SplitData, shares: torch.Tensor) -> Array:
        cells = np.array([self._cell[row] for row in data.indices.tolist()], dtype=np.int64)
        predicted: npt.NDArray[np.int64] = shares.argmax(dim=1).numpy()
        truth: npt.NDArray[np.int64] = data.truth.numpy()
        counts = counts_of(truth, predicted[None], cells, self.units.num_cells, len(data.names))
        return np.asarray(counts[0])
