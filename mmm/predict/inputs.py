"""What to predict, as people have it: a dialogue as CSV, a folder of recordings, a stream of JSON
lines.
"""

import base64
import binascii
import csv
import io
import json
import math
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict

from mmm.faults import csv_fault

if TYPE_CHECKING:  # torch takes seconds to import, and what is wrong with a file is said before
    from mmm.predict.predictor import Audio, Predictor, Turn

_SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
_FIELDS = ("audio", "audio_base64", "text", "speaker", "history", "dialogue", "id")
_TURN_FIELDS = ("audio", "audio_base64", "text", "speaker")
# Of a stream: 12 MB of speech as base64; a longer recording is sent by its path.
MAX_LINE_BYTES = 16 * 1024**2
MAX_TEXT = 100_000  # characters; no encoder looks at more than 128 words or tokens one by one
_MAX_NAME = 1000  # characters of a dialogue's or a speaker's name
_MAX_ERROR = 1000  # characters that are answered of an error
_SURROGATE = re.compile("[\ud800-\udfff]")
_OPEN_DIALOGUES = 1000  # of a stream; the one that was silent longest is forgotten first


@dataclass(frozen=True)
class Line:
    """A turn of a dialogue, or a recording with its text. Without audio it is context for later
    turns only.
    """

    audio: Path | None
    text: str
    speaker: str | None = None  # None: it is not said who speaks; "": nobody knows


def _text_of(path: Path) -> str:
    if path.stat().st_size > MAX_LINE_BYTES:
        raise ValueError(
            f"{path}: {path.stat().st_size / 1e6:.0f} MB; expected the text of what somebody said"
        )
    try:
        return path.read_bytes().decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start}: not UTF-8 ({error.reason}); save it as UTF-8"
        ) from None


def read_dialogue(path: Path) -> list[Line]:
    """Turns of a CSV with the columns audio, text and, optional, speaker, in order of the dialogue;
    audio relative to the CSV.

    Raises FileNotFoundError or ValueError with every fault.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such dialogue; expected a CSV with the columns audio and text, a line a"
            " turn"
        )
    text = _text_of(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    faults, turns = [], []
    header: list[str] = []
    line = 1
    try:
        header = next(reader, [])
        if missing := {"audio", "text"} - set(header):
            raise ValueError(
                f"{path}: line 1: no column {', '.join(sorted(missing))} (found:"
                f" {', '.join(header)})"
            )
        line = reader.line_num + 1
        for fields in reader:
            # A quoted field may span lines: where the row begins.
            where, line = f"line {line}", reader.line_num + 1
            if not fields:
                continue
            if len(fields) != len(header):
                faults.append(
                    f"{where}: more or fewer fields than the header; is a text with a comma not"
                    " quoted?"
                )
                continue
            row = dict(zip(header, fields, strict=True))
            audio = path.parent / row["audio"].strip() if row["audio"].strip() else None
            if audio is not None and not audio.is_file():
                faults.append(f"{where}: no such audio file {audio}")
            speaker = row.get("speaker")
            named = None if speaker is None else speaker.strip()
            turns.append(Line(audio, row["text"].strip(), named))
    except csv.Error as error:
        raise ValueError(f"{path}: {csv_fault(error, text, line, header)}") from None
    if not turns and not faults:
        faults.append("no turns below the header")
    if faults:
        raise ValueError(f"{path}: " + "; ".join(faults))
    return turns


def read_folder(folder: Path, text: str | None = None, speaker: str | None = None) -> list[Line]:
    """Recordings of a folder by name, each with the text of the .txt of the same name; `text` is
    for those without one, `speaker` for all.

    Raises FileNotFoundError or ValueError, naming every recording without a text.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    sounds = sorted(
        file for file in folder.iterdir() if file.suffix.lower() in _SOUNDS and file.is_file()
    )
    if not sounds:
        raise FileNotFoundError(f"{folder}: no recordings in it (looked for {', '.join(_SOUNDS)})")
    beside = {sound: sound.with_suffix(".txt") for sound in sounds}
    without = [sound.name for sound in sounds if not beside[sound].is_file()]
    if without and text is None:
        raise ValueError(
            f"{folder}: {len(without)} of {len(sounds)} recordings have no text beside them"
            f" ({', '.join(without[:5])}{', ...' if len(without) > 5 else ''}); expected"
            f" {Path(without[0]).stem}.txt in UTF-8, or give --text for those without one"
        )
    lines = []
    for sound, file in beside.items():
        said = _text_of(file).strip() if file.is_file() else text or ""
        _check_length(said, str(file))
        lines.append(Line(sound, said, speaker))
    return lines


class Answer(TypedDict, total=False):
    """A line of the output: prediction and probabilities, None of a turn without speech, or the
    error and the line it is in.
    """

    line: int
    id: object  # as the request has it
    error: str
    prediction: str | None
    probabilities: Mapping[str, float] | None


class JsonLines:
    """Answers requests, one JSON object a line, in their order. A line that cannot be answered is
    answered with an error.

    A request: {"audio": "x.wav" or "audio_base64": "...", "text": "...", and optional "speaker":
    "name", "history": [earlier turns, oldest first], "dialogue": "name", "id": anything}. Lines
    with the same `dialogue` are turns of one conversation: those before are remembered. A turn
    without speech is remembered and not answered with probabilities.
    """

    def __init__(self, predictor: "Predictor") -> None:
        self.predictor = predictor
        self._dialogues: OrderedDict[str, deque[Turn]] = OrderedDict()

    def answers(self, lines: Iterable[bytes]) -> Iterator[Answer]:
        """One answer a line, whatever is in it; empty lines are passed over."""
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            named: Answer = {}
            try:
                request = _object(line, "the line", _FIELDS)
                if "id" in request:
                    named["id"] = request["id"]
                yield {**named, **self._answer(request)}
            except Exception as error:  # of one line: those after it are somebody else's
                said = str(error)
                if not isinstance(error, ValueError | OSError):
                    said = f"{type(error).__name__}: {error}"
                yield {"line": number, **named, "error": _shortened(said)}

    def _answer(self, request: Mapping[str, Any]) -> Answer:
        audio, text, speaker = _turn(request, "")
        dialogue = request.get("dialogue")
        earlier: list[Turn]
        if dialogue is None:
            turns = request.get("history", [])
            if not isinstance(turns, list):
                raise ValueError("history: expected a list of earlier turns, oldest first")
            earlier = [
                _turn(_object(turn, f"history[{place}]", _TURN_FIELDS), f"history[{place}].")
                for place, turn in enumerate(turns)
            ]
        elif not isinstance(dialogue, str):
            raise ValueError("dialogue: expected a name")
        elif len(dialogue) > _MAX_NAME:
            raise ValueError(
                f"dialogue: a name of {len(dialogue):,} characters; expected at most {_MAX_NAME:,}"
            )
        elif "history" in request:
            raise ValueError(
                "history and dialogue exclude each other: with dialogue, earlier lines are the"
                " history"
            )
        else:
            earlier = list(self._dialogues.get(dialogue, ()))
        if audio is None and dialogue is None:
            raise ValueError(
                "audio is missing; expected audio (a file) or audio_base64 (a file's content)"
            )
        answer: Answer = {"prediction": None, "probabilities": None}
        heard = None if audio is None else self.predictor.hear(audio)
        if heard is not None:
            shares = self.predictor.predict(heard, text, earlier, speaker=speaker)
            answer = {"prediction": max(shares, key=shares.__getitem__), "probabilities": shares}
        if dialogue is not None:
            self._remember(dialogue, (heard, text, speaker))
        return answer

    def _remember(self, dialogue: str, turn: "Turn") -> None:
        most = max(1, self.predictor.context - 1)
        self._dialogues.setdefault(dialogue, deque(maxlen=most)).append(turn)
        self._dialogues.move_to_end(dialogue)
        if len(self._dialogues) > _OPEN_DIALOGUES:
            self._dialogues.popitem(last=False)


def _object(value: Any, what: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if isinstance(value, bytes):
        if len(value) > MAX_LINE_BYTES:
            raise ValueError(
                f"{what} is longer than {MAX_LINE_BYTES / 1e6:.1f} MB; send long recordings by"
                " their path"
            )
        try:
            value = json.loads(
                value.decode("utf-8-sig"), parse_constant=_no_constant, parse_float=_finite
            )
        except ValueError as error:
            raise ValueError(f"{what} is not JSON ({error})") from None
        except RecursionError:
            raise ValueError(
                f"{what} is not a request: brackets in brackets, too many of them"
            ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected a JSON object with audio and text")
    unknown = [name for name in value if name not in known]
    if unknown:
        shown = ", ".join(repr(name[:40]) for name in unknown[:5])
        shown += ", ..." if len(unknown) > 5 else ""
        raise ValueError(f"{what}: unknown field {shown}; known: {', '.join(known)}")
    return value


def _turn(turn: Mapping[str, Any], where: str) -> "tuple[Audio | None, str, str | None]":
    for field in _TURN_FIELDS:
        value = turn.get(field)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{where}{field}: expected text, found {type(value).__name__}")
        if value is not None and field != "audio_base64" and _SURROGATE.search(value):
            raise ValueError(f"{where}{field}: holds half a character (a lone surrogate)")
    file, content, text, speaker = (turn.get(field) for field in _TURN_FIELDS)
    if text is None:
        raise ValueError(f"{where}text is missing")
    _check_length(text, f"{where}text")
    if speaker is not None and len(speaker) > _MAX_NAME:
        raise ValueError(
            f"{where}speaker: a name of {len(speaker):,} characters; expected at most {_MAX_NAME:,}"
        )
    if file is not None and content is not None:
        raise ValueError(f"{where}audio and audio_base64 exclude each other")
    if content is not None:
        return decode_base64(content, f"{where}audio_base64"), text, speaker
    return Path(file) if file else None, text, speaker


def _check_length(text: str, what: str) -> None:
    if len(text) > MAX_TEXT:
        raise ValueError(
            f"{what}: {len(text):,} characters; expected what somebody said, at most {MAX_TEXT:,}"
        )


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_ERROR else f"{text[:_MAX_ERROR]}..."


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """A stream's lines. Of one that is too long to be answered only the beginning, so that it does
    not fill the memory.
    """
    while line := stream.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES + 1) or b"\n"


def as_json_line(answer: Answer) -> str:
    """An answer as a line of JSON. Halves of characters, of an id or a path, are spelt out: no
    output could encode them.
    """
    return json.dumps(answer, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"


def decode_base64(text: str, what: str) -> bytes:
    """The content of a speech file sent as text. Raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{what}: not base64 ({error})") from None
