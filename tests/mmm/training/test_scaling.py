"""Inputs scaled by the training rows, and what was recorded before there was a choice."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmm.features.store import FeatureStore
from mmm.models import ARCHITECTURES
from mmm.models.layers import Drop, keep_all
from mmm.models.scaled import Scaled
from mmm.training.config import make_config, new_params, published_params
from mmm.training.evaluate import probabilities
from mmm.training.features import Features
from mmm.training.fit import fit
from mmm.training.linear import fit_linear
from mmm.training.run import Run, begin
from mmm.training.scaling import frame_statistics, pooled_statistics
from spaces import SPACES
from tests.conftest import Corpus, begin_small, small_config

CPU = torch.device("cpu")
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def changed(features: Features, factors: np.ndarray[Any, Any]) -> Features:
    """The same features with each column of speech times its factor."""
    speech = dataclasses.replace(
        features.speech,
        values=(features.speech.values * factors).astype(np.float16),
        pooled=(features.speech.pooled * factors).astype(np.float16),
    )
    return dataclasses.replace(features, speech=speech)


def by_hand(
    store: FeatureStore, rows: list[int], is_pooled: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    values = [
        (
            store.pooled[row : row + 1]
            if is_pooled
            else store.values[store.offsets[row] : store.offsets[row + 1]]
        )
        for row in rows
    ]
    whole = np.concatenate(values).astype(np.float64)
    return whole.mean(axis=0), whole.std(axis=0)


@pytest.mark.parametrize("architecture", ["three_way_concat", "mlp_mixer"])
def test_the_statistics_are_those_of_the_training_rows_alone(
    corpus: Corpus, architecture: str
) -> None:
    run = begin_small(corpus, architecture, context=2)
    is_pooled, features, manifest = run.config.is_pooled, run.train.features, corpus.manifest
    assert isinstance(run.model, Scaled)
    found = dict(run.model.named_buffers())
    for name, store, rows in (
        ("speech", features.speech, features.speech_rows),
        ("text", features.text, features.text_rows),
    ):
        mean, deviation = by_hand(store, rows[manifest.rows("train")].tolist(), is_pooled)
        constant = deviation < 1e-6
        np.testing.assert_allclose(found[f"{name}_mean"], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            found[f"{name}_deviation"][~constant], deviation[~constant], rtol=1e-4
        )
        np.testing.assert_array_equal(found[f"{name}_deviation"][constant], 1.0)
    # Not those of all rows: the other splits have other sounds.
    everyone, _ = by_hand(features.speech, features.speech_rows.tolist(), is_pooled)
    assert np.abs(found["speech_mean"].numpy() - everyone).max() > 1e-3


def test_a_constant_column_keeps_deviation_1_and_a_nearly_constant_one_does_not(
    corpus: Corpus,
) -> None:
    store = corpus.features().speech
    values, pooled = store.values.copy(), store.pooled.copy()
    values[:, 0], pooled[:, 0] = 0.1, 0.1  # no float16: its mean is rounded
    values[:, 1], pooled[:, 1] = 300.0, 300.0
    values[-1, 1], pooled[-1, 1] = 300.25, 300.25
    values[:, 2], pooled[:, 2] = 0.0, 0.0
    store = dataclasses.replace(store, values=values, pooled=pooled)
    rows = np.arange(len(pooled))
    for mean, deviation in (pooled_statistics(store.pooled, rows), frame_statistics(store, rows)):
        assert deviation[[0, 2]].tolist() == [1.0, 1.0]
        assert 0 < deviation[1] < 0.25
        np.testing.assert_allclose(mean[:3], [np.float16(0.1), 300.0, 0.0], atol=0.25)


class Seen(torch.nn.Module):
    """In the place of a head: keeps what it was given."""

    def forward(
        self,
        speech: Tensor,
        speech_mask: Tensor,
        text: Tensor,
        text_mask: Tensor,
        drop: Drop = keep_all,
    ) -> Tensor:
        self.speech, self.text = speech, text
        return speech.sum(dim=(-1, -2))


@pytest.mark.parametrize("is_pooled", [True, False])
def test_what_is_not_there_is_zero_after_scaling_whatever_it_held(is_pooled: bool) -> None:
    head = Seen()
    model = Scaled(head, speech_width=3, text_width=2, is_pooled=is_pooled)
    model.speech_mean.fill_(5.0)
    model.text_mean.fill_(-2.0)
    model.speech_deviation.fill_(2.0)
    speech_mask = torch.tensor([[True, False], [True, True]])
    speech = torch.full((2, 2, 3), 9.0)
    speech[0, 1] = torch.inf
    text = torch.zeros(2, 2) if is_pooled else torch.zeros(2, 4, 2)
    text_mask = (
        torch.ones(2, 1, dtype=torch.bool)
        if is_pooled
        else torch.arange(4) < torch.tensor([[1], [4]])
    )
    model(speech, speech_mask, text, text_mask)
    torch.testing.assert_close(
        head.speech, torch.where(speech_mask.unsqueeze(-1), 2.0, 0.0).expand(2, 2, 3)
    )
    expected = (
        torch.full((2, 2), 2.0)
        if is_pooled
        else torch.where(text_mask.unsqueeze(-1), 2.0, 0.0).expand(2, 4, 2)
    )
    torch.testing.assert_close(head.text, expected)


@every_architecture
def test_how_large_the_columns_of_an_encoder_are_changes_nothing(
    corpus: Corpus, architecture: str
) -> None:
    config = small_config(architecture, context=2)
    features = corpus.features(*config.features_key)
    factors = 2.0 ** np.resize(
        [-4, 0, 3, 1], features.speech.width
    )  # powers of two, which float16 takes exactly
    found = []
    for inputs in (features, changed(features, factors)):
        run = begin(config, inputs)
        list(fit(run))
        found.append(probabilities(run.model, run.dev, CPU))
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


@every_architecture
@pytest.mark.parametrize("inputs", ["speech", "text"])
def test_an_input_that_is_left_out_stays_zero(
    corpus: Corpus, architecture: str, inputs: str
) -> None:
    run = begin_small(corpus, architecture, inputs=inputs)
    assert isinstance(run.model, Scaled)
    left_out = "text" if inputs == "speech" else "speech"
    assert not getattr(run.model, f"{left_out}_mean").any()
    assert (getattr(run.model, f"{left_out}_deviation") == 1).all()
    assert getattr(run.model, f"{inputs}_mean").any()


@every_architecture
def test_settings_recorded_without_input_scaling_mean_none(architecture: str) -> None:
    recorded = {
        name: value
        for name, value in make_config({"architecture": architecture}).params().items()
        if name != "input_scaling"
    }
    assert make_config(recorded).input_scaling == "none"
    assert make_config(published_params(architecture)).input_scaling == "none"
    assert make_config(new_params(architecture)).input_scaling == "standard"


def test_the_published_space_does_not_scale() -> None:
    from optuna.trial import FixedTrial

    for point in SPACES["paper"].known_good:
        assert SPACES["paper"].suggest(FixedTrial(dict(point)))["input_scaling"] == "none"


def test_an_unknown_scaling_is_refused() -> None:
    with pytest.raises(ValueError, match="input_scaling='robust' is none of standard, none"):
        make_config({"architecture": "mlp_mixer", "input_scaling": "robust"})


def linear_run(corpus: Corpus, **changes: Any) -> Run:
    config = make_config({"architecture": "linear", "c": 0.1, **changes})
    return begin(config, corpus.features(*config.features_key))


def test_the_linear_system_is_at_the_optimum_of_scikit_learns_problem(corpus: Corpus) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    run = linear_run(corpus, context=2, class_weight="inverse", label_policy="first")
    list(fit(run))
    features, rows = run.train.features, corpus.manifest.rows("train")

    def inputs(rows: list[int]) -> np.ndarray[Any, Any]:
        speech, text = (
            features.speech.pooled[features.speech_rows[rows]],
            features.text.pooled[features.text_rows[rows]],
        )
        return np.concatenate([speech, text], axis=1).astype(np.float64)

    scaler = StandardScaler().fit(inputs(rows))
    target = run.train.labels.argmax(dim=1).numpy()
    model = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=10_000)
    model.fit(scaler.transform(inputs(rows)), target)
    dev = run.dev.indices.tolist()
    expected = np.zeros((len(dev), len(corpus.manifest.classes)))
    expected[:, model.classes_] = model.predict_proba(scaler.transform(inputs(dev)))
    np.testing.assert_allclose(probabilities(run.model, run.dev, CPU), expected, atol=1e-3)


def test_the_linear_system_ends_in_one_epoch_and_starts_nowhere(corpus: Corpus) -> None:
    run = linear_run(corpus)
    results = list(fit(run))
    assert [result.epoch for result in results] == [1]
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    again = linear_run(corpus, seed=7)
    fit_linear(again)
    for name, value in again.model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_a_class_that_no_training_row_has_is_never_predicted(corpus: Corpus) -> None:
    config = make_config({"architecture": "linear", "c": 0.1})
    features = corpus.features(*config.features_key)
    # A label of another fold.
    classes = (*corpus.manifest.classes, "disgust")
    manifest = dataclasses.replace(corpus.manifest, classes=classes)
    run = begin(config, dataclasses.replace(features, manifest=manifest))
    list(fit(run))
    missing = (run.train.class_counts == 0).nonzero().flatten()
    assert missing.tolist() == [4]
    assert probabilities(run.model, run.dev, CPU)[:, missing].max() < 1e-6


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": 1e-3}, "lr does not apply to linear, which is solved and not trained step by step"),
        ({"epochs": 3}, "epochs=3: linear is solved in one epoch"),
        ({"c": 0}, "c=0 is out of range; expected above 0"),
        ({"width": 8}, r"width does not apply to linear \(only to"),
    ],
)
def test_what_the_linear_system_has_no_use_for_is_refused(
    setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_config({"architecture": "linear", **setting})
    assert "lr" not in make_config({"architecture": "linear"}).params()
