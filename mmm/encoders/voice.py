"""voice: frames of a pretrained LSTM that comes in the wheel of Resemblyzer 0.1.4 (Apache-2.0).

It is a SPEAKER encoder, trained to tell voices apart, not emotions: the generalised end-to-end loss
of Wan et al. 2018 (arXiv:1710.10467), three LSTM layers of 256 on 40 mel bands, trained by the
authors of Real-Time-Voice-Cloning on LibriSpeech (train-other), VoxCeleb1 and VoxCeleb2, so mostly
on English. The package is never imported: what it computes is written here anew, and
`benchmarks/voice_reference.py` compares the two. Its trimming of silence is left out, so that
frames keep their time.
"""

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mmm.encoders import Batching, Floats, layer_statistics
from mmm.features.recipe import AUDIO_FEATURES, LAYERS, Recipe
from mmm.files import sha256_of_file

PACKAGE, PACKAGE_VERSION = "resemblyzer", "0.1.4"
SAMPLE_RATE_HZ = 16_000
_VERSION = 1  # raise it when the numbers change, so that old features are not taken for new ones
_WEIGHTS = "resemblyzer/pretrained.pt"
_WEIGHTS_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
_HOP, _WINDOW = 160, 400  # samples: 10 and 25 ms
_FRAME_RATE_HZ = SAMPLE_RATE_HZ // _HOP
_NUM_MELS, _WIDTH, _NUM_LAYERS = 40, 256, 3
_LEAST_RMS = 10 ** (-30 / 20)  # -30 dB of full scale
# The windows of an utterance's vector: 1.6 s, 1.3 of them a second; the last one is filled up with
# silence, unless less than three quarters of it would be speech.
_PARTIAL_FRAMES = 160
_PARTIAL_STEP = round(SAMPLE_RATE_HZ / 1.3 / _HOP)
_LEAST_COVERED = 0.75
_LAYERS = ("1", "2", "3", "projection")


class Voice:
    """`hidden_state`: frames of an LSTM layer (T, 256), 100 a second before they are averaged, or
    of the `projection`: unit vectors of windows of 1.6 s (T, 256), whose mean, brought to length 1,
    is the package's utterance vector.

    `hidden_state@LAYER` is another layer than the encoder's own, from the same pass.
    """

    # Padding changes nothing, because the layers run forward only; so speech shares batches on a
    # CPU, too, which takes half of the time.
    batching: Batching = "loop"

    def __init__(
        self, *, layer: str = "last", layers: str | None = None, frame_rate: float | None = None
    ) -> None:
        """`layers`: those that are features of their own, `all` is 1, 2 and 3. `frame_rate`: a
        store keeps so many means of frames a second, None is every frame; the
        projection's windows are kept as they are.

        Raises FileNotFoundError where the package is not installed, ValueError for another file
        than its own.
        """
        self.layer, self.frame_rate = _checked_layer(layer), frame_rate
        asked = {None: [], "all": list(_LAYERS[:_NUM_LAYERS])}.get(layers)
        found = (layers or "").split(",") if asked is None else asked
        self._several = tuple(dict.fromkeys(_checked_layer(one.strip()) for one in found))
        number = _FRAME_RATE_HZ / frame_rate if frame_rate else 1.0
        if number < 1 or number != int(number):
            raise ValueError(
                f"--frame-rate {frame_rate:g} does not divide the {_FRAME_RATE_HZ} frames a second"
                " of encoder 'voice'; try 50, 25, 20, 12.5 or 10"
            )
        self._frames_per_mean = int(number)
        self._weights = _find_weights()
        self.layers: list[Any] = []
        self.linear: Any = None

    @cached_property
    def mel(self) -> Any:
        import torchaudio.transforms  # here, because features that are there need none of it

        return torchaudio.transforms.MelSpectrogram(
            SAMPLE_RATE_HZ,
            n_fft=_WINDOW,
            hop_length=_HOP,
            n_mels=_NUM_MELS,
            mel_scale="slaney",
            norm="slaney",
            pad_mode="constant",
        )

    def load(self, *, weights: bool = True) -> None:
        if not weights or self.layers:
            return
        import torch

        state = torch.load(self._weights, map_location="cpu", weights_only=True)["model_state"]
        self.linear = torch.nn.Linear(_WIDTH, _WIDTH).eval()
        self.linear.load_state_dict(_part(state, "linear.", ""))
        layers = []
        for number in range(_NUM_LAYERS):
            lstm = torch.nn.LSTM(_WIDTH if number else _NUM_MELS, _WIDTH, batch_first=True).eval()
            lstm.load_state_dict(_part(state, "lstm.", f"_l{number}"))
            layers.append(lstm)
        self.layers = layers

    def _layer_of(self, feature: str) -> str:
        name, _, layer = feature.partition("@")
        if name == LAYERS:
            return LAYERS
        if name != "hidden_state":
            raise ValueError(
                "encoder 'voice' gives no convolutional features; use --audio-feature hidden_state"
            )
        return _checked_layer(layer) if layer else self.layer

    def features(self) -> Sequence[str]:
        return AUDIO_FEATURES[:1]

    def several_layers(self) -> Sequence[str]:
        return self._several

    @property
    def _mixed(self) -> list[str]:
        """Those whose statistics stand side by side: frames of the LSTM alone."""
        return [layer for layer in self._several if layer != "projection"]

    def recipe(self, feature: str) -> Recipe:
        layer = self._layer_of(feature)
        recipe: Recipe = {
            "kind": "audio",
            "encoder": "voice",
            "version": _VERSION,
            "files_sha256": _WEIGHTS_SHA256,
            "feature": feature.partition("@")[0],
            "layer": ",".join(self._mixed) if layer == LAYERS else layer,
            "sample_rate_hz": SAMPLE_RATE_HZ,
        }
        if self.frame_rate is not None and layer not in ("projection", LAYERS):
            recipe["frame_rate_hz"] = float(self.frame_rate)
        return recipe

    def width(self, feature: str) -> int:
        self._layer_of(feature)
        return _WIDTH

    def frames_per_mean(self, feature: str) -> int:
        is_kept = self._layer_of(feature) in ("projection", LAYERS)
        return 1 if is_kept else self._frames_per_mean

    def num_frames(self, num_samples: int, feature: str) -> int:
        if self._layer_of(feature) == LAYERS:
            return 2 * len(self._mixed)
        if self._layer_of(feature) == "projection":
            return len(partial_starts(num_samples))
        return -(-_num_mel_frames(num_samples) // self._frames_per_mean)

    def encode(self, wave: Floats, features: Sequence[str]) -> dict[str, Floats]:
        return self.encode_batch([wave], features)[0]

    def encode_batch(
        self, waves: Sequence[Floats], features: Sequence[str]
    ) -> list[dict[str, Floats]]:
        import torch

        self.load()
        layers = {feature: self._layer_of(feature) for feature in features}
        wanted = set(layers.values()) | (set(self._mixed) if LAYERS in features else set())
        with torch.inference_mode():
            mels = [self._mel(wave) for wave in waves]
            found = self._hidden(waves, mels, wanted - {"projection", LAYERS})
            if "projection" in wanted:
                found["projection"] = self._projection(waves, mels)
        if LAYERS in wanted:
            mixed = zip(*(found[layer] for layer in self._mixed), strict=True)
            found[LAYERS] = [layer_statistics(of_wave) for of_wave in mixed]
        return [
            {feature: found[layer][row] for feature, layer in layers.items()}
            for row in range(len(waves))
        ]

    def _mel(self, wave: Floats) -> Any:
        """(S,) -> (T, 40): mel power, not its logarithm, of louder speech, as far as the last
        partial window reaches.

        Quiet speech is raised to a root mean square of -30 dB; silence stays what it is.
        """
        import torch

        rms = math.sqrt(np.square(wave, dtype=np.float64).mean()) if len(wave) else 0.0
        gain = _LEAST_RMS / rms if 0 < rms < _LEAST_RMS else 1.0
        reach = (partial_starts(len(wave))[-1] + _PARTIAL_FRAMES) * _HOP
        padded = np.zeros(max(len(wave), reach), dtype=np.float32)
        padded[: len(wave)] = wave * np.float32(gain)
        return self.mel(torch.from_numpy(padded)).T

    def _hidden(
        self, waves: Sequence[Floats], mels: Sequence[Any], wanted: set[str]
    ) -> dict[str, list[Floats]]:
        """What comes out of each of the layers `wanted`, (T, 256) of each utterance."""
        from torch.nn.utils.rnn import pad_sequence

        if not wanted:
            return {}
        lengths = [_num_mel_frames(len(wave)) for wave in waves]
        cut = [mel[:length] for mel, length in zip(mels, lengths, strict=True)]
        states = pad_sequence(cut, batch_first=True)
        found: dict[str, list[Floats]] = {}
        for name, lstm in zip(_LAYERS[: int(max(wanted))], self.layers, strict=False):
            states, _ = lstm(states)
            if name in wanted:
                rows = states.numpy()
                found[name] = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        return found

    def _projection(self, waves: Sequence[Floats], mels: Sequence[Any]) -> list[Floats]:
        """Of each utterance the vectors of its partial windows, (P, 256), each of length 1."""
        import torch
        from torch.nn import functional

        starts = [partial_starts(len(wave)) for wave in waves]
        states = torch.stack(
            [
                mel[start : start + _PARTIAL_FRAMES]
                for mel, own in zip(mels, starts, strict=True)
                for start in own
            ]
        )
        for lstm in self.layers:
            states, _ = lstm(states)
        vectors = functional.normalize(self.linear(states[:, -1]).relu(), dim=1).numpy()
        ends = np.cumsum([len(own) for own in starts])
        return np.split(vectors, ends[:-1])


def partial_starts(num_samples: int) -> list[int]:
    """First mel frame of each window of an utterance's vector, at least one window."""
    num_frames = -(-(num_samples + 1) // _HOP)
    end = max(1, num_frames - _PARTIAL_FRAMES + _PARTIAL_STEP + 1)
    starts = list(range(0, end, _PARTIAL_STEP))
    covered = (num_samples - starts[-1] * _HOP) / (_PARTIAL_FRAMES * _HOP)
    return starts[:-1] if len(starts) > 1 and covered < _LEAST_COVERED else starts


def _num_mel_frames(num_samples: int) -> int:
    return num_samples // _HOP + 1


def _checked_layer(layer: str) -> str:
    """As it stands in a recipe. Raises ValueError."""
    found = str(_NUM_LAYERS) if layer == "last" else layer
    if found not in _LAYERS:
        raise ValueError(
            f"--layer {layer!r}: encoder 'voice' has {', '.join(_LAYERS)} and last, which is"
            f" {_NUM_LAYERS}"
        )
    return found


def _part(state: Mapping[str, Any], prefix: str, suffix: str) -> Mapping[str, Any]:
    """The weights of one module, named as it names them."""
    return {
        name.removeprefix(prefix).removesuffix(suffix) + ("_l0" if suffix else ""): weights
        for name, weights in state.items()
        if name.startswith(prefix) and name.endswith(suffix)
    }


def _find_weights() -> Path:
    """The package's file, which has to be the one that this code was written for."""
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(_WEIGHTS)))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"encoder 'voice' needs the weights that come in the package {PACKAGE}"
            f" {PACKAGE_VERSION}, which is not installed; run: {_install()}"
        )
    found = sha256_of_file(path)
    if found != _WEIGHTS_SHA256:
        raise ValueError(
            f"{path}: not the weights of {PACKAGE} {PACKAGE_VERSION} (SHA-256 {found}, expected"
            f" {_WEIGHTS_SHA256}); run: {_install('--force-reinstall')}"
        )
    return path


def _install(*options: str) -> str:
    """The command, for a shell. The package's own requirements are not needed, and are obsolete."""
    pip = [sys.executable, "-m", "pip", "install", *options, "--no-deps"]
    return shlex.join([*pip, f"{PACKAGE}=={PACKAGE_VERSION}"])
