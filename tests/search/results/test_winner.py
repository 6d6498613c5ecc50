"""The winner's answers in the report: on validation rows alone, with text that stays text, and a
report all the same where weights or data are gone.
"""

import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmm.manifest import Manifest, Utterance
from search.ledger.files import trial_folder
from search.results.errors_page import write_errors
from search.results.kept import best_trial
from search.results.report import write_report
from search.results.winner import Winner, look_at, read_winner
from tests.conftest import Corpus, encode, write_corpus
from tests.search.results.test_export import Sweep
from tests.sweep_parts import METRIC, call_here

HOSTILE = "<script>planted()</script>"


def turn(number: int, dialogue: str, emotion: str, previous: int, split: str = "dev") -> Utterance:
    names = f"u{number}", dialogue, number % 3, "s1", "ann" if number % 2 else ""
    return Utterance(
        *names, f"{HOSTILE} words", f"clips/{number}.wav", (emotion,), split, previous=previous
    )


NAMES = ("neutral", "happy", "sad")
MANIFEST = Manifest(
    Path("/home/anna/manifest.csv"),
    "",
    (
        turn(0, "d1", "happy", -1),
        turn(1, "d1", "happy", 0),
        turn(2, "d1", "sad", 1),
        turn(3, "d2", "sad", -1),
    ),
    NAMES[:2],
)
SHARES = np.array([[0.1, 0.9], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
FOUND = look_at(4, MANIFEST, range(4), np.array([1, 1, 2, 2]), NAMES, SHARES)


def test_errors_are_told_with_the_most_confident_first_and_what_the_truth_was_given() -> None:
    assert [(one.utterance_id, one.answered, one.truth) for one in FOUND.errors] == [
        ("u2", "neutral", "sad"),
        ("u3", "happy", "sad"),
        ("u1", "neutral", "happy"),
    ]
    assert [one.share_of_truth for one in FOUND.errors] == [0, 0, 0.4]  # it does not know sad
    assert FOUND.num_errors == 3


def test_rows_are_cut_by_speaker_length_place_and_change_of_emotion() -> None:
    cut = {(one.kind, one.name): (one.num_utterances, one.accuracy) for one in FOUND.slices}
    assert cut == {
        ("session", "s1"): (4, 0.25),
        ("speaker", "unknown"): (2, 0.5),
        ("speaker", "ann"): (2, 0),
        ("length in words", "1 to 3"): (4, 0.25),
        ("turn of the dialogue", "1"): (2, 0.5),
        ("turn of the dialogue", "2 to 3"): (2, 0),
        ("emotion against the turn before", "first turn"): (2, 0.5),
        ("emotion against the turn before", "the same"): (1, 0),
        ("emotion against the turn before", "another"): (1, 0),
    }


def test_intervals_are_told_of_ten_dialogues_and_more_alone() -> None:
    assert {one.interval for one in (*FOUND.slices, *FOUND.classes)} == {None}
    turns = tuple(turn(number, f"d{number // 2}", "happy", -1) for number in range(20))
    manifest = replace(MANIFEST, utterances=turns)
    truth, shares = np.tile([0, 1], 10), np.tile([[0.2, 0.8]], (20, 1))
    found = look_at(4, manifest, range(20), truth, NAMES[:2], shares)
    assert found.classes[0].interval == (0, 0)
    assert found.classes[1].interval == pytest.approx((2 / 3, 2 / 3))
    assert {one.interval for one in found.slices if one.kind == "session"} == {(0.5, 0.5)}


def test_an_utterance_with_two_labels_is_no_error_where_one_of_them_is_answered() -> None:
    both = replace(MANIFEST.utterances[1], emotions=("happy", "neutral"))
    manifest = replace(MANIFEST, utterances=(MANIFEST.utterances[0], both))
    shares = SHARES[[0, 1, 1]]
    found = look_at(4, manifest, [0, 1, 1], np.array([1, 1, 0]), NAMES[:2], shares)
    assert (found.num_errors, found.num_utterances) == (0, 3)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Whose weights and features a test may move away and back."""
    folder = tmp_path_factory.mktemp("winner")
    manifest = write_corpus(folder / "corpus")
    encode(manifest, folder / "features")
    return Sweep(Corpus(manifest, folder / "features"), folder / "runs")


def test_the_winners_answers_are_those_that_the_ledger_scored_and_of_validation_alone(
    sweep: Sweep,
) -> None:
    found = read_winner(sweep.history, sweep.folder)
    assert isinstance(found, Winner)
    best = best_trial(sweep.history)
    assert best is not None
    assert found.trial == best.number
    scored = best.metrics((best.best(METRIC) or (0, 0.0))[0])["per_class"]
    assert {one.name: one.scores for one in found.classes} == scored
    dev = {sweep.corpus.manifest.utterances[row].audio for row in sweep.corpus.manifest.rows("dev")}
    assert {one.audio for one in found.errors} <= dev


def test_the_report_has_them_and_with_audio_a_second_file_has_players(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = "report", "small", "--with-audio", "--runs", sweep.runs
    status, out, _ = call_here(capsys, monkeypatch, *arguments)
    errors = sweep.folder / "errors.html"
    assert status == 0
    assert f"wrote {errors}; it holds audio of the corpus\n" in out
    page = (sweep.folder / "report.html").read_text(encoding="utf-8")
    assert "Errors of the winner" in page
    assert 'data-plot="reliability"' in page
    assert "<audio" not in page
    found = read_winner(sweep.history, sweep.folder)
    assert isinstance(found, Winner)
    assert found.errors
    players = errors.read_text(encoding="utf-8")
    assert "holds audio and text of the corpus" in players
    clips = re.findall('src="data:audio/wav;base64,(.*?)"', players)
    assert len(clips) == len(found.errors)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clips[0])))
    first = soundfile.info(sweep.corpus.manifest.path.parent / found.errors[0].audio)
    assert (rate, len(samples) / rate) == (16_000, pytest.approx(first.duration, abs=1e-3))
    assert str(sweep.folder.parent) not in players
    errors.unlink()


def test_without_weights_or_features_the_report_is_made_and_says_so(
    sweep: Sweep,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best = best_trial(sweep.history)
    assert best is not None
    for gone in (trial_folder(sweep.folder, best.number), sweep.corpus.features_dir):
        away = Path(shutil.move(gone, tmp_path / "away"))
        why = read_winner(sweep.history, sweep.folder)
        assert isinstance(why, str)
        arguments = "report", "small", "--runs", sweep.runs
        assert call_here(capsys, monkeypatch, *arguments)[0] == 0
        page = (sweep.folder / "report.html").read_text(encoding="utf-8")
        assert "The winner's answers were not looked at: " in page
        status, _, told = call_here(capsys, monkeypatch, *arguments, "--with-audio")
        assert (status, "the winner's errors are not known" in told) == (2, True), told
        shutil.move(away, gone)
    assert isinstance(read_winner(sweep.history, sweep.folder), Winner)


def test_texts_of_the_corpus_are_text_and_missing_clips_are_told(
    sweep: Sweep, tmp_path: Path
) -> None:
    write_errors(tmp_path / "errors.html", "small", FOUND)
    write_report(tmp_path / "report.html", sweep.history, None, FOUND)
    for name in ("errors.html", "report.html"):
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert HOSTILE not in page
        assert "&lt;script&gt;planted()" in page
        assert "clips/1.wav" in page
        assert "/home/anna" not in page
    assert "cannot be played: " in (tmp_path / "errors.html").read_text(encoding="utf-8")
    faults = write_errors(tmp_path / "errors.html", "small", FOUND, "nowhere://bucket/manifest.csv")
    assert [fault.partition(": nowhere://bucket: ")[0] for fault in faults] == [
        one.audio for one in FOUND.errors
    ]
