"""A sweep that chooses among encoders: what it tries, what it goes on with, what comes of it."""

import shutil
from pathlib import Path

import pytest
import torch

import mmm
from mmm.bundle.evaluate import evaluate_bundle
from mmm.bundle.read import load_bundle
from mmm.features.named import encoders_in
from mmm.manifest_csv import read_manifest
from search.ledger.events import read_history
from search.ledger.history import History
from search.results.encoders import NO_TRIAL, crosses
from search.space.load import load_space, point_settings
from search.space.settings import there_in, with_features_there
from spaces import There, spaces_on
from tests.conftest import Corpus
from tests.sweep_parts import METRIC, call_inside, small_spec, write_space

SPACE = """
from spaces import There

KNOWN_GOOD = [
    {"architecture": "vanilla_concat", "speech": speech, "text": text}
    for speech in ("fbank", "fast") for text in ("char-ngram", "few")
]

def suggest(trial, there: There):
    return {
        "architecture": trial.suggest_categorical("architecture", ["vanilla_concat", "mlp_mixer"]),
        "speech": trial.suggest_categorical("speech", list(there.speech)),
        "text": trial.suggest_categorical("text", list(there.text)),
        "width": 8, "classifier_hidden": 12, "batch_size": 6, "lr": 1e-2,
    }
"""


@pytest.fixture(scope="module")
def several(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    features = tmp_path_factory.mktemp("several") / "features"
    shutil.copytree(corpus.features_dir, features)
    words = ["encode", corpus.manifest.path, "--features", features]
    call_inside(
        "mmm", *words, "--frame-rate", 20, "--num-mels", 8, "--speech-only", "--name", "fast"
    )
    call_inside("mmm", *words, "--text-width", 16, "--text-only", "--context", 1, "--name", "few")
    return Corpus(corpus.manifest, features)


@pytest.fixture(scope="module")
def swept(several: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a sweep of five trials."""
    folder = tmp_path_factory.mktemp("swept")
    space = write_space(folder / "choice.py", SPACE)
    words = ["run", space, several.manifest.path, "--features", several.features_dir]
    options = ["--name", "choice", "--trials", 5, "--epochs", 2, "--first-rung", 1, "--serial"]
    call_inside("search", *words, *options, "--runs", folder / "runs")
    return folder / "runs"


def history_of(runs: Path) -> History:
    return read_history(runs / "choice" / "ledger.sqlite")


def test_it_tries_each_encoder_and_reproduces_the_winner(swept: Path, several: Corpus) -> None:
    history = history_of(swept)
    chosen = {(t.settings["speech"], t.settings["text"]) for t in history.trials.values()}
    assert {("fbank", "char-ngram"), ("fbank", "few"), ("fast", "char-ngram"), ("fast", "few")} <= (
        chosen
    )
    bundle = load_bundle(swept / "choice" / "bundle")
    rates = {"fbank": 10, "fast": 20}
    assert bundle.audio_recipe["frame_rate_hz"] == rates[str(bundle.config.speech)]
    assert history.best is not None
    assert history.best[1] == bundle.provenance.trial


def test_the_ledger_identifies_encoders_by_their_recipes(swept: Path, several: Corpus) -> None:
    spec = history_of(swept).spec
    identities = {one.name: one.identity for one in encoders_in(several.features_dir)}
    assert spec.speech_encoders is not None
    assert spec.text_encoders is not None
    recorded = {**spec.speech_encoders, **spec.text_encoders}
    assert {name: one["identity"] for name, one in recorded.items()} == identities


def test_it_goes_on_and_is_exported_after_encoders_were_renamed_and_added(
    swept: Path, several: Corpus, tmp_path: Path
) -> None:
    runs, features = tmp_path / "runs", several.features_dir
    shutil.copytree(swept, runs)
    words = ["encode", several.manifest.path, "--features", features]
    call_inside("mmm", *words, "--num-mels", 12, "--speech-only", "--name", "third")
    call_inside("mmm", "features", features, "--rename", "fast=slow", "--rename", "few=some")
    try:
        call_inside("search", "resume", "choice", "--runs", runs, "--trials", 7, "--serial")
        history = history_of(runs)
        assert len(history.trials) == 7
        assert {t.state for t in history.trials.values()} <= {"complete", "pruned"}
        # Those of the beginning, by their names then.
        assert {t.settings["speech"] for t in history.trials.values()} == {"fbank", "fast"}
        out = tmp_path / "exported"
        call_inside("search", "export", "choice", "--runs", runs, "--trial", 1, "-o", out)
        bundle, manifest = load_bundle(out), read_manifest(several.manifest.path)
        found = evaluate_bundle(
            bundle, manifest, features, manifest.rows("dev"), torch.device("cpu")
        )
        best = history.trials[1].best(METRIC)
        assert best is not None
        assert found[METRIC] == pytest.approx(best[1])
    finally:
        call_inside("mmm", "features", features, "--rename", "slow=fast", "--rename", "some=few")
        call_inside("mmm", "features", features, "--remove", "third")


def test_the_best_trials_are_one_ensemble_whatever_their_encoders(
    swept: Path, several: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "ensemble"
    words = ["export", "choice", "--runs", swept, "--top", 4, "--ensemble", "-o", out]
    call_inside("search", *words)
    whole = mmm.load(out)
    members = [mmm.load(path) for path in sorted((out / "members").iterdir())]
    rates = {member.bundle.members[0].audio_recipe["frame_rate_hz"] for member in members}
    assert rates == {10, 20}
    said = several.manifest.utterances[7]
    question = several.manifest.audio_path(said), said.text
    answers = [member.predict(*question) for member in members]
    for name, share in whole.predict(*question).items():
        mean = sum(answer[name] for answer in answers) / len(answers)
        assert share == pytest.approx(mean, abs=1e-6)


def test_encoders_are_set_against_systems_with_empty_cells_said(swept: Path) -> None:
    history = history_of(swept)
    speech, text = crosses(history, METRIC)
    assert [row[0] for row in speech.rows] == ["fast", "fbank", "all"]
    assert [row[0] for row in text.rows] == ["char-ngram", "few", "all"]
    score, _ = history.best
    assert speech.rows[-1][-1] == f"{score:.4f} (5)"
    counts = [cell.partition("(")[2].rstrip(")") for row in speech.rows[:-1] for cell in row[1:-1]]
    assert sum(int(count or 0) for count in counts) == 5
    done = call_inside("search", "status", "choice", "--runs", swept)
    assert speech.title in done.stdout
    report = (swept / "choice" / "report.html").read_text(encoding="utf-8")
    assert "Systems and encoders" in report
    empty = [cell for cross in (speech, text) for row in cross.rows for cell in row[1:]]
    assert all(cell == NO_TRIAL or cell.endswith(")") for cell in empty)


@pytest.mark.parametrize("name", ["quick", "full", "paper"])
def test_built_in_spaces_choose_among_what_is_there(several: Corpus, name: str) -> None:
    spec = with_features_there(small_spec(several))
    space = load_space(name, there_in(spec))
    speech = {str(point["speech"]) for point in space.known_good}
    assert speech == {"fbank", "fast"}
    for point in space.known_good:
        settings = point_settings(space, point)
        assert settings["speech"] in speech
        assert settings["text"] in {"char-ngram", "few"}


@pytest.mark.parametrize("name", ["quick", "full", "paper"])
def test_with_one_pair_of_encoders_no_space_names_them(corpus: Corpus, name: str) -> None:
    space = load_space(name, there_in(with_features_there(small_spec(corpus))))
    for point in space.known_good:
        assert not {"speech", "text"} & point_settings(space, point).keys()


def test_longer_contexts_and_mixed_layers_are_searched_where_they_are_there() -> None:
    there = There(
        audio_features=("hidden_state",),
        speech={"a-l1": ("hidden_state",), "a-l2": ("hidden_state",), "b": ("hidden_state",)},
        contexts=(1, 3, 8),
        layered=("a-l1", "a-l2"),
    )
    space = spaces_on(there)["full"]
    mixes = {point["speech"]: point.get("layer_mix") for point in space.known_good[:2]}
    assert mixes == {"a-l1": "one", "a-l2": "one"}
    point = {**space.known_good[0], "context": 8, "layer_mix": "learned"}
    assert point_settings(space, point)["context"] == 8


def test_a_sweep_that_does_not_say_which_encoder_is_refused_with_the_names(
    several: Corpus, tmp_path: Path
) -> None:
    text = "def suggest(trial):\n    return {'architecture': 'vanilla_concat', 'width': 8}\n"
    space = write_space(tmp_path / "silent.py", text)
    words = ["run", space, several.manifest.path, "--features", several.features_dir]
    done = call_inside("search", *words, "--name", "s", "--runs", tmp_path / "runs", status=2)
    said = "several encoders (char-ngram, few); say which: --text char-ngram, or as a space's"
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()
