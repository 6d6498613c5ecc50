"""What a sweep is trained on, as its ledger records it, and what has changed since.

The ledger has a note of it for each session: digests of the manifest's rows, texts and labels by
split, and of the features that the space asks for. The sealed test split is in none of them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmm.features.recipe import Recipe
from mmm.features.store import FeatureStore, list_recipes
from mmm.files import sha256_of_json
from mmm.manifest import Manifest
from mmm.training.features import Features
from search.ledger.history import History
from search.ledger.records import DataNote, ManifestDigest, SplitDigest, StoreDigest

_SPLITS = ("train", "dev")
# Bytes of frames that are hashed of a store and split: all of a small one, whole utterances evenly
# spread of a large one. Pooled vectors and lengths are hashed of every utterance, so that 500 MB
# take a fraction of a second.
_FRAME_BYTES = 32 * 1024**2


def describe(manifest: Manifest, features: Path, loaded: Iterable[Features]) -> DataNote:
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
    return DataNote(
        ManifestDigest(
            name=manifest.path.parent.name or "manifest",
            path=str(manifest.path),
            sha256=manifest.sha256,
            profile=json.dumps({**sizes, "classes": list(manifest.classes)}),
            splits={split: _split(manifest, split) for split in _SPLITS},
            folds=_folds(manifest),
        ),
        tuple(
            _about(path, recipe, contents.get(path))
            for path, recipe in list_recipes(features, manifest.path).items()
        ),
    )


def _folds(manifest: Manifest) -> str:
    if not manifest.num_folds:
        return ""
    return sha256_of_json(sorted((one.utterance_id, one.fold or 0) for one in manifest.utterances))


def _by_name(manifest: Manifest, split: str) -> list[int]:
    """All turns of a split, in an order that does not depend on the file's: those without a label
    are context of others.
    """
    return sorted(manifest.turns(split), key=lambda row: manifest.utterances[row].utterance_id)


def _split(manifest: Manifest, split: str) -> SplitDigest:
    utterances = manifest.utterances
    rows = _by_name(manifest, split)
    chosen = [utterances[row] for row in rows]
    before = [
        utterances[one.previous].utterance_id if one.previous >= 0 else None for one in chosen
    ]
    return SplitDigest(
        utterances=len(rows),
        rows=sha256_of_json([one.utterance_id for one in chosen]),
        texts=sha256_of_json(
            [[one.text, earlier] for one, earlier in zip(chosen, before, strict=True)]
        ),
        labels=sha256_of_json([[one.emotions, one.votes] for one in chosen]),
        classes=dict(sorted(Counter(name for one in chosen for name in one.emotions).items())),
    )


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


def _about(path: Path, recipe: Recipe, content: Mapping[str, str] | None) -> StoreDigest:
    return StoreDigest(
        kind=recipe["kind"],
        of=recipe["feature"] if recipe["kind"] == "audio" else recipe["context"],
        encoder=recipe["encoder"],
        digest=path.name,
        path=str(path),
        recipe=recipe,
        content=content,
    )


class Changes:
    """What differs between two notes about data, as far as the earlier one tells: those of earlier
    versions hold less.

    What no trial is trained on is no change: paths, the order of rows, other columns, the test
    split, features of other corpora, contexts and encoders beside those that are used.
    """

    def __init__(
        self,
        before: DataNote,
        now: DataNote,
        used: Iterable[tuple[str, object]] = (),
        *,
        has_folds: bool = False,
    ) -> None:
        """`used`: kind, and feature or context, of what trials were trained on, for notes that do
        not say. `has_folds`: whether they were trained on the manifest's folds.
        """
        self.what: list[str] = []
        self.only_train_labels = True  # earlier trials' scores then stand, and their weights fit
        self._manifest(before.manifest, now.manifest)
        if has_folds and before.manifest.folds != now.manifest.folds:
            self._found("folds: utterances are in other ones")
        self._features(before, now, set(used))

    def _found(self, text: str, *, is_train_label: bool = False) -> None:
        self.what.append(text)
        self.only_train_labels = self.only_train_labels and is_train_label

    def _manifest(self, before: ManifestDigest, now: ManifestDigest) -> None:
        was, here = json.loads(before.profile or "{}"), json.loads(now.profile)
        is_same = before.sha256 == now.sha256
        if was.get("classes", here["classes"]) != here["classes"]:
            # Before 2026-11-27 a label that only dev or test have was a class too.
            why = " (those of train alone, since this version)" if is_same else ""
            self._found(
                f"classes: {', '.join(here['classes'])} instead of {', '.join(was['classes'])}{why}"
            )
        if is_same:
            return
        if before.splits is not None and now.splits is not None:
            for split in _SPLITS:
                for text in _split_changes(before.splits[split], now.splits[split]):
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

    def _features(self, before: DataNote, now: DataNote, used: set[tuple[str, object]]) -> None:
        same_rows = _same(before, now, lambda split: split.rows)
        same_texts = _same(before, now, lambda split: (split.rows, split.texts))
        for was in before.stores:
            if was.content is None and (was.kind, was.of) not in used:
                continue
            there = [store for store in now.stores if (store.kind, store.of) == (was.kind, was.of)]
            name = (
                f"speech features {was.of}"
                if was.kind == "audio"
                else f"text features of context {was.of}"
            )
            here = next((store for store in there if store.digest == was.digest), None)
            if here is not None and here.content is not None and was.content is not None:
                # Of other utterances or texts the features are other ones anyway.
                comparable = same_rows if was.kind == "audio" else same_texts
                differing = [
                    split for split in comparable if here.content[split] != was.content[split]
                ]
                if differing:
                    self._found(
                        f"{name} of {was.encoder}: encoded anew with other values"
                        f" ({', '.join(differing)})"
                    )
            elif here is None and there:
                self._found(f"{name}: {_recipe_changes(was, there[0])}")


def data_changes(history: History, now: DataNote) -> Changes:
    """What has changed since a sweep's last session; nothing where no trial was trained yet."""
    trained = [trial.settings for trial in history.trials.values() if trial.epochs]
    before = history.data[-1][1] if history.data and trained else now
    used = {
        (kind, one.get(setting))
        for one in trained
        for kind, setting in (("audio", "audio_feature"), ("text", "context"))
    }
    return Changes(before, now, used, has_folds=history.spec.folds is not None)


def restarts(history: History, now: DataNote, changed: Changes) -> DataNote:
    """The note about data with changes that were accepted.

    Trials that were interrupted begin again wherever the manifest is another file: each is trained
    on one, and no checkpoint of another is taken.
    """
    last = history.data[-1][1] if history.data else now
    is_other = bool(changed.what) or last.manifest.sha256 != now.manifest.sha256
    return replace(
        now,
        restarted=tuple(
            trial.number
            for trial in history.trials.values()
            if is_other and trial.state == "running" and trial.epochs
        ),
        changed=tuple(changed.what),
        only_train_labels=bool(changed.what) and changed.only_train_labels,
    )


def _same(
    before: DataNote, now: DataNote, digests: Callable[[SplitDigest], object]
) -> Sequence[str]:
    """Splits that have the same rows, or texts."""
    was, here = before.manifest.splits, now.manifest.splits
    if was is None or here is None:
        return _SPLITS if before.manifest.sha256 == now.manifest.sha256 else ()
    return [split for split in _SPLITS if digests(was[split]) == digests(here[split])]


def _split_changes(was: SplitDigest, here: SplitDigest) -> list[str]:
    if was.rows != here.rows:
        differs = here.utterances != was.utterances
        count = f"{here.utterances} instead of {was.utterances}" if differs else "as many"
        return [f"other utterances ({count})"]
    found = []
    if was.texts != here.texts:
        found.append("other texts, or other turns before them")
    if was.labels != here.labels:
        counts = [
            f"{here.classes.get(name, 0)} {name} instead of {was.classes.get(name, 0)}"
            for name in sorted(was.classes.keys() | here.classes.keys())
            if here.classes.get(name, 0) != was.classes.get(name, 0)
        ]
        found.append(f"other labels ({', '.join(counts) or 'as many of each class'})")
    return found


def _recipe_changes(was: StoreDigest, here: StoreDigest) -> str:
    if was.recipe is None or here.recipe is None:
        return f"{here.encoder} ({here.digest}) instead of {was.encoder} ({was.digest})"
    return ", ".join(
        f"{name} {here.recipe.get(name)} instead of {was.recipe.get(name)}"
        for name in sorted(was.recipe.keys() | here.recipe.keys())
        if was.recipe.get(name) != here.recipe.get(name)
    )
