"""Labels that are not the seven of most corpora, the whole way: a table, features, a sweep, a
bundle, its answers, ONNX, MLflow and the demo page.
"""

import csv
import json
import shutil
import socket
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file

import mmm
from mmm.bundle.onnx_head import labels_of, onnx_logits, open_session
from mmm.bundle.read import load_bundle
from mmm.corpora.generated.demo import make_demo_corpus
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.predict.page import opened
from search.engine.controller import Controller
from search.ledger.data import data_changes, describe
from search.ledger.events import create_sweep, read_history
from search.results.export import export_trial
from search.tracking.registry import register
from search.tracking.runs import metric_name
from tests.conftest import Corpus
from tests.sweep_parts import SMALL_SPACE, call_inside, small_spec, train_serially

IEMOCAP = ("angry", "happy", "excited", "sad", "frustrated", "neutral")
SENTIMENT = ("negative", "neutral", "positive")
KOREAN = (
    *("기쁨", "슬픔", "분노", "불안", "당황", "상처"),
    *("무섭다", "아주 행복", "[/red]", "놀람/충격", "<b>싫다</b>", "사랑"),
)
SPACE = """
def suggest(trial):
    return {
        "architecture": "vanilla_concat", "context": 2, "classifier_hidden": 12, "width": 8,
        "batch_size": 16, "lr": trial.suggest_float("lr", 1e-3, 1e-2, log=True),
    }
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated corpus of three sessions."""
    return make_demo_corpus(tmp_path_factory.mktemp("demo") / "corpus", num_sessions=3)


def relabelled(demo: Path, out: Path, labels: tuple[str, ...]) -> Path:
    """The corpus with other labels, dealt out; a turn in ten has none."""
    with open(demo, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["emotion"] for row in rows})
    for number, row in enumerate(rows):
        place = (names.index(row["emotion"]) + number) % len(labels)
        row["emotion"] = "" if number % 10 == 9 else labels[place]
        row["audio"] = str(demo.parent / row["audio"])
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (IEMOCAP, ("neutral", "happy", "angry", "sad", "excited", "frustrated")),
        (SENTIMENT, ("neutral", "negative", "positive")),
        (KOREAN, tuple(sorted(KOREAN))),
    ],
    ids=["IEMOCAP", "sentiment", "Korean"],
)
def test_a_corpus_with_its_own_labels_goes_the_whole_way(
    demo: Path,
    empty_store: Path,
    tmp_path: Path,
    labels: tuple[str, ...],
    classes: tuple[str, ...],
) -> None:
    table = relabelled(demo, tmp_path / "table.csv", labels)
    path, features, runs = (tmp_path / name for name in ("manifest.csv", "features", "runs"))
    told = call_inside("mmm", "prepare", "csv", table, "-o", path).stdout
    assert all(name in told for name in (*classes, "without a label"))
    manifest = read_manifest(path)
    assert manifest.classes == classes
    call_inside("mmm", "corpus-report", path, "-o", tmp_path / "corpus.html")
    page = (tmp_path / "corpus.html").read_text(encoding="utf-8")
    assert "<b>싫다" not in page

    encoders = ("--audio-encoder", "fbank", "--frame-rate", 10, "--text-encoder", "char-ngram")
    call_inside("mmm", "encode", path, "--features", features, *encoders, "--context", 2)
    runs.mkdir()
    shutil.copy(empty_store, runs)
    (tmp_path / "space.py").write_text(SPACE)
    given = ("--features", features, "--name", "own", "--runs", runs, "--serial")
    sizes = ("--trials", 2, "--epochs", 2, "--first-rung", 1)
    told = call_inside("search", "run", f"{tmp_path}/space.py:suggest", path, *given, *sizes).stdout
    assert "note: " in told
    assert "turns have no label" in told
    best = read_history(runs / "own" / "ledger.sqlite").best
    assert best is not None
    report = (runs / "own" / "report.html").read_text(encoding="utf-8")
    assert "<b>싫다" not in report
    with sqlite3.connect(runs / "mlflow.db") as store:
        points = {name for (name,) in store.execute("select distinct key from metrics")}
    assert {f"f1/{metric_name(name)}" for name in classes} <= points

    out = tmp_path / "bundle"
    call_inside("search", "export", "own", "--runs", runs, "-o", out, "--onnx")
    bundle = load_bundle(out)
    assert (bundle.labels, bundle.dims.num_classes) == (classes, len(classes))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"each of {len(classes)} emotions" in card
    assert "<b>싫다" not in card
    session = open_session((out / "model.onnx").read_bytes())
    assert labels_of(session) == classes

    row = manifest.rows("dev")[0]
    one = manifest.utterances[row]
    audio = manifest.audio_path(one)
    words = ("--audio", audio, "--text", one.text)
    found = json.loads(call_inside("mmm", "predict", out, *words, "--json").stdout)
    assert tuple(found) == classes
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    shown = call_inside("mmm", "predict", out, *words).stdout
    assert all(name in shown for name in classes)
    predictor = mmm.load(out)
    logits = onnx_logits(session, predictor.inputs(bundle, [(audio, one.text, (), None)]))[0]
    shares = np.exp(logits - logits.max())
    assert list(found.values()) == pytest.approx((shares / shares.sum()).tolist(), abs=1e-5)
    (tmp_path / "said").mkdir()
    shutil.copy(audio, tmp_path / "said" / "a.wav")
    call_inside(
        "mmm",
        "predict",
        out,
        "--folder",
        tmp_path / "said",
        "--text",
        one.text,
        "-o",
        tmp_path / "answers.csv",
    )
    with open(tmp_path / "answers.csv", newline="", encoding="utf-8") as file:
        (answer,) = csv.DictReader(file)
    assert [float(answer[name]) for name in classes] == pytest.approx(
        list(found.values()), abs=1e-5
    )

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with opened(predictor, port):
        client = Client(f"http://127.0.0.1:{port}", verbose=False, download_files=str(tmp_path))
        seen = client.predict(handle_file(str(audio)), one.text, api_name="/predict")
    assert {row["label"]: row["confidence"] for row in seen["confidences"]} == pytest.approx(
        found, abs=1e-6
    )
    assert register(out, "own-labels", runs, None) == 1


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("sad", "sad"),
        ("아주 행복", "아주 행복"),
        ("very happy/sad", "very happy.2F.sad"),
        ("[/red]", ".5B..2F.red.5D."),
        (".", ".2E."),
        ("a.2F.b", "a.2E.2F.2E.b"),
        ("e\u0301", "e.301."),
        ("🙂", ".1F642."),
        ("!" * 100, ".21." * 50 + "." + "ff8af642632e"),
    ],
)
def test_a_label_has_one_name_that_mlflow_takes(label: str, name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert metric_name(label) == name
    _validate_metric_name(f"f1/{name}")


@pytest.mark.slow
def test_a_sweep_of_before_train_decided_keeps_the_classes_that_it_was_trained_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of the test split were classes then: `disgust` here."""
    classes = ("neutral", "happy", "angry", "sad", "disgust")

    def as_before(path: str, **options: bool) -> Manifest:
        return replace(read_manifest(path, **options), classes=classes)

    monkeypatch.setattr("search.worker.trial.read_manifest", as_before)
    now = describe(corpus.manifest, corpus.features_dir, [corpus.features()])
    profile = json.dumps({**json.loads(now.manifest.profile), "classes": classes})
    then = replace(now, manifest=replace(now.manifest, profile=profile))
    spec, folder = small_spec(corpus, trials=1), tmp_path / "runs" / "small"
    with create_sweep(folder, spec) as ledger:
        controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
        controller.open_session("mmm-search run")
        ledger.append(then)
        for _ in train_serially(controller):
            pass
        controller.close_session("done")
    history = read_history(folder / "ledger.sqlite")
    assert list(history.trials[0].metrics(1)["per_class"]) == list(classes)
    export_trial(history, folder, 0, tmp_path / "bundle")
    assert load_bundle(tmp_path / "bundle").labels == classes
    assert data_changes(history, now).what == [
        "classes: neutral, happy, angry, sad instead of neutral, happy, angry, sad, disgust (those"
        " of train alone, since this version)"
    ]
