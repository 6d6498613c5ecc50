"""What a command encodes: the encoders that it names, else the folder's own, else the built-in
ones.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmm.encoders import SpeechEncoder, TextEncoder, at_layer
from mmm.encoders.options import BATCH_S, BUILT_IN, SAYS, EncodeOptions, Modality, comma_list
from mmm.features.named import NamedEncoder, encoders_in
from mmm.features.recipe import AUDIO_FEATURES, LAYERS, MAX_CONTEXT, Recipe
from mmm.features.store import list_recipes
from mmm.setting import option_faults

_PUBLISHED = {"speech": "kresnik/wav2vec2-large-xlsr-korean", "text": "beomi/KcELECTRA-base"}
# Frames a second of a pretrained model. The mixer loses nothing by it and takes a third of the time
# (docs/LOG.md, 2026-11-26); pooled vectors are the mean of every frame whatever is kept.
_FRAME_RATE = 12.5


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
    if asked.device.partition(":")[0] not in BATCH_S:
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
        said = next(name for name in SAYS[other] if getattr(asked, name) is not None)
        option = f"--{said.replace('_', '-')}"
        raise ValueError(f"--{only}-only with {option}, which is of the {other}")
    for fault in option_faults(asked):
        raise ValueError(fault)


def _completed(asked: EncodeOptions, features: Path) -> EncodeOptions:
    """The same with what `published`, `auto` and defaults mean here."""
    from mmm.device import resolve_precision

    audio_encoder = asked.audio_encoder or BUILT_IN["speech"]
    return dataclasses.replace(
        asked,
        audio_encoder=_found(audio_encoder, "speech"),
        text_encoder=_found(asked.text_encoder or BUILT_IN["text"], "text"),
        frame_rate=kept_frame_rate(features, audio_encoder, asked.frame_rate),
        precision=resolve_precision(asked.precision, asked.device),
    )


def _again(own: Sequence[NamedEncoder], kind: Modality, asked: EncodeOptions) -> list[Encoding]:
    """The folder's own encoders once more; layers of one model in one pass."""
    found: list[Encoding] = []
    done: set[Path] = set()
    for one in own:
        layers = "" if one.layers is None else one.stores[one.layers]["layer"]
        is_one_of_them = one.recipe.get("layer") in layers.split(",")
        if one.layers is not None and is_one_of_them and asked.features is None:
            if one.layers not in done:
                done.add(one.layers)
                options = _as_recorded(one, asked)
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
            # Windows of the projection and pooled vectors have no rate.
            if is_its and recipe.get("layer") != "projection" and recipe["feature"] != LAYERS:
                rate: float | None = recipe.get("frame_rate_hz")
                return rate
    return None if audio_encoder == "published" else _FRAME_RATE
