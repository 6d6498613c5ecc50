"""`--ship`: nodes train with this machine's code, whatever mmm-search they have."""

import shutil
from pathlib import Path

import pytest

from mmm.version import VERSION
from search.cluster.shipping import sentence, shipped
from search.ledger.events import read_history
from tests.conftest import Corpus, names_in
from tests.search.cluster.ray_parts import TOKEN, ray_head
from tests.sweep_parts import call, call_inside


def test_what_is_sent_is_this_machine_s_code_without_what_python_compiled() -> None:
    folders = [Path(folder) for folder in shipped()["py_modules"]]
    assert [folder.name for folder in folders] == ["mmm", "search", "spaces"]
    assert all((folder / "py.typed").is_file() for folder in folders)
    assert shipped()["excludes"] == ["__pycache__"]
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
        done = call("search", *sweep, "--name", "with", "--ship")
    assert sentence() in done.stdout
    assert "it is not used" not in done.stdout
    history = read_history(runs / "with" / "ledger.sqlite")
    assert [trial.state for trial in history.trials.values()] == ["complete", "complete"]
    assert history.spec.ship
