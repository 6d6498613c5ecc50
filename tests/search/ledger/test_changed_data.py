"""Data that change between `run` and `resume`: refused before anything is written, or accepted and
told ever after.
"""

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import search.worker.slices
import search.worker.trial
from mmm.bundle.read import load_bundle
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.features.recipe import AUDIO_FEATURES
from mmm.features.store import list_recipes
from mmm.manifest_csv import read_manifest
from search.engine.controller import Controller
from search.ledger.data import data_changes, restarts
from search.ledger.events import open_sweep, read_events, read_history
from search.ledger.history import History
from search.plan.checks import check
from search.results.export import export_trial
from search.space.load import load_space
from search.suggest.warm_start import load_priors
from tests.conftest import encode, write_corpus, write_manifest
from tests.search.cluster.test_sweep import mlflow_runs
from tests.sweep_parts import METRIC, call, call_here, call_inside, train_serially, write_space

SPACE = """
def suggest(trial):
    return {"architecture": trial.suggest_categorical("architecture", ["vanilla_concat",
            "mlp_mixer"]), "width": 8,
            "context": trial.suggest_int("context", 1, 2),
            "lr": trial.suggest_float("lr", 1e-3, 1e-2), "batch_size": 6}
"""
Rows = list[dict[str, str]]
OTHER_DEV_LABELS = "dev: other labels (2 angry instead of 1, 6 neutral instead of 7)"


@dataclass(frozen=True)
class Place:
    """A corpus with its features, and runs/first: two trials trained, a third interrupted after
    three of six epochs.
    """

    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "corpus" / "manifest.csv"

    @property
    def features(self) -> Path:
        return self.folder / "features"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def ledger(self) -> Path:
        return self.runs / "first" / "ledger.sqlite"

    @property
    def history(self) -> History:
        return read_history(self.ledger)

    def rows(self, change: Callable[[Rows], object]) -> None:
        """Change the manifest's rows."""
        with open(self.manifest, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        change(rows)
        write_manifest(self.manifest, [list(row.values()) for row in rows], list(rows[0]))

    def encode(self) -> None:
        encode(read_manifest(self.manifest), self.features)

    def store(self, **wanted: object) -> Path:
        (found,) = (
            path
            for path, recipe in list_recipes(self.features).items()
            if wanted.items() <= recipe.items()
        )
        return found


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Place:
    """Not to be changed."""
    place = Place(tmp_path_factory.mktemp("begun"))
    write_corpus(place.manifest.parent)
    place.encode()
    place.runs.mkdir()
    shutil.copy(empty_store, place.runs)
    call_inside(
        "search",
        "run",
        "--serial",
        write_space(place.folder / "space.py", SPACE),
        place.manifest,
        "--features",
        place.features,
        "--name",
        "first",
        "--trials",
        2,
        "--epochs",
        6,
        "--first-rung",
        3,
        "--packs",
        "off",
        "--runs",
        place.runs,
    )
    spec = place.history.spec
    with open_sweep(place.runs / "first") as ledger, pytest.MonkeyPatch.context() as patch:
        patch.setattr(search.worker.slices, "SLICE_S", 0.0)  # each epoch is reported
        patch.setattr(search.worker.trial, "CHECKPOINT_SHARE", 1e9)  # and has its checkpoint
        controller = Controller(
            ledger, replace(spec, trials=4), load_space(spec.space), "cpu", lambda: None
        )
        controller.open_session("mmm-search resume first --trials 4")
        next(report for report in train_serially(controller) if report.epochs[-1].epoch == 2)
        controller.close_session("interrupted")
    assert [
        trial.number for trial in place.history.trials.values() if trial.state == "running"
    ] == [2]
    return place


@pytest.fixture
def place(begun: Place, tmp_path: Path) -> Iterator[Place]:
    """A copy of its sweep; its corpus and features are what they were when the test ends."""
    kept = tmp_path / "kept"
    for name in ("corpus", "features", "runs"):
        shutil.copytree(begun.folder / name, kept / name)
    yield begun
    for name in ("corpus", "features", "runs"):
        shutil.rmtree(begun.folder / name)
        shutil.copytree(kept / name, begun.folder / name)


def relabel(split: str, old: str, new: str) -> Callable[[Rows], None]:
    """The first utterance of a split with the label `old` gets the label `new`."""

    def change(rows: Rows) -> None:
        next(row for row in rows if (row["split"], row["emotion"]) == (split, old))["emotion"] = new

    return change


def no_sadness(rows: Rows) -> None:
    for row in rows:
        row["emotion"] = "neutral" if row["emotion"] == "sad" else row["emotion"]


def swap_labels(rows: Rows) -> None:
    relabel("train", "sad", "x")(rows)
    relabel("train", "neutral", "sad")(rows)
    relabel("train", "x", "neutral")(rows)


def other_text(place: Place) -> None:
    place.rows(lambda rows: rows[0].update(text="something else"))


def other_text_encoded(place: Place) -> None:
    other_text(place)
    place.encode()


def one_row_less(place: Place) -> None:
    place.rows(
        lambda rows: rows.pop(
            next(i for i, row in enumerate(rows) if row["split"] == "dev" and row["turn"] == "5")
        )
    )
    place.encode()


def other_recipe(place: Place) -> None:
    for feature in AUDIO_FEATURES:
        shutil.rmtree(place.store(feature=feature))
    encoder = make_speech_encoder("fbank", frame_rate=20, num_mels=16)
    list(encode_speech(read_manifest(place.manifest), place.features, encoder, AUDIO_FEATURES))


def scale(place: Place, store: Path) -> None:
    """As an encoder of the same recipe on another machine may give them."""
    for name in ("values", "pooled"):
        np.save(
            store / f"{name}.npy",
            (np.load(store / f"{name}.npy", allow_pickle=False) * np.float16(1.01)).astype(
                np.float16
            ),
        )
    (store / "checksums.json").unlink(missing_ok=True)


CHANGES: dict[str, tuple[Callable[[Place], object], str]] = {
    "train labels": (
        lambda place: place.rows(relabel("train", "sad", "happy")),
        "train: other labels (7 happy instead of 6, 1 sad instead of 2)",
    ),
    "train labels, as many": (
        lambda place: place.rows(swap_labels),
        "train: other labels (as many of each class)",
    ),
    "dev labels": (lambda place: place.rows(relabel("dev", "neutral", "angry")), OTHER_DEV_LABELS),
    "classes": (
        lambda place: place.rows(no_sadness),
        (
            "classes: neutral, happy, angry instead of neutral, happy, angry, sad; train: other"
            " labels ("
        ),
    ),
    "a text that is not encoded": (other_text, "train: other texts, or other turns before them"),
    "a text": (other_text_encoded, "train: other texts, or other turns before them"),
    "an utterance less": (one_row_less, "dev: other utterances (9 instead of 10)"),
    "another encoder": (
        other_recipe,
        "speech features hidden_state: frame_rate_hz 20.0 instead of 10.0",
    ),
    "speech encoded anew": (
        lambda place: scale(place, place.store(feature="hidden_state")),
        "speech features hidden_state of fbank: encoded anew with other values (train, dev)",
    ),
    "text encoded anew": (
        lambda place: scale(place, place.store(context=2)),
        "text features of context 2 of char-ngram: encoded anew with other values (train, dev)",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_data_are_refused_with_what_changed_and_nothing_is_written(
    place: Place, what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, message = CHANGES[what]
    change(place)
    before = {file: file.read_bytes() for file in sorted(place.runs.rglob("*")) if file.is_file()}
    status, out, err = call_here(
        capsys, monkeypatch, "resume", "first", "--trials", 5, "--runs", place.runs
    )
    assert (status, out) == (2, "")
    assert (
        f"error: sweep 'first': the data are not those that its trials were trained on ({message}"
        in err
    )
    assert err.endswith(
        f"mmm-search resume first --trials 5 --runs {place.runs} --accept-changed-data\n"
    )
    assert "Traceback" not in err
    assert before == {
        file: file.read_bytes() for file in sorted(place.runs.rglob("*")) if file.is_file()
    }


def other_corpus(place: Place) -> None:
    encode(write_corpus(place.folder / "other", prefix="other"), place.features)


def other_context(place: Place) -> None:
    list(
        encode_text(
            read_manifest(place.manifest),
            place.features,
            make_text_encoder("char-ngram", width=32),
            [4],
        )
    )
    shutil.rmtree(place.store(context=3))
    scale(place, place.store(feature="extract_feature"))


HARMLESS: dict[str, Callable[[Place], object]] = {
    "nothing": lambda place: None,
    "a speaker's name": lambda place: place.rows(
        lambda rows: [row.update(speaker="someone") for row in rows]
    ),
    "the order of rows": lambda place: place.rows(lambda rows: rows.reverse()),
    "a label of the test split": lambda place: place.rows(relabel("test", "neutral", "happy")),
    "features of another corpus": other_corpus,
    "features that no trial uses": other_context,
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_no_trial_is_trained_on_may_change(place: Place, what: str) -> None:
    HARMLESS[what](place)
    assert changes(place) == []


def changes(place: Place, features: Path | None = None, manifest: Path | None = None) -> list[str]:
    spec = place.history.spec
    spec = replace(
        spec, manifest=str(manifest or place.manifest), features=str(features or place.features)
    )
    checked = check(spec)
    return data_changes(place.history, checked.settings_check.data()).what


def test_manifest_and_features_may_be_moved(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.manifest.parent, tmp_path / "moved" / "corpus")
    shutil.move(place.features, tmp_path / "moved" / "features")
    try:
        assert (
            changes(
                place,
                tmp_path / "moved" / "features",
                tmp_path / "moved" / "corpus" / "manifest.csv",
            )
            == []
        )
    finally:
        shutil.move(tmp_path / "moved" / "features", place.features)


def test_of_an_older_ledger_is_compared_what_it_has(place: Place) -> None:
    _, note = place.history.data[-1]
    old = replace(
        note,
        manifest=replace(note.manifest, splits=None),
        stores=tuple(replace(store, content=None, recipe=None) for store in note.stores),
    )
    with open_sweep(place.runs / "first") as ledger:
        ledger.append(old)
    assert changes(place) == []
    scale(place, place.store(context=2))  # which it cannot tell
    assert changes(place) == []
    place.rows(relabel("train", "sad", "happy"))
    (found,) = changes(place)
    assert found.startswith(
        "manifest: labels, texts or something else (an earlier version began this sweep, and its"
        " ledger has no more "
    )
    other_recipe(place)
    place.rows(no_sadness)
    classes, speech = changes(place)
    assert classes == "classes: neutral, happy, angry instead of neutral, happy, angry, sad"
    assert speech.startswith("speech features hidden_state: fbank (")


def test_a_sweep_without_a_trained_trial_takes_any_data(place: Place) -> None:
    history = History.of(event for event in read_events(place.ledger) if event.trial is None)
    assert history is not None
    place.rows(relabel("dev", "neutral", "angry"))
    spec = place.history.spec
    assert data_changes(history, check(spec).settings_check.data()).what == []


def test_changed_data_that_are_accepted_are_told_wherever_the_sweep_is_looked_at(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place.history
    place.rows(relabel("dev", "neutral", "angry"))
    resume = ["resume", "first", "--trials", 4, "--accept-changed-data", "--runs", place.runs]
    told = call("search", *resume, "--serial").stdout  # this process has read the data before
    after = place.history
    account = (
        "data 2, from trial 3 on, are not those that the trials before it were trained on"
        f" ({OTHER_DEV_LABELS}); begun again on them: 2; those before it do not compete for the"
        " bundle any more"
    )
    assert f"warning: {account}\n" in told
    assert "MLflow did not" not in told
    assert (
        mlflow_runs(place.runs)["sweep"].data.tags["mmm.data_changed"]
        == f"from trial 3 on: {OTHER_DEV_LABELS}"
    )
    assert after.best is not None
    assert after.best[1] in (2, 3)
    # What was interrupted was trained from its first epoch, on the data as they are now.
    assert {number: after.trials[number] for number in (0, 1)} == {
        number: before.trials[number] for number in (0, 1)
    }
    again = [
        event.body.epoch
        for event in read_events(place.ledger)
        if event.kind == "epoch" and event.trial == 2
    ]
    assert again[:3] == [1, 2, 1]
    assert [entry.epoch for entry in after.trials[2].epochs] == list(
        range(1, len(after.trials[2].epochs) + 1)
    )
    assert after.trials[2].state in ("complete", "pruned")
    assert account in (place.runs / "first" / "report.html").read_text(encoding="utf-8")
    with open(place.runs / "first" / "leaderboard.csv", newline="", encoding="utf-8") as file:
        assert {row["trial"]: row["data"] for row in csv.DictReader(file)} == {
            "0": "1",
            "1": "1",
            "2": "2",
            "3": "2",
            "linear": "2",
        }
    bundle = load_bundle(place.runs / "first" / "bundle")
    best = max((after.trials[number] for number in (2, 3)), key=lambda trial: trial.best(METRIC)[1])  # type: ignore[index]
    assert bundle.provenance.trial == best.number
    card = (place.runs / "first" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert f"* {account}" in card
    assert "These weights were trained on data 2 of 2." in card
    _, shown, _ = call_here(capsys, monkeypatch, "status", "first", "--runs", place.runs)
    assert account in shown
    assert len(load_priors("first", place.runs, METRIC)) == 2
    # Accepted once: these are the sweep's data now, and the ones before are others.
    assert changes(place) == []
    status, _, err = call_here(
        capsys,
        monkeypatch,
        "export",
        "first",
        "--trial",
        0,
        "-o",
        place.folder / "out",
        "--runs",
        place.runs,
    )
    assert status == 2
    assert f"; since then the data were changed: {OTHER_DEV_LABELS}. Nothing was" in err


def test_an_export_after_the_data_were_changed_says_what_changed(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.rows(relabel("dev", "neutral", "angry"))
    status, _, err = call_here(
        capsys, monkeypatch, "export", "first", "-o", place.folder / "out", "--runs", place.runs
    )
    assert status == 2
    assert f"; since then the data were changed: {OTHER_DEV_LABELS}. Nothing was" in err
    assert not (place.folder / "out").exists()


def test_after_other_train_labels_earlier_trials_still_compete(place: Place) -> None:
    place.rows(relabel("train", "sad", "happy"))
    spec = place.history.spec
    data = check(spec).settings_check.data()
    with open_sweep(place.runs / "first") as ledger:
        ledger.append(restarts(ledger.history, data, data_changes(ledger.history, data)))
    history = place.history
    assert [history.may_win(number) for number in range(3)] == [True, True, True]
    assert [history.data_of(number) for number in range(4)] == [1, 1, 2, 2]
    export_trial(history, place.runs / "first", 0, place.folder / "out")
    bundle = load_bundle(place.folder / "out")
    shutil.rmtree(place.folder / "out")
    assert (
        bundle.provenance.manifest_sha256
        == place.history.data[0][1].manifest.sha256
        != data.manifest.sha256
    )


def test_answers_of_the_ledger_are_of_the_data_as_they_are(place: Place) -> None:
    place.rows(relabel("train", "sad", "happy"))
    spec = place.history.spec
    data = check(spec).settings_check.data()
    point = place.history.trials[0].params
    spec = replace(spec, repeats="reuse", enqueue=[point])
    with open_sweep(place.runs / "first") as ledger:
        changed = data_changes(ledger.history, data)
        controller = Controller(ledger, spec, load_space(spec.space), "cpu", lambda: None)
        controller.orders.unfinished.clear()
        orders = controller.next_orders()
        assert [order.number for order in orders] in ([], [4])
        # answered from the ledger, which has trained it on these data
        assert ledger.history.trials[3].copied_from == 0
        ledger.append(restarts(ledger.history, data, changed))
    with open_sweep(place.runs / "first") as ledger:
        spec = replace(spec, trials=6, enqueue=[point, point])
        controller = Controller(ledger, spec, load_space(spec.space), "cpu", lambda: None)
        controller.orders.unfinished.clear()
        controller.next_orders()
        assert ledger.history.trials[max(ledger.history.trials)].copied_from is None
