"""Hugging Face encoders: any Wav2Vec2-like speech model, any text encoder with last_hidden_state.

By default kresnik/wav2vec2-large-xlsr-korean and beomi/KcELECTRA-base, as published. Never remote code; safetensors
where they exist, otherwise torch.load with weights_only (transformers' own default since 5.0).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from mmm.encoders import Floats
from mmm.encoders.audio import SAMPLE_RATE_HZ
from mmm.files import sha256_of_file
from mmm.store import Recipe

MAX_TOKENS = 128  # published
_VERSION = 1
_MIN_SAMPLES = 400  # the receptive field of Wav2Vec2's convolutions: shorter speech has no frame
_LOADED_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")
transformers_logging.disable_progress_bar()


def _load(loader: Any, name: str, revision: str | None, only_local: bool) -> Any:
    try:
        return loader.from_pretrained(name, revision=revision, trust_remote_code=False, local_files_only=only_local)
    except (EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
        # Not torch's own message: it advises to load the file without care.
        raise ValueError(
            f"encoder {name!r} cannot be loaded: its weights file is damaged, or holds more than weights, which could run code "
            f"({type(error).__name__}); download it again from a source you trust"
        ) from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if only_local and not Path(name).is_dir():
            pinned = f" --revision {revision}" if revision else ""
            raise FileNotFoundError(f"encoder {name!r}, which the features were made with, is not on this machine; get it with: "
                                    f"hf download {name}{pinned}") from error  # fmt: skip
        raise ValueError(
            f"encoder {name!r} cannot be loaded: {reason}; give a Hugging Face id that can be downloaded or is cached, "
            "the folder of a downloaded model, or a built-in encoder (fbank, char-ngram)"
        ) from error


def _identity(name: str, revision: str | None, only_local: bool) -> Recipe:
    """What pins the weights: the commit of a hub model, the hash of the files of a local one."""
    folder = Path(name)
    if not folder.is_dir():
        config = _load(AutoConfig, name, revision, only_local)
        return {"encoder": name, "revision": getattr(config, "_commit_hash", None) or revision}
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _LOADED_FILES for file in folder.glob(pattern)}):
        digest.update(f"{file.name}\0{sha256_of_file(file)}\n".encode())
    return {"encoder": str(folder.resolve()), "revision": None, "files_sha256": digest.hexdigest()}


class HuggingFaceSpeech:
    """Frames of a frozen speech model: `hidden_state` its last layer, `extract_feature` its convolutions."""

    def __init__(self, name: str, *, revision: str | None = None, only_local: bool = False) -> None:
        self.identity = _identity(name, revision, only_local)
        pinned = self.identity["revision"]
        self.extractor = _load(AutoFeatureExtractor, name, pinned, only_local)
        if self.extractor.sampling_rate != SAMPLE_RATE_HZ:
            raise ValueError(f"encoder {name!r} wants {self.extractor.sampling_rate} Hz speech; expected {SAMPLE_RATE_HZ} Hz")
        self.model = _load(AutoModel, name, pinned, only_local).eval().float()

    def recipe(self, feature: str) -> Recipe:
        return {"kind": "audio", **self.identity, "version": _VERSION, "feature": feature, "sample_rate_hz": SAMPLE_RATE_HZ}

    def encode(self, wave: Floats, features: Sequence[str]) -> dict[str, Floats]:
        if len(wave) < _MIN_SAMPLES:
            wave = np.pad(wave, (0, _MIN_SAMPLES - len(wave)))
        inputs = self.extractor(wave, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        with torch.inference_mode():
            output = self.model(**inputs)
        found = {"hidden_state": output.last_hidden_state}
        if "extract_feature" in features:
            if getattr(output, "extract_features", None) is None:
                name = self.identity["encoder"]
                raise ValueError(f"encoder {name!r} gives no convolutional features; use --audio-feature hidden_state")
            found["extract_feature"] = output.extract_features
        return {feature: found[feature][0].float().numpy() for feature in features}


class HuggingFaceText:
    """Tokens of a frozen text model: [CLS] first, turns joined by its separator, at most 128."""

    def __init__(self, name: str, *, revision: str | None = None, only_local: bool = False) -> None:
        self.identity = _identity(name, revision, only_local)
        pinned = self.identity["revision"]
        self.tokenizer = _load(AutoTokenizer, name, pinned, only_local)
        self.separator = self.tokenizer.sep_token or self.tokenizer.eos_token
        if self.separator is None:
            raise ValueError(f"encoder {name!r} has no separator token to join turns with; use another text encoder")
        self.model = _load(AutoModel, name, pinned, only_local).eval().float()

    def recipe(self) -> Recipe:
        return {"kind": "text", **self.identity, "version": _VERSION, "max_tokens": MAX_TOKENS}

    def encode(self, turns: Sequence[str]) -> Floats:
        inputs = self.tokenizer(self.separator.join(turns), truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            output: Floats = self.model(**inputs).last_hidden_state[0].float().numpy()
        return output
