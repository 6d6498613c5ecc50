"""A clip that serves several utterances is stored once; a store with a row for each of them, as
earlier versions wrote it, holds the same.
"""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmm.encoders.extract import encode_speech
from mmm.features.checksums import checksums_of
from mmm.features.named import find_store
from mmm.features.recipe import AUDIO_FEATURES, recipe_hash
from mmm.features.store import LARGE_FILES, SMALL_FILES, DamagedStore, FeatureStore, open_store
from mmm.features.writer import PartialStore, Plan
from mmm.files import write_json
from mmm.manifest import Manifest, speech_key
from mmm.manifest_csv import read_manifest
from search.ledger.data import Changes, describe
from tests.conftest import Corpus, encode, names_in, small_speech_encoder, trained
from tests.encode_parts import contents

CLIPS = 8  # of the 40 utterances


def share(manifest: Path, lines: slice = slice(None)) -> Manifest:
    """The same rows, or some, with the clip of every fifth for the four after it as well."""
    header, *rows = manifest.read_text(encoding="utf-8").splitlines()
    rows = [
        re.sub(r"wav/(\d+)\.wav", lambda found: f"wav/{int(found[1]) // 5 * 5:02}.wav", row)
        for row in rows
    ]
    manifest.write_text("\n".join([header, *rows[lines]]) + "\n", encoding="utf-8")
    return read_manifest(manifest)


@pytest.fixture
def own(corpus: Corpus, tmp_path: Path) -> Corpus:
    """A corpus of shared clips, encoded."""
    shutil.copytree(corpus.manifest.path.parent, tmp_path / "own")
    shutil.rmtree(tmp_path / "own" / "features")
    found = Corpus(share(tmp_path / "own" / "manifest.csv"), tmp_path / "own" / "features")
    encode(found.manifest, found.features_dir)
    return found


def of_utterances(store: FeatureStore, manifest: Manifest) -> list[bytes]:
    """What each utterance of a manifest has in a speech store."""
    rows = store.find([speech_key(manifest, index) for index in range(len(manifest.utterances))])
    assert (rows >= 0).all()
    ends = zip(store.offsets[rows], store.offsets[rows + 1], strict=True)
    return [
        store.values[start:end].tobytes()
        + store.pooled[row].tobytes()
        + store.stamps[row].tobytes()
        + store.audio_hashes[row].tobytes()
        for row, (start, end) in zip(rows, ends, strict=True)
    ]


def speech(features_dir: Path) -> FeatureStore:
    return find_store(features_dir, "audio", feature="hidden_state")


def to_old_form(path: Path) -> None:
    """A row for each utterance, as earlier versions wrote them."""
    store = open_store(path)
    lengths = np.diff(store.offsets)[store.rows]
    ends = zip(store.offsets[store.rows], store.offsets[store.rows + 1], strict=True)
    values = np.concatenate([store.values[start:end] for start, end in ends])
    for name, array in (
        ("values", values),
        ("offsets", np.concatenate([[0], np.cumsum(lengths)])),
        *((name, getattr(store, name)[store.rows]) for name in ("pooled", "stamps")),
        ("audio_hashes", store.audio_hashes[store.rows]),
    ):
        np.save(path / f"new-{name}.npy", array)
        os.replace(path / f"new-{name}.npy", path / f"{name}.npy")
    (path / "rows.npy").unlink()
    write_json(path / "checksums.json", checksums_of(path, SMALL_FILES, LARGE_FILES).as_json())


def old_form_of(features_dir: Path, copy: Path) -> Path:
    shutil.copytree(features_dir, copy)
    for feature in AUDIO_FEATURES:
        to_old_form(find_store(copy, "audio", feature=feature).path)
    return copy


def test_a_clip_of_several_utterances_is_stored_once(own: Corpus, corpus: Corpus) -> None:
    store, apart = speech(own.features_dir), speech(corpus.features_dir)
    assert (len(store.keys), len(store.pooled), len(store.stamps)) == (40, CLIPS, CLIPS)
    assert len(store.offsets) == CLIPS + 1
    assert len(apart.pooled) == 40
    sizes = [found.path / "values.npy" for found in (store, apart)]
    assert sizes[0].stat().st_size < sizes[1].stat().st_size / 4
    assert "rows.npy" in json.loads((store.path / "checksums.json").read_text())["files"]
    assert (apart.path / "rows.npy").exists() is False
    found = of_utterances(store, own.manifest)
    assert len(set(found)) == CLIPS
    of_clip = {u.audio: one for u, one in zip(own.manifest.utterances, found, strict=True)}
    assert [of_clip[utterance.audio] for utterance in own.manifest.utterances] == found


def test_training_on_the_old_form_gives_the_same_numbers(own: Corpus, tmp_path: Path) -> None:
    old = dataclasses.replace(own, features_dir=old_form_of(own.features_dir, tmp_path / "old"))
    store = speech(old.features_dir)
    assert (len(store.keys), len(store.pooled)) == (40, 40)
    assert of_utterances(store, own.manifest) == of_utterances(
        speech(own.features_dir), own.manifest
    )
    for architecture in ("three_way_concat", "mlp_mixer"):
        runs = [trained(one, architecture, epochs=2) for one in (own, old)]
        assert runs[0].best_metrics == runs[1].best_metrics
        for name, weight in runs[0].model.state_dict().items():
            np.testing.assert_array_equal(weight, runs[1].model.state_dict()[name], name)


def test_a_sweep_on_the_old_form_goes_on_when_all_is_encoded_anew(
    own: Corpus, tmp_path: Path
) -> None:
    old = dataclasses.replace(own, features_dir=old_form_of(own.features_dir, tmp_path / "old"))
    before, now = (
        describe(one.manifest, one.features_dir, [one.features(name) for name in AUDIO_FEATURES])
        for one in (old, own)
    )
    contents_of = [{one.digest: one.content for one in note.stores} for note in (before, now)]
    assert contents_of[0] == contents_of[1]
    assert sum(content is not None for content in contents_of[0].values()) == 3
    assert Changes(before, now).what == []


def test_encoding_again_into_the_old_form_leaves_it_as_it_is(own: Corpus, tmp_path: Path) -> None:
    old = old_form_of(own.features_dir, tmp_path / "old")
    before = contents(old)
    assert [step.task for step in encode(own.manifest, old) if step.files] == []
    assert contents(old) == before
    for utterance in own.manifest.utterances:
        os.utime(own.manifest.audio_path(utterance), ns=(5, 5))
    assert [step.task for step in encode(own.manifest, old) if step.files] == []
    after = contents(old)
    assert {name for name in before if before[name] != after[name]} == {
        f"{find_store(old, 'audio', feature=feature).path.name}/{file}"
        for feature in AUDIO_FEATURES
        for file in ("stamps.npy", "checksums.json")
    }


def test_a_store_of_the_old_form_that_gets_utterances_is_written_in_the_new(
    own: Corpus, tmp_path: Path
) -> None:
    expected = contents(own.features_dir)
    path = own.manifest.path
    whole = path.read_text(encoding="utf-8")
    some = share(path, slice(33))
    shutil.rmtree(own.features_dir)
    encode(some, own.features_dir)
    for feature in AUDIO_FEATURES:
        to_old_form(find_store(own.features_dir, "audio", feature=feature).path)
    path.write_text(whole, encoding="utf-8")
    manifest = read_manifest(path)
    steps = encode(manifest, own.features_dir)
    # Of the clips of the last seven utterances one serves others that were there.
    assert sum(len(step.files) for step in steps) == 1
    assert contents(own.features_dir) == expected


@pytest.mark.parametrize("form", ["new", "old"])
def test_what_a_kill_left_goes_on(
    own: Corpus, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what an earlier version left, with a row for each utterance."""
    monkeypatch.setattr("mmm.encoders.jobs._LOOP_BUDGET", 1.0)
    features_dir = tmp_path / "features"
    if form == "new":
        steps = encode_speech(own.manifest, features_dir, small_speech_encoder(), AUDIO_FEATURES)
        first = next(step for step in steps if step.files)
        steps.close()  # type: ignore[attr-defined]
        num_done = len(first.files)
    else:
        features_dir.mkdir()
        num_done = 3
        for feature in AUDIO_FEATURES:
            store = find_store(own.features_dir, "audio", feature=feature)
            lengths, rows = np.diff(store.offsets), store.rows
            plan = Plan(
                store.recipe,
                store.width,
                store.keys,
                store.stamps[rows],
                lengths[rows],
                store.audio_hashes[rows],
            )
            partial = PartialStore(features_dir / recipe_hash(store.recipe), plan)
            for number, row in enumerate(rows.tolist()):
                if row < num_done:
                    values = store.values[store.offsets[row] : store.offsets[row + 1]]
                    partial.put(number, values, store.pooled[row])
            partial.close()
    steps = encode_speech(own.manifest, features_dir, small_speech_encoder(), AUDIO_FEATURES)
    found = list(steps)
    assert sum(len(step.files) for step in found) == CLIPS - num_done
    assert (found[-1].done, found[-1].total) == (40, 40)
    expected = contents(own.features_dir)
    after = contents(features_dir)
    assert {name: expected[name] for name in after} == after
    assert len(names_in(features_dir)) == 3  # two stores and the lock


def test_two_manifests_of_the_same_clips_share_their_rows(own: Corpus, tmp_path: Path) -> None:
    whole = own.manifest.path.read_text(encoding="utf-8")
    before = of_utterances(speech(own.features_dir), own.manifest)
    part = own.manifest.path.with_name("part.csv")
    header, *rows = whole.splitlines()
    # Utterances of the first clip, two of another under other names, and a clip of its own.
    rows = [*rows[1:5], *(f"again-{row}" for row in rows[22:24]), f"more-{rows[39]}"]
    rows[-1] = rows[-1].replace("wav/35.wav", "wav/39.wav")
    part.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    second = read_manifest(part)
    encode(second, own.features_dir)
    store = speech(own.features_dir)
    # A clip under a name that the store does not know is a row of its own.
    assert (len(store.keys), len(store.pooled)) == (43, CLIPS + 2)
    assert of_utterances(store, own.manifest) == before
    assert len(set(of_utterances(store, second))) == 3
    kept = contents(own.features_dir)
    for manifest in (own.manifest, second):
        assert not [step for step in encode(manifest, own.features_dir) if step.files]
        dataclasses.replace(own, manifest=manifest).features()
    assert contents(own.features_dir) == kept


def test_a_changed_clip_is_encoded_once_and_all_its_utterances_have_it(own: Corpus) -> None:
    before = of_utterances(speech(own.features_dir), own.manifest)
    clip = own.manifest.audio_path(own.manifest.utterances[12])
    content = bytearray(clip.read_bytes())
    content[2000:4000] = bytes(2000)
    clip.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not the file that was encoded \(another content\)"):
        own.features()
    steps = encode(own.manifest, own.features_dir)
    assert sum(len(step.files) for step in steps) == 1
    after = of_utterances(speech(own.features_dir), own.manifest)
    assert len(speech(own.features_dir).pooled) == CLIPS
    changed = [index for index in range(40) if before[index] != after[index]]
    served = [i for i, u in enumerate(own.manifest.utterances) if u.audio == "wav/10.wav"]
    assert changed == served
    own.features()


@pytest.mark.parametrize("fault", ["missing", "flipped", "out of range"])
def test_a_store_without_the_way_to_its_rows_is_refused(own: Corpus, fault: str) -> None:
    path = speech(own.features_dir).path
    file = path / "rows.npy"
    if fault == "missing":
        file.unlink()
    elif fault == "flipped":
        content = bytearray(file.read_bytes())
        content[-8] ^= 1
        file.write_bytes(content)
    else:
        np.save(file, np.full(40, CLIPS))
        (path / "checksums.json").unlink()
    with pytest.raises(DamagedStore, match=rf"make it again: rm -r {path} && mmm encode"):
        open_store(path)
