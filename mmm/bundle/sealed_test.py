"""The one way to the test split: every opening is written down."""

import csv
import getpass
import io
import os
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from mmm.bundle.evaluate import check_bundle_fits, evaluate_bundle
from mmm.bundle.read import Bundle, Ensemble
from mmm.files import write_text
from mmm.manifest import Manifest
from mmm.metrics import Metrics

OPENINGS = "test_openings.csv"
_OPENING_COLUMNS = (
    "time",
    "bundle_sha256",
    "bundle",
    "manifest_sha256",
    "manifest",
    "utterances",
    "macro_f1",
    "accuracy",
    "weights_sha256",
    "who",
)


def opener() -> str:
    """Who opens it: user and machine."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def check_has_test(manifest: Manifest) -> None:
    """Raise ValueError where there is nothing to open."""
    if not manifest.sealed_test_rows():
        raise ValueError(f"{manifest.path}: no test split (no row has split=test)")


def open_test(
    bundles: Sequence[Bundle | Ensemble],
    manifest: Manifest,
    features_dir: Path,
    device: torch.device,
) -> list[Metrics]:
    """Metrics of each bundle on the sealed test split; the opening is written down in the features
    folder first.

    Raises ValueError where the manifest has no test split or a bundle does not fit.
    """
    check_has_test(manifest)
    indices, who = manifest.sealed_test_rows(), opener()
    for bundle in bundles:
        for member in bundle.members:
            check_bundle_fits(member, manifest, features_dir)
    path = features_dir / OPENINGS
    rows = [[row[name] for name in _OPENING_COLUMNS] for row in read_openings(features_dir)]
    scores = []
    for bundle in bundles:
        opening = [
            datetime.now(UTC).isoformat(timespec="seconds"),
            bundle.sha256,
            str(bundle.path),
            manifest.sha256,
            str(manifest.path),
            str(len(indices)),
        ]
        # Written before it is read, so that an opening is on record even if the evaluation dies.
        write_text(path, _text([*rows, [*opening, "", "", bundle.weights_sha256, who]]))
        metrics = evaluate_bundle(bundle, manifest, features_dir, indices, device)
        numbers = f"{metrics['macro_f1']:.6f}", f"{metrics['accuracy']:.6f}"
        rows.append([*opening, *numbers, bundle.weights_sha256, who])
        write_text(path, _text(rows))
        scores.append(metrics)
    return scores


def read_openings(features_dir: Path) -> list[dict[str, str]]:
    """Every opening of the test split on record in a features folder, oldest first; "" where a
    column was not kept yet.
    """
    path = features_dir / OPENINGS
    return openings_in(path.read_text(encoding="utf-8")) if path.is_file() else []


def openings_in(text: str) -> list[dict[str, str]]:
    """The same of a record's text."""
    return [
        {name: row.get(name) or "" for name in _OPENING_COLUMNS}
        for row in csv.DictReader(io.StringIO(text, newline=""))
    ]


def openings_text(openings: Sequence[Mapping[str, str]]) -> str:
    """A record's text, of openings with all columns."""
    return _text([[row[name] for name in _OPENING_COLUMNS] for row in openings])


def _text(rows: Sequence[Sequence[str]]) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows([_OPENING_COLUMNS, *rows])
    return content.getvalue()
