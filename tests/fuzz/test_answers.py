"""Sound, streams of requests, and bundles: an answer has probabilities that sum to one, and a
bundle of which one byte is another is never answered with.
"""

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmm.bundle.write import seal
from tests.conftest import Corpus
from tests.fuzz.parts import (
    Told,
    content_of,
    damaged,
    inputs,
    json_text,
    told_by,
)
from tests.mmm.cli.test_hostile_input import samples, wav_of


def _assert_probabilities(shares: dict[str, float]) -> None:
    assert all(math.isfinite(share) and 0 <= share <= 1 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1, abs=1e-4)


def _predicted(kind: str, bundle: Path, audio: object) -> Told:
    told = told_by(
        kind, "mmm", "predict", bundle, "--audio", audio, "--text", "hi", "--json", is_data=True
    )
    if told.is_accepted:
        _assert_probabilities(json.loads(told.out, parse_constant=pytest.fail))
    return told


@inputs(0.14)
@given(wave=samples(), data=st.data())
def test_sound_is_answered_or_refused_by_name(bundle: Path, wave: Any, data: st.DataObject) -> None:
    container = data.draw(st.sampled_from(["WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF"]))
    subtype = {"FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(container, "PCM_16")
    wave = wave[:, :1].repeat(100, axis=0)
    content = data.draw(damaged(wav_of(wave, subtype, 16000, container)))
    if data.draw(st.booleans()):
        content = data.draw(damaged(content))
    suffix = data.draw(st.sampled_from(["wav", "flac", "mp3", "ogg", "raw", "m4a", "txt"]))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"sound.{suffix}"
        path.write_bytes(content)
        told = _predicted("sound", bundle, path)
        assert told.is_accepted or f"error: {path}: " in told.err


@inputs(0.1)
@given(data=st.data())
def test_each_line_of_a_stream_has_its_answer(
    corpus: Corpus, bundle: Path, data: st.DataObject
) -> None:
    audio = str(corpus.manifest.audio_path(corpus.manifest.utterances[1]))
    good = {"audio": audio, "text": "hi", "id": 7}
    requests = [
        good,
        {"audio": audio, "text": "", "speaker": "A", "history": [{"text": "well", "audio": audio}]},
        {"text": "so", "dialogue": "d", "id": {"a": [1]}},
        {"audio_base64": "UklGRg==", "text": "hi"},
    ]
    lines = []
    for _ in range(data.draw(st.integers(1, 4))):
        line = data.draw(json_text(data.draw(st.sampled_from(requests)))).encode(errors="replace")
        line = data.draw(damaged(line)) if data.draw(st.integers(0, 3)) == 0 else line
        lines.append(line.replace(b"\n", b" "))
    stream = b"\n".join([*lines, json.dumps(good).encode()])
    told = told_by("streams", "mmm", "predict", bundle, "--jsonl", stdin=stream, is_data=True)
    assert (told.status, told.err) == (0, "")
    answers = [json.loads(line, parse_constant=pytest.fail) for line in told.out.split("\n")[:-1]]
    asked = [number for number, line in enumerate(lines, start=1) if line.strip()]
    assert len(answers) == len(asked) + 1
    for number, answer in zip(asked, answers, strict=False):
        assert ("error" in answer) != ("probabilities" in answer)
        if "error" in answer:
            assert answer["line"] == number
        elif answer["probabilities"] is not None:
            _assert_probabilities(answer["probabilities"])
    assert answers[-1]["id"] == 7
    _assert_probabilities(answers[-1]["probabilities"])


def _says_the_same(now: dict[str, bytes], before: dict[str, bytes]) -> bool:
    """Byte for byte, but for white space between the hashes in checksums.json."""
    sums = "checksums.json"
    if now.keys() != before.keys() or any(
        now[name] != before[name] for name in before if name != sums
    ):
        return False
    try:
        return bool(json.loads(now[sums]) == json.loads(before[sums]))
    except ValueError:
        return False


@inputs(0.12)
@given(data=st.data())
def test_a_bundle_that_is_not_what_was_written_is_refused(
    corpus: Corpus, bundle: Path, data: st.DataObject
) -> None:
    audio = corpus.manifest.audio_path(corpus.manifest.utterances[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(bundle, Path(name) / "bundle"))
        before = content_of(folder)
        file = folder / data.draw(st.sampled_from(sorted(before)))
        how = data.draw(st.integers(0, 9))
        if how == 0:
            file.unlink()
        elif how == 1:
            (
                folder / data.draw(st.sampled_from(["x.json", "x.pkl", "x.py", "a.safetensors"]))
            ).touch()
        elif how == 2:
            file.write_bytes((folder / data.draw(st.sampled_from(sorted(before)))).read_bytes())
        else:
            file.write_bytes(data.draw(damaged(before[file.name])))
        is_same = _says_the_same(content_of(folder), before)
        told = _predicted("damaged bundles", folder, audio)
        assert told.is_accepted == is_same
        assert is_same or str(folder) in told.err


@inputs(0.12)
@given(data=st.data())
def test_a_bundle_that_says_what_none_of_ours_does_is_refused_or_answers(
    corpus: Corpus, bundle: Path, config: Any, data: st.DataObject
) -> None:
    audio = corpus.manifest.audio_path(corpus.manifest.utterances[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(bundle, Path(name) / "bundle"))
        file = folder / data.draw(
            st.sampled_from(["config.json", "config.json", "provenance.json"])
        )
        content = config if file.name == "config.json" else json.loads(file.read_text())
        file.write_text(data.draw(json_text(content)), errors="replace")
        if data.draw(st.integers(0, 5)) == 0:
            weights = folder / "model.safetensors"
            weights.write_bytes(data.draw(damaged(weights.read_bytes())))
        seal(folder)
        told = _predicted("poisoned bundles", folder, audio)
        assert told.is_accepted or str(folder) in told.err
