"""A bundle that reads who speaks: prediction agrees with evaluation, and a turn without a speaker
is refused with what to give.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mmm.bundle.read import load_bundle, load_bundle_or_ensemble
from mmm.bundle.write import save_run_bundle, write_ensemble
from mmm.cli.app import app
from mmm.encoders.extract import encode_speech, encode_text
from mmm.features.recipe import AUDIO_FEATURES
from mmm.manifest import Utterance
from mmm.predict.inputs import JsonLines
from mmm.predict.page import build
from mmm.predict.predictor import Predictor
from mmm.training.evaluate import probabilities
from mmm.training.run import Run
from search.tracking.registry import example_input
from search.tracking.serving import ServedBundle
from tests.conftest import Corpus, small_speech_encoder, small_text_encoder, trained

CPU = torch.device("cpu")
MISSING = "reads who speaks, and the turn {} has no speaker; give each turn one, '' where nobody"


@pytest.fixture(scope="module")
def named(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("named")
    list(encode_speech(corpus.manifest, folder, small_speech_encoder(), AUDIO_FEATURES))
    list(encode_text(corpus.manifest, folder, small_text_encoder(), (1, 3, 8), with_speakers=True))
    return Corpus(corpus.manifest, folder)


@pytest.fixture(scope="module")
def run(named: Corpus) -> Run:
    return trained(named, "vanilla_concat", lr=1e-2, context=3)


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "named"
    save_run_bundle(run, path, name="named")
    return path


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(load_bundle(bundle))


@pytest.fixture
def dialogue(corpus: Corpus) -> list[Utterance]:
    """Of validation, in order."""
    turns = [one for one in corpus.manifest.utterances if one.dialogue_id == "s3d0"]
    return sorted(turns, key=lambda turn: turn.turn)


@pytest.mark.parametrize(("architecture", "context"), [("mlp_mixer", 1), ("vanilla_concat", 8)])
def test_prediction_with_speakers_is_what_evaluation_gives(
    named: Corpus, tmp_path: Path, architecture: str, context: int
) -> None:
    run = trained(named, architecture, lr=1e-2, context=context)
    save_run_bundle(run, tmp_path / "bundle", name=architecture)
    manifest, predictor = named.manifest, Predictor(load_bundle(tmp_path / "bundle"))
    assert predictor.with_speakers
    expected = probabilities(run.model, run.dev, CPU)
    for row, index in enumerate(run.dev.indices.tolist()):
        now, *before = (manifest.utterances[place] for place in manifest.history(index, 99))
        history = [
            (manifest.audio_path(turn), turn.text, turn.speaker) for turn in reversed(before)
        ]
        clip = manifest.audio_path(now)
        found = predictor.predict(clip, now.text, history, speaker=now.speaker)
        np.testing.assert_allclose(list(found.values()), expected[row], rtol=0, atol=1e-5)
        other = predictor.predict(clip, now.text, history, speaker="somebody else")
        assert other != found


def test_a_turn_without_a_speaker_is_refused_and_nobody_knows_is_taken(
    predictor: Predictor, corpus: Corpus
) -> None:
    clip = corpus.manifest.audio_path(corpus.manifest.utterances[0])
    with pytest.raises(ValueError, match=MISSING.format("'hello'")):
        predictor.predict(clip, "hello")
    with pytest.raises(ValueError, match=MISSING.format("'before'")):
        predictor.predict(clip, "hello", [(None, "before")], speaker="a")
    with pytest.raises(ValueError, match=MISSING.format("'hello'")):
        predictor.predict_many([(clip, "hello")])
    with pytest.raises(ValueError, match=MISSING.format("'before'")):
        predictor.predict_dialogue([(None, "before"), (clip, "hello", "a")])
    unknown = predictor.predict(clip, "hello", [(None, "before", "")], speaker="")
    assert unknown != predictor.predict(clip, "hello", [(None, "before", "a")], speaker="b")


def test_a_bundle_that_does_not_read_speakers_does_not_miss_them(
    corpus: Corpus, tmp_path: Path
) -> None:
    save_run_bundle(trained(corpus, "vanilla_concat", context=2), tmp_path / "plain", name="plain")
    plain = Predictor(load_bundle(tmp_path / "plain"))
    assert not plain.with_speakers
    clip = corpus.manifest.audio_path(corpus.manifest.utterances[0])
    expected = plain.predict(clip, "hello", [(None, "before")])
    assert plain.predict(clip, "hello", [(None, "before", "a")], speaker="b") == expected


def test_an_ensemble_of_bundles_with_and_without_speakers_gives_each_what_it_reads(
    corpus: Corpus, run: Run, dialogue: list[Utterance], tmp_path: Path
) -> None:
    save_run_bundle(run, tmp_path / "members" / "named", name="named")
    plain = trained(corpus, "vanilla_concat", lr=1e-2, context=2)
    save_run_bundle(plain, tmp_path / "members" / "plain", name="plain")
    write_ensemble(tmp_path, name="both", members=("members/named", "members/plain"))
    turns = [(corpus.manifest.audio_path(turn), turn.text, turn.speaker) for turn in dialogue]
    members = [
        Predictor(load_bundle(tmp_path / "members" / name)).predict_dialogue(turns)[-1]
        for name in ("named", "plain")
    ]
    found = Predictor(load_bundle_or_ensemble(tmp_path)).predict_dialogue(turns)[-1]
    assert found is not None
    mean = np.mean([list(one.values()) for one in members if one is not None], axis=0)
    np.testing.assert_allclose(list(found.values()), mean, atol=1e-6)


def test_the_command_line_takes_speakers_of_an_utterance_and_its_history(
    bundle: Path, predictor: Predictor, corpus: Corpus
) -> None:
    clip = corpus.manifest.audio_path(corpus.manifest.utterances[0])
    words = ["predict", str(bundle), "--audio", str(clip), "--text", "hello", "--json"]
    history = ["--history", "well", "--history", "before"]
    done = CliRunner().invoke(app, [*words, *history])
    assert "has no speaker" in str(done.exception)
    speakers = ["--speaker", "a", "--history-speaker", "b", "--history-speaker", ""]
    done = CliRunner().invoke(app, [*words, *history, *speakers], catch_exceptions=False)
    expected = predictor.predict(
        clip, "hello", [(None, "well", "b"), (None, "before", "")], speaker="a"
    )
    assert json.loads(done.output) == pytest.approx(expected)
    done = CliRunner().invoke(app, [*words, *history, *speakers[:4]])
    assert "1 --history-speaker for 2 --history" in str(done.exception)
    done = CliRunner().invoke(app, ["predict", str(bundle), "--jsonl", "--speaker", "a"])
    assert "--speaker goes with --audio or --folder" in str(done.exception)


def test_a_dialogue_has_a_column_and_a_folder_one_speaker(
    bundle: Path, predictor: Predictor, corpus: Corpus, dialogue: list[Utterance], tmp_path: Path
) -> None:
    clips = [corpus.manifest.audio_path(turn) for turn in dialogue]
    turns = [(clip, one.text, one.speaker) for clip, one in zip(clips, dialogue, strict=True)]
    turns[1] = (turns[1][0], turns[1][1], "")  # nobody knows
    table = tmp_path / "dialogue.csv"
    for columns in (("audio", "text", "speaker"), ("audio", "text")):
        with open(table, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *(turn[: len(columns)] for turn in turns)])
        words = ["predict", str(bundle), "--dialogue", str(table), "--json"]
        done = CliRunner().invoke(app, words)
        if "speaker" not in columns:
            assert "has no speaker" in str(done.exception)
            continue
        found = [json.loads(line)["probabilities"] for line in done.output.splitlines()]
        for one, expected in zip(found, predictor.predict_dialogue(turns), strict=True):
            assert one == pytest.approx(expected)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.wav").write_bytes(clips[0].read_bytes())
    words = ["predict", str(bundle), "--folder", str(tmp_path / "folder"), "--text", "hi", "--json"]
    assert "has no speaker" in str(CliRunner().invoke(app, words).exception)
    done = CliRunner().invoke(app, [*words, "--speaker", "a"], catch_exceptions=False)
    assert json.loads(done.output)["probabilities"] == pytest.approx(
        predictor.predict(clips[0], "hi", speaker="a")
    )


def test_a_stream_has_a_field_and_remembers_who_spoke(
    predictor: Predictor, corpus: Corpus, dialogue: list[Utterance]
) -> None:
    turns = [(str(corpus.manifest.audio_path(one)), one.text, one.speaker) for one in dialogue]
    requests = [
        {"audio": audio, "text": text, "speaker": speaker, "dialogue": "d"}
        for audio, text, speaker in turns
    ]
    requests.append({"audio": turns[0][0], "text": "hi", "dialogue": "d"})
    requests.append({"audio": turns[0][0], "text": "hi", "speaker": "x" * 1001})
    requests.append({"audio": turns[0][0], "text": "hi", "speaker": 3})  # type: ignore[dict-item]
    *answers, without, long, odd = JsonLines(predictor).answers(
        json.dumps(one).encode() for one in requests
    )
    expected = predictor.predict_dialogue([(Path(a), text, name) for a, text, name in turns])
    for found, wanted in zip(answers, expected, strict=True):
        assert found["probabilities"] == pytest.approx(wanted)
    assert "the turn 'hi' has no speaker" in without["error"]
    assert "speaker: a name of 1,001 characters; expected at most 1,000" in long["error"]
    assert "speaker: expected text, found int" in odd["error"]


def test_a_served_model_takes_the_columns_and_its_example_has_them(bundle: Path) -> None:
    served = ServedBundle(bundle)
    row = example_input(served.predictor.with_speakers)
    assert len(served.predict(row)) == 1
    with pytest.raises(ValueError, match="has no speaker"):
        served.predict(row.drop(columns=["speaker"]))
    row["history_speaker"] = [["a", "b"]]
    with pytest.raises(ValueError, match="row 0: 2 history_speaker for 1 history; give one for"):
        served.predict(row)


def test_the_page_asks_who_speaks_where_it_is_read(predictor: Predictor) -> None:
    boxes = {
        block.label: block.visible
        for block in build(predictor).blocks.values()
        if type(block).__name__ == "Textbox"
    }
    assert boxes == {"Text": True, "Speaker": True}
