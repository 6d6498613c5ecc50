"""Features at a URL are brought once to the disk of each machine, checked, and no more than is
needed.
"""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from mmm.features.store import list_recipes, open_store
from search.storage.door import StorageError, Store
from search.storage.fetch import bring
from search.storage.here import staged_here
from search.storage.stage import Features, staged_manifest
from search.worker.trial import forget_data
from tests.conftest import Corpus
from tests.search.engine.test_controller import Sweep
from tests.search.storage.test_copies import SPACE, copies_of
from tests.sweep_parts import call_inside, environment, small_spec, write_space


def put(folder: Path, url: str) -> None:
    fsspec.url_to_fs(url)[0].put(f"{folder}/", f"{url.partition('://')[2]}/", recursive=True)


def test_the_stores_that_are_needed_are_brought_and_the_same(
    corpus: Corpus, tmp_path: Path
) -> None:
    put(corpus.features_dir, "memory://needed")
    features = Features("memory://needed", tmp_path)
    names = {path.name for path in list_recipes(corpus.features_dir)}
    assert {path.name for path in list_recipes(features.path)} == names
    wanted = sorted(names)[:2]
    folder = features.bring(wanted)
    assert {file.parent.name for file in folder.glob("*/values.npy")} == set(wanted)
    for name in wanted:
        there, here = open_store(corpus.features_dir / name), open_store(folder / name)
        assert (there.values == here.values).all()
        here.check("values")
    features.bring()
    assert {file.parent.name for file in folder.glob("*/values.npy")} == names


def test_a_store_that_was_encoded_anew_is_brought_anew(corpus: Corpus, tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    shutil.copytree(corpus.features_dir, url)
    folder = Features(url, tmp_path / "cache").bring()
    one, other, *_ = sorted(path.name for path in list_recipes(folder))
    before = (folder / one / "values.npy").stat().st_ino
    shutil.rmtree(Path(url) / other)
    # As a store that was written again has other checksums.
    (Path(url) / one / "checksums.json").write_text(
        (Path(url) / one / "checksums.json").read_text() + " "
    )
    assert Features(url, tmp_path / "cache").bring() == folder
    assert not (folder / other).exists()
    assert (folder / one / "values.npy").stat().st_ino != before
    after = (folder / one / "values.npy").stat().st_ino
    Features(url, tmp_path / "cache").bring()
    assert (folder / one / "values.npy").stat().st_ino == after


def test_what_was_broken_off_goes_on_and_what_is_damaged_is_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    url = tmp_path / "store"
    shutil.copytree(corpus.features_dir, url)
    name = min(path.name for path in list_recipes(url))
    values = url / name / "values.npy"
    content = bytearray(values.read_bytes())
    features = Features(str(url), tmp_path / "cache")
    stored = Store(str(url)).files()[f"{name}/values.npy"]
    mark = "".join(sign for sign in stored.version if sign.isalnum())
    part = features.path / f".{name}.part" / f".values.npy.{mark}.part"
    part.parent.mkdir()
    part.write_bytes(content[:100])  # half of it is there already
    features.bring([name])
    assert (features.path / name / "values.npy").read_bytes() == content
    shutil.rmtree(features.path)
    content[200] ^= 1
    values.write_bytes(content)
    with pytest.raises(StorageError, match=r"values.npy: damaged: not what its checksums say"):
        Features(str(url), tmp_path / "cache").bring([name])
    assert not (features.path / name / "values.npy").exists()


def test_no_room_is_said_before_anything_is_brought(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(corpus.features_dir, "memory://room")
    features = Features("memory://room", tmp_path)
    monkeypatch.setattr("search.storage.stage._SLACK_BYTES", shutil.disk_usage(tmp_path).free)
    with pytest.raises(StorageError, match=r"MB are free there; .* with --cache"):
        features.bring()
    assert not list(features.path.rglob("values.npy"))


BRINGING = """
import sys
import search.storage.door as door
from search.storage.stage import Features
brought = []
get = door.Store.get
def counted(self, name, target, stored):
    brought.append(name)
    get(self, name, target, stored)
door.Store.get = counted
print("ready", flush=True)
sys.stdin.readline()
from pathlib import Path
Features(sys.argv[1], Path(sys.argv[2])).bring()
print(len(brought))
"""


def test_two_processes_of_a_machine_bring_a_store_once(corpus: Corpus, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BRINGING, corpus.features_dir, tmp_path / "cache"]
    workers = [
        subprocess.Popen(
            command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    counts = sorted(int(worker.communicate("go\n")[0]) for worker in workers)
    num_files = sum(1 for file in corpus.features_dir.glob("*/*") if file.is_file())
    assert counts == [0, num_files]


def test_a_manifest_at_a_url_is_as_it_is_there_now(corpus: Corpus, tmp_path: Path) -> None:
    store = Store("memory://manifests")
    store.put(corpus.manifest.path, "manifest.csv")
    url = "memory://manifests/manifest.csv"
    path = staged_manifest(url, tmp_path)
    assert path.read_bytes() == corpus.manifest.path.read_bytes()
    store.write("manifest.csv", b"other")
    assert staged_manifest(url, tmp_path) == path
    assert path.read_bytes() == b"other"


def test_a_sweep_over_features_at_a_url_goes_on_on_another_machine(
    corpus: Corpus, tmp_path: Path
) -> None:
    put(corpus.features_dir, "memory://corpus/features")
    Store("memory://corpus").put(corpus.manifest.path, "manifest.csv")
    one, other = tmp_path / "one", tmp_path / "other"
    spec = small_spec(
        corpus,
        trials=2,
        manifest_url="memory://corpus/manifest.csv",
        features_url="memory://corpus/features",
        cache=str(one / "cache"),
    )
    forget_data()
    sweep = Sweep(one / "runs" / "small", staged_here(spec))
    before = sweep.run()
    copies_of(sweep, "memory://sweeps").copy(ended=True)
    sweep._open.close()
    shutil.rmtree(one)

    forget_data()
    bring("memory://sweeps", "small", other / "runs")
    spec = staged_here(replace(before.spec, cache=str(other / "cache")))
    assert not one.exists()
    after = Sweep(other / "runs" / "small", spec).run(trials=4)
    assert len(after.trials) == 4
    assert [after.trials[number] for number in before.trials] == [*before.trials.values()]

    space, name = write_space(tmp_path / "space.py", SPACE), ["--name", "small"]
    sources = ["memory://corpus/manifest.csv", "--features", "memory://corpus/features"]
    given = [*name, "--cache", other / "cache", "--runs", one, "--storage", "memory://sweeps"]
    said = call_inside("search", "run", space, *sources, *given, status=2).stderr
    assert said.startswith("error: memory://sweeps/small: holds sweep 'small'")
    assert not one.exists()
