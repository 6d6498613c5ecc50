"""What an encoding may be asked for, checked once for the command line and the cluster."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from mmm.encoders import (
    DEFAULT_CHUNK_S,
    WHISPER_WINDOW_S,
    Running,
    SpeechEncoder,
    TextEncoder,
)
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.features.recipe import AUDIO_FEATURES, CONTEXTS, Recipe
from mmm.setting import Setting

BUILT_IN = {"speech": "fbank", "text": "char-ngram"}
# Options that say which encoder: without any of a kind the folder's own encoders are meant.
SAYS = {
    "speech": (
        *("audio_encoder", "layer", "layers", "frame_rate", "num_mels", "audio_revision"),
        *("chunk_seconds", "whisper_padding"),
    ),
    "text": (
        "text_encoder",
        "text_width",
        "max_tokens",
        "text_revision",
        "with_speakers",
        "text_pooling",
    ),
}
# Seconds of speech a batch. On a CPU one file at a time is faster than padded batches
# (benchmarks/encode.py).
BATCH_S = {"cpu": 0.0, "cuda": 120.0}
# Tokens a batch. Texts are short, about 20 tokens: one at a time would read the weights from memory
# for each (not measured yet).
_BATCH_TOKENS = {"cpu": 512, "cuda": 8192}
_NUM_MELS, _TEXT_WIDTH, _MAX_TOKENS = 64, 256, 128
Modality = Literal["speech", "text"]


@dataclass(frozen=True)
class EncodeOptions:
    """What to encode with; processes elsewhere make the same encoders of it, once it is checked.

    None: not said, which of an encoder's options means the folder's own encoders, and where it has
    none the built-in ones.
    """

    audio_encoder: Annotated[
        str | None,
        Setting(
            "fbank or voice (built in), published, a Hugging Face id, or a folder \\[those in the"
            " features folder, else fbank]."
        ),
    ] = None
    text_encoder: Annotated[
        str | None,
        Setting(
            "char-ngram (built in), published, a Hugging Face id, or a folder \\[those in the"
            " features folder, else char-ngram]."
        ),
    ] = None
    context: Annotated[
        str | None,
        Setting(
            "Utterances of context K to encode text for, the current one included"
            " \\[1,2,3,4,5, or as the folder has it]."
        ),
    ] = None
    with_speakers: Annotated[
        bool | None,
        Setting(
            "Text with the speaker's name before each turn, as features of their own.",
            flag="--with-speakers",
        ),
    ] = None
    audio_feature: Annotated[
        str | None,
        Setting(f"Speech features to keep \\[those of {','.join(AUDIO_FEATURES)} that there are]."),
    ] = None
    layer: Annotated[
        str | None,
        Setting(
            "hidden_state: last, one layer (9), several side by side (6,9,12), or their mean"
            " (mean:6-12); voice: 1, 2, 3 or projection \\[last]."
        ),
    ] = None
    layers: Annotated[
        str | None,
        Setting("Several layers in one pass, each an encoder to choose: 4,8,12 or all."),
    ] = None
    name: Annotated[
        str | None,
        Setting("What the encoder is called in the folder \\[made of model and layer]."),
    ] = None
    frame_rate: Annotated[
        float | None,
        Setting(
            "Frames a second to keep, means of neighbours; 0: every frame of a pretrained model"
            " \\[fbank 25, published 0, others 12.5, or as the folder has it]."
        ),
    ] = None
    num_mels: Annotated[int | None, Setting("fbank: mel bands \\[64].")] = None
    text_width: Annotated[int | None, Setting("char-ngram: numbers a word \\[256].")] = None
    max_tokens: Annotated[
        int | None, Setting("char-ngram: words kept, the latest turns first \\[128].")
    ] = None
    audio_revision: Annotated[
        str | None,
        Setting("Commit, tag or branch of a hub's speech model \\[what is cached, else main]."),
    ] = None
    text_revision: Annotated[str | None, Setting("The same of the text model.")] = None
    text_pooling: Annotated[
        str | None,
        Setting(
            "A pretrained text model's vector of the whole: first (its first token), mean (of the"
            " current utterance's tokens), or auto (as the model's folder says, else first).",
            choices=("auto", "first", "mean"),
        ),
    ] = None
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
        float | None,
        Setting("Longer speech is encoded in overlapping chunks of this \\[35]."),
    ] = None
    whisper_padding: Annotated[
        float | None,
        Setting(
            "Whisper: seconds of silence after speech, up to its window of 30 s as it was trained;"
            " less is faster and gives other features \\[30].",
            0,
            WHISPER_WINDOW_S,
            wrong="is out of range; expected 0 to 30 seconds",
        ),
    ] = None
    device: str = "cpu"

    def make_speech(self) -> SpeechEncoder:
        """The encoder with its weights still on the disk."""
        return make_speech_encoder(
            self.audio_encoder or BUILT_IN["speech"],
            frame_rate=self.frame_rate,
            num_mels=_NUM_MELS if self.num_mels is None else self.num_mels,
            layer="last" if self.layer is None else self.layer,
            layers=self.layers,
            revision=self.audio_revision,
            running=self._running,
            lazy=True,
        )

    def make_text(self) -> TextEncoder:
        return make_text_encoder(
            self.text_encoder or BUILT_IN["text"],
            width=_TEXT_WIDTH if self.text_width is None else self.text_width,
            max_tokens=_MAX_TOKENS if self.max_tokens is None else self.max_tokens,
            revision=self.text_revision,
            pooling=self.text_pooling or "auto",
            running=self._running,
            lazy=True,
        )

    @property
    def _running(self) -> Running:
        chunk_s = DEFAULT_CHUNK_S if self.chunk_seconds is None else self.chunk_seconds
        padding_s = WHISPER_WINDOW_S if self.whisper_padding is None else self.whisper_padding
        return Running(self.device, self.precision, chunk_s, padding_s)

    @property
    def features(self) -> list[str] | None:
        """Speech features that were asked for."""
        if self.audio_feature is None:
            return None
        return comma_list(self.audio_feature, "--audio-feature")

    @property
    def contexts(self) -> list[int]:
        if self.context is None:
            return list(CONTEXTS)
        return [int(part) for part in comma_list(self.context, "--context")]

    @property
    def batch_s(self) -> float:
        """Seconds of speech a batch."""
        usual = BATCH_S[self._kind_of_device]
        return usual if self.batch_seconds is None else self.batch_seconds

    @property
    def batch_tokens(self) -> int:
        return _BATCH_TOKENS[self._kind_of_device]

    @property
    def _kind_of_device(self) -> str:
        return self.device.partition(":")[0]

    def says(self, kind: Modality) -> bool:
        """Whether an encoder of a kind is asked for."""
        return any(getattr(self, name) is not None for name in SAYS[kind])


def comma_list(text: str, option: str) -> list[str]:
    """`a,b` -> ["a", "b"]. Raises ValueError where nothing is named."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(f"{option} is empty; expected names divided by commas")
    return list(dict.fromkeys(parts))


def pinned(
    options: EncodeOptions, encoder: SpeechEncoder | TextEncoder, kind: Modality
) -> EncodeOptions:
    """With the revision that was found here, so that other machines take the same."""
    revision = recipe_of(encoder, kind).get("revision")
    if kind == "speech":
        return dataclasses.replace(options, audio_revision=revision)
    return dataclasses.replace(options, text_revision=revision)


def recipe_of(encoder: SpeechEncoder | TextEncoder, kind: Modality) -> Recipe:
    """Of one of its features, the context of text aside."""
    made: Callable[..., Recipe] = encoder.recipe
    return made(AUDIO_FEATURES[0]) if kind == "speech" else made()
