"""Features and manifests at a URL, brought once to the disk of each machine that needs them.

A store comes as a whole: into a hidden folder beside its place, file by file, going on where it was
broken off; then every file is held against the store's own checksums; then it gets its name. One
process of a machine does it, the others wait for the lock.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mmm.features.checksums import CHECKSUMS, checksums_of, read_checksums
from mmm.features.named import choose, encoders_in
from mmm.features.names import NAMES
from mmm.features.store import LARGE_FILES, ROWS, SMALL_FILES, small_files
from mmm.files import lock, write_bytes
from mmm.training.config import FeaturesKey
from search.storage.door import StorageError, Store, Stored

_RECIPE = "recipe.json"
_SLACK_BYTES = 64 << 20  # that other things may take meanwhile


def default_cache() -> Path:
    """Where a machine keeps what it was brought, of this user."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "mmm-search"


def staged_manifest(url: str, cache: Path | None = None) -> Path:
    """A manifest on this disk, as it is at the URL now. Raises StorageError, FileNotFoundError."""
    folder, _, name = url.rpartition("/")
    try:
        content = Store(folder).read(name)
    except FileNotFoundError:
        raise FileNotFoundError(f"{url}: no such manifest there") from None
    path = _manifest_place(url, cache)
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)
    return path


def beside(url: str, name: str, folder: Path) -> Path:
    """A file that the manifest at a URL names relative to itself, brought into a folder that is
    this command's alone. Raises StorageError, FileNotFoundError.
    """
    place, parts = url.rpartition("/")[0], PurePosixPath(name).parts
    while parts and parts[0] == "..":
        place, parts = place.rpartition("/")[0], parts[1:]
    path = folder / f"clip{Path(name).suffix}"
    path.write_bytes(Store(place).read("/".join(parts)))
    return path


def manifest_brought(url: str, cache: Path | None) -> Path | None:
    """A manifest as it was at the URL when it was last brought; None where it never was."""
    path = _manifest_place(url, cache)
    return path if path.is_file() else None


def features_brought(url: str, cache: Path | None) -> Path | None:
    """The same of a folder of features, which may lack the stores that nobody needed."""
    path = _place(url, cache).resolve()
    return path if any(path.glob(f"[!.]*/{_RECIPE}")) else None


def _manifest_place(url: str, cache: Path | None) -> Path:
    folder, _, name = url.rpartition("/")
    # Its folder's name is what MLflow's pages call the data.
    return _place(url, cache).resolve() / (folder.rpartition("/")[2] or "manifest") / name


class Features:
    """A features folder at a URL, and its place on this disk."""

    def __init__(self, url: str, cache: Path | None = None) -> None:
        """The recipes of all stores are brought. Raises StorageError, FileNotFoundError where there
        are none.
        """
        self.remote, self.path = Store(url), _place(url, cache).resolve()
        self.stores: dict[str, dict[str, Stored]] = {}
        for file, stored in self.remote.files().items():
            store, _, name = file.rpartition("/")
            if store and "/" not in store and not store.startswith(".") and name[0] != ".":
                self.stores.setdefault(store, {})[name] = stored
        self.stores = {name: files for name, files in self.stores.items() if _RECIPE in files}
        if not self.stores:
            raise FileNotFoundError(f"{url}: holds no features")
        with _one_at_a_time(self.path):
            self._bring_recipes()

    def _bring_recipes(self) -> None:
        for store in self.stores:
            recipe = self.path / store / _RECIPE
            if not recipe.is_file():
                write_bytes(recipe, self.remote.read(f"{store}/{_RECIPE}"))
        for left in self.path.glob(f"[!.]*/{_RECIPE}"):
            if left.parent.name not in self.stores:  # removed there
                shutil.rmtree(left.parent)
        try:
            write_bytes(self.path / NAMES, self.remote.read(NAMES))
        except FileNotFoundError:
            (self.path / NAMES).unlink(missing_ok=True)

    def bring(self, names: Collection[str] | None = None) -> Path:
        """These stores, all by default, as they are at the URL now; returns the folder. Raises
        StorageError, where there is no room before anything is brought.
        """
        with _one_at_a_time(self.path):
            lacking = [name for name in names or self.stores if not self._is_here(name)]
            self._check_room(lacking)
            for name in lacking:
                self._bring(name)
        return self.path

    def bring_for(self, key: FeaturesKey) -> Path:
        """The stores that trials with these features need; returns the folder. Raises as `bring`,
        and as `choose`.
        """
        encoders = encoders_in(self.path)
        speech = choose(encoders, self.path, "audio", key.speech).store(feature=key.audio_feature)
        text = choose(encoders, self.path, "text", key.text).store(context=key.context)
        return self.bring([path.name for path in (speech, text) if path is not None])

    def _is_here(self, name: str) -> bool:
        folder, files = self.path / name, self.stores[name]
        if any(not _has(folder / file, one) for file, one in files.items()):
            return False
        return CHECKSUMS not in files or (folder / CHECKSUMS).read_bytes() == self.remote.read(
            f"{name}/{CHECKSUMS}"
        )

    def _check_room(self, names: Collection[str]) -> None:
        wanted = sum(
            one.size
            for name in names
            for file, one in self.stores[name].items()
            if not _has(self._making(name) / file, one)
        )
        free = shutil.disk_usage(self.path).free
        if names and wanted + _SLACK_BYTES > free:
            raise StorageError(
                f"{self.path}: {wanted / 1e6:,.0f} MB of features are to be brought from"
                f" {self.remote.url}, and {free / 1e6:,.0f} MB are free there; free some, or name"
                " another disk with --cache"
            )

    def _making(self, name: str) -> Path:
        return self.path / f".{name}.part"

    def _bring(self, name: str) -> None:
        making, files = self._making(name), self.stores[name]
        for _ in range(2):  # what was damaged on the way is brought once more
            for file, one in files.items():
                if not _has(making / file, one) or file == CHECKSUMS:
                    self.remote.get(f"{name}/{file}", making / file, one)
            damaged = list(_damaged(making)) if CHECKSUMS in files else []
            if not damaged:
                break
            for file in damaged:
                (making / file).unlink(missing_ok=True)
        else:
            raise StorageError(
                f"{self.remote.url}/{name}/{damaged[0]}: damaged: not what its checksums say; bring"
                " the store there again"
            )
        for left in making.glob(".*.part"):  # of what was there before it was encoded anew
            left.unlink()
        folder, aside = self.path / name, self.path / f".{name}.old"
        shutil.rmtree(aside, ignore_errors=True)
        if folder.exists():
            folder.rename(aside)
        making.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)


def _has(path: Path, stored: Stored) -> bool:
    return path.is_file() and path.stat().st_size == stored.size


def _damaged(folder: Path) -> Iterator[str]:
    """Files of a store that are not what its checksums say."""
    try:
        said = read_checksums(folder, SMALL_FILES, LARGE_FILES, optional=(ROWS,))
        assert said is not None
        found = checksums_of(folder, small_files(folder), LARGE_FILES)
    except (ValueError, OSError):
        yield from (CHECKSUMS, *SMALL_FILES, *LARGE_FILES)
        return
    yield from (name for name, one in said.files.items() if found.files.get(name) != one)
    for name, blocks in said.blocks.items():
        here = found.blocks[name]
        if (here.header, list(here.sums)) != (blocks.header, list(blocks.sums)):
            yield name


def _place(url: str, cache: Path | None) -> Path:
    folder = cache or default_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be made ({error.strerror}), and what is at {url} is to be brought"
            " there; name another folder with --cache DIR"
        ) from None
    return folder / hashlib.sha256(url.encode()).hexdigest()[:16]


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        lock(file, wait=True)
        yield
