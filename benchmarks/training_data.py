"""A manifest with random features of published sizes and KEMDy20's durations, for benchmarks of
training.
"""

import csv
from pathlib import Path

import numpy as np

from mmm.features.writer import PartialStore, Plan
from mmm.manifest import Manifest, speech_key, text_key
from mmm.manifest_csv import read_manifest
from mmm.training.features import Features, load_features

CLASSES = ("neutral", "happy", "surprise", "angry", "sad", "disgust", "fear")
_SHARES = (
    0.86,
    0.09,
    0.012,
    0.012,
    0.01,
    0.008,
    0.008,
)  # as KEMDy20's, rare classes rounded up so that each occurs
FRAMES_PER_S = 50


def write_corpus(
    folder: Path,
    number: int,
    *,
    speech_width: int = 1024,
    text_width: int = 768,
    frames_per_s: float = FRAMES_PER_S,
    is_pooled: bool = False,
    context: int = 1,
) -> Manifest:
    """`number` training utterances and a tenth of that for validation; `is_pooled`: one frame each,
    for the concat systems.
    """
    rng = np.random.default_rng(0)
    total = number + max(number // 10, len(CLASSES))
    (folder / "features").mkdir(parents=True)
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(
            [
                "utterance_id",
                "dialogue_id",
                "turn",
                "session",
                "speaker",
                "text",
                "audio",
                "emotion",
                "split",
            ]
        )
        for index in range(total):
            is_train, dialogue = index < number, index // 20
            session = f"train{dialogue % 30}" if is_train else f"dev{dialogue % 4}"
            emotion = (
                CLASSES[index % len(CLASSES)]
                if index % 50 < 7
                else CLASSES[int(rng.choice(len(CLASSES), p=_SHARES))]
            )
            rows.writerow(
                [
                    f"u{index:06}",
                    f"{session}d{dialogue}",
                    index % 20,
                    session,
                    f"{session}{index % 2}",
                    f"line {index}",
                    f"wav/{index:06}.wav",
                    emotion,
                    "train" if is_train else "dev",
                ]
            )
    manifest = read_manifest(folder / "manifest.csv", check_audio=False)
    seconds = np.clip(0.6 + rng.gamma(1.3, 4.05, total), 0.67, 35.2)
    frames = (
        np.ones(total, dtype=np.int64)
        if is_pooled
        else np.maximum((seconds * frames_per_s).astype(np.int64), 1)
    )
    tokens = (
        np.ones(total, dtype=np.int64)
        if is_pooled
        else np.clip((4 + 3 * seconds).astype(np.int64), 3, 128)
    )
    for recipe, width, lengths, keys in (
        (
            {"kind": "audio", "encoder": "random", "feature": "hidden_state"},
            speech_width,
            frames,
            [speech_key(manifest, index) for index in range(total)],
        ),
        (
            {"kind": "text", "encoder": "random", "context": context},
            text_width,
            tokens,
            [text_key(manifest, index, context) for index in range(total)],
        ),
    ):
        plan = Plan(
            recipe,
            width,
            np.array(keys, dtype=np.uint64),
            np.zeros((total, 2), dtype=np.int64),
            lengths,
        )
        store = PartialStore(folder / "features" / recipe["kind"], plan)
        pool = rng.standard_normal((4096 + int(lengths.max()), width), dtype=np.float32).astype(
            np.float16
        )
        for row, length in enumerate(lengths):
            start = int(rng.integers(4096))
            store.put(row, pool[start : start + length])
        store.finish()
    return manifest


def features_of(manifest: Manifest, context: int = 1) -> Features:
    return load_features(manifest, manifest.path.parent / "features", "hidden_state", context)
