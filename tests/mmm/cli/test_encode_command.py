"""`mmm encode` as it is typed: killed, resumed, with bad files."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from mmm.cli.app import app
from mmm.features.store import list_recipes, open_store
from mmm.features.writer import partial_folder
from mmm.manifest_csv import read_manifest
from tests.conftest import Corpus, names_in
from tests.encode_parts import contents, encode_until, num_done
from tests.sweep_parts import call, call_inside

SMALL = ["--frame-rate", "10", "--num-mels", "16", "--text-width", "32", "--context", "1,2,3"]


def test_encode_writes_what_the_library_writes_and_again_says_so_at_once(
    corpus: Corpus, tmp_path: Path
) -> None:
    for number, run in enumerate((call, call_inside)):
        done = run(
            "mmm", "encode", corpus.manifest.path, "--features", tmp_path / "features", *SMALL
        )
        assert f"40 utterances encoded in {tmp_path / 'features'}" in done.stdout
        assert ("none of 40 files had to be converted to 16 kHz mono" in done.stdout) == (
            number == 0
        )
        assert contents(tmp_path / "features") == contents(corpus.features_dir)
    assert "audio hours an hour" not in done.stdout


@pytest.mark.parametrize(
    ("words", "default"),
    [
        (["encode"], "[one a core]"),
        (["encode"], "[what is cached, else main]"),
        (["encode"], "[CPU 0, GPU 120]"),
        (["prepare", "ai-hub"], "[the one in the folder]"),
        (["demo-corpus"], "[demo]"),
    ],
)
def test_help_shows_defaults_in_brackets(words: list[str], default: str) -> None:
    help_text = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).stdout
    assert default in " ".join(help_text.replace("│", " ").split())
    assert "\\[" not in help_text


def write_as(path: Path, rate_hz: int, num_channels: int, subtype: str) -> None:
    """The same file at another rate, in more channels and another coding."""
    wave, _ = soundfile.read(path)
    soundfile.write(path, np.repeat(wave[:, None], num_channels, axis=1), rate_hz, subtype=subtype)


def test_encode_says_how_many_files_it_converted_and_from_what(
    corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(
        corpus.manifest.path.parent, tmp_path / "own", ignore=shutil.ignore_patterns("features")
    )
    for number in (1, 2, 3):
        write_as(tmp_path / "own" / "wav" / f"{number:02}.wav", 44_100, 2, "PCM_24")
    write_as(tmp_path / "own" / "wav" / "30.wav", 8_000, 1, "PCM_16")
    write_as(tmp_path / "own" / "wav" / "31.wav", 16_000, 1, "FLOAT")  # 16 kHz mono already

    def encode() -> str:
        words = [
            "encode",
            tmp_path / "own" / "manifest.csv",
            "--features",
            tmp_path / "features",
            *SMALL,
        ]
        return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False).stdout

    assert (
        "converted 4 of 40 files to 16 kHz mono: 3 from 44100 Hz stereo 24-bit, 1 from 8000 Hz"
        " mono\n" in encode()
    )
    assert "to 16 kHz mono" not in encode()
    write_as(tmp_path / "own" / "wav" / "05.wav", 48_000, 6, "FLOAT")
    assert (
        "converted 1 of 1 files to 16 kHz mono: 1 from 48000 Hz 6 channels float 32\n" in encode()
    )


@pytest.mark.slow  # eleven processes; the kills have to be real
def test_encode_killed_at_ten_moments_ends_in_the_same_bytes(
    corpus: Corpus, tmp_path: Path
) -> None:
    features = tmp_path / "features"
    words = ["encode", str(corpus.manifest.path), "--features", str(features), *SMALL]
    generator = np.random.default_rng(5)
    for _ in range(10):
        assert encode_until(words, int(generator.integers(1, 12))) == -signal.SIGKILL
        for path in list_recipes(features):
            assert len(open_store(path).keys) == 40
    assert 0 < num_done(features) < 200
    assert encode_until(words) == 0
    # The small batches above change no byte: built-in encoders take one utterance after another.
    found, expected = contents(features), contents(corpus.features_dir)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert [name for name in names_in(features) if name.startswith(".") and name != ".lock"] == []


def test_bad_files_are_refused_together_before_anything_is_encoded(
    corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(
        corpus.manifest.path.parent, tmp_path / "own", ignore=shutil.ignore_patterns("features")
    )
    manifest = tmp_path / "own" / "manifest.csv"
    for number in (3, 11):
        wav = tmp_path / "own" / "wav" / f"{number:02}.wav"
        wav.write_bytes(wav.read_bytes()[:-500])
    words = ["encode", manifest, "--features", tmp_path / "features", *SMALL]
    refused = call("mmm", *words, status=2)
    assert (
        "2 of 40 audio files cannot be used; repair them, or leave them out with mmm encode"
        " --skip-bad" in refused.stderr
    )
    assert all(
        f"utterance 'u{number:02}' (wav/{number:02}.wav)" in refused.stderr for number in (3, 11)
    )
    assert list_recipes(tmp_path / "features") == {}
    assert not any(
        partial_folder(tmp_path / "features" / name).exists()
        for name in names_in(tmp_path / "features")
    )

    done = call_inside("mmm", *words, "--skip-bad")
    good = tmp_path / "own" / "manifest.good.csv"
    assert "left out: 2 of 40 utterances whose audio cannot be used" in done.stdout
    assert f"from here on use the manifest without them: {good}" in done.stdout
    left = {u.utterance_id for u in corpus.manifest.utterances} - {
        u.utterance_id for u in read_manifest(good).utterances
    }
    assert left == {"u03", "u11"}
    reasons = (tmp_path / "own" / "manifest.bad_files.csv").read_text().splitlines()
    assert reasons[0] == "utterance_id,audio,reason"
    assert [line.split(",")[0] for line in reasons[1:]] == ["u03", "u11"]
    assert all("truncated: the header promises" in line for line in reasons[1:])
    features, bundle = tmp_path / "features", tmp_path / "bundle"
    trained = call_inside(
        "mmm", "train", manifest, "--features", features, "--out", bundle, status=2
    )
    assert "no speech features for 2 of 40 utterances" in trained.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layer", "9"], "--layer 9 is for pretrained speech models; fbank has no layers"),
        (["--layer", "nine"], "--layer nine is for pretrained speech models"),
        (["--precision", "int8"], "--precision 'int8' is none of auto, float32, bf16, fp16"),
        (["--precision", "fp16"], "--precision fp16 needs a GPU; on a CPU use bf16 or float32"),
        (
            ["--batch-seconds", "-1"],
            "--batch-seconds -1 is out of range; expected 0 (one file at a time) or more",
        ),
        (["--device", "tpu"], "device"),
        (["--context", "17"], "--context '17' is out of range"),
    ],
)
def test_options_that_cannot_be_are_refused(
    corpus: Corpus, tmp_path: Path, words: list[str], message: str
) -> None:
    done = CliRunner().invoke(
        app, ["encode", str(corpus.manifest.path), "--features", str(tmp_path / "features"), *words]
    )
    assert message in str(done.exception)
    assert not (tmp_path / "features").exists()
