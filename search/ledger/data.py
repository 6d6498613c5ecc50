"""What a sweep is trained on, as its ledger records it, and what has changed since.

The ledger has a note of it for each session: digests of the manifest's rows, texts and labels by
split, and of the features that the space asks for. The sealed test split is in none of them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmm.features.recipe import Recipe
from mmm.features.store import FeatureStore, list_recipes
from mmm.files import sha256_of_json
from mmm.manifest import Manifest
from mmm.training.features import Features
from search.ledger.history import History

_SPLITS = ("train", "dev")
# Bytes of frames that are hashed of a store and split: all of a small one, whole utterances evenly
# spread of a large one. Pooled vectors and lengths are hashed of every utterance, so that 500 MB
# take a fraction of a second.
_FRAME_BYTES = 32 * 1024**2

Data = Mapping[str, Any]  # the body of a note about data


def describe(manifest: Manifest, features: Path, loaded: Iterable[Features]) -> dict[str, Any]:
    """What the ledger says of the data. `loaded` are the features that trials may ask for: their
    content is part of it.
    """
    sizes = {split: len(manifest.rows(split)) for split in _SPLITS}
    contents: dict[Path, dict[str, str]] = {}
    for one in loaded:
        for store, rows in ((one.speech, one.speech_rows), (one.text, one.text_rows)):
            if store.path not in contents:
                contents[store.path] = {
                    split: _content(store, rows.numpy()[_by_name(manifest, split)])
                    for split in _SPLITS
                }
    return {
        "manifest": {
            "name": manifest.path.parent.name or "manifest",
            "path": str(manifest.path),
            "sha256": manifest.sha256,
            "profile": json.dumps({**sizes, "classes": list(manifest.classes)}),
            "splits": {split: _split(manifest, split) for split in _SPLITS},
        },
        "stores": [
            _about(path, recipe) | ({"content": contents[path]} if path in contents else {})
            for path, recipe in list_recipes(features, manifest.path).items()
        ],
    }


def _by_name(manifest: Manifest, split: str) -> list[int]:
    """Rows in an order that does not depend on the file's."""
    return sorted(manifest.rows(split), key=lambda row: manifest.utterances[row].utterance_id)


def _split(manifest: Manifest, split: str) -> dict[str, Any]:
    utterances = manifest.utterances
    rows = _by_name(manifest, split)
    chosen = [utterances[row] for row in rows]
    before = [
        utterances[one.previous].utterance_id if one.previous >= 0 else None for one in chosen
    ]
    return {
        "utterances": len(rows),
        "rows": sha256_of_json([one.utterance_id for one in chosen]),
        "texts": sha256_of_json(
            [[one.text, earlier] for one, earlier in zip(chosen, before, strict=True)]
        ),
        "labels": sha256_of_json([[one.emotions, one.votes] for one in chosen]),
        "classes": dict(sorted(Counter(name for one in chosen for name in one.emotions).items())),
    }


def _content(store: FeatureStore, rows: npt.NDArray[np.int64]) -> str:
    """Of these utterances' features, wherever in the store they lie."""
    lengths = np.diff(store.offsets)[rows]
    digest = hashlib.sha256(lengths.tobytes())
    digest.update(np.ascontiguousarray(store.pooled[rows]).data)
    step = 1 + 2 * store.width * int(lengths.sum()) // _FRAME_BYTES
    for row in rows[::step]:
        digest.update(
            np.ascontiguousarray(store.values[store.offsets[row] : store.offsets[row + 1]]).data
        )
    return digest.hexdigest()


def _about(path: Path, recipe: Recipe) -> dict[str, Any]:
    of = recipe["feature"] if recipe["kind"] == "audio" else recipe["context"]
    return {
        "kind": recipe["kind"],
        "of": of,
        "encoder": recipe["encoder"],
        "digest": path.name,
        "path": str(path),
        "recipe": recipe,
    }


class Changes:
    """What differs between two notes about data, as far as the earlier one tells: those of earlier
    versions hold less.

    What no trial is trained on is no change: paths, the order of rows, other columns, the test
    split, features of other corpora, contexts and encoders beside those that are used.
    """

    def __init__(self, before: Data, now: Data, used: Iterable[tuple[str, Any]] = ()) -> None:
        """`used`: kind, and feature or context, of what trials were trained on, for notes that do
        not say.
        """
        self.what: list[str] = []
        self.only_train_labels = True  # earlier trials' scores then stand, and their weights fit
        self._manifest(before["manifest"], now["manifest"])
        self._features(before, now, set(used))

    def _found(self, text: str, *, is_train_label: bool = False) -> None:
        self.what.append(text)
        self.only_train_labels = self.only_train_labels and is_train_label

    def _manifest(self, before: Data, now: Data) -> None:
        if before["sha256"] == now["sha256"]:
            return
        was, here = json.loads(before.get("profile") or "{}"), json.loads(now["profile"])
        if was.get("classes", here["classes"]) != here["classes"]:
            self._found(
                f"classes: {', '.join(here['classes'])} instead of {', '.join(was['classes'])}"
            )
        if "splits" in before:
            for split in _SPLITS:
                for text in _split_changes(before["splits"][split], now["splits"][split]):
                    self._found(
                        f"{split}: {text}",
                        is_train_label=split == "train" and text.startswith("other labels"),
                    )
            return
        for split in _SPLITS:
            if was.get(split, here[split]) != here[split]:
                self._found(f"{split}: {here[split]} utterances instead of {was[split]}")
        if not self.what:
            self._found(
                "manifest: labels, texts or something else (an earlier version began this sweep,"
                " and its ledger has no more than the file's checksum)"
            )

    def _features(self, before: Data, now: Data, used: set[tuple[str, Any]]) -> None:
        same_rows, same_texts = _same(before, now, ("rows",)), _same(before, now, ("rows", "texts"))
        for was in before["stores"]:
            if "content" not in was and (was["kind"], was["of"]) not in used:
                continue
            there = [
                store
                for store in now["stores"]
                if (store["kind"], store["of"]) == (was["kind"], was["of"])
            ]
            name = (
                f"speech features {was['of']}"
                if was["kind"] == "audio"
                else f"text features of context {was['of']}"
            )
            here = next((store for store in there if store["digest"] == was["digest"]), None)
            if here is not None and "content" in here and "content" in was:
                # Of other utterances or texts the features are other ones anyway.
                comparable = same_rows if was["kind"] == "audio" else same_texts
                differing = [
                    split for split in comparable if here["content"][split] != was["content"][split]
                ]
                if differing:
                    self._found(
                        f"{name} of {was['encoder']}: encoded anew with other values"
                        f" ({', '.join(differing)})"
                    )
            elif here is None and there:
                self._found(f"{name}: {_recipe_changes(was, there[0])}")


def data_changes(history: History, now: Data) -> Changes:
    """What has changed since a sweep's last session; nothing where no trial was trained yet."""
    trained = [trial.settings for trial in history.trials.values() if trial.epochs]
    before = history.data[-1][1] if history.data and trained else now
    used = {
        (kind, one.get(setting))
        for one in trained
        for kind, setting in (("audio", "audio_feature"), ("text", "context"))
    }
    return Changes(before, now, used)


def restarts(history: History, now: Data, changed: Changes) -> dict[str, Any]:
    """What the note about data says of changes that were accepted.

    Trials that were interrupted begin again wherever the manifest is another file: each is trained
    on one, and no checkpoint of another is taken.
    """
    before = (
        history.data[-1][1]["manifest"]["sha256"] if history.data else now["manifest"]["sha256"]
    )
    interrupted = [
        trial.number
        for trial in history.trials.values()
        if trial.state == "running" and trial.epochs
    ]
    found: dict[str, Any] = {}
    if interrupted and (changed.what or before != now["manifest"]["sha256"]):
        found["restarted"] = interrupted
    if changed.what:
        found = {
            "restarted": [],
            **found,
            "changed": changed.what,
            "only_train_labels": changed.only_train_labels,
        }
    return found


def _same(before: Data, now: Data, names: Sequence[str]) -> list[str]:
    """Splits that have the same rows, or texts."""
    was, here = before["manifest"].get("splits"), now["manifest"]["splits"]
    if was is None:
        return list(_SPLITS) if before["manifest"]["sha256"] == now["manifest"]["sha256"] else []
    return [
        split for split in _SPLITS if all(was[split][name] == here[split][name] for name in names)
    ]


def _split_changes(was: Data, here: Data) -> list[str]:
    if was["rows"] != here["rows"]:
        count = f"{here['utterances']} instead of {was['utterances']}"
        return [
            f"other utterances ({count if here['utterances'] != was['utterances'] else 'as many'})"
        ]
    found = []
    if was["texts"] != here["texts"]:
        found.append("other texts, or other turns before them")
    if was["labels"] != here["labels"]:
        names = sorted(was["classes"].keys() | here["classes"].keys())
        counts = [
            f"{here['classes'].get(name, 0)} {name} instead of {was['classes'].get(name, 0)}"
            for name in names
            if here["classes"].get(name, 0) != was["classes"].get(name, 0)
        ]
        found.append(f"other labels ({', '.join(counts) or 'as many of each class'})")
    return found


def _recipe_changes(was: Data, here: Data) -> str:
    if "recipe" not in was:
        return f"{here['encoder']} ({here['digest']}) instead of {was['encoder']} ({was['digest']})"
    names = sorted(was["recipe"].keys() | here["recipe"].keys())
    return ", ".join(
        f"{name} {here['recipe'].get(name)} instead of {was['recipe'].get(name)}"
        for name in names
        if was["recipe"].get(name) != here["recipe"].get(name)
    )
