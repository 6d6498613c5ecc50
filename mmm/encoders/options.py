"""What an encoding may be asked for, checked once for the command line and the cluster."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from mmm.console import console as console
from mmm.device import resolve_precision
from mmm.encoders import DEFAULT_CHUNK_S as DEFAULT_CHUNK_S
from mmm.encoders import Running, SpeechEncoder, TextEncoder
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.features.recipe import AUDIO_FEATURES, MAX_CONTEXT
from mmm.features.store import list_recipes

_PUBLISHED = {"speech": "kresnik/wav2vec2-large-xlsr-korean", "text": "beomi/KcELECTRA-base"}
# Seconds of speech a batch. On a CPU one file at a time is faster than padded batches
# (benchmarks/encode.py).
_BATCH_S = {"cpu": 0.0, "cuda": 120.0}
# Frames a second of a pretrained model. The mixer loses nothing by it and takes a third of the time
# (docs/LOG.md, 2026-11-26); pooled vectors are the mean of every frame whatever is kept.
_FRAME_RATE = 12.5
# Tokens a batch. Texts are short, about 20 tokens: one at a time would read the weights from memory
# for each (not measured yet).
_BATCH_TOKENS = {"cpu": 512, "cuda": 8192}


@dataclass(frozen=True)
class EncodeOptions:
    """What to encode with, checked; processes elsewhere make the same encoders of it."""

    speech: str
    text: str
    speech_options: "SpeechOptions"
    text_options: "TextOptions"
    features: tuple[str, ...]
    contexts: tuple[int, ...]
    batch_s: float
    batch_tokens: int

    def make_speech(self) -> SpeechEncoder:
        """The encoder with its weights still on the disk."""
        return make_speech_encoder(self.speech, **self.speech_options, lazy=True)

    def make_text(self) -> TextEncoder:
        return make_text_encoder(self.text, **self.text_options, lazy=True)

    def pinned(self, speech: SpeechEncoder, text: TextEncoder) -> "EncodeOptions":
        """With the revisions that were found here, so that other machines take the same."""
        revisions = speech.recipe("hidden_state").get("revision"), text.recipe().get("revision")
        return dataclasses.replace(
            self,
            speech_options=self.speech_options | {"revision": revisions[0]},
            text_options=self.text_options | {"revision": revisions[1]},
        )


class SpeechOptions(TypedDict):
    frame_rate: float | None
    num_mels: int
    layer: str
    revision: str | None
    running: Running


class TextOptions(TypedDict):
    width: int
    max_tokens: int
    revision: str | None
    running: Running


def comma_list(text: str, option: str) -> list[str]:
    """`a,b` -> ["a", "b"]. Raises ValueError where nothing is named."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(f"{option} is empty; expected names divided by commas")
    return list(dict.fromkeys(parts))


def kept_frame_rate(features: Path, audio_encoder: str, asked: float | None) -> float | None:
    """Frames a second that stores keep; None where the encoder's own way is meant.

    Where nothing is asked for, as the folder has it of this encoder, so that the same command adds
    to its stores.
    """
    if audio_encoder == "fbank":
        return asked
    if asked is not None:
        return asked or None
    names = {
        audio_encoder,
        str(Path(audio_encoder).resolve()),
        *([_PUBLISHED["speech"]] if audio_encoder == "published" else []),
    }
    if features.is_dir():
        for recipe in list_recipes(features).values():
            if recipe["kind"] == "audio" and recipe["encoder"] in names:
                rate: float | None = recipe.get("frame_rate_hz")
                return rate
    return None if audio_encoder == "published" else _FRAME_RATE


def check_options(
    *,
    audio_encoder: str,
    text_encoder: str,
    context: str,
    audio_feature: str,
    layer: str,
    frame_rate: float | None,
    num_mels: int,
    text_width: int,
    max_tokens: int,
    audio_revision: str | None,
    text_revision: str | None,
    precision: str,
    batch_seconds: float | None,
    chunk_seconds: float,
    device: str,
) -> EncodeOptions:
    """Raises ValueError for what cannot be."""
    kept = comma_list(audio_feature, "--audio-feature")
    for name in kept:
        if name not in AUDIO_FEATURES:
            raise ValueError(f"--audio-feature {name!r} is none of {', '.join(AUDIO_FEATURES)}")
    contexts = []
    for part in comma_list(context, "--context"):
        if not part.isdigit() or not 1 <= int(part) <= MAX_CONTEXT:
            raise ValueError(
                f"--context {part!r} is out of range; expected whole numbers from 1 to"
                f" {MAX_CONTEXT}"
            )
        contexts.append(int(part))
    kind = device.partition(":")[0]
    if kind not in _BATCH_S:
        raise ValueError(f"--device {device!r} is not understood; expected cpu, cuda or cuda:N")
    if batch_seconds is not None and not 0 <= batch_seconds < 1e5:
        raise ValueError(
            f"--batch-seconds {batch_seconds:g} is out of range; expected 0 (one file at a time) or"
            " more"
        )
    running = Running(device, resolve_precision(precision, device), chunk_seconds)
    return EncodeOptions(
        speech=_PUBLISHED["speech"] if audio_encoder == "published" else audio_encoder,
        text=_PUBLISHED["text"] if text_encoder == "published" else text_encoder,
        speech_options={
            "frame_rate": frame_rate,
            "num_mels": num_mels,
            "layer": layer,
            "revision": audio_revision,
            "running": running,
        },
        text_options={
            "width": text_width,
            "max_tokens": max_tokens,
            "revision": text_revision,
            "running": running,
        },
        features=tuple(kept),
        contexts=tuple(contexts),
        batch_s=_BATCH_S[kind] if batch_seconds is None else batch_seconds,
        batch_tokens=_BATCH_TOKENS[kind],
    )
