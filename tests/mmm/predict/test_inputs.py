"""Dialogues, folders and JSON lines: what they answer is what a single prediction gives, and what
is wrong is said.
"""

import base64
import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmm
import mmm.cli.app
from mmm.audio.speech import read_speech
from mmm.bundle.write import save_run_bundle, write_ensemble
from mmm.manifest import Utterance
from mmm.predict.inputs import JsonLines, read_dialogue, read_folder
from mmm.predict.predictor import Predictor
from tests.conftest import Corpus, trained
from tests.sweep_parts import TIMEOUT_S, environment

TOLERANCE = 1e-5  # a batch adds in another order than one utterance


@pytest.fixture(scope="module")
def bundles(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pooled` (context 3), `sequence` (context 2), and an `ensemble` of the same."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, architecture, context in (
        ("pooled", "vanilla_concat", 3),
        ("sequence", "mlp_mixer", 2),
    ):
        feature = "hidden_state" if name == "pooled" else "extract_feature"
        run = trained(corpus, architecture, lr=1e-2, context=context, audio_feature=feature)
        for path in (folder / name, folder / "ensemble" / "members" / name):
            save_run_bundle(run, path, name=name)
    write_ensemble(
        folder / "ensemble",
        name="both",
        members=("members/pooled", "members/sequence"),
    )
    return folder


@pytest.fixture(scope="module")
def predictors(bundles: Path) -> dict[str, Predictor]:
    return {name: mmm.load(bundles / name) for name in ("pooled", "sequence", "ensemble")}


@pytest.fixture
def dialogue(corpus: Corpus) -> list[Utterance]:
    """Eight turns in order."""
    turns = [u for u in corpus.manifest.utterances if u.dialogue_id == "s2d0"]
    return sorted(turns, key=lambda turn: turn.turn)


def one_by_one(
    predictor: Predictor, corpus: Corpus, dialogue: Sequence[Utterance]
) -> list[dict[str, float]]:
    turns = [(corpus.manifest.audio_path(turn), turn.text) for turn in dialogue]
    return [predictor.predict(*turn, turns[:place]) for place, turn in enumerate(turns)]


def assert_close(
    found: Sequence[dict[str, float] | None], expected: Sequence[dict[str, float]]
) -> None:
    assert [list(row) if row else None for row in found] == [list(row) for row in expected]
    rows = [list(row.values()) for row in found if row]
    np.testing.assert_allclose(
        rows, [list(row.values()) for row in expected], rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("name", ["pooled", "sequence", "ensemble"])
def test_a_dialogue_is_predicted_turn_by_turn_with_what_was_said_before(
    corpus: Corpus, predictors: dict[str, Predictor], dialogue: list[Utterance], name: str
) -> None:
    predictor = predictors[name]
    expected = one_by_one(predictor, corpus, dialogue)
    turns = [(corpus.manifest.audio_path(turn), turn.text) for turn in dialogue]
    assert_close(predictor.predict_dialogue(turns), expected)
    without_context = [predictor.predict(*turn) for turn in turns]
    assert (
        max(
            abs(a[key] - b[key])
            for a, b in zip(expected, without_context, strict=True)
            for key in a
        )
        > 1e-4
    )


@pytest.mark.parametrize("name", ["pooled", "sequence", "ensemble"])
def test_many_utterances_at_once_are_predicted_as_one_by_one(
    corpus: Corpus, predictors: dict[str, Predictor], name: str
) -> None:
    predictor = predictors[name]
    utterances = corpus.manifest.utterances
    queries = [
        (
            corpus.manifest.audio_path(u),
            u.text,
            [(None, "well"), (corpus.manifest.audio_path(utterances[0]), "so")],
        )
        for u in utterances
    ]
    assert len(queries) > 32  # more than a batch
    assert_close(predictor.predict_many(queries), [predictor.predict(*query) for query in queries])
    assert predictor.predict_many([]) == []


def test_an_ensemble_gives_the_mean_of_its_members(
    corpus: Corpus, predictors: dict[str, Predictor]
) -> None:
    audio = corpus.manifest.audio_path(corpus.manifest.utterances[1])
    pooled, sequence, both = (
        predictors[name].predict(audio, "great") for name in ("pooled", "sequence", "ensemble")
    )
    assert pooled != sequence
    assert both == pytest.approx(
        {label: (pooled[label] + sequence[label]) / 2 for label in pooled}, abs=1e-6
    )


def test_file_samples_content_and_encoded_speech_predict_the_same(
    corpus: Corpus, predictors: dict[str, Predictor]
) -> None:
    predictor, path = (
        predictors["ensemble"],
        corpus.manifest.audio_path(corpus.manifest.utterances[1]),
    )
    expected = predictor.predict(path, "no!")
    for audio in (read_speech(path), path.read_bytes(), predictor.hear(path)):
        assert predictor.predict(audio, "no!") == expected


def test_a_turn_without_speech_is_context_and_not_predicted(
    corpus: Corpus, predictors: dict[str, Predictor]
) -> None:
    predictor, path = (
        predictors["pooled"],
        corpus.manifest.audio_path(corpus.manifest.utterances[1]),
    )
    found = predictor.predict_dialogue([(None, "hello"), (path, "no!")])
    assert found[0] is None
    assert_close(found[1:], [predictor.predict(path, "no!", [(None, "hello")])])


def write_dialogue(corpus: Corpus, dialogue: Sequence[Utterance], path: Path) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = [(turn.speaker, corpus.manifest.audio_path(turn), turn.text) for turn in dialogue]
        csv.writer(file).writerows([("speaker", "audio", "text"), *rows])
    return path


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`mmm predict` in this process: status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmm", "predict", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            mmm.cli.app.main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return call


def test_the_command_predicts_a_dialogue(
    corpus: Corpus,
    bundles: Path,
    predictors: dict[str, Predictor],
    dialogue: list[Utterance],
    predict: Call,
    tmp_path: Path,
) -> None:
    path = write_dialogue(corpus, dialogue, tmp_path / "turns.csv")
    status, out, err = predict(bundles / "pooled", "--dialogue", path, "--json")
    assert (status, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert_close(
        [line["probabilities"] for line in found],
        one_by_one(predictors["pooled"], corpus, dialogue),
    )
    assert [line["speaker"] for line in found] == [turn.speaker for turn in dialogue]
    assert all(
        line["prediction"] == max(line["probabilities"], key=line["probabilities"].get)
        for line in found
    )
    status, out, _ = predict(bundles / "pooled", "--dialogue", path, "-o", tmp_path / "found.csv")
    assert (status, out) == (0, f"wrote {tmp_path / 'found.csv'}: 8 utterances\n")
    with open(tmp_path / "found.csv", newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [row["prediction"] for row in written] == [line["prediction"] for line in found]
    assert [float(row["happy"]) for row in written] == pytest.approx(
        [line["probabilities"]["happy"] for line in found], abs=1e-6
    )
    status, out, _ = predict(bundles / "pooled", "--dialogue", path)
    assert status == 0
    assert all(word in out for word in ("speaker", "prediction", *predictors["pooled"].labels))


def test_the_command_predicts_a_folder_with_texts_beside_the_recordings(
    corpus: Corpus, bundles: Path, predictors: dict[str, Predictor], predict: Call, tmp_path: Path
) -> None:
    for place in (1, 2, 3):
        utterance = corpus.manifest.utterances[place]
        (tmp_path / f"{place}.wav").write_bytes(corpus.manifest.audio_path(utterance).read_bytes())
        if place != 2:
            (tmp_path / f"{place}.txt").write_text(f"\ufeff{utterance.text}\n", encoding="utf-8")
    status, out, err = predict(bundles / "sequence", "--folder", tmp_path, "--json")
    assert (status, out) == (2, "")
    assert (
        "1 of 3 recordings have no text beside them (2.wav); expected 2.txt in UTF-8, or give"
        " --text" in err
    )
    status, out, _ = predict(bundles / "sequence", "--folder", tmp_path, "--text", "", "--json")
    texts = [corpus.manifest.utterances[1].text, "", corpus.manifest.utterances[3].text]
    found = [json.loads(line) for line in out.splitlines()]
    assert [line["text"] for line in found] == texts
    expected = [
        predictors["sequence"].predict(tmp_path / f"{place}.wav", text)
        for place, text in enumerate(texts, start=1)
    ]
    assert_close([line["probabilities"] for line in found], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected one of --audio with --text, --dialogue, --folder or --jsonl; found none"),
        (("--jsonl", "--folder", "x"), "found --folder and --jsonl"),
        (("--audio", "x.wav"), "--audio without --text"),
        (("--jsonl", "--history", "x"), "--history goes with --audio, not with --jsonl"),
        (("--jsonl", "--text", "x"), "--text goes with --audio or --folder, not with --jsonl"),
        (("--jsonl", "--out", "x"), "--out goes with --dialogue or --folder"),
        (("--folder", "nowhere"), "nowhere: no such folder"),
        (
            ("--dialogue", "nowhere.csv"),
            "nowhere.csv: no such dialogue; expected a CSV with the columns audio and text",
        ),
    ],
)
def test_what_does_not_go_together_is_said(
    predict: Call, arguments: tuple[str, ...], message: str
) -> None:
    status, out, err = predict("no-bundle", *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_every_fault_of_a_dialogue_is_listed(tmp_path: Path) -> None:
    (tmp_path / "turns.csv").write_text("audio,text\nx.wav,hello\n,well\ny.wav,a,b\nz.wav\n")
    with pytest.raises(
        ValueError,
        match=(
            r"turns\.csv: line 2: no such audio file .*x\.wav; line 4: more or fewer .*; line 5:"
            r" more or"
        ),
    ):
        read_dialogue(tmp_path / "turns.csv")
    for content, message in (
        (b"text\nhi\n", "line 1: no column audio"),
        (b"audio,text\n", "no turns below the header"),
        ("audio,text\n,그래\n".encode("cp949"), "not UTF-8"),
        (b'audio,text\n,"a\n', "not CSV"),
    ):
        (tmp_path / "turns.csv").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_dialogue(tmp_path / "turns.csv")
    with pytest.raises(FileNotFoundError, match=r"no recordings in it \(looked for \.wav"):
        read_folder(tmp_path)


def answers(predictor: Predictor, *requests: object) -> list[dict[str, Any]]:
    lines = [
        request if isinstance(request, bytes) else json.dumps(request).encode()
        for request in requests
    ]
    return list(JsonLines(predictor).answers(lines))


def test_a_stream_remembers_the_turns_of_each_dialogue(
    corpus: Corpus, predictors: dict[str, Predictor], dialogue: list[Utterance]
) -> None:
    predictor = predictors["pooled"]
    requests = []
    for turn in dialogue:  # two dialogues, interleaved; one sends files, the other their content
        path = corpus.manifest.audio_path(turn)
        content = base64.b64encode(path.read_bytes()).decode()
        requests += [
            {"audio": str(path), "text": turn.text, "dialogue": "a", "id": turn.turn},
            {"audio_base64": content, "text": turn.text, "dialogue": "b"},
        ]
    found = answers(predictor, *requests)
    expected = one_by_one(predictor, corpus, dialogue)
    assert_close([line["probabilities"] for line in found[::2]], expected)
    assert_close([line["probabilities"] for line in found[1::2]], expected)
    assert [line["id"] for line in found[::2]] == [turn.turn for turn in dialogue]
    path = str(corpus.manifest.audio_path(dialogue[0]))
    history = [{"text": "hello"}, {"text": "no", "audio": path}]
    (found_one,) = answers(predictor, {"audio": path, "text": "well", "history": history})
    assert found_one["probabilities"] == predictor.predict(
        Path(path), "well", [(None, "hello"), (Path(path), "no")]
    )


def test_a_line_that_cannot_be_answered_is_answered_with_its_error_and_the_stream_goes_on(
    corpus: Corpus, predictors: dict[str, Predictor], tmp_path: Path
) -> None:
    path = str(corpus.manifest.audio_path(corpus.manifest.utterances[1]))
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    good = {"audio": path, "text": "no!"}
    wrong: list[tuple[object, str]] = [
        (b"{", "the line is not JSON"),
        (b"\xff\xfe", "the line is not JSON"),
        ([1], "expected a JSON object"),
        ({"audio": path}, "text is missing"),
        ({"text": "hi"}, "audio is missing"),
        ({"audio": 3, "text": "hi"}, "audio: expected text"),
        ({"audio": "nowhere.wav", "text": "hi"}, "nowhere.wav: no such audio file"),
        ({"audio": str(tmp_path / "bad.wav"), "text": "hi"}, "bad.wav: is a RIFF file of kind b''"),
        ({"audio_base64": "%", "text": "hi"}, "audio_base64: not base64"),
        (
            {"audio_base64": base64.b64encode(b"RIFF").decode(), "text": "hi"},
            "the speech: is a RIFF file of kind b''",
        ),
        ({**good, "txt": "hi"}, "unknown field 'txt'; known: audio, "),
        ({**good, "history": "hi"}, "history: expected a list"),
        ({**good, "history": [{"audio": path}]}, "history[0].text is missing"),
        ({**good, "dialogue": 1}, "dialogue: expected a name"),
        ({**good, "dialogue": "a", "history": []}, "history and dialogue exclude each other"),
        ({**good, "audio_base64": ""}, "audio and audio_base64 exclude each other"),
    ]
    predictor = predictors["sequence"]
    expected = predictor.predict(Path(path), "no!")
    found = answers(predictor, *(line for request, _ in wrong for line in (request, b"  \n", good)))
    assert len(found) == 2 * len(wrong)
    for place, (_, message) in enumerate(wrong):
        error, answer = found[2 * place], found[2 * place + 1]
        assert message in error["error"], error
        assert error["line"] == 3 * place + 1
        assert answer["probabilities"] == expected
    (with_id,) = answers(predictor, {"id": "x7", "text": "hi"})
    assert with_id == {
        "line": 1,
        "id": "x7",
        "error": "audio is missing; expected audio (a file) or audio_base64 (a file's content)",
    }


@pytest.mark.slow
def test_every_hostile_line_has_its_own_error_and_memory_stays_bounded(
    corpus: Corpus, bundles: Path, predictors: dict[str, Predictor]
) -> None:
    path = corpus.manifest.audio_path(corpus.manifest.utterances[1])
    head = b'{"audio": ' + json.dumps(str(path)).encode() + b', "text": '
    lines = [
        (b"[" * 100_000, "the line is not a request: brackets in brackets, too many of them"),
        (b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b', "text": "hi"}', "brackets in brackets"),
        (b"[" + b"[]," * 5_000_000 + b"[]]", "the line: expected a JSON object"),
        (b'{"a' * 3_000_000, "the line is not JSON"),
        (
            head + b'"' + b"x" * 200_000_000 + b'"}',
            "the line is longer than 16.8 MB; send long recordings by their path",
        ),
        (
            head + b'"' + b"x" * 200_000 + b'"}',
            "text: 200,000 characters; expected what somebody said, at most 100,000",
        ),
        (head + rb'"\ud83d"}', "text: holds half a character (a lone surrogate)"),
        (rb'{"audio": "\udcff.wav", "text": "hi"}', "audio: holds half a character"),
        (head + b'"hi", "id": NaN}', "the line is not JSON (NaN is no number in JSON)"),
        (head + b'"hi", "id": -Infinity}', "-Infinity is no number in JSON"),
        (head + b'"hi", "id": 1e999}', "1e999 is too large a number"),
        (head + b'"hi", "id": ' + b"9" * 5000 + b"}", "the line is not JSON (Exceeds the limit"),
        (head + b'"\xff"}', "the line is not JSON ('utf-8' codec can't decode byte 0xff"),
        (head + b'"hi\x00"}', "the line is not JSON (Invalid control character"),
        (rb'{"audio": "a\u0000b", "text": "hi"}', "no such audio file"),
        (b'{"audio": "' + b"a/" * 100_000 + b'", "text": "hi"}', "File name too long"),
        (
            b"{" + b",".join(b'"%d": 1' % number for number in range(100_000)) + b"}",
            "unknown field '0', '1', '2', '3', '4', ...; known",
        ),
        (
            head + b'"hi", "dialogue": "' + b"x" * 2000 + b'"}',
            "dialogue: a name of 2,000 characters; expected at most 1,000",
        ),
    ]
    good = head + b'"no!", "id": "\\udc80"}'
    stream = b"\n".join(part for line, _ in lines for part in (line, good))
    program = """
import resource, sys, mmm.cli.app, mmm.predict.predictor
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**30,) * 2)
sys.argv[0] = "mmm"
mmm.cli.app.main()
"""
    arguments = [sys.executable, "-c", program, "predict", str(bundles / "pooled"), "--jsonl"]
    done = subprocess.run(
        arguments,
        input=stream,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    found = [
        json.loads(line, parse_constant=pytest.fail) for line in done.stdout.decode().splitlines()
    ]
    assert len(found) == 2 * len(lines)
    expected = predictors["pooled"].predict(path, "no!")
    for place, (_, message) in enumerate(lines):
        error, answer = found[2 * place : 2 * place + 2]
        assert message in error["error"], message
        assert error["line"] == 2 * place + 1
        assert len(error["error"]) < 1100
        assert answer["probabilities"] == pytest.approx(expected, abs=TOLERANCE)
        assert answer["id"] == "\udc80"


def test_an_id_however_deep_comes_back_or_is_refused(
    corpus: Corpus, bundles: Path, predict: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = json.dumps(str(corpus.manifest.audio_path(corpus.manifest.utterances[1]))).encode()
    depths = [1, 100, *range(sys.getrecursionlimit() - 200, sys.getrecursionlimit() + 10, 3)]
    lines = [
        b'{"audio": %b, "text": "hi", "id": %b}' % (audio, b"[" * depth + b"]" * depth)
        for depth in depths
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(lines))))
    status, out, err = predict(bundles / "pooled", "--jsonl")
    assert (status, err) == (0, "")
    found = ["error" if "brackets in brackets" in line else "id" for line in out.splitlines()]
    assert len(found) == len(depths)
    assert found == sorted(found, reverse=True)
    assert found[1] == "id"
    assert found[-1] == "error"


def test_a_text_file_that_nobody_said_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "a.wav").write_bytes(
        corpus.manifest.audio_path(corpus.manifest.utterances[1]).read_bytes()
    )
    (tmp_path / "a.txt").write_text("x" * 100_001)
    with pytest.raises(
        ValueError,
        match=r"a\.txt: 100,001 characters; expected what somebody said, at most 100,000",
    ):
        read_folder(tmp_path)
    with open(tmp_path / "a.txt", "wb") as file:
        file.truncate(10**9)
    with pytest.raises(
        ValueError, match=r"a\.txt: 1000 MB; expected the text of what somebody said"
    ):
        read_folder(tmp_path)


def test_the_command_answers_lines_as_they_come(
    bundles: Path,
    corpus: Corpus,
    predict: Call,
    predictors: dict[str, Predictor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = corpus.manifest.audio_path(corpus.manifest.utterances[1])
    lines = b"nonsense\n" + json.dumps({"audio": str(path), "text": "그래"}).encode() + b"\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    status, out, err = predict(bundles / "pooled", "--jsonl")
    error, answer = map(json.loads, out.splitlines())
    assert (status, err) == (0, "")
    assert error["error"].startswith("the line is not JSON")
    assert answer["probabilities"] == predictors["pooled"].predict(path, "그래")
    assert answer["prediction"] == max(answer["probabilities"], key=answer["probabilities"].get)
