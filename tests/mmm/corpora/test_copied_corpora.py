"""A corpus that was copied is the corpus that was encoded; what an error says to run repairs what
it complains of.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mmm.encoders.extract import Progress, encode_speech
from mmm.encoders.make import make_speech_encoder
from mmm.features import clips
from mmm.features.clips import BadFiles, audio_hash
from mmm.features.encode_command import encode_command
from mmm.features.named import find_store
from mmm.features.same_audio import SEEN
from mmm.features.store import list_recipes
from mmm.files import write_json
from mmm.manifest_csv import read_manifest
from mmm.training.features import load_features
from search.ledger.spec import SweepSpec
from search.plan.checks import check_contexts
from tests.conftest import CONTEXTS, Corpus, encode, names_in, small_speech_encoder, write_corpus
from tests.encode_parts import make_old, run_printed

LATER_NS = 1_900_000_000 * 10**9


def copied(corpus: Corpus, folder: Path) -> Corpus:
    """As `cp -r` does it: the same bytes, other times of change."""
    shutil.copytree(corpus.manifest.path.parent, folder, copy_function=shutil.copyfile)
    for number, wav in enumerate(sorted(folder.glob("wav/*.wav"))):
        os.utime(wav, ns=(LATER_NS + number, LATER_NS + number))
    return Corpus(read_manifest(folder / "manifest.csv"), folder / "features")


@pytest.fixture
def own(corpus: Corpus, tmp_path: Path) -> Corpus:
    return copied(corpus, tmp_path / "own")


def inodes(features_dir: Path) -> dict[str, int]:
    return {
        f"{file.parent.name}/{file.name}": file.stat().st_ino
        for file in features_dir.glob("*/values.npy")
    }


def hidden_in(features_dir: Path) -> set[str]:
    return {name for name in names_in(features_dir) if name.startswith(".")}


def other_content(path: Path) -> None:
    """One sample of another value, at the time of change that it has."""
    found = path.stat()
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def encoded(steps: Iterator[Progress] | list[Progress]) -> list[str]:
    """The clips of which something was computed."""
    return [step.task for step in steps if step.files]


def test_a_copied_corpus_is_trained_on_and_its_stores_stay_as_they_are(own: Corpus) -> None:
    before = {file: file.read_bytes() for file in own.features_dir.rglob("*") if file.is_file()}
    own.features()
    after = {file: file.read_bytes() for file in own.features_dir.rglob("*") if file.is_file()}
    assert after.pop(own.features_dir / SEEN)
    assert after == before


def test_a_copied_file_is_read_once(own: Corpus) -> None:
    clips._hash.cache_clear()
    for context in CONTEXTS:
        own.features("hidden_state", context)
        own.features("extract_feature", context)
    assert clips._hash.cache_info().misses == 40
    clips._hash.cache_clear()  # as another process finds it
    own.features("hidden_state")
    own.features("extract_feature")
    assert clips._hash.cache_info().misses == 0


def test_a_copy_of_a_copy_is_read_again_and_both_are_known(own: Corpus, tmp_path: Path) -> None:
    own.features()
    second = Corpus(copied(own, tmp_path / "second").manifest, own.features_dir)
    for wav in (tmp_path / "second" / "wav").iterdir():
        os.utime(wav, ns=(7, 7))
    second.features()
    clips._hash.cache_clear()
    own.features()
    second.features()
    assert clips._hash.cache_info().misses == 0


def test_a_file_that_changed_since_it_was_seen_is_refused_and_the_others_stay_known(
    own: Corpus,
) -> None:
    own.features()
    wavs = sorted(own.manifest.audio_path(utterance) for utterance in own.manifest.utterances)
    other_content(wavs[7])
    for wav in wavs[7:9]:
        os.utime(wav, ns=(7, 7))
    clips._hash.cache_clear()
    with pytest.raises(
        ValueError, match=rf"{wavs[7]}: is not the file that was encoded \(another content\)"
    ):
        own.features()
    # The second one is read beside the first, which may be refused before.
    assert clips._hash.cache_info().misses in (1, 2)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY of old", "of another shape"], ids=["empty", "damaged", "shape"]
)
def test_what_was_seen_is_no_more_than_a_saving_of_time(own: Corpus, content: bytes | str) -> None:
    file = own.features_dir / SEEN
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, np.zeros((3, 5)))
    own.features()
    clips._hash.cache_clear()
    own.features()
    assert clips._hash.cache_info().misses == 0
    assert np.load(file).shape == (40, 4)


def test_a_folder_that_cannot_be_written_to_is_read_every_time(own: Corpus) -> None:
    (own.features_dir / SEEN).mkdir()  # nothing can be written in its place, whoever asks
    before = names_in(own.features_dir)
    for _ in range(2):
        clips._hash.cache_clear()
        own.features()
        assert clips._hash.cache_info().misses == 40
    assert names_in(own.features_dir) == before


def test_what_was_not_copied_is_not_read(corpus: Corpus) -> None:
    clips._hash.cache_clear()
    corpus.features()
    assert encode(corpus.manifest, corpus.features_dir)
    assert clips._hash.cache_info().misses == 0


def test_encoding_a_copied_corpus_takes_its_times_over_and_encodes_nothing(
    own: Corpus, corpus: Corpus
) -> None:
    before, old = inodes(own.features_dir), own.features().speech.values.copy()
    steps = encode(own.manifest, own.features_dir)
    assert encoded(steps) == []
    assert "checking audio" not in {step.task for step in steps}
    assert inodes(own.features_dir) == before
    store = own.features().speech
    assert set(store.stamps[:, 1].tolist()) == {LATER_NS + number for number in range(40)}
    np.testing.assert_array_equal(store.values, old)
    clips._hash.cache_clear()
    own.features()
    assert encoded(encode(own.manifest, own.features_dir)) == []
    assert clips._hash.cache_info().misses == 0
    assert [
        name
        for name in names_in(own.features_dir)
        if name.startswith(".") and name not in (".lock", SEEN)
    ] == []


def test_a_store_keeps_its_order_when_times_are_taken_over(own: Corpus, tmp_path: Path) -> None:
    second = Corpus(write_corpus(tmp_path / "second", prefix="second-"), own.features_dir)
    encode(second.manifest, own.features_dir)
    keys, before = (
        find_store(own.features_dir, "audio", feature="hidden_state").keys.copy(),
        inodes(own.features_dir),
    )
    for wav in (tmp_path / "own" / "wav").iterdir():
        os.utime(wav, ns=(5, 5))
    assert encoded(encode(own.manifest, own.features_dir)) == []
    store = find_store(own.features_dir, "audio", feature="hidden_state")
    np.testing.assert_array_equal(store.keys, keys)
    assert inodes(own.features_dir) == before
    for corpus in (own, second):
        corpus.features()
        assert encoded(encode(corpus.manifest, own.features_dir)) == []


@pytest.mark.parametrize("is_old", [False, True])
def test_a_changed_file_of_the_same_size_is_refused_and_encoded_again(
    own: Corpus, is_old: bool
) -> None:
    if is_old:
        make_old(own.features_dir)
    wav = own.manifest.audio_path(own.manifest.utterances[7])
    other_content(wav)
    encode_first = own.features_dir  # what is recorded is the corpus from before the copy
    message = (
        r"has another time of change than the file that was encoded, whose content was not recorded"
        r" then; run: mmm encode"
        if is_old
        else rf"{wav}: is not the file that was encoded \(another content\)"
    )
    with pytest.raises(ValueError, match=message):
        own.features()
    steps = encode(own.manifest, encode_first)
    assert max(step.seconds for step in steps) > 0
    names = [len(step.files) for step in steps if step.files]
    assert sum(names) == (40 if is_old else 1)
    own.features()
    assert encoded(encode(own.manifest, own.features_dir)) == []


def test_a_file_of_another_size_is_refused_without_reading_the_others(own: Corpus) -> None:
    wav = own.manifest.audio_path(own.manifest.utterances[7])
    wav.write_bytes(wav.read_bytes() + b"\0\0")
    clips._hash.cache_clear()
    with pytest.raises(
        ValueError,
        match=rf"{wav}: is not the file that was encoded \(another size\), .*; run: mmm encode ",
    ):
        own.features()
    assert clips._hash.cache_info().misses == 0


def test_a_store_of_an_earlier_version_gets_hashes_and_checksums_and_nothing_is_encoded_again(
    corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(corpus.manifest.path.parent, tmp_path / "own")  # with its times
    own = Corpus(read_manifest(tmp_path / "own" / "manifest.csv"), tmp_path / "own" / "features")
    whole = {file: file.read_bytes() for file in own.features_dir.rglob("*.*") if file.is_file()}
    before = inodes(own.features_dir)
    make_old(own.features_dir)
    own.features()
    steps = encode(own.manifest, own.features_dir)
    assert encoded(steps) == []
    assert [step.done for step in steps if step.task == "comparing audio"] == list(range(1, 41))
    assert inodes(own.features_dir) == before
    assert {
        file: file.read_bytes() for file in own.features_dir.rglob("*.*") if file.is_file()
    } == whole
    hashes = find_store(own.features_dir, "audio", feature="hidden_state").audio_hashes
    assert {row.tobytes() for row in hashes} == {
        audio_hash(own.manifest.audio_path(u)) for u in own.manifest.utterances
    }


def test_a_kill_while_an_earlier_version_encoded_loses_nothing(
    own: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmm.encoders.jobs._LOOP_BUDGET", 2.0)
    features_dir = own.features_dir.parent / "others"
    steps = encode_speech(own.manifest, features_dir, small_speech_encoder(), ["hidden_state"])
    first = next(step for step in steps if step.files)
    steps.close()  # type: ignore[attr-defined]
    (partial,) = features_dir.glob(".*.partial")
    (partial / "store" / "audio_hashes.npy").unlink()
    write_json(partial / "plan.json", {"digest": "of an earlier version, which knew no hashes"})
    rest = list(encode_speech(own.manifest, features_dir, small_speech_encoder(), ["hidden_state"]))
    assert first.done + sum(len(step.files) for step in rest) == 40
    find_store(features_dir, "audio", feature="hidden_state").check("values")


def test_what_a_kill_at_the_very_end_leaves_is_removed_by_the_next_run(own: Corpus) -> None:
    encode(own.manifest, own.features_dir)
    for store in list_recipes(own.features_dir):
        left = own.features_dir / f".{store.name}.partial"
        left.mkdir()
        write_json(left / "plan.json", {"digest": "of the store that was moved to its place"})
    encode(own.manifest, own.features_dir)
    assert [
        name
        for name in names_in(own.features_dir)
        if name.startswith(".") and name not in (".lock", SEEN)
    ] == []


def test_a_copied_file_that_is_spoilt_is_refused_and_the_features_stay(own: Corpus) -> None:
    wav = own.manifest.audio_path(own.manifest.utterances[3])
    wav.write_bytes(b"RIFF" + bytes(wav.stat().st_size - 4))
    before = {path: (path / "stamps.npy").read_bytes() for path in list_recipes(own.features_dir)}
    with pytest.raises(BadFiles, match="1 of 40 audio files cannot be used"):
        encode(own.manifest, own.features_dir)
    assert {
        path: (path / "stamps.npy").read_bytes() for path in list_recipes(own.features_dir)
    } == before


def refusal(attempt: Callable[[], object]) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        attempt()
    return str(caught.value)


def copied_long_ago(own: Corpus) -> None:
    make_old(own.features_dir)


def without_a_context(own: Corpus) -> None:
    shutil.rmtree(find_store(own.features_dir, "text", context=2).path)


def without_an_audio_feature(own: Corpus) -> None:
    shutil.rmtree(find_store(own.features_dir, "audio", feature="extract_feature").path)


def with_new_rows(own: Corpus) -> None:
    lines = own.manifest.path.read_text().splitlines()
    fields = lines[1].split(",")
    own.manifest.path.write_text(
        "\n".join([*lines, ",".join(["new", "new dialogue", *fields[2:]])]) + "\n"
    )


def with_a_changed_file(own: Corpus) -> None:
    other_content(own.manifest.audio_path(own.manifest.utterances[7]))


def damaged(own: Corpus) -> None:
    file = find_store(own.features_dir, "text", context=2).path / "keys.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def with_a_damaged_recipe(own: Corpus) -> None:
    file = find_store(own.features_dir, "text", context=2).path / "recipe.json"
    file.write_text(file.read_text().replace('"context": 2', '"context": 3'))


@pytest.mark.parametrize(
    "fault",
    [
        copied_long_ago,
        without_a_context,
        without_an_audio_feature,
        with_new_rows,
        with_a_changed_file,
        damaged,
        with_a_damaged_recipe,
    ],
)
@pytest.mark.parametrize("folder", ["own", "a folder with 'quotes'"])
def test_the_printed_command_repairs_the_fault(
    corpus: Corpus, tmp_path: Path, fault: Callable[[Corpus], None], folder: str
) -> None:
    """The features are of 10 frames a second, 16 mels, 32 numbers a word and contexts 1 to 3: no
    default among them.
    """
    own = copied(corpus, tmp_path / folder)
    recipes = set(list_recipes(own.features_dir))
    fault(own)

    def attempt() -> None:
        manifest = read_manifest(own.manifest.path)
        for feature, context in (("hidden_state", 2), ("extract_feature", 2)):
            load_features(manifest, own.features_dir, feature, context)

    message = refusal(attempt)
    assert "--frame-rate 10 --num-mels 16 --text-width 32" in message
    run_printed(message)
    attempt()
    assert set(list_recipes(own.features_dir)) == recipes


def test_one_of_two_encoders_in_a_folder_is_removed_with_the_printed_command(own: Corpus) -> None:
    before = set(list_recipes(own.features_dir))
    list(
        encode_speech(
            own.manifest,
            own.features_dir,
            make_speech_encoder("fbank", frame_rate=20),
            ["hidden_state", "extract_feature"],
        )
    )
    message = refusal(own.features)
    assert "(fbank-10hz, fbank-20hz); say which: --speech fbank-10hz" in message
    run_printed(message)
    assert set(list_recipes(own.features_dir)) == before
    own.features()
    own.features("extract_feature")


def test_a_sweep_that_lacks_contexts_and_features_prints_one_command_for_all(own: Corpus) -> None:
    without_an_audio_feature(own)
    without_a_context(own)
    spec = SweepSpec(
        name="s",
        space="quick",
        manifest=str(own.manifest.path),
        features=str(own.features_dir),
        trials=1,
        epochs=1,
        workers=1,
    )
    drawn = [
        {"architecture": "mlp_mixer", "context": context, "audio_feature": feature}
        for context in (1, 2)
        for feature in ("hidden_state", "extract_feature")
    ]
    message = refusal(lambda: check_contexts(spec, drawn))
    assert (
        "no features for context=2 (found: 1, 3); no features for audio-feature=extract_feature"
        " (found: hidden_state); run:" in message
    )
    run_printed(message)
    check_contexts(spec, drawn)


FBANK = {
    "kind": "audio",
    "encoder": "fbank",
    "version": 1,
    "frame_rate_hz": 25.0,
    "num_mels": 64,
    "sample_rate_hz": 16000,
}
NGRAM = {"kind": "text", "encoder": "char-ngram", "version": 1, "width": 256, "max_tokens": 128}
HUB = {
    "kind": "audio",
    "encoder": "some/speech",
    "revision": "abc123",
    "version": 2,
    "precision": "bf16",
    "chunk_s": 20.0,
    "sample_rate_hz": 16000,
}
LOCAL = {
    "kind": "text",
    "encoder": "/models/a text",
    "revision": None,
    "files_sha256": "0",
    "version": 2,
    "precision": "bf16",
    "max_tokens": 128,
}


@pytest.mark.parametrize(
    ("recipes", "options"),
    [
        ([], ""),
        (
            [{**FBANK, "feature": f} for f in ("hidden_state", "extract_feature")]
            + [{**NGRAM, "context": c} for c in range(1, 6)],
            "",
        ),
        (
            [{**FBANK, "feature": "hidden_state", "frame_rate_hz": 100 / 7}],
            "--frame-rate 14.285714285714286 --audio-feature hidden_state",
        ),
        ([{**NGRAM, "context": 3, "max_tokens": 48}], "--max-tokens 48 --context 3"),
        (
            [
                {**HUB, "feature": "extract_feature"},
                {**HUB, "feature": "hidden_state", "layer": "mean:6,7"},
                {**LOCAL, "context": 1},
            ],
            (
                "--audio-encoder some/speech --frame-rate 0 --audio-revision abc123 --layer"
                " mean:6,7 --chunk-seconds 20 --text-encoder '/models/a text' --precision bf16"
                " --context 1"
            ),
        ),
        (
            [
                {
                    **HUB,
                    "feature": "hidden_state",
                    "frame_rate_hz": 12.5,
                    "precision": "fp16",
                    "chunk_s": 35.0,
                }
            ],
            (
                "--audio-encoder some/speech --frame-rate 12.5 --audio-revision abc123 --precision"
                " fp16 --device cuda --audio-feature hidden_state"
            ),
        ),
    ],
)
def test_a_command_says_of_recipes_what_is_no_default(
    recipes: list[dict[str, object]], options: str
) -> None:
    assert (
        encode_command("m.csv", "f", recipes) == f"mmm encode m.csv --features f {options}".rstrip()
    )
