"""What an encoding may be asked for, checked once for the command line and the cluster."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mmm.encoders import DEFAULT_CHUNK_S, Running, SpeechEncoder, TextEncoder
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.features.recipe import AUDIO_FEATURES, CONTEXTS, MAX_CONTEXT
from mmm.features.store import list_recipes
from mmm.setting import Setting, option_faults

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
    """What to encode with; processes elsewhere make the same encoders of it, once it is checked."""

    audio_encoder: Annotated[
        str, Setting("fbank (built in), published, a Hugging Face id, or a folder.")
    ] = "fbank"
    text_encoder: Annotated[
        str, Setting("char-ngram (built in), published, a Hugging Face id, or a folder.")
    ] = "char-ngram"
    context: Annotated[
        str, Setting("Utterances of context K to encode text for, the current one included.")
    ] = ",".join(map(str, CONTEXTS))
    with_speakers: Annotated[
        bool, Setting("Text with the speaker's name before each turn, as features of their own.")
    ] = False
    audio_feature: Annotated[str, Setting("Speech features to keep.")] = ",".join(AUDIO_FEATURES)
    layer: Annotated[
        str,
        Setting(
            "hidden_state: last, one layer (9), several side by side (6,9,12), or their mean"
            " (mean:6-12)."
        ),
    ] = "last"
    frame_rate: Annotated[
        float | None,
        Setting(
            "Frames a second to keep, means of neighbours; 0: every frame of a pretrained model"
            " \\[fbank 25, published 0, others 12.5, or as the folder has it]."
        ),
    ] = None
    num_mels: Annotated[int, Setting("fbank: mel bands.")] = 64
    text_width: Annotated[int, Setting("char-ngram: numbers a word.")] = 256
    max_tokens: Annotated[int, Setting("char-ngram: words kept, the latest turns first.")] = 128
    audio_revision: Annotated[
        str | None,
        Setting("Commit, tag or branch of a hub's speech model \\[what is cached, else main]."),
    ] = None
    text_revision: Annotated[str | None, Setting("The same of the text model.")] = None
    text_pooling: Annotated[
        str,
        Setting(
            "A pretrained text model's vector of the whole: first (its first token), mean (of the"
            " current utterance's tokens), or auto (as the model's folder says, else first).",
            choices=("auto", "first", "mean"),
        ),
    ] = "auto"
    precision: Annotated[
        str, Setting("auto (bf16 where the device multiplies it), float32, bf16, fp16.")
    ] = "auto"
    batch_seconds: Annotated[
        float | None,
        Setting(
            "Speech a batch, 0 for one file at a time [CPU 0, GPU 120].",
            0,
            1e5,
            wrong="is out of range; expected 0 (one file at a time) or more",
        ),
    ] = None
    chunk_seconds: Annotated[
        float, Setting("Longer speech is encoded in overlapping chunks of this.")
    ] = DEFAULT_CHUNK_S
    device: str = "cpu"

    def make_speech(self) -> SpeechEncoder:
        """The encoder with its weights still on the disk."""
        return make_speech_encoder(
            self.audio_encoder,
            frame_rate=self.frame_rate,
            num_mels=self.num_mels,
            layer=self.layer,
            revision=self.audio_revision,
            running=self._running,
            lazy=True,
        )

    def make_text(self) -> TextEncoder:
        return make_text_encoder(
            self.text_encoder,
            width=self.text_width,
            max_tokens=self.max_tokens,
            revision=self.text_revision,
            pooling=self.text_pooling,
            running=self._running,
            lazy=True,
        )

    @property
    def _running(self) -> Running:
        return Running(self.device, self.precision, self.chunk_seconds)

    @property
    def features(self) -> list[str]:
        return comma_list(self.audio_feature, "--audio-feature")

    @property
    def contexts(self) -> list[int]:
        return [int(part) for part in comma_list(self.context, "--context")]

    @property
    def batch_s(self) -> float:
        """Seconds of speech a batch."""
        usual = _BATCH_S[self._kind_of_device]
        return usual if self.batch_seconds is None else self.batch_seconds

    @property
    def batch_tokens(self) -> int:
        return _BATCH_TOKENS[self._kind_of_device]

    @property
    def _kind_of_device(self) -> str:
        return self.device.partition(":")[0]


def comma_list(text: str, option: str) -> list[str]:
    """`a,b` -> ["a", "b"]. Raises ValueError where nothing is named."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(f"{option} is empty; expected names divided by commas")
    return list(dict.fromkeys(parts))


def checked(asked: EncodeOptions, features: Path) -> EncodeOptions:
    """The same with what `published`, `auto` and defaults mean here, for the stores in a folder.
    Raises ValueError for what cannot be.
    """
    from mmm.device import resolve_precision

    for name in asked.features:
        if name not in AUDIO_FEATURES:
            raise ValueError(f"--audio-feature {name!r} is none of {', '.join(AUDIO_FEATURES)}")
    for part in comma_list(asked.context, "--context"):
        if not part.isdigit() or not 1 <= int(part) <= MAX_CONTEXT:
            raise ValueError(
                f"--context {part!r} is out of range; expected whole numbers from 1 to"
                f" {MAX_CONTEXT}"
            )
    if asked.device.partition(":")[0] not in _BATCH_S:
        raise ValueError(
            f"--device {asked.device!r} is not understood; expected cpu, cuda or cuda:N"
        )
    for fault in option_faults(asked):
        raise ValueError(fault)
    return dataclasses.replace(
        asked,
        audio_encoder=_found(asked.audio_encoder, "speech"),
        text_encoder=_found(asked.text_encoder, "text"),
        frame_rate=kept_frame_rate(features, asked.audio_encoder, asked.frame_rate),
        precision=resolve_precision(asked.precision, asked.device),
    )


def pinned(options: EncodeOptions, speech: SpeechEncoder, text: TextEncoder) -> EncodeOptions:
    """With the revisions that were found here, so that other machines take the same."""
    return dataclasses.replace(
        options,
        audio_revision=speech.recipe("hidden_state").get("revision"),
        text_revision=text.recipe().get("revision"),
    )


def _found(encoder: str, kind: str) -> str:
    """An encoder by a name that another process understands, which works in another folder."""
    if encoder == "published":
        return _PUBLISHED[kind]
    is_local = encoder not in ("fbank", "char-ngram") and Path(encoder).is_dir()
    return str(Path(encoder).resolve()) if is_local else encoder


def kept_frame_rate(features: Path, audio_encoder: str, asked: float | None) -> float | None:
    """Frames a second that stores keep; None where the encoder's own way is meant.

    Where nothing is asked for, as the folder has it of this encoder, so that the same command adds
    to its stores.
    """
    if audio_encoder == "fbank":
        return asked
    if asked is not None:
        return asked or None
    name = _found(audio_encoder, "speech")
    if features.is_dir():
        for recipe in list_recipes(features).values():
            if recipe["kind"] == "audio" and recipe["encoder"] == name:
                rate: float | None = recipe.get("frame_rate_hz")
                return rate
    return None if audio_encoder == "published" else _FRAME_RATE
