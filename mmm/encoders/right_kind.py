"""The encoders of a command, opened before anything is encoded: a speech model is not taken for a
text model, nor the other way round.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from mmm.encoders import SpeechEncoder, TextEncoder
from mmm.encoders.encodings import Encoding
from mmm.encoders.options import SAYS, EncodeOptions, Modality
from mmm.encoders.pretrained import WrongEncoder

Opened = tuple[list[tuple[Encoding, SpeechEncoder]], list[tuple[Encoding, TextEncoder]]]


def open_encoders(
    chosen: Sequence[Encoding],
    asked: EncodeOptions,
    manifest: Path,
    features: Path,
    *,
    weights: bool,
) -> Opened:
    """Those of speech and those of text, with their `weights` or without. `chosen` came of what is
    `asked`.

    Raises ValueError where one cannot be used; where it is of the other kind, with the command that
    encodes `manifest` with it in its place.
    """
    speech: list[tuple[Encoding, SpeechEncoder]] = []
    text: list[tuple[Encoding, TextEncoder]] = []
    wrong: dict[Modality, WrongEncoder] = {}
    for one in chosen:
        try:
            if one.kind == "speech":
                speech.append((one, one.options.make_speech()))
                speech[-1][1].load(weights=weights)
                for feature in one.speech_features(speech[-1][1]):
                    speech[-1][1].width(feature)
            else:
                text.append((one, one.options.make_text()))
                text[-1][1].load(weights=weights)
        except WrongEncoder as error:
            wrong[one.kind] = error
    if wrong:
        command = _command(_in_their_places(asked, wrong), manifest, features)
        raise ValueError(f"{'; '.join(map(str, wrong.values()))}; run: {command}") from None
    return speech, text


def _in_their_places(asked: EncodeOptions, wrong: dict[Modality, WrongEncoder]) -> EncodeOptions:
    """An encoder of the wrong kind goes where it belongs, unless one was named for that that can be
    used; in the place of the wrong one comes what the folder has, or the built-in one.
    """
    names = [name for kind in wrong for name in SAYS[kind] if name != "with_speakers"]
    changes: dict[str, object] = dict.fromkeys(names)
    found: dict[Modality, tuple[str | None, str | None]] = {
        "speech": (asked.audio_encoder, asked.audio_revision),
        "text": (asked.text_encoder, asked.text_revision),
    }
    others: dict[Modality, Modality] = {"speech": "text", "text": "speech"}
    for kind, error in wrong.items():
        other = others[kind]
        if error.kind == other and (other in wrong or found[other][0] is None):
            place = {"speech": "audio", "text": "text"}[other]
            moved = (f"{place}_encoder", f"{place}_revision")
            changes |= dict(zip(moved, found[kind], strict=True))
    if "speech" in wrong:
        changes["audio_feature"] = None
    return dataclasses.replace(asked, **changes)  # type: ignore[arg-type]


def _command(options: EncodeOptions, manifest: Path, features: Path) -> str:
    words = ["mmm", "encode", str(manifest), "--features", str(features)]
    for field in dataclasses.fields(options):
        value, option = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        if value != field.default:
            words += [option] if value is True else [option, str(value)]
    return shlex.join(words)
