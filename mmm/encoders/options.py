"""What an encoding may be asked for, checked once for the command line and the cluster."""

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mmm.encoders import (
    DEFAULT_CHUNK_S,
    WHISPER_WINDOW_S,
    Running,
    SpeechEncoder,
    TextEncoder,
    at_layer,
)
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.features.named import NamedEncoder, encoders_in
from mmm.features.recipe import AUDIO_FEATURES, CONTEXTS, LAYERS, MAX_CONTEXT, Recipe
from mmm.features.store import list_recipes
from mmm.setting import Setting, option_faults

_PUBLISHED = {"speech": "kresnik/wav2vec2-large-xlsr-korean", "text": "beomi/KcELECTRA-base"}
_BUILT_IN = {"speech": "fbank", "text": "char-ngram"}
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
_BATCH_S = {"cpu": 0.0, "cuda": 120.0}
# Frames a second of a pretrained model. The mixer loses nothing by it and takes a third of the time
# (docs/LOG.md, 2026-11-26); pooled vectors are the mean of every frame whatever is kept.
_FRAME_RATE = 12.5
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
            self.audio_encoder or _BUILT_IN["speech"],
            frame_rate=self.frame_rate,
            num_mels=self.num_mels or _NUM_MELS,
            layer=self.layer or "last",
            layers=self.layers,
            revision=self.audio_revision,
            running=self._running,
            lazy=True,
        )

    def make_text(self) -> TextEncoder:
        return make_text_encoder(
            self.text_encoder or _BUILT_IN["text"],
            width=self.text_width or _TEXT_WIDTH,
            max_tokens=self.max_tokens or _MAX_TOKENS,
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
        usual = _BATCH_S[self._kind_of_device]
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


@dataclass(frozen=True)
class Encoding:
    """One encoder that a command runs, and what it is called in the folder where that is said."""

    kind: Modality
    options: EncodeOptions
    name: str | None = None

    @property
    def label(self) -> str:
        """For people, where several encoders run one after another."""
        named = self.options.audio_encoder if self.kind == "speech" else self.options.text_encoder
        return self.name or str(named).rstrip("/").rpartition("/")[2]

    def speech_features(self, encoder: SpeechEncoder) -> list[str]:
        """What to keep of a speech encoder that has read its configuration."""
        if self.options.layers is not None:
            numbers = encoder.several_layers()
            each = [at_layer(number) for number in numbers]
            return each + ([LAYERS] if len(numbers) > 1 else [])
        return self.options.features or [
            name for name in AUDIO_FEATURES if name in encoder.features()
        ]

    def speech_names(self, encoder: SpeechEncoder) -> list[tuple[Recipe, str | None]]:
        """A recipe of each encoder that this one is in a folder, with its name where that is
        said.
        """
        if self.options.layers is None:
            return [(encoder.recipe(self.speech_features(encoder)[0]), self.name)]
        return [
            (encoder.recipe(at_layer(layer)), self.name and f"{self.name}-l{layer}")
            for layer in encoder.several_layers()
        ]

    def text_recipe(self, encoder: TextEncoder) -> Recipe:
        """Of one of its contexts."""
        recipe: Recipe = {**encoder.recipe(), "context": self.options.contexts[0]}
        if self.options.with_speakers:
            recipe["speakers"] = True
        return recipe


def encodings(asked: EncodeOptions, features: Path, only: Modality | None = None) -> list[Encoding]:
    """What a command encodes: of speech and of text the encoder that is asked for, else the
    folder's own, else the built-in one. Raises ValueError for what cannot be.
    """
    _check(asked, only)
    kinds: list[Modality] = ["speech", "text"] if only is None else [only]
    if asked.name is not None:
        said = [kind for kind in kinds if asked.says(kind)] or kinds
        if len(said) != 1:
            raise ValueError(
                f"--name {asked.name!r} names one encoder; encode speech and text one after the"
                " other, with --speech-only and --text-only"
            )
    found: list[Encoding] = []
    is_named = False
    there = encoders_in(features) if features.is_dir() else []
    for kind in kinds:
        own = [one for one in there if one.kind == {"speech": "audio"}.get(kind, kind)]
        if asked.says(kind) or not own:
            name = asked.name if asked.says(kind) or kinds == [kind] else None
            found.append(Encoding(kind, _completed(asked, features), name))
            is_named = is_named or name is not None
        else:
            found += _again(own, kind, asked)
    if asked.name is not None and not is_named:
        raise ValueError(
            f"--name {asked.name!r} without an encoder's options would rename what is there; to do"
            f" so: {shlex.join(['mmm', 'features', str(features), '--rename'])}"
            f" NAME={asked.name}"
        )
    return found


def _check(asked: EncodeOptions, only: Modality | None) -> None:
    for name in asked.features or ():
        if name not in AUDIO_FEATURES:
            raise ValueError(f"--audio-feature {name!r} is none of {', '.join(AUDIO_FEATURES)}")
    for part in comma_list(asked.context, "--context") if asked.context is not None else ():
        if not part.isdigit() or not 1 <= int(part) <= MAX_CONTEXT:
            raise ValueError(
                f"--context {part!r} is out of range; expected whole numbers from 1 to"
                f" {MAX_CONTEXT}"
            )
    if asked.device.partition(":")[0] not in _BATCH_S:
        raise ValueError(
            f"--device {asked.device!r} is not understood; expected cpu, cuda or cuda:N"
        )
    if asked.layers is not None and (asked.layer is not None or asked.audio_feature is not None):
        raise ValueError(
            "--layers makes each of them an encoder of its own; leave out --layer and"
            " --audio-feature"
        )
    other: Modality = "text" if only == "speech" else "speech"
    if only is not None and asked.says(other):
        said = [f"--{name.replace('_', '-')}" for name in SAYS[other] if getattr(asked, name)]
        raise ValueError(f"--{only}-only with {said[0]}, which is of the {other}")
    for fault in option_faults(asked):
        raise ValueError(fault)


def _completed(asked: EncodeOptions, features: Path) -> EncodeOptions:
    """The same with what `published`, `auto` and defaults mean here."""
    from mmm.device import resolve_precision

    audio_encoder = asked.audio_encoder or _BUILT_IN["speech"]
    return dataclasses.replace(
        asked,
        audio_encoder=_found(audio_encoder, "speech"),
        text_encoder=_found(asked.text_encoder or _BUILT_IN["text"], "text"),
        frame_rate=kept_frame_rate(features, audio_encoder, asked.frame_rate),
        precision=resolve_precision(asked.precision, asked.device),
    )


def _again(own: Sequence[NamedEncoder], kind: Modality, asked: EncodeOptions) -> list[Encoding]:
    """The folder's own encoders once more; layers of one model in one pass."""
    found: list[Encoding] = []
    done: set[Path] = set()
    for one in own:
        if one.layers is not None and asked.features is None:
            if one.layers not in done:
                done.add(one.layers)
                options = _as_recorded(one, asked)
                layers = one.stores[one.layers]["layer"]
                options = dataclasses.replace(options, layer=None, layers=layers)
                found.append(Encoding(kind, options))
            continue
        found.append(Encoding(kind, _as_recorded(one, asked), one.name))
    return found


def _as_recorded(encoder: NamedEncoder, asked: EncodeOptions) -> EncodeOptions:
    """The options that make an encoder again."""
    from mmm.device import resolve_precision

    recipe = encoder.recipe
    if encoder.kind == "audio":
        options = dataclasses.replace(
            asked,
            audio_encoder=recipe["encoder"],
            layer=recipe.get("layer"),
            frame_rate=recipe.get("frame_rate_hz"),
            num_mels=recipe.get("num_mels"),
            audio_revision=recipe.get("revision"),
            chunk_seconds=recipe.get("chunk_s"),
            whisper_padding=recipe.get("padding_s"),
            audio_feature=asked.audio_feature or ",".join(encoder.audio_features),
        )
    else:
        options = dataclasses.replace(
            asked,
            text_encoder=recipe["encoder"],
            text_width=recipe.get("width"),
            max_tokens=recipe.get("max_tokens"),
            text_revision=recipe.get("revision"),
            with_speakers=recipe.get("speakers"),
            text_pooling=recipe.get("pooling", "first"),
            context=asked.context or ",".join(map(str, encoder.contexts)),
        )
    if asked.precision not in ("auto", recipe.get("precision", asked.precision)):
        raise ValueError(
            f"--precision {asked.precision}: {encoder.name} was made with"
            f" {recipe['precision']}; name the encoder, and what it makes is another one beside it"
        )
    recorded = recipe.get("precision", "float32")
    return dataclasses.replace(options, precision=resolve_precision(recorded, asked.device))


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


def _found(encoder: str, kind: str) -> str:
    """An encoder by a name that another process understands, which works in another folder."""
    if encoder == "published":
        return _PUBLISHED[kind]
    is_local = encoder not in ("fbank", "voice", "char-ngram") and Path(encoder).is_dir()
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
            is_its = recipe["kind"] == "audio" and recipe["encoder"] == name
            if is_its and recipe.get("layer") != "projection":  # whose windows have no rate
                rate: float | None = recipe.get("frame_rate_hz")
                return rate
    return None if audio_encoder == "published" else _FRAME_RATE
