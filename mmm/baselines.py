"""What a sweep has to beat: the majority class, and logistic regression on pooled features, tuned on validation."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mmm.batches import Features, labelled_rows, load_features
from mmm.manifest import Manifest
from mmm.metrics import classification_metrics
from mmm.store import list_recipes

_C_GRID = (0.0001, 0.001, 0.01, 0.1, 1.0)
INPUTS = ("speech", "text", "both")


@dataclass(frozen=True)
class Baseline:
    """One baseline's best setting by `objective` on validation, with its validation metrics."""

    name: str
    settings: dict[str, Any]
    metrics: dict[str, Any]


def _inputs(features: Features, indices: torch.Tensor, what: str) -> npt.NDArray[np.float32]:
    for store in (features.speech, features.text):
        store.check("pooled")
    speech = features.speech.pooled[features.speech_rows[indices]].astype(np.float32)
    text = features.text.pooled[features.text_rows[indices]].astype(np.float32)
    chosen: npt.NDArray[np.float32] = {"speech": speech, "text": text, "both": np.concatenate([speech, text], axis=1)}[what]
    return chosen


def baselines(manifest: Manifest, features_dir: Path, objective: str = "macro_f1") -> Iterator[Baseline]:
    """Yield the majority class, then logistic regression on speech, text and both.

    Tuned on validation over C, class weights, and every audio feature and context that the folder holds.
    """
    train, train_labels = labelled_rows(manifest, manifest.rows("train"), "expand")
    dev, dev_labels = labelled_rows(manifest, manifest.rows("dev"), "expand")
    target, truth = train_labels.argmax(dim=1).numpy(), dev_labels.argmax(dim=1).numpy()
    majority = np.full_like(truth, np.bincount(target).argmax())
    name = manifest.classes[int(majority[0])]
    yield Baseline(f"always {name}", {}, classification_metrics(truth, majority, manifest.classes))
    recipes = list_recipes(features_dir, manifest.path).values()
    audio_features = sorted({recipe["feature"] for recipe in recipes if recipe["kind"] == "audio"})
    contexts = sorted({recipe["context"] for recipe in recipes if recipe["kind"] == "text"})
    for what in INPUTS:
        best: Baseline | None = None
        choices = itertools.product(audio_features if what != "text" else audio_features[:1],
                                    contexts if what != "speech" else contexts[:1])  # fmt: skip
        for audio_feature, context in choices:
            features = load_features(manifest, features_dir, audio_feature, context)
            scaler = StandardScaler().fit(_inputs(features, train, what))
            x, x_dev = (scaler.transform(_inputs(features, rows, what)) for rows in (train, dev))
            for c, weight in itertools.product(_C_GRID, (None, "balanced")):
                # Products this small are 45 times slower on two threads that wait for each other than on one.
                with threadpool_limits(limits=1):
                    model = LogisticRegression(C=c, class_weight=weight, max_iter=2000).fit(x, target)
                metrics = classification_metrics(truth, model.predict(x_dev), manifest.classes)
                if best is None or metrics[objective] > best.metrics[objective]:
                    settings: dict[str, Any] = {"C": c, "class_weight": weight or "none"}
                    settings |= {} if what == "text" else {"audio_feature": audio_feature}
                    settings |= {} if what == "speech" else {"context": context}
                    best = Baseline(f"logistic regression, {what}", settings, metrics)
        assert best is not None
        yield best
