"""Both encoders of a command, opened before anything is encoded: a speech model is not taken for a
text model, nor the other way round.
"""

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path

from mmm.encoders import SpeechEncoder, TextEncoder
from mmm.encoders.options import EncodeOptions
from mmm.encoders.pretrained import WrongEncoder

_OF_SPEECH = ("layer", "frame_rate", "num_mels", "chunk_seconds")


def open_encoders(
    options: EncodeOptions, asked: EncodeOptions, manifest: Path, features: Path
) -> tuple[SpeechEncoder, TextEncoder]:
    """Both, with their weights still on the disk. `options` are what is `asked`, checked.

    Raises ValueError where one cannot be used; where it is of the other kind, with the command that
    encodes `manifest` with it in its place.
    """
    found: list[SpeechEncoder | TextEncoder] = []
    wrong: dict[str, WrongEncoder] = {}
    for kind, make in (("speech", options.make_speech), ("text", options.make_text)):
        try:
            encoder = make()
            encoder.load(weights=False)
            found.append(encoder)
        except WrongEncoder as error:
            wrong[kind] = error
    if wrong:
        command = _command(_in_their_places(asked, wrong), manifest, features)
        raise ValueError(f"{'; '.join(map(str, wrong.values()))}; run: {command}") from None
    speech, text = found
    for feature in options.features:
        speech.width(feature)  # type: ignore[call-arg]
    return speech, text  # type: ignore[return-value]


def _in_their_places(asked: EncodeOptions, wrong: dict[str, WrongEncoder]) -> EncodeOptions:
    """An encoder of the wrong kind goes where it belongs, unless one was named for that that can be
    used; in the place of the wrong one comes the built-in one.
    """
    usual = EncodeOptions()
    speech = asked.audio_encoder, asked.audio_revision
    text = asked.text_encoder, asked.text_revision
    new_speech, new_text = speech, text
    if "speech" in wrong or speech[0] == usual.audio_encoder:
        is_there = "text" in wrong and wrong["text"].kind == "speech"
        new_speech = text if is_there else (usual.audio_encoder, None)
    if "text" in wrong or text[0] == usual.text_encoder:
        is_there = "speech" in wrong and wrong["speech"].kind == "text"
        new_text = speech if is_there else (usual.text_encoder, None)
    changes: dict[str, object] = {}
    if new_speech != speech:
        changes = {name: getattr(usual, name) for name in _OF_SPEECH}
    found = dataclasses.replace(
        asked,
        **changes,  # type: ignore[arg-type]
        audio_encoder=new_speech[0],
        audio_revision=new_speech[1],
        text_encoder=new_text[0],
        text_revision=new_text[1],
    )
    return dataclasses.replace(found, audio_feature=",".join(_given(found)) or asked.audio_feature)


def _given(options: EncodeOptions) -> Iterator[str]:
    """The speech features asked for that the encoder gives."""
    encoder = options.make_speech()
    encoder.load(weights=False)
    for feature in options.features:
        try:
            encoder.width(feature)
        except ValueError:
            continue
        yield feature


def _command(options: EncodeOptions, manifest: Path, features: Path) -> str:
    words = ["mmm", "encode", str(manifest), "--features", str(features)]
    for field in dataclasses.fields(options):
        value, option = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        if value != field.default:
            words += [option] if value is True else [option, str(value)]
    return shlex.join(words)
