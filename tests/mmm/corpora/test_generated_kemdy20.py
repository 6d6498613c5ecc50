"""The corpus generated in KEMDy20's layout: its proportions and defects at any size, the same for a
seed, all of it prepared.
"""

import hashlib
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmm.corpora.generated.kemdy20 import make_kemdy20_demo
from mmm.corpora.generated.kemdy20_segments import (
    CLASS_COUNTS,
    NUM_SEGMENTS,
    NUM_TIED,
    default_splits,
    num_segments,
    plan,
)
from mmm.corpora.kemdy20 import prepare_kemdy20
from mmm.corpora.prepared import Prepared
from mmm.corpora.write import write_prepared
from mmm.manifest import EMOTIONS, Manifest
from mmm.manifest_csv import read_manifest


def made(out: Path, **settings: int) -> Path:
    steps = list(make_kemdy20_demo(out, **settings))
    assert steps[-1][0] == steps[-1][1] == sum(path.suffix == ".wav" for path in out.rglob("*"))
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Manifest]:
    folder = made(tmp_path_factory.mktemp("small") / "corpus", num_sessions=3, num_scripts=1)
    prepared = prepare_kemdy20(folder, dev_sessions="2", test_sessions="3")
    write_prepared(prepared, folder / "manifest.csv")
    return prepared, read_manifest(folder / "manifest.csv")


def test_the_numbers_are_those_of_the_real_corpus() -> None:
    assert NUM_SEGMENTS == num_segments(40, 6) == 13_462
    assert default_splits(40) == ("29-32", "33-40")
    assert default_splits(3) == ("2", "3")


def test_at_full_size_every_class_tie_and_duration_is_as_counted() -> None:
    dialogues = plan(40, 6, np.random.default_rng(1))
    segments = [segment for found in dialogues.values() for segment in found]
    assert len(dialogues) == 240
    assert len({segment.identity for segment in segments}) == len(segments) == 13_462
    assert (
        Counter(segment.emotions[0] for segment in segments if len(segment.emotions) == 1)
        == CLASS_COUNTS
    )
    assert sum(len(segment.emotions) > 1 for segment in segments) == NUM_TIED
    seconds = np.array([segment.seconds for segment in segments])
    assert (seconds.min(), seconds.max()) == (
        pytest.approx(0.67, abs=0.05),
        pytest.approx(35.2, abs=5),
    )
    assert seconds.mean() == pytest.approx(0.6 + 1.3 * 4.05, abs=0.15)
    assert "Sess12_script01_User081F_001" in {segment.identity for segment in segments}
    # Emotions run on: after a turn of a class other than neutral that class is by far the
    # likeliest.
    pairs = Counter(
        (before.told, after.told)
        for found in dialogues.values()
        for before, after in itertools.pairwise(found)
    )
    for name in CLASS_COUNTS:
        assert pairs[name, name] > 0.4 * sum(
            count for (before, _), count in pairs.items() if before == name
        ), name
    # Each split has every class, in published sessions, whatever the seed.
    for other in (dialogues, plan(40, 6, np.random.default_rng(2))):
        for sessions in (range(1, 29), range(29, 33), range(33, 41)):
            there = {
                name
                for (session, _), found in other.items()
                if session in sessions
                for one in found
                for name in one.emotions
            }
            assert there == set(EMOTIONS)


def test_it_goes_through_prepare_with_every_defect_accounted_for(
    small: tuple[Prepared, Manifest],
) -> None:
    prepared, manifest = small
    assert len(manifest.utterances) == num_segments(3, 1) == 168
    assert manifest.classes == EMOTIONS
    assert set(prepared.account.left_out) == {"stray files"}
    reasons = {*prepared.account.repaired, *prepared.account.noted}
    assert reasons == {
        "label disqust read as disgust",
        "transcripts cleaned of tags and other characters",
        "transcripts of tags alone: the speech stays, with an empty text",
        "segments of Sess02_eval.csv named Sess42: the file's name wins",
        "tied votes, kept as several emotions",
        "user number out of sequence, kept: User007F in session 3",
    }
    assert {one.session: one.split for one in manifest.utterances} == {
        "Sess01": "train",
        "Sess02": "dev",
        "Sess03": "test",
    }


def test_the_most_voted_classes_are_the_labels(small: tuple[Prepared, Manifest]) -> None:
    for one in small[1].utterances:
        counts = Counter(name for rater in one.votes for name in rater)
        assert len(one.votes) == 10
        assert {name for name, count in counts.items() if count == max(counts.values())} == set(
            one.emotions
        ), one.utterance_id
        assert one.valence is not None
        assert 1 <= one.valence <= 5


def test_speech_is_16_bit_mono_of_the_annotated_length(small: tuple[Prepared, Manifest]) -> None:
    prepared, manifest = small
    for row, one in list(zip(prepared.rows, manifest.utterances, strict=True))[::12]:
        about = soundfile.info(manifest.audio_path(one))
        assert (about.samplerate, about.channels, about.subtype) == (16_000, 1, "PCM_16")
        assert about.duration == pytest.approx(float(row["end"]) - float(row["start"]), abs=0.001)
        wave, _ = soundfile.read(manifest.audio_path(one))
        assert 0.001 < np.sqrt(np.mean(wave**2)) < 0.5
        assert np.abs(np.diff(wave)).max() < 0.6


def test_a_seed_always_gives_the_same_corpus_whatever_the_order_of_threads(tmp_path: Path) -> None:
    def contents(name: str, seed: int) -> dict[str, str]:
        folder = made(tmp_path / name, num_sessions=3, num_scripts=1, seed=seed)
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }

    once = contents("once", 5)
    assert once == contents("again", 5)
    other = contents("other", 6)
    assert once["annotation/Sess01_eval.csv"] != other["annotation/Sess01_eval.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "once", "other"]


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    steps = make_kemdy20_demo(tmp_path / "corpus", num_sessions=3, num_scripts=1)
    next(steps)
    steps.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_sessions": 2}, "--sessions 2 is out of range; expected 3 to 40 in KEMDy20's layout"),
        ({"num_sessions": 41}, "--sessions 41 is out of range"),
        ({"num_scripts": 7}, "--scripts 7 is out of range; expected 1 to 6"),
        ({"seed": -1}, "--seed -1 is out of range"),
    ],
)
def test_numbers_out_of_range_are_refused(
    tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        next(make_kemdy20_demo(tmp_path / "corpus", **settings))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match="not an empty folder; name a new one"):
        next(make_kemdy20_demo(tmp_path, num_sessions=3, num_scripts=1))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
