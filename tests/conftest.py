"""A tiny real corpus and its features, made once a session, and small settings for each
architecture.
"""

import csv
import hashlib
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test downloads
# Before torch is imported, here and below: two threads of a small model that wait for each other in
# a loop, on cores that others use as well, take twenty times as long.
os.environ["OMP_WAIT_POLICY"] = "passive"

import numpy as np
import pytest
import soundfile
import torch

from mmm.encoders import SpeechEncoder, TextEncoder
from mmm.encoders.extract import Progress, encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder, make_text_encoder
from mmm.features.recipe import AUDIO_FEATURES
from mmm.manifest import COLUMNS, Manifest
from mmm.manifest_csv import read_manifest
from mmm.models import ARCHITECTURES
from mmm.training.checkpoint import checkpoint_bytes
from mmm.training.config import TrainConfig, make_config
from mmm.training.features import Features, load_features
from mmm.training.fit import fit
from mmm.training.run import Run, begin

torch.set_num_threads(1)
# Where a script has started pytest in the background or under nohup they are ignored, and every
# process of a test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

CONTEXTS = (1, 2, 3)
SAMPLE_RATE_HZ = 16_000
HEADER = (*COLUMNS, "split")
_SPLIT_OF_SESSION = ("train", "train", "dev", "test")
_TURNS_OF_SESSION = (
    (5, 2),
    (8, 5),
    (6, 4),
    (7, 3),
)  # 40 utterances; one dialogue is shorter than context 3
_WORDS = {
    "neutral": "그래 okay",
    "happy": "좋아 great",
    "angry": "싫어 no!",
    "sad": "슬퍼 alas",
    "disgust": "윽 yuck",
}
_EMOTIONS = ("neutral", "happy", "neutral", "angry", "sad", "neutral", "neutral")
_SMALL = {name: {"width": 8} for name in ARCHITECTURES} | {"cross_attention": {"heads": 4}}


@dataclass(frozen=True)
class Corpus:
    """A manifest whose features are in `features_dir`."""

    manifest: Manifest
    features_dir: Path

    def features(
        self,
        audio_feature: str = "hidden_state",
        context: int = 1,
        speech: str | None = None,
        text: str | None = None,
    ) -> Features:
        return load_features(self.manifest, self.features_dir, audio_feature, context, speech, text)


def write_wav(path: Path, seconds: float, frequency_hz: float, seed: int) -> None:
    """A tone with noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(seed).normal(size=len(time_s))
    soundfile.write(
        path, 0.3 * np.sin(2 * np.pi * frequency_hz * time_s) + 0.02 * noise, SAMPLE_RATE_HZ
    )


def write_manifest(
    path: Path, rows: Iterable[Sequence[str]], header: Sequence[str] = HEADER
) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def write_corpus(folder: Path, prefix: str = "") -> Manifest:
    """40 utterances of 8 dialogues in 4 sessions with their wavs; ids start with `prefix`."""
    rows, number = [], 0
    for session, (split, lengths) in enumerate(
        zip(_SPLIT_OF_SESSION, _TURNS_OF_SESSION, strict=True), start=1
    ):
        for dialogue, num_turns in enumerate(lengths):
            for turn in range(num_turns):
                emotion = _EMOTIONS[number % len(_EMOTIONS)]
                if split == "test" and turn == 1:
                    emotion = "disgust"  # a class that training never sees
                text = f"{_WORDS[emotion]} {number}, turn {turn}"
                frequency_hz = 200.0 * (1 + list(_WORDS).index(emotion))
                audio = f"wav/{prefix}{number:02}.wav"
                write_wav(folder / audio, 0.3 + 0.07 * (number * 5 % 13), frequency_hz, number)
                if turn == 3:
                    emotion = "happy;neutral"
                rows.append(
                    (
                        f"{prefix}u{number:02}",
                        f"{prefix}s{session}d{dialogue}",
                        str(turn),
                        f"session{session}",
                        f"speaker{session}{turn % 2}",
                        "" if number == 4 else text,
                        audio,
                        emotion,
                        split,
                    )
                )
                number += 1
    # The rows of a dialogue need not be in order.
    rows[5], rows[6] = rows[6], rows[5]
    return read_manifest(write_manifest(folder / "manifest.csv", rows))


def names_in(folder: Path) -> list[str]:
    """Sorted, hidden ones too."""
    return sorted(child.name for child in folder.iterdir())


def small_speech_encoder() -> SpeechEncoder:
    return make_speech_encoder("fbank", frame_rate=10, num_mels=16)


def small_text_encoder() -> TextEncoder:
    return make_text_encoder("char-ngram", width=32)


def encode(manifest: Manifest, features_dir: Path) -> list[Progress]:
    """Both audio features and contexts 1, 2, 3."""
    speech = encode_speech(manifest, features_dir, small_speech_encoder(), AUDIO_FEATURES)
    return [*speech, *encode_text(manifest, features_dir, small_text_encoder(), CONTEXTS)]


@pytest.fixture(autouse=True)
def _fresh_worker() -> None:
    """What a worker in this process has learnt about checkpoints is not another test's, nor are its
    threads.
    """
    torch.set_num_threads(1)
    if "search.worker.trial" in sys.modules:
        sys.modules["search.worker.trial"]._save_costs.clear()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest = write_corpus(folder)
    encode(manifest, folder / "features")
    return Corpus(manifest, folder / "features")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with MLflow's tables and nothing in them, to be copied: MLflow takes seconds
    to make it.
    """
    from mlflow import MlflowClient

    from search.tracking.store import default_tracking_uri

    folder = tmp_path_factory.mktemp("store")
    MlflowClient(tracking_uri=default_tracking_uri(folder)).search_experiments()
    return folder / "mlflow.db"


def small_config(architecture: str, **changes: Any) -> TrainConfig:
    """Settings that train in a fraction of a second."""
    small = {
        "classifier_hidden": 12,
        "epochs": 2,
        "batch_size": 6,
        "lr": 1e-3,
        "input_scaling": "standard",
        **_SMALL[architecture],
    }
    return make_config({"architecture": architecture, **small, **changes})


def begin_small(corpus: Corpus, architecture: str, **changes: Any) -> Run:
    config = small_config(architecture, **changes)
    return begin(config, corpus.features(*config.features_key))


def save_checkpoint(run: Run, path: Path) -> str:
    """Write a checkpoint; its SHA-256."""
    content = checkpoint_bytes(run)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def trained(corpus: Corpus, architecture: str, **changes: Any) -> Run:
    run = begin_small(corpus, architecture, **changes)
    for _ in fit(run):
        pass
    return run
