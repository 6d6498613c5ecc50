"""Prediction on raw speech and text agrees with evaluation on features, and the test split is
opened on record.
"""

import csv
import dataclasses
import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmm.audio.speech import read_speech
from mmm.bundle.evaluate import check_bundle_fits, evaluate_bundle
from mmm.bundle.read import Bundle, load_bundle
from mmm.bundle.sealed_test import OPENINGS, open_test
from mmm.bundle.write import save_run_bundle
from mmm.encoders.extract import encode_speech, encode_text
from mmm.features.recipe import AUDIO_FEATURES
from mmm.manifest_csv import read_manifest
from mmm.models import ARCHITECTURES
from mmm.predict.predictor import Predictor
from mmm.training.evaluate import evaluate, forward, probabilities
from mmm.training.run import Run
from tests.conftest import (
    Corpus,
    encode,
    make_speech_encoder,
    make_text_encoder,
    trained,
    write_corpus,
)
from tests.sweep_parts import call_inside

CPU = torch.device("cpu")
POOLED = ("vanilla_concat", "three_way_concat", "gated_fusion", "late_fusion")


def make(
    corpus: Corpus, path: Path, architecture: str = "vanilla_concat", **changes: Any
) -> tuple[Run, Bundle]:
    run = trained(corpus, architecture, **{"lr": 1e-2, **changes})
    save_run_bundle(run, path, name=architecture)
    return run, load_bundle(path)


def assert_predicts_as_evaluated(corpus: Corpus, run: Run, bundle: Bundle) -> None:
    """Every validation utterance, from its wav and text with all that was said before it."""
    manifest, predictor = corpus.manifest, Predictor(bundle)
    expected = probabilities(bundle.model, run.dev, CPU)
    assert (
        expected.max(dim=0).values - expected.min(dim=0).values > 1e-3
    ).any()  # the model does look at its input
    for row, index in enumerate(run.dev.indices.tolist()):
        now, *before = (manifest.utterances[place] for place in manifest.history(index, 99))
        history = [(manifest.audio_path(turn), turn.text) for turn in reversed(before)]
        found = predictor.predict(manifest.audio_path(now), now.text, history)
        assert list(found) == list(manifest.classes)
        np.testing.assert_allclose(list(found.values()), expected[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prediction_from_wav_and_text_is_what_evaluation_gives(
    corpus: Corpus, tmp_path: Path, architecture: str, context: int
) -> None:
    assert_predicts_as_evaluated(
        corpus, *make(corpus, tmp_path / "bundle", architecture, context=context)
    )


@pytest.mark.parametrize("architecture", ["three_way_concat", "cross_attention"])
def test_prediction_under_published_settings_is_what_evaluation_gives(
    corpus: Corpus, tmp_path: Path, architecture: str
) -> None:
    published = {
        "masked": False,
        "label_policy": "published",
        "audio_feature": "extract_feature",
        "context": 3,
    }
    assert_predicts_as_evaluated(
        corpus, *make(corpus, tmp_path / "bundle", architecture, **published)
    )


@pytest.mark.parametrize("inputs", ["speech", "text"])
@pytest.mark.parametrize("architecture", ["vanilla_concat", "mlp_mixer"])
def test_prediction_from_one_input_is_what_evaluation_gives(
    corpus: Corpus, tmp_path: Path, architecture: str, inputs: str
) -> None:
    assert_predicts_as_evaluated(
        corpus, *make(corpus, tmp_path / "bundle", architecture, context=2, inputs=inputs)
    )


def test_samples_predict_as_their_file(corpus: Corpus, tmp_path: Path) -> None:
    predictor = Predictor(make(corpus, tmp_path / "bundle")[1])
    path = corpus.manifest.audio_path(corpus.manifest.utterances[0])
    assert predictor.predict(read_speech(path), "hello") == predictor.predict(path, "hello")


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("architecture", POOLED)
def test_missing_speech_of_an_earlier_turn_counts_as_zeros(
    corpus: Corpus, tmp_path: Path, architecture: str, masked: bool
) -> None:
    run, bundle = make(corpus, tmp_path / "bundle", architecture, context=3, masked=masked)
    manifest = corpus.manifest
    row = next(
        row
        for row, index in enumerate(run.dev.indices.tolist())
        if len(manifest.history(index, 3)) == 3
    )
    now, before, first = (
        manifest.utterances[index] for index in manifest.history(int(run.dev.indices[row]), 3)
    )
    batch = run.dev.batch(torch.tensor([row]), CPU)
    batch.speech[0, 1], batch.speech_mask[0, 1] = 0.0, False
    with torch.no_grad():
        expected = forward(bundle.model, batch).softmax(dim=-1)[0]
    history = [(manifest.audio_path(first), first.text), (None, before.text)]
    found = Predictor(bundle).predict(manifest.audio_path(now), now.text, history)
    np.testing.assert_allclose(list(found.values()), expected, rtol=0, atol=1e-5)
    heard = [(manifest.audio_path(first), first.text), (manifest.audio_path(before), before.text)]
    assert found != Predictor(bundle).predict(manifest.audio_path(now), now.text, heard)


def test_the_order_of_the_history_matters_and_turns_beyond_the_context_do_not(
    corpus: Corpus, tmp_path: Path
) -> None:
    manifest, predictor = (
        corpus.manifest,
        Predictor(make(corpus, tmp_path / "bundle", context=3)[1]),
    )
    audio = [manifest.audio_path(utterance) for utterance in manifest.utterances[:4]]
    old, middle, recent = ((path, f"turn {number}") for number, path in enumerate(audio[:3]))
    expected = predictor.predict(audio[3], "now", [middle, recent])
    assert predictor.predict(audio[3], "now", [old, middle, recent]) == expected
    assert predictor.predict(audio[3], "now", [recent, middle]) != expected


def openings(corpus: Corpus) -> list[dict[str, str]]:
    with open(corpus.features_dir / OPENINGS, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def own(tmp_path: Path) -> Corpus:
    """A corpus whose test split may be opened; a comma in its path."""
    folder = tmp_path / "corpus, with a comma"
    folder.mkdir()
    manifest = write_corpus(folder)
    encode(manifest, folder / "features")
    return Corpus(manifest, folder / "features")


def test_opening_the_test_split_is_on_record_with_its_results(own: Corpus, tmp_path: Path) -> None:
    bundles = [make(own, tmp_path / name, name)[1] for name in ("vanilla_concat", "mlp_mixer")]
    assert not (own.features_dir / OPENINGS).exists()
    found = open_test(bundles, own.manifest, own.features_dir, CPU)
    rows = openings(own)
    test = own.manifest.sealed_test_rows()
    for bundle, metrics, row in zip(bundles, found, rows, strict=True):
        assert datetime.fromisoformat(row["time"]).tzinfo is not None
        assert (row["bundle_sha256"], row["bundle"]) == (bundle.sha256, str(bundle.path))
        assert (row["manifest_sha256"], row["manifest"]) == (
            own.manifest.sha256,
            str(own.manifest.path),
        )
        assert row["utterances"] == str(len(test)) == "10"
        assert float(row["macro_f1"]) == pytest.approx(metrics["macro_f1"], abs=1e-6)
        assert float(row["accuracy"]) == pytest.approx(metrics["accuracy"], abs=1e-6)
        assert metrics == evaluate_bundle(bundle, own.manifest, own.features_dir, test, CPU)
    open_test(bundles[:1], own.manifest, own.features_dir, CPU)
    assert openings(own)[:2] == rows
    assert len(openings(own)) == 3


def test_scores_on_test_are_printed_as_json_and_nothing_else(own: Corpus, tmp_path: Path) -> None:
    bundle = make(own, tmp_path / "bundle")[1]
    arguments = [bundle.path, own.manifest.path, "--features", own.features_dir, "--json"]
    told = json.loads(call_inside("mmm", "test", *arguments).stdout)
    test = own.manifest.sealed_test_rows()
    metrics = evaluate_bundle(bundle, own.manifest, own.features_dir, test, CPU)
    of_it = {"name": "vanilla_concat", "path": str(bundle.path), "sha256": bundle.sha256}
    assert told["bundles"] == [{**of_it, "metrics": metrics}]
    assert (told["utterances"], told["openings"]) == (len(test), str(own.features_dir / OPENINGS))
    assert "disgust" in told["notes"][0]  # which no model can answer
    assert len(openings(own)) == 1


def test_an_opening_is_on_record_even_when_the_evaluation_dies(own: Corpus, tmp_path: Path) -> None:
    bundle = make(own, tmp_path / "bundle")[1]
    # torch's meta device takes a model and cannot give its results back.
    with pytest.raises((NotImplementedError, RuntimeError)):
        open_test([bundle], own.manifest, own.features_dir, torch.device("meta"))
    open_test([load_bundle(bundle.path)], own.manifest, own.features_dir, CPU)
    died, done = openings(own)
    assert died["bundle_sha256"] == bundle.sha256
    assert (died["macro_f1"], died["accuracy"]) == ("", "")
    assert float(done["accuracy"]) >= 0


def test_a_bundle_of_other_features_is_refused_before_the_test_split_is_opened(
    own: Corpus, tmp_path: Path
) -> None:
    bundle = make(own, tmp_path / "bundle")[1]
    other = tmp_path / "other features"
    list(
        encode_speech(
            own.manifest,
            other,
            make_speech_encoder("fbank", frame_rate=20, num_mels=16),
            AUDIO_FEATURES,
        )
    )
    list(encode_text(own.manifest, other, make_text_encoder("char-ngram", width=32), (1,)))
    with pytest.raises(
        ValueError,
        match=r"trained on other speech features than .* holds \(frame_rate_hz: 20.0, not 10.0\)",
    ):
        open_test([bundle], own.manifest, other, CPU)
    assert not (other / OPENINGS).exists()


def test_a_bundle_that_does_not_know_a_class_is_refused(own: Corpus, tmp_path: Path) -> None:
    bundle = make(own, tmp_path / "bundle")[1]
    text = own.manifest.path.read_text().replace("angry", "fear")
    own.manifest.path.write_text(text)
    with pytest.raises(
        ValueError, match=r"bundle: does not know the classes fear of .*manifest\.csv"
    ):
        check_bundle_fits(bundle, read_manifest(own.manifest.path), own.features_dir)


def test_a_manifest_without_a_test_split_is_refused(own: Corpus, tmp_path: Path) -> None:
    bundle = make(own, tmp_path / "bundle")[1]
    own.manifest.path.write_text(own.manifest.path.read_text().replace(",test", ",dev"))
    with pytest.raises(ValueError, match=r"manifest\.csv: no test split \(no row has split=test\)"):
        open_test([bundle], read_manifest(own.manifest.path), own.features_dir, CPU)


def test_a_bundle_is_evaluated_over_its_own_classes(own: Corpus, tmp_path: Path) -> None:
    run, bundle = make(own, tmp_path / "bundle")
    rows = own.manifest.path.read_text().splitlines(keepends=True)
    own.manifest.path.write_text("".join(row for row in rows if ",test" not in row))
    manifest = read_manifest(own.manifest.path)
    manifest = dataclasses.replace(manifest, classes=tuple(reversed(manifest.classes)))
    found = evaluate_bundle(bundle, manifest, own.features_dir, manifest.rows("dev"), CPU)
    assert found == evaluate(bundle.model, run.dev, CPU)


def test_a_class_that_only_the_test_split_has_is_scored_and_always_wrong(
    own: Corpus, tmp_path: Path
) -> None:
    bundle = make(own, tmp_path / "bundle")[1]
    assert bundle.labels == own.manifest.classes == ("neutral", "happy", "angry", "sad")
    (found,) = open_test([bundle], own.manifest, own.features_dir, CPU)
    rows = [own.manifest.utterances[row] for row in own.manifest.sealed_test_rows()]
    unseen = found["per_class"].pop("disgust")
    assert unseen["f1"] == unseen["recall"] == 0.0
    assert unseen["support"] == sum("disgust" in one.emotions for one in rows) == 2
    assert [row[-1] for row in found["confusion_matrix"]] == [0] * 5
    f1 = [own["f1"] for own in found["per_class"].values()]
    assert found["macro_f1"] == pytest.approx(sum(f1) / 5)
    assert math.isfinite(found["loss"])
