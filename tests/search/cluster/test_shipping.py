"""`--ship`: nodes train with this machine's code, whatever mmm-search they have."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmm.training import own_system
from mmm.training.own_system import load_system
from mmm.version import VERSION
from search.cluster.shipping import own_files, sentence, shipped
from search.ledger.events import create_sweep, read_history
from search.worker.own_code import SENT, copy_of, load_here
from tests.conftest import Corpus, names_in
from tests.own_system_parts import SYSTEM, write_system
from tests.search.cluster.ray_parts import TOKEN, can_mount, ray_head
from tests.search.test_own_system import SPACE
from tests.sweep_parts import call, call_inside, small_spec, write_space


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that no command has told of any file."""
    monkeypatch.setattr(own_system, "_loaded", {})
    monkeypatch.setattr(own_system, "_latest", {})


def test_what_is_sent_is_this_machine_s_code_without_what_python_compiled(forgotten: None) -> None:
    with shipped() as sent:
        folders = [Path(folder) for folder in sent["py_modules"]]
        assert [folder.name for folder in folders] == ["mmm", "search", "spaces"]
        assert all((folder / "py.typed").is_file() for folder in folders)
        assert sent["excludes"] == ["__pycache__"]
    told, _, size = sentence().rpartition(", ")
    assert told == f"sending mmm, search and spaces {VERSION} of this machine to the nodes"
    assert 0.5 < float(size.removesuffix(" MB")) < 5


def test_a_ray_of_the_sweep_s_own_has_the_code(corpus: Corpus, tmp_path: Path) -> None:
    done = call_inside(
        *("search", "run", "quick", corpus.manifest.path, "--features", corpus.features_dir),
        *("--name", "first", "--runs", tmp_path / "runs", "--ship"),
        status=2,
    )
    assert done.stderr == (
        "error: --ship without --address: trials on this machine have its code; leave out --ship,"
        " or name the cluster, for example --address auto\n"
    )
    assert names_in(tmp_path) == []
    with create_sweep(tmp_path / "runs" / "first", small_spec(corpus)):
        pass
    again = call_inside(
        "search", "resume", "first", "--runs", tmp_path / "runs", "--ship", status=2
    )
    assert again.stderr == done.stderr


@pytest.mark.slow
def test_what_trains_in_this_process_sends_nothing_whatever_is_on_record(
    corpus: Corpus, empty_store: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_store, tmp_path)
    spec = small_spec(corpus, name="first", trials=1, epochs=1, address="10.0.0.1:6379", ship=True)
    with create_sweep(tmp_path / "first", spec):
        pass
    call_inside("search", "resume", "first", "--runs", tmp_path, "--serial")
    history = read_history(tmp_path / "first" / "ledger.sqlite")
    assert (history.spec.ship, history.trials[0].state) == (False, "complete")


def write_systems(folder: Path) -> str:
    """A system in a file that imports a module and a package beside it; what names its class."""
    reference = write_system(folder)
    system = folder / "my_system.py"
    beside = "from beside_it import ONE\nfrom package_beside.inside import TWO\n"
    system.write_text(beside + system.read_text().replace("earlier=0.5", "earlier=ONE / TWO"))
    (folder / "beside_it.py").write_text("ONE = 1\n")
    (folder / "package_beside").mkdir()
    (folder / "package_beside" / "inside.py").write_text("TWO = 2\n")
    (folder / "package_beside" / "other.py").write_text("THREE = 3\n")
    (folder / "not_imported.py").write_text("FOUR = 4\n")
    return reference


@pytest.fixture
def no_neighbours() -> Iterator[None]:
    """Modules beside a system stay imported otherwise."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("beside_it", "package_beside"):
            del sys.modules[name]


def test_systems_of_the_user_s_own_are_sent_with_the_modules_beside_them_that_they_import(
    tmp_path: Path, forgotten: None, no_neighbours: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    system = load_system(write_systems(folder))
    names = ["beside_it.py", "my_system.py", "package_beside/inside.py", "package_beside/other.py"]
    assert own_files() == [folder / name for name in names]
    assert f"search and spaces {VERSION} and 4 files of your systems of this" in sentence()
    settings = {"system": system.reference, "system_sha256": system.sha256}
    with shipped() as sent:
        copies = Path(sent["py_modules"][3])
        assert [file for file in copies.rglob("*") if file.is_file()]
        shutil.copytree(copies, tmp_path / "node" / copies.name)
    # What follows is a node's: it has what was sent, and not the folder.
    shutil.rmtree(folder)
    monkeypatch.syspath_prepend(tmp_path / "node")
    for name in ("beside_it", "package_beside", "package_beside.inside"):
        del sys.modules[name]
    monkeypatch.setattr(own_system, "_loaded", {})
    load_here(settings)
    assert list(own_system._loaded) == [(SYSTEM, system.sha256)]
    copy = copy_of(folder / "my_system.py")
    assert copy == tmp_path.joinpath("node", SENT, *folder.parts[1:], "my_system.py")
    copy.write_text("changed")
    with pytest.raises(ValueError, match="not the file that was used: its SHA-256 is "):
        load_here(settings)


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="a folder cannot be hidden from a node")
def test_a_system_of_the_user_s_own_trains_on_a_node_without_its_file_as_long_as_it_is_sent(
    corpus: Corpus, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, runs = tmp_path / "mine", tmp_path / "runs"
    mine.mkdir()
    runs.mkdir()
    shutil.copy(empty_store, runs)
    write_systems(mine)
    space = write_space(mine / "space.py", SPACE)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with ray_head("--num-cpus=1", token=TOKEN, without=mine) as address:
        sweep = ["run", space, corpus.manifest.path, "--features", corpus.features_dir]
        sweep += ["--name", "own", "--runs", runs, "--trials", 2, "--epochs", 1]
        sweep += ["--packs", "off", "--workers", 1, "--address", address]
        without = call("search", *sweep, status=1)
        resume = "search", "resume", "own", "--runs", runs
        done = call(*resume, "--ship")
        history = read_history(runs / "own" / "ledger.sqlite")
        again = call(*resume, "--no-ship", "--trials", 3, status=1)
    files = ["beside_it.py", "my_system.py", "package_beside/inside.py", "package_beside/other.py"]
    lacking = ", ".join(str(mine / name) for name in files)
    assert f" lacks {lacking} as on this machine, code of the user's own; send " in without.stdout
    assert "no node of the cluster may train: " in without.stderr
    assert f" {VERSION} and 4 files of your systems of this machine to the nodes, " in done.stdout
    assert "it is not used" not in done.stdout
    assert history.spec.ship
    assert f" lacks {lacking} as on this machine, " in again.stdout
    assert [trial.state for trial in history.trials.values()] == ["complete", "complete"]
    assert {trial.architecture for trial in history.trials.values()} == {SYSTEM}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="as Ray finds its processes")
def test_nodes_with_an_mmm_search_that_cannot_be_imported_train_with_what_is_sent(
    corpus: Corpus, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "older"
    for package in ("mmm", "search", "spaces"):
        (older / package).mkdir(parents=True)
        (older / package / "__init__.py").write_text('raise ImportError("an older one")\n')
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(empty_store, runs)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    # Its processes inherit what the head was started with.
    # What is not sent is thus an ImportError on its nodes, of whatever is theirs.
    with ray_head("--num-cpus=1", token=TOKEN, PYTHONPATH=str(older)) as address:
        sweep = ["run", "quick", corpus.manifest.path, "--features", corpus.features_dir]
        sweep += ["--runs", runs, "--trials", 2, "--epochs", 1, "--workers", 1]
        sweep += ["--packs", "off", "--address", address]
        without = call("search", *sweep, "--name", "without", status=1)
        done = call("search", *sweep, "--name", "with", "--ship")
    assert (
        " cannot train: ImportError: an older one; install mmm-search[search] there, or send this"
        " one's with --ship; it is not used"
    ) in without.stdout
    assert f"sending mmm, search and spaces {VERSION} of this machine to the nodes, " in done.stdout
    assert "it is not used" not in done.stdout
    history = read_history(runs / "with" / "ledger.sqlite")
    assert [trial.state for trial in history.trials.values()] == ["complete", "complete"]
    assert history.spec.ship
