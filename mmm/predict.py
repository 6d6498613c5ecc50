"""Prediction from a bundle, on raw speech and text, and the one opening of the test split."""

import copy
import csv
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmm.batches import Batch, SplitData, load_features, without_input
from mmm.bundle import Bundle
from mmm.encoders import Floats, SpeechEncoder, TextEncoder, speech_encoder_of, text_encoder_of
from mmm.encoders.audio import read_speech
from mmm.evaluate import evaluate, forward
from mmm.files import write_text
from mmm.manifest import Manifest
from mmm.store import pool

OPENINGS = "test_openings.csv"
_OPENING_COLUMNS = ("time", "bundle_sha256", "bundle", "manifest_sha256", "manifest", "utterances", "macro_f1", "accuracy")


class Predictor:
    """A bundle with its encoders, loaded once."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.speech: SpeechEncoder = speech_encoder_of(bundle.audio_recipe)
        self.text: TextEncoder = text_encoder_of(bundle.text_recipe)

    def _frames(self, audio: Path | Floats) -> np.ndarray[Any, np.dtype[np.float16]]:
        feature = self.bundle.audio_recipe["feature"]
        wave = read_speech(audio) if isinstance(audio, Path) else audio
        return self.speech.encode(wave, [feature])[feature].astype(np.float16)

    @torch.inference_mode()
    def predict(
        self, audio: Path | Floats, text: str, history: Sequence[tuple[Path | Floats | None, str]] = ()
    ) -> dict[str, float]:
        """Probability of each class for one utterance.

        `audio` is a file or 16 kHz mono samples; `history` holds the turns before, oldest first, as (audio or None,
        text). Turns beyond the bundle's context are not used. Raises FileNotFoundError or AudioError.
        """
        bundle, dims = self.bundle, self.bundle.dims
        earlier = list(reversed(history))[: bundle.config.context - 1]
        tokens = self.text.encode([text, *(line for _, line in earlier)]).astype(np.float16)
        if bundle.config.is_pooled:
            speech = np.zeros((1, bundle.config.context, dims.speech_width), dtype=np.float32)
            mask = np.zeros((1, bundle.config.context), dtype=bool)
            for place, clip in enumerate([audio, *(clip for clip, _ in earlier)]):
                if clip is not None:
                    speech[0, place] = pool(self._frames(clip), "audio")
                    mask[0, place] = True
            words, text_mask = pool(tokens, "text")[None].astype(np.float32), np.ones((1, 1), dtype=bool)
        else:
            speech = self._frames(audio)[None, : dims.speech_positions].astype(np.float32)
            words = tokens[None, : dims.text_positions].astype(np.float32)
            mask, text_mask = np.ones(speech.shape[:2], dtype=bool), np.ones(words.shape[:2], dtype=bool)
        inputs = [torch.from_numpy(array) for array in (speech, mask, words, text_mask)]
        if bundle.config.inputs == "text":
            inputs[:2] = without_input(inputs[0], inputs[1], bundle.config)
        elif bundle.config.inputs == "speech":
            inputs[2:] = without_input(inputs[2], inputs[3], bundle.config)
        batch = Batch(inputs[0], inputs[1], inputs[2], inputs[3], labels=torch.zeros(1, dims.num_classes))
        found = forward(bundle.model, batch).softmax(dim=-1)[0].tolist()
        return dict(zip(bundle.labels, found, strict=True))


def check_bundle_fits(bundle: Bundle, manifest: Manifest, features_dir: Path) -> None:
    """Raise ValueError or FileNotFoundError where a bundle cannot be evaluated on a manifest and its features."""
    features = load_features(manifest, features_dir, bundle.config.audio_feature, bundle.config.context)
    for kind, found, wanted in (
        ("speech", features.speech.recipe, bundle.audio_recipe),
        ("text", features.text.recipe, bundle.text_recipe),
    ):
        if found != wanted:
            names = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
            differing = ", ".join(f"{name}: {found.get(name)!r}, not {wanted.get(name)!r}" for name in names)
            raise ValueError(f"{bundle.path}: trained on other {kind} features than {features_dir}/ holds ({differing})")
    unknown = set(manifest.classes) - set(bundle.labels)
    if unknown:
        raise ValueError(f"{bundle.path}: does not know the classes {', '.join(sorted(unknown))} of {manifest.path}")


def evaluate_bundle(
    bundle: Bundle, manifest: Manifest, features_dir: Path, indices: list[int], device: torch.device
) -> dict[str, Any]:
    """Metrics of a bundle on chosen rows of a manifest, over the bundle's classes."""
    check_bundle_fits(bundle, manifest, features_dir)
    features = load_features(manifest, features_dir, bundle.config.audio_feature, bundle.config.context)
    features = dataclasses.replace(features, manifest=dataclasses.replace(manifest, classes=bundle.labels))
    policy = "published" if bundle.config.label_policy == "published" else "expand"
    data = SplitData(features, bundle.config, bundle.dims, indices, policy)
    # A copy, because a bundle that moved to a GPU would no longer predict on the CPU.
    return evaluate(copy.deepcopy(bundle.model).to(device), data, device)


def open_test(bundles: Sequence[Bundle], manifest: Manifest, features_dir: Path, device: torch.device) -> list[dict[str, Any]]:
    """Metrics of each bundle on the sealed test split; the opening is written down in the features folder first.

    Raises ValueError where the manifest has no test split or a bundle does not fit.
    """
    indices = manifest.sealed_test_rows()
    if not indices:
        raise ValueError(f"{manifest.path}: no test split (no row has split=test)")
    for bundle in bundles:
        check_bundle_fits(bundle, manifest, features_dir)
    path = features_dir / OPENINGS
    rows = list(csv.reader(path.read_text().splitlines())) if path.is_file() else [list(_OPENING_COLUMNS)]
    found = []
    for bundle in bundles:
        opening = [datetime.now(UTC).isoformat(timespec="seconds"), bundle.sha256, str(bundle.path), manifest.sha256,
                   str(manifest.path), str(len(indices))]  # fmt: skip
        # Written before it is read, so that an opening is on record even if the evaluation dies.
        _write_rows(path, [*rows, [*opening, "", ""]])
        metrics = evaluate_bundle(bundle, manifest, features_dir, indices, device)
        rows.append([*opening, f"{metrics['macro_f1']:.6f}", f"{metrics['accuracy']:.6f}"])
        _write_rows(path, rows)
        found.append(metrics)
    return found


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    def cell(value: str) -> str:
        return f'"{value.replace(chr(34), chr(34) * 2)}"' if set(value) & set(',"\n') else value

    write_text(path, "".join(",".join(cell(value) for value in row) + "\n" for row in rows))
