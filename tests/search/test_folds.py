"""Sweeps over folds: what a trial's score is, what a fold's held-out rows touch, what a killed
sweep goes on with, what ships.
"""

import csv
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmm.bundle.read import Bundle, load_bundle_or_ensemble
from mmm.console import console
from mmm.manifest import Manifest
from mmm.manifest_csv import read_manifest
from mmm.metrics import value_of
from mmm.training.baselines import fitted
from mmm.training.config import make_config
from mmm.training.features import load_features
from mmm.training.fit import fit
from mmm.training.run import begin
from search.engine.controller import Controller
from search.engine.fold_race import decide_after_fold
from search.ledger.events import create_sweep, open_sweep, read_history
from search.ledger.history import History
from search.ledger.records import Epoch
from search.ledger.spec import SweepSpec
from search.ledger.trial import Trial
from search.session import _write_results
from tests.conftest import HEADER, Corpus, encode, write_manifest, write_wav
from tests.sweep_parts import (
    METRIC,
    SMALL_SPACE,
    call,
    call_inside,
    small_spec,
    train_serially,
    write_space,
)

SESSIONS = 5
_LABELS = ("neutral", "happy", "sad")
_TURNS = 9  # of the one dialogue of a session


def write_sessions(folder: Path, text_of: Callable[[int, str], str]) -> Corpus:
    """Five sessions, a fold each, speech of noise alone; `text_of` a session and a label."""
    rows = []
    for session, turn in itertools.product(range(1, SESSIONS + 1), range(_TURNS)):
        name = f"s{session}t{turn}"
        write_wav(folder / f"{name}.wav", 0.3, 300.0, 10 * session + turn)
        label = _LABELS[(turn + session) % len(_LABELS)]
        split = "dev" if session == 1 else "train"
        about = (name, f"d{session}", str(turn), str(session), f"speaker{session}")
        rows.append((*about, text_of(session, label), f"{name}.wav", label, split, str(session)))
    manifest = read_manifest(write_manifest(folder / "manifest.csv", rows, (*HEADER, "fold")))
    encode(manifest, folder / "features")
    return Corpus(manifest, folder / "features")


SPACE = """
def suggest(trial):
    return {
        "architecture": "vanilla_concat",
        "lr": trial.suggest_float("lr", 1e-3, 3e-2, log=True),
        "classifier_hidden": 12,
        "batch_size": 6,
        "width": 8,
    }
"""


def same_words(_: int, label: str) -> str:
    return {"neutral": "well yes", "happy": "great well", "sad": "alas no"}[label]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_sessions(tmp_path_factory.mktemp("sessions"), same_words)


def folds_spec(corpus: Corpus, **changes: object) -> SweepSpec:
    return small_spec(corpus, **{"folds": SESSIONS, "trials": 5, **changes})


def swept(
    corpus: Corpus, folder: Path, spec: SweepSpec, reports_each: int | None = None
) -> History:
    """A sweep in this process, to its end; with `reports_each` killed after so many, and again."""
    with create_sweep(folder, spec):
        pass
    while True:
        with open_sweep(folder) as ledger:
            controller = Controller(ledger, spec, SMALL_SPACE, "cpu", lambda: None)
            controller.open_session("mmm-search run")
            seen = 0
            for seen, _ in enumerate(train_serially(controller), start=1):
                if seen == reports_each:
                    break
            else:
                controller.close_session("done")
                return ledger.history


def as_split(corpus: Corpus, fold: int, folder: Path) -> Manifest:
    """The same manifest with the fold as dev and the others as train, and no folds."""
    rows = [
        (
            *(one.utterance_id, one.dialogue_id, str(one.turn), one.session, one.speaker, one.text),
            *(one.audio, ";".join(one.emotions), "dev" if one.fold == fold else "train"),
        )
        for one in corpus.manifest.utterances
    ]
    path = write_manifest(corpus.manifest.path.with_name(f"split{fold}.csv"), rows)
    return read_manifest(path)


def test_the_score_is_the_mean_over_folds_that_one_computes_by_hand(
    sessions: Corpus, tmp_path: Path
) -> None:
    history = swept(sessions, tmp_path / "s", folds_spec(sessions))
    complete = [trial for trial in history.trials.values() if trial.state == "complete"]
    assert complete
    for trial in complete:
        config = make_config(trial.settings)
        by_fold = []
        for fold in range(1, SESSIONS + 1):
            manifest = as_split(sessions, fold, tmp_path)
            features = load_features(manifest, sessions.features_dir, *config.features_key)
            results = fit(begin(config, features))
            by_fold.append([result.metrics["macro_f1"] for result in results])
        means = np.mean(by_fold, axis=0)
        best = trial.best(METRIC)
        assert best is not None
        assert best[0] == int(means.argmax()) + 1
        assert abs(best[1] - means.max()) < 1e-9
        assert abs(value_of(trial.metrics(best[0]), METRIC) - means.max()) < 1e-9
    others = [trial for trial in history.trials.values() if trial.state == "pruned"]
    assert all(trial.best(METRIC) is None for trial in others)
    assert history.best is not None
    assert history.best[0] == max(best[1] for t in complete if (best := t.best(METRIC)))


@pytest.mark.parametrize(
    ("leaking", "high"), [((3,), ()), ((2, 3), (2, 3))], ids=["in one fold", "in two folds"]
)
def test_a_planted_leak_shows_only_in_the_folds_that_have_it(
    tmp_path: Path, leaking: tuple[int, ...], high: tuple[int, ...]
) -> None:
    """Where one fold's texts name their label, a model that never saw them cannot tell; where two
    do, each teaches the model that is tested on the other.
    """

    def text_of(session: int, label: str) -> str:
        return f"{label} {label} {label}" if session in leaking else "mm hm"

    corpus = write_sessions(tmp_path, text_of)
    config = make_config(
        {"architecture": "linear", "c": 1.0, "inputs": "text", "class_weight": "none"}
    )
    for fold in range(1, SESSIONS + 1):
        run = fitted(config, corpus.manifest, corpus.features_dir, METRIC, fold)
        score = value_of(run.best_metrics, METRIC)
        assert (score > 0.9) == (fold in high), f"fold {fold}: {score}"


def test_held_out_rows_touch_neither_normalisation_nor_class_weights(sessions: Corpus) -> None:
    config = make_config({"architecture": "vanilla_concat", "input_scaling": "standard"})
    run = begin(config, sessions.features(), fold=2)
    held_out = set(run.dev.indices.tolist())
    assert {sessions.manifest.utterances[row].fold for row in held_out} == {2}
    assert not held_out & set(run.train.indices.tolist())
    rows = sorted(set(run.train.indices.tolist()))
    pooled = sessions.features().speech.pooled[run.train.features.speech_rows[rows]]
    mean = run.train.statistics()["speech_mean"].numpy()
    assert np.allclose(mean, np.asarray(pooled, dtype=np.float32).mean(axis=0), atol=1e-3)
    assert int(run.train.class_counts.sum()) == len(rows)


def record_of(history: History) -> list[object]:
    """All that a sweep found, times aside."""
    return [
        (
            trial.number,
            trial.state,
            trial.reason,
            dict(trial.settings),
            [(one.fold, one.epoch, one.train_loss, dict(one.metrics)) for one in trial.all_epochs],
            trial.best(METRIC),
        )
        for trial in history.trials.values()
    ]


def test_a_sweep_over_folds_that_is_killed_again_and_again_has_the_same_record(
    sessions: Corpus, tmp_path: Path
) -> None:
    spec = folds_spec(sessions, trials=4, epochs=3, first_rung=2)
    whole = swept(sessions, tmp_path / "whole", spec)
    killed = swept(sessions, tmp_path / "killed", spec, reports_each=6)
    assert killed.last_close is not None
    assert len(killed.trials) == 4
    assert record_of(killed) == record_of(whole)


def trial_over(number: int, *folds: float, of: int = 5, state: str = "running") -> Trial:
    """A trial with one epoch in each of these folds."""
    trial = Trial(number, {}, {}, {"epochs": 1}, 0.0, state, num_folds=of, fold=len(folds))  # type: ignore[arg-type]
    for fold, score in enumerate(folds, start=1):
        trial.add_epoch(
            Epoch(
                epoch=1,
                train_loss=0.0,
                metrics={METRIC: score},
                seconds=0.0,
                alone_seconds=0.0,
                ended=0.0,
                fold=fold,
            )
        )
    return trial


def test_only_what_cannot_reach_the_best_mean_within_the_spread_is_given_up() -> None:
    hard_and_easy = (0.40, 0.70, 0.50, 0.60, 0.55)
    best = trial_over(0, *hard_and_easy, state="complete")
    other = trial_over(1, 0.36, 0.64, 0.46, 0.54, 0.50, state="complete")

    def decided(*folds: float) -> bool:
        trials = {0: best, 1: other, 2: trial_over(2, *folds)}
        decision = decide_after_fold(trials, 2, METRIC)
        assert "against trial 0 on the same folds" in decision.reason
        return decision.stop

    assert not decided(0.41)
    # The second fold is an easy one: 0.60 there is far behind, though it is more than the mean.
    assert decided(0.30, 0.60)
    assert not decided(0.41, 0.69, 0.51)
    assert decided(0.30, 0.60, 0.40, 0.50)
    first = {2: trial_over(2, 0.1)}
    assert not decide_after_fold(first, 2, METRIC).stop


def test_the_commands_know_folds(
    sessions: Corpus, empty_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "mlflow.db").write_bytes(empty_store.read_bytes())
    options = ["--features", sessions.features_dir, "--epochs", 3, "--first-rung", 2, "--folds"]
    told = call_inside("search", "plan", "quick", sessions.manifest.path, *options, "--trials", 4)
    assert "goes on with the other 4 folds" in told.stdout
    told = call_inside(
        "search",
        *("run", "quick", sessions.manifest.path, *options, "--trials", 4, "--serial"),
        *("--name", "folds", "--runs", runs),
    )
    assert "mean of 5 folds" in told.stdout
    assert "linear baseline" in told.stdout
    history = read_history(runs / "folds" / "ledger.sqlite")
    assert history.spec.folds == SESSIONS
    assert history.best is not None
    with open(runs / "folds" / "leaderboard.csv", encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert float(rows[0]["fold_sd"]) >= 0
    assert int(rows[0]["trial"]) == history.best[1]
    card = (runs / "folds" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "mean over 5 folds" in card
    assert "trained on the rows of all folds" in card.replace("\n", " ")
    bundle = load_bundle_or_ensemble(runs / "folds" / "bundle")
    assert isinstance(bundle, Bundle)
    best = history.trials[history.best[1]].best(METRIC)
    assert best is not None
    assert bundle.provenance.epoch == best[0]
    assert bundle.provenance.fold_scores == pytest.approx(
        history.trials[history.best[1]].fold_scores(METRIC, SESSIONS)[best[0]]
    )
    call_inside("search", "export", "folds", "--runs", runs, "-o", tmp_path / "out", "--onnx")
    assert (tmp_path / "out" / "model.onnx").is_file()
    told = call_inside("search", "status", "folds", "--runs", runs)
    assert "complete" in told.stdout
    refused = call_inside(
        "search",
        *("export", "folds", "--runs", runs, "-o", tmp_path / "e", "--top", 2, "--ensemble"),
        status=2,
    )
    assert "is over folds" in refused.stderr
    told = call_inside(
        "mmm", "baselines", sessions.manifest.path, "--features", sessions.features_dir, "--folds"
    )
    assert "mean over 5 folds" in told.stdout


def test_after_a_signal_nothing_is_trained_any_more(
    sessions: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "small"
    history = swept(sessions, folder, folds_spec(sessions, trials=2, epochs=2, first_rung=2))
    assert history.best is not None
    assert not _write_results(folder, history, console, is_hurried=True)
    assert (folder / "report.html").is_file()
    assert not (folder / "bundle").exists()
    told = " ".join(capsys.readouterr().out.split())
    assert f"for its bundle: mmm-search export small -o best --runs {folder.parent}" in told
    assert _write_results(folder, history, console)
    assert (folder / "bundle").is_dir()


@pytest.mark.slow
def test_in_packs_on_ray_each_fold_scores_what_it_scores_alone(
    sessions: Corpus, empty_store: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "mlflow.db").write_bytes(empty_store.read_bytes())
    space = write_space(tmp_path / "space.py", SPACE)
    call(
        "search",
        *("run", space, sessions.manifest.path, "--features", sessions.features_dir, "--folds"),
        *("--name", "packs", "--runs", runs, "--trials", 6, "--epochs", 3, "--first-rung", 3),
        *("--workers", 2, "--packs", 3, "--precision", "float32"),
    )
    history = read_history(runs / "packs" / "ledger.sqlite")
    epochs = [entry for trial in history.trials.values() for entry in trial.all_epochs]
    assert any((entry.together or 1) > 1 for entry in epochs if entry.fold > 1)
    complete = [trial for trial in history.trials.values() if trial.state == "complete"]
    assert complete
    for trial in complete:
        config = make_config(trial.settings)
        features = load_features(sessions.manifest, sessions.features_dir, *config.features_key)
        for fold, entries in enumerate(trial.folds, start=1):
            alone = [result.train_loss for result in fit(begin(config, features, fold=fold))]
            assert [entry.train_loss for entry in entries] == pytest.approx(alone, rel=1e-3)


def test_without_a_fold_column_the_command_that_makes_one_is_said(
    corpus: Corpus, tmp_path: Path
) -> None:
    told = call_inside(
        "search",
        *("run", "quick", corpus.manifest.path, "--features", corpus.features_dir, "--folds"),
        *("--name", "none", "--runs", tmp_path),
        status=2,
    )
    assert "has no fold column; write one: mmm prepare csv" in told.stderr
    assert not (tmp_path / "none").exists()


def test_other_folds_are_other_data(sessions: Corpus, tmp_path: Path) -> None:
    from search.ledger.data import Changes, describe

    note = describe(sessions.manifest, sessions.features_dir, [])
    utterances = tuple(
        replace(one, fold=1 + (one.fold or 0) % SESSIONS) for one in sessions.manifest.utterances
    )
    moved = describe(
        replace(sessions.manifest, utterances=utterances, sha256="other"), sessions.features_dir, []
    )
    assert Changes(note, moved, has_folds=True).what == ["folds: utterances are in other ones"]
    assert Changes(note, moved).what == []
