"""Pretrained speech models of transformers: Wav2Vec2, HuBERT, WavLM, data2vec-audio, and Whisper's
encoder.

By default kresnik/wav2vec2-large-xlsr-korean, as published. Never remote code; safetensors where
they exist, otherwise torch.load with weights_only (transformers' own default since 5.0).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmm.encoders import (
    ON_CPU,
    WHISPER_WINDOW_S,
    Batching,
    Floats,
    Running,
    at_layer,
    layer_of,
    layer_statistics,
)
from mmm.encoders.layers import Layers, parse_layers
from mmm.encoders.pretrained import WrongEncoder, find_pretrained, kind_of, load_part
from mmm.encoders.whisper import in_windows, shortened
from mmm.encoders.windows import Convolutions, stitch, windows
from mmm.features.recipe import AUDIO_FEATURES, LAYERS, Recipe

SAMPLE_RATE_HZ = 16_000
_VERSION = 2
_FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "whisper")
_WITHOUT_CONVOLUTIONS = ("hubert", "whisper")  # they do not give what goes into their first layer
_OVERLAP_S = 4.0  # of two chunks: a cut is 2 s away from every frame that is kept
# Whisper's shorter windows come in steps, so that there are few of them.
_WINDOW_STEP_S = 0.5


class HuggingFaceSpeech:
    """Frames of a frozen speech model: `hidden_state` its last layer or those of `layer`,
    `extract_feature` its convolutions.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        layer: str = "last",
        layers: str | None = None,
        frame_rate: float | None = None,
        running: Running = ON_CPU,
        only_local: bool = False,
    ) -> None:
        """`layers`: numbers, or `all`, of layers that are features of their own beside `layer`.
        `frame_rate`: a store keeps so many means of frames a second; None keeps every frame.
        """
        self.name, self.running, self.frame_rate = name, running, frame_rate
        self.layers, self._asked_layers = parse_layers(layer), layers
        if running.chunk_s <= _OVERLAP_S:
            raise ValueError(
                f"--chunk-seconds {running.chunk_s:g} is too short; chunks overlap by"
                f" {_OVERLAP_S:g} s"
            )
        self.pretrained = find_pretrained(name, revision, only_local=only_local)
        self.config: Any = None
        self.model: Any = None
        self.batching: Batching = "equal"

    def recipe(self, feature: str) -> Recipe:
        recipe: Recipe = {
            "kind": "audio",
            **self.pretrained.identity,
            "version": _VERSION,
            "feature": feature.partition("@")[0],
        }
        if feature == LAYERS:
            recipe["layer"] = ",".join(self.several_layers())
        elif feature != "extract_feature":  # convolutions have no layer: one store for all
            recipe["layer"] = str(self._layers_of(feature))
        if self.frame_rate is not None and feature != LAYERS:
            recipe["frame_rate_hz"] = float(self.frame_rate)
        if self.running.padding_s != WHISPER_WINDOW_S:
            recipe["padding_s"] = float(self.running.padding_s)
        return {
            **recipe,
            "precision": self.running.precision,
            "chunk_s": self.running.chunk_s,
            "sample_rate_hz": SAMPLE_RATE_HZ,
        }

    def features(self) -> Sequence[str]:
        self.load(weights=False)
        has_convolutions = self.config.model_type not in _WITHOUT_CONVOLUTIONS
        return AUDIO_FEATURES if has_convolutions else AUDIO_FEATURES[:1]

    def several_layers(self) -> tuple[str, ...]:
        return tuple(map(str, self._several))

    @property
    def _several(self) -> tuple[int, ...]:
        """The layers that are features of their own. Raises ValueError."""
        if self._asked_layers is None:
            return ()
        if self._asked_layers == "all":
            self.load(weights=False)
            return tuple(range(1, self._num_layers + 1))
        found = parse_layers(self._asked_layers)
        if found.mean or not found.numbers:
            raise ValueError(
                f"--layers {self._asked_layers!r} is not understood; expected all, or numbers, for"
                " example 4,8,12"
            )
        return found.numbers

    def _layers_of(self, feature: str) -> Layers:
        layer = layer_of(feature)
        return self.layers if layer is None else parse_layers(layer)

    @property
    def _num_layers(self) -> int:
        of = self.config
        return int(of.encoder_layers if self.is_whisper else of.num_hidden_layers)

    def load(self, *, weights: bool = True) -> None:
        if self.config is None:
            self._load_config()
        if weights and self.model is None:
            from transformers import AutoModel
            from transformers.utils import logging as transformers_logging

            transformers_logging.disable_progress_bar()
            model = load_part(AutoModel, self.name, self.pretrained.folder)
            model = model.encoder if self.is_whisper else model  # Whisper's decoder writes text
            self._keep_layers(model if self.is_whisper else model.encoder)
            self.model = model.eval().float().to(self.running.device)
            self.shorter: dict[int, Any] = {}

    def _load_config(self) -> None:
        from transformers import AutoConfig, AutoFeatureExtractor

        folder = self.pretrained.folder
        self.config = load_part(AutoConfig, self.name, folder)
        family = self.config.model_type
        if family not in _FAMILIES:
            kind = kind_of(family)
            what = f"a text model ({family})" if kind == "text" else f"a {family}"
            raise WrongEncoder(self.name, kind, what, f"one of {', '.join(_FAMILIES)}")
        self.extractor = load_part(AutoFeatureExtractor, self.name, folder)
        if self.extractor.sampling_rate != SAMPLE_RATE_HZ:
            raise ValueError(
                f"encoder {self.name!r} wants {self.extractor.sampling_rate} Hz speech; expected"
                f" {SAMPLE_RATE_HZ} Hz"
            )
        self.is_whisper = family == "whisper"
        if self.is_whisper:
            hop = 2 * self.extractor.hop_length  # its second convolution halves
            self.window = self.config.max_source_positions * hop
            self.convolutions = Convolutions((hop,), (hop,))
            self.batching = "masked"  # every window is as long: it was trained on padded speech
        else:
            self.convolutions = Convolutions(
                tuple(self.config.conv_kernel), tuple(self.config.conv_stride)
            )
            self.batching = _batching(self.config)
            if self.running.padding_s != WHISPER_WINDOW_S:
                raise ValueError(
                    f"--whisper-padding {self.running.padding_s:g} is for Whisper alone; encoder"
                    f" {self.name!r} is a {family}, and its speech is not padded"
                )
        for option, numbers in (
            ("--layer", self.layers.numbers),
            ("--layers", self._several),
        ):
            if numbers and max(numbers) > self._num_layers:
                raise ValueError(
                    f"{option} {','.join(map(str, numbers))}: encoder {self.name!r} has layers 0 to"
                    f" {self._num_layers}"
                )
        self.frames_per_mean("hidden_state")  # refuses a rate that does not divide

    def _keep_layers(self, stack: Any) -> None:
        numbers = [*self.layers.numbers, *self._several]
        if numbers and (self.layers.numbers or self._asked_layers):
            # One more than is read: what comes out of the last one may be normalised once more.
            stack.layers = stack.layers[: max(numbers) + 1]

    def _num_adapters(self, feature: str = "hidden_state") -> int:
        is_output = feature == "hidden_state" and not self.layers.numbers
        has_adapter = getattr(self.config, "add_adapter", False) and is_output
        return self.config.num_adapter_layers if has_adapter else 0

    def width(self, feature: str) -> int:
        if feature == "extract_feature":
            if self.config.model_type in _WITHOUT_CONVOLUTIONS:
                raise ValueError(
                    f"encoder {self.name!r} gives no convolutional features; use --audio-feature"
                    " hidden_state"
                )
            return int(self.config.conv_dim[-1])
        of = self.config
        if feature == LAYERS:
            return int(of.hidden_size)
        layers = self._layers_of(feature)
        width = int(of.output_hidden_size if self._num_adapters(feature) else of.hidden_size)
        return width * (1 if layers.mean else max(1, len(layers.numbers)))

    def frames_per_mean(self, feature: str) -> int:
        """Raises ValueError where the frame rate asked for does not divide the model's own."""
        if self.frame_rate is None or feature == LAYERS:
            return 1
        own = SAMPLE_RATE_HZ / self.convolutions.hop
        if num_adapters := self._num_adapters(feature):
            own /= self.config.adapter_stride**num_adapters
        number = own / self.frame_rate if self.frame_rate > 0 else 0.0
        if number < 1 or number != int(number):
            choices = " or ".join(f"{own / n:g}" for n in (1, 2, 4, 5, 8))
            raise ValueError(
                f"--frame-rate {self.frame_rate:g} does not divide the {own:g} frames a second of"
                f" encoder {self.name!r}; try {choices}"
            )
        return int(number)

    def num_frames(self, num_samples: int, feature: str) -> int:
        if feature == LAYERS:
            return 2 * len(self._several)
        return -(-self._num_own_frames(num_samples, feature) // self.frames_per_mean(feature))

    def _num_own_frames(self, num_samples: int, feature: str) -> int:
        """Before they are averaged."""
        if self.is_whisper:
            return max(1, -(-num_samples // self.convolutions.hop))
        frames = self.convolutions.num_frames(num_samples)
        for _ in range(self._num_adapters(feature)):
            frames = (frames - 1) // self.config.adapter_stride + 1
        return frames

    def encode(self, wave: Floats, features: Sequence[str]) -> dict[str, Floats]:
        return self.encode_batch([wave], features)[0]

    def encode_batch(
        self, waves: Sequence[Floats], features: Sequence[str]
    ) -> list[dict[str, Floats]]:
        """(S,) samples each -> (T, D) each. Speech beyond the chunk limit is cut, encoded in pieces
        and stitched.
        """
        if self.model is None:
            self.load()
        for feature in features:
            self.width(feature)  # refuses what the model does not have
        each = [at_layer(number) for number in self.several_layers()]
        if LAYERS in features:
            frames = dict.fromkeys([*(one for one in features if one != LAYERS), *each])
            found = self._frames(waves, list(frames))
            for one in found:
                one[LAYERS] = layer_statistics([one[name] for name in each])
            return [{feature: one[feature] for feature in features} for one in found]
        return self._frames(waves, features)

    def _frames(self, waves: Sequence[Floats], features: Sequence[str]) -> list[dict[str, Floats]]:
        if self.is_whisper:
            return self._whisper(waves, features)
        limit = round(self.running.chunk_s * SAMPLE_RATE_HZ)
        normal = [self._normal(wave) for wave in waves]
        if all(len(wave) <= limit for wave in normal):
            return self._run(normal, features)
        found = []
        for wave in normal:
            overlap = round(_OVERLAP_S * SAMPLE_RATE_HZ)
            cut = windows(len(wave), self.convolutions, limit=limit, overlap=overlap)
            if len(cut) > 1 and self._num_adapters():
                raise ValueError(
                    f"encoder {self.name!r} has an adapter, whose frames cannot be stitched; use a"
                    " longer --chunk-seconds"
                )
            parts = [self._run([wave[w.start_sample : w.end_sample]], features)[0] for w in cut]
            found.append(
                {feature: stitch([part[feature] for part in parts], cut) for feature in features}
            )
        return found

    def _normal(self, wave: Floats) -> Floats:
        if len(wave) < self.convolutions.receptive:
            wave = np.pad(wave, (0, self.convolutions.receptive - len(wave)))
        found = self.extractor(wave, sampling_rate=SAMPLE_RATE_HZ, return_tensors="np")
        values: Floats = found["input_values"][0]
        return values.astype(np.float32, copy=False)

    def _run(self, waves: Sequence[Floats], features: Sequence[str]) -> list[dict[str, Floats]]:
        """One forward pass. Waves of different lengths are padded under a mask."""
        import torch

        lengths = [len(wave) for wave in waves]
        padded = np.zeros((len(waves), max(lengths)), dtype=np.float32)
        for row, wave in zip(padded, waves, strict=True):
            row[: len(wave)] = wave
        mask = None
        if min(lengths) < max(lengths):
            assert self.batching == "masked", "this model gives other features in a padded batch"
            mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
            mask = mask.long().to(self.running.device)
        output = self._forward(torch.from_numpy(padded), attention_mask=mask)
        found = {
            feature: (
                output.extract_features
                if feature == "extract_feature"
                else self._hidden(output, feature)
            )
            for feature in features
        }
        frames = [
            {feature: self._num_own_frames(length, feature) for feature in features}
            for length in lengths
        ]
        return _rows(found, frames)

    def _whisper(self, waves: Sequence[Floats], features: Sequence[str]) -> list[dict[str, Floats]]:
        """In windows of 30 s, one after another, as the model was trained, or in as long ones as
        speech and its padding need; frames of padding are dropped.
        """
        return in_windows(
            waves,
            int(self.window),
            self._padded_length,
            lambda pieces, length: self._whisper_window(pieces, length, features),
        )

    def _padded_length(self, num_samples: int) -> int:
        """Samples of the window that a piece of speech is encoded in."""
        step = round(_WINDOW_STEP_S * SAMPLE_RATE_HZ)
        wanted = num_samples + round(self.running.padding_s * SAMPLE_RATE_HZ)
        return min(int(self.window), -(-max(1, wanted) // step) * step)

    def _whisper_window(
        self, pieces: Sequence[Floats], length: int, features: Sequence[str]
    ) -> list[dict[str, Floats]]:
        """(S,) samples each, silence up to `length` behind them -> (T, D), frames of speech."""
        import torch

        mel = self.extractor(
            pieces,
            sampling_rate=SAMPLE_RATE_HZ,
            return_tensors="np",
            max_length=length,
            padding="max_length",
            truncation=True,
        )["input_features"]
        model = self._whisper_of(length // self.convolutions.hop)
        output = self._forward(torch.from_numpy(np.asarray(mel, dtype=np.float32)), model=model)
        kept = [
            {feature: self._num_own_frames(len(piece), feature) for feature in features}
            for piece in pieces
        ]
        return _rows({one: self._hidden(output, one) for one in features}, kept)

    def _whisper_of(self, num_frames: int) -> Any:
        """The encoder for windows of so many frames."""
        if num_frames == self.config.max_source_positions:
            return self.model
        if num_frames not in self.shorter:
            self.shorter[num_frames] = shortened(self.model, num_frames)
        return self.shorter[num_frames]

    def _forward(self, inputs: Any, model: Any = None, **options: Any) -> Any:
        import torch

        from mmm.device import autocast

        options = {name: value for name, value in options.items() if value is not None}
        if self.layers.numbers or self._asked_layers:
            options["output_hidden_states"] = True
        with torch.inference_mode(), autocast(self.running.precision, self.running.device):
            return (model or self.model)(inputs.to(self.running.device), **options)

    def _hidden(self, output: Any, feature: str) -> Any:
        import torch

        layers = self._layers_of(feature)
        if not layers.numbers:
            return output.last_hidden_state
        chosen = [output.hidden_states[number].float() for number in layers.numbers]
        return torch.stack(chosen).mean(dim=0) if layers.mean else torch.cat(chosen, dim=-1)


def _batching(config: Any) -> Batching:
    """Which files may share a batch and still give what each gives alone.

    Models with `feat_extract_norm="layer"` were trained under masks. A group norm is over all of a
    file's time, padding included, and data2vec-audio's stack of positional convolutions, like an
    adapter's, carries padding back into speech: equal lengths only.
    """
    masked = (
        getattr(config, "feat_extract_norm", "group") == "layer"
        and config.model_type != "data2vec-audio"
    )
    return "masked" if masked and not getattr(config, "add_adapter", False) else "equal"


def _rows(values: Mapping[str, Any], lengths: Sequence[dict[str, int]]) -> list[dict[str, Floats]]:
    """(B, T, D) on a device -> each file's (T_i, D) here."""
    arrays = {feature: tensor.float().cpu().numpy() for feature, tensor in values.items()}
    return [
        {feature: arrays[feature][row, : own[feature]] for feature in arrays}
        for row, own in enumerate(lengths)
    ]
