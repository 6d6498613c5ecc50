"""A feature store in the making: rows arrive in any order and land in their place, and a killed
writer goes on where it was.

`features/.<recipe hash>.partial/` holds
  store/     the files of a feature store at their final size, rows that are missing are holes
  done       one byte a row: 1 where the row is on the disk
  arrays.json  checksums of values and pooled vectors, where they are those of the store before
  plan.json  digest of the recipe, keys, rows, stamps, hashes and lengths; written last, without
             it the folder is rubbish
  replaced/  for a moment at the end: the store that `store/` takes the place of

Sizes and places are known before the first row, so memory does not grow with the corpus, no row is
written twice, and the bytes do not depend on who wrote which row when.
"""

import contextlib
import io
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmm.features.checksums import CHECKSUMS, blocks_as_json, blocks_from_json, checksums_of
from mmm.features.encode_command import MANIFEST
from mmm.features.recipe import Recipe
from mmm.features.store import (
    AUDIO_HASH_BYTES,
    LARGE_FILES,
    ROWS,
    FeatureStore,
    open_store,
    pool,
    small_files,
)
from mmm.files import lock, parse_json, sha256_of_json, sync, sync_data, write_json

_SYNC_S = 2.0  # what is written is marked as done, after a sync, this often
_FILES = ("values", "pooled")


@dataclass(frozen=True)
class Plan:
    """The N utterances and M rows of a store before they are there."""

    recipe: Recipe
    width: int
    keys: npt.NDArray[np.uint64]  # (N,)
    stamps: npt.NDArray[np.int64]  # (M, 2)
    lengths: npt.NDArray[np.int64]  # (M,) frames or tokens
    # (M, 16) of the audio, zeros where it is not known; None: of text
    known_hashes: npt.NDArray[np.uint8] | None = None
    shared_rows: npt.NDArray[np.int64] | None = None  # (N,) of each key; None: each has its own

    @property
    def audio_hashes(self) -> npt.NDArray[np.uint8]:
        if self.known_hashes is None:
            return np.zeros((len(self.lengths), AUDIO_HASH_BYTES), dtype=np.uint8)
        return self.known_hashes

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        return np.arange(len(self.keys)) if self.shared_rows is None else self.shared_rows

    @property
    def is_shared(self) -> bool:
        return not np.array_equal(self.rows, np.arange(len(self.lengths)))

    @property
    def digest(self) -> str:
        arrays = (self.keys, self.stamps, self.audio_hashes, self.lengths)
        digests = [sha256_of_json(array.tolist()) for array in arrays]
        if self.is_shared:  # else as earlier versions had it
            digests.append(sha256_of_json(self.rows.tolist()))
        return sha256_of_json([self.recipe, self.width, *digests])

    def places_in(self, there: "Rows") -> npt.NDArray[np.int64]:
        """Where each utterance's row (N,) lies in another store, -1 where it does not."""
        return there.places(self.keys, self.stamps[self.rows], self.audio_hashes[self.rows])


@dataclass(frozen=True)
class Rows:
    """Rows that are there already: of a finished store, or done ones of a partial store."""

    store: FeatureStore
    done: npt.NDArray[np.bool_]  # (M,)

    def places(
        self,
        keys: npt.NDArray[np.uint64],
        stamps: npt.NDArray[np.int64],
        hashes: npt.NDArray[np.uint8],
    ) -> npt.NDArray[np.int64]:
        """Row of each utterance (n,), -1 where there is none of the same content: by its hash where
        both are known, else its stamp. All three are by utterance.
        """
        rows = self.store.find(keys)
        recorded = self.store.audio_hashes[rows]
        by_hash = recorded.any(axis=1) & hashes.any(axis=1)
        same = np.where(
            by_hash,
            (recorded == hashes).all(axis=1),
            (self.store.stamps[rows] == stamps).all(axis=1),
        )
        return np.where((rows >= 0) & self.done[rows] & same, rows, -1)

    def is_all_of(self, plan: Plan) -> bool:
        """Whether a plan's rows are these in their order, and none else: it differs in stamps and
        hashes at most.
        """
        return (
            np.array_equal(self.store.keys, plan.keys)
            and np.array_equal(self.store.rows, plan.rows)
            and self.store.width == plan.width
            and np.array_equal(np.diff(self.store.offsets), plan.lengths)
            and bool((plan.places_in(self) >= 0).all())
        )

    def row(self, place: int) -> npt.NDArray[np.float16]:
        return self.store.values[self.store.offsets[place] : self.store.offsets[place + 1]]


def partial_folder(path: Path) -> Path:
    return path.parent / f".{path.name}.partial"


def rows_there(path: Path, manifest: Path = MANIFEST) -> list[Rows]:
    """What a store that is to be written at `path` can start from. Finishes what a kill
    interrupted. Raises DamagedStore.
    """
    tidy(path)
    found = []
    if (path / "recipe.json").is_file():
        store = open_store(path, manifest)
        found.append(Rows(store, np.ones(len(store.pooled), dtype=bool)))
    folder = partial_folder(path)
    if folder.is_dir():
        done = np.fromfile(folder / "done", dtype=np.uint8) == 1
        found.append(Rows(open_store(folder / "store", manifest), done))
    return found


def tidy(path: Path) -> None:
    """Finish what a kill between two renames, or before the last removal, interrupted."""
    folder, fresh = partial_folder(path), path.parent / f".{path.name}.fresh"
    if (folder / "replaced").is_dir() and (folder / "store").is_dir() and not path.exists():
        (folder / "store").rename(path)
    if folder.exists() and not ((folder / "plan.json").is_file() and (folder / "store").is_dir()):
        shutil.rmtree(folder)
    if fresh.exists():
        if (fresh / "plan.json").is_file() and not folder.exists():
            fresh.rename(folder)
        else:
            shutil.rmtree(fresh)


@contextlib.contextmanager
def only_writer(features: Path) -> Iterator[None]:
    """Others are refused meanwhile. Raises ValueError where another process writes."""
    features.mkdir(parents=True, exist_ok=True)
    with open(features / ".lock", "w") as file:
        try:
            lock(file)
        except BlockingIOError:
            raise ValueError(
                f"{features}: another mmm encode is writing here; wait for it or use another folder"
            ) from None
        yield


class PartialStore:
    """Opens the partial store of a plan, or makes it and copies the rows there are. Not for two
    writers at once.
    """

    def __init__(self, path: Path, plan: Plan, manifest: Path = MANIFEST) -> None:
        self.path, self.plan, self.folder = path, plan, partial_folder(path)
        self.offsets = np.concatenate([[0], np.cumsum(plan.lengths)]).astype(np.int64)
        self._headers = {
            "values": _header(int(self.offsets[-1]), plan.width),
            "pooled": _header(len(plan.lengths), plan.width),
        }
        self._files: dict[str, int] = {}
        sources = rows_there(path, manifest)
        there = None
        if self.folder.is_dir():
            there = parse_json((self.folder / "plan.json").read_text())["digest"]
        if there != plan.digest:
            self._make(sources)
        self.done = np.fromfile(self.folder / "done", dtype=np.uint8) == 1
        if not self.done.all():
            self._open(self.folder)
        self._unmarked: list[int] = []
        self._synced = time.monotonic()

    def _make(self, sources: Sequence[Rows]) -> None:
        plan, fresh = self.plan, self.path.parent / f".{self.path.name}.fresh"
        (fresh / "store").mkdir(parents=True)
        write_json(fresh / "store" / "recipe.json", plan.recipe)
        for name, array in (
            ("offsets", self.offsets),
            ("keys", plan.keys),
            ("stamps", plan.stamps),
            ("audio_hashes", plan.audio_hashes),
        ):
            np.save(fresh / "store" / f"{name}.npy", array)
        if plan.is_shared:
            np.save(fresh / "store" / ROWS, plan.rows)
        finished = [source for source in sources if source.store.path == self.path]
        if finished and finished[0].is_all_of(plan):
            self._take_over(finished[0].store, fresh)
            done = np.ones(len(plan.lengths), dtype=np.uint8)
        else:
            done = self._copy(sources, fresh)
        done.tofile(fresh / "done")
        for path in fresh.rglob("*"):
            sync(path)
        write_json(fresh / "plan.json", {"digest": plan.digest})
        if self.folder.exists():
            (self.folder / "plan.json").unlink()
            shutil.rmtree(self.folder)
        fresh.rename(self.folder)
        sync(self.path.parent)

    def _take_over(self, store: FeatureStore, fresh: Path) -> None:
        """The large files of a finished store as they are, unread: they are never written to
        again.
        """
        for name in LARGE_FILES:
            try:
                os.link(store.path / name, fresh / "store" / name)
            except OSError:  # a disk without hard links
                shutil.copyfile(store.path / name, fresh / "store" / name)
        if store.checksums is not None:
            # Those of now would make a bit that has flipped since look as if it was meant.
            write_json(fresh / "arrays.json", blocks_as_json(store.checksums.blocks))

    def _copy(self, sources: Sequence[Rows], fresh: Path) -> npt.NDArray[np.uint8]:
        """Large files with the rows that there are; returns which those are."""
        plan = self.plan
        num_rows = len(plan.lengths)
        needed = 2 * plan.width * int(self.offsets[-1] + num_rows)
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            shutil.rmtree(fresh)
            raise ValueError(
                f"{self.path.parent}: the features need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB"
                " are free"
            )
        for name, length in (("values", int(self.offsets[-1])), ("pooled", num_rows)):
            with open(fresh / "store" / f"{name}.npy", "wb") as file:
                file.write(self._headers[name])
                file.truncate(len(self._headers[name]) + 2 * plan.width * length)
        done = np.zeros(num_rows, dtype=np.uint8)
        self._open(fresh)
        for source in sources:
            if source.store.width != plan.width:
                continue
            # Of the utterances that share a row, any that has it there.
            places = np.full(num_rows, -1)
            np.maximum.at(places, plan.rows, plan.places_in(source))
            rows = np.flatnonzero((places >= 0) & (done == 0))
            lengths = np.diff(source.store.offsets)[places[rows]]
            rows = rows[lengths == plan.lengths[rows]]
            if not len(rows):
                continue
            source.store.check("values")
            for row in rows.tolist():
                place = int(places[row])
                self._write(row, source.row(place), source.store.pooled[place])
                done[row] = 1
        self._close()
        return done

    def _open(self, folder: Path) -> None:
        self._files = {
            name: os.open(folder / "store" / f"{name}.npy", os.O_RDWR) for name in _FILES
        }

    def _close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}

    def _write(
        self, row: int, values: npt.NDArray[np.float16], pooled: npt.NDArray[np.float16]
    ) -> None:
        width = 2 * self.plan.width
        for name, place, array in (
            ("values", int(self.offsets[row]), values),
            ("pooled", row, pooled),
        ):
            data = memoryview(np.ascontiguousarray(array).tobytes())
            offset = len(self._headers[name]) + width * place
            while data:  # a call writes 2 GiB at most, and less on a disk that fills up
                written = os.pwrite(self._files[name], data, offset)
                data, offset = data[written:], offset + written

    def put(
        self,
        row: int,
        values: npt.NDArray[np.floating],
        pooled: npt.NDArray[np.float16] | None = None,
    ) -> None:
        """Write a row's (T, D) features, rounded to float16. Raises ValueError where they are none.

        `pooled` (D,) stands for the whole where `values` are means of several frames; otherwise it
        is made of them.
        """
        encoder, kind = self.plan.recipe["encoder"], self.plan.recipe["kind"]
        expected = int(self.plan.lengths[row]), self.plan.width
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        if not len(rounded) or not np.isfinite(rounded).all():
            raise ValueError(
                f"encoder {encoder!r} gave no frame or a value that float16 cannot hold"
            )
        if rounded.shape != expected:
            raise ValueError(
                f"encoder {encoder!r} gave features of shape {rounded.shape}, {expected} were"
                " expected; was the file changed?"
            )
        self._write(row, rounded, pool(rounded, kind) if pooled is None else pooled)
        self._unmarked.append(row)

    def mark(self, *, now: bool = False) -> None:
        """Rows put so far are done, once they are synced; every few seconds, or `now`. Call it
        after a whole batch.
        """
        if not self._unmarked or not (now or time.monotonic() - self._synced > _SYNC_S):
            return
        for descriptor in self._files.values():
            sync_data(descriptor)
        self.done[self._unmarked] = True
        with open(self.folder / "done", "r+b") as file:
            file.write(self.done.astype(np.uint8).tobytes())
            file.flush()
            sync_data(file.fileno())
        self._unmarked.clear()
        self._synced = time.monotonic()

    def close(self) -> None:
        """Mark what is there and leave the rest for another time."""
        self.mark(now=True)
        self._close()

    def finish(self) -> None:
        """Move the complete store with its checksums to its place."""
        self.close()
        assert self.done.all(), "rows are missing"
        store, taken_over = self.folder / "store", self.folder / "arrays.json"
        for file in store.iterdir():
            sync(file)
        known = None
        if taken_over.is_file():
            known = blocks_from_json(parse_json(taken_over.read_bytes()))
        checksums = checksums_of(store, small_files(store), LARGE_FILES, known)
        # Beside the store first, so that a kill leaves no file in it that does not belong there.
        write_json(self.folder / CHECKSUMS, checksums.as_json())
        (self.folder / CHECKSUMS).replace(store / CHECKSUMS)
        sync(store)
        if self.path.exists():
            # A folder cannot be renamed over a full one: the old one steps aside first.
            self.path.rename(self.folder / "replaced")
        (self.folder / "store").rename(self.path)
        sync(self.path.parent)
        shutil.rmtree(self.folder)


def _header(length: int, width: int) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f2", "fortran_order": False, "shape": (length, width)}
    )
    return buffer.getvalue()
