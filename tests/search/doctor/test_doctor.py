"""`mmm-search doctor` says what is wrong and what to do about it, and nothing where nothing is."""

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

import mmm
import search
import spaces
from mmm.version import VERSION
from search.cluster.nodes import NodeReport
from search.doctor.cluster import _of_node
from search.doctor.finding import Finding, lines
from search.ledger.events import create_sweep
from tests.conftest import Corpus, names_in
from tests.search.cluster.ray_parts import TOKEN, ray_head
from tests.sweep_parts import call, call_inside, small_spec


def findings(*arguments: object, status: int) -> list[Finding]:
    """What is not well, from the JSON; asserts what the terminal showed of it."""
    file = Path(str(arguments[arguments.index("--runs") + 1])).parent / "doctor.json"
    done = call_inside("search", "doctor", *arguments, "--json", file, status=status)
    said = json.loads(file.read_text())
    found = [Finding(**one) for one in said["findings"]]
    assert done.stdout.splitlines()[:-1] == [*lines(found)]
    faults = [one for one in found if one.state == "fault"]
    assert said["is_well"] is (not faults)
    last = done.stdout.splitlines()[-1]
    assert last == (f"{len(faults)} faults" if faults else "nothing is wrong")
    return [one for one in found if one.state != "ok"]


def test_where_nothing_is_wrong_it_says_so_and_changes_nothing(
    corpus: Corpus, tmp_path: Path
) -> None:
    with create_sweep(tmp_path / "runs" / "first", small_spec(corpus)):
        pass
    before = names_in(tmp_path)
    assert findings("first", "--runs", tmp_path / "runs", status=0) == [
        Finding(
            "note",
            "session",
            "the last one was killed; nothing that was reported is lost",
            f"run: mmm-search resume first --runs {tmp_path / 'runs'}",
        )
    ]
    (tmp_path / "doctor.json").unlink()
    assert names_in(tmp_path) == before
    assert findings("--runs", tmp_path / "none", status=0) == []
    assert not (tmp_path / "none").exists()


def test_each_fault_is_named_with_what_to_do(corpus: Corpus, tmp_path: Path) -> None:
    runs, features = tmp_path / "runs", tmp_path / "features"
    with create_sweep(runs / "first", small_spec(corpus)):
        pass
    ledger = runs / "first" / "ledger.sqlite"
    content = bytearray(ledger.read_bytes())
    at = content.index(b"macro_f1")
    content[at : at + 8] = b"macro_f2"
    ledger.write_bytes(content)
    shutil.copytree(corpus.features_dir, features)
    values = next(features.glob("[!.]*/values.npy"))
    damaged = bytearray(values.read_bytes())
    damaged[-1] ^= 1
    values.write_bytes(damaged)
    manifest = tmp_path / "manifest.csv"
    shutil.copy(corpus.manifest.path, manifest)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = findings(
        *("first", "--runs", runs, "--manifest", manifest, "--features", features),
        *("--tracking-uri", f"http://127.0.0.1:{port}", "--address", f"127.0.0.1:{port}"),
        status=1,
    )
    told = {one.subject: one for one in found}
    assert told.keys() == {"manifest", "features", "tracking", "ledger", "cluster"}
    assert told["manifest"].state == "note"
    assert told["manifest"].found.startswith("40 of 40 audio files are not on this machine, the ")
    assert f"{values}: damaged: its checksum" in told["features"].found
    assert "; make it again: rm -r " in told["features"].found
    assert f"http://127.0.0.1:{port}: " in told["tracking"].found
    assert told["tracking"].do.endswith("run: mmm-search mlflow-sync NAME")
    assert f"{ledger}: event 1 is not what was written" in told["ledger"].found
    assert "no Ray cluster answers at " in told["cluster"].found


def test_a_machine_that_cannot_hold_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + 60 * "x")
    monkeypatch.setattr("search.doctor.machine._LEAST_FREE_BYTES", 10**18)
    monkeypatch.setattr("search.doctor.machine._lacking", lambda: ["ray 2.41.0 (at least 2.50)"])
    found = findings("--runs", tmp_path / "runs", status=1)
    assert [one.found for one in found if one.subject == "installation"] == [
        "missing or too old: ray 2.41.0 (at least 2.50)"
    ]
    assert "bytes too long" in next(one.found for one in found if one.subject == "ray")
    assert {one.do for one in found if one.subject == "space"} == {"free at least 2 GB"}


WELL = NodeReport(VERSION, "a hash", "2.14.1", 1, 1005.0, (1000.0, 1010.0), (), (), False)


def test_a_node_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.doctor.cluster.version", lambda _: "2.14.1+cu130")

    def told(**changes: object) -> list[str]:
        report = replace(WELL, **changes)  # type: ignore[arg-type]
        found = [*_of_node("10.0.0.2", report, Path("/data/runs"), "a hash")][1:]
        assert all("--ship" in one.do for one in found if "mmm-search" in one.found)
        return [one.found for one in found]

    assert told() == []
    assert told(torch="2.13.0+cpu", mmm_search="0.0.9") == [
        f"other versions: mmm-search 0.0.9 (here: {VERSION}), torch 2.13.0+cpu (here: 2.14.1+cu130)"
    ]
    assert told(code="another") == [f"its mmm-search {VERSION} is not the code that is here"]
    assert told(unreadable=("/data/features",)) == ["it cannot read /data/features"]
    assert told(unwritable=("/data/runs",)) == [
        "it cannot write into /data/runs, where trials leave their weights"
    ]
    assert told(lacks_mark=True) == [
        "it has another folder as /data/runs, where trials leave their weights"
    ]
    assert told(clock=4610.0) == ["its clock is at least 3600 s ahead"]
    assert told(clock=900.0) == ["its clock is at least 100 s behind"]


def test_the_table_has_eighty_columns_and_whole_paths() -> None:
    path = f"/data/{60 * 'x'}/runs"
    found = Finding("fault", "space", f"{path} is full, " + 30 * "and ", f"run: rm -r {path}")
    table = [*lines([found])]
    assert table[0] == f"fault  space         {path}"
    assert all(line.startswith(21 * " ") for line in table[1:])
    assert all(len(line) <= 80 for line in table if path not in line)
    assert sum(path in line for line in table) == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="as Ray finds its processes")
def test_every_node_of_a_cluster_is_asked(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A token that is sent to a cluster which asks for none makes it no safer.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    another = tmp_path / "another"
    for package in (mmm, search, spaces):
        folder = Path(str(package.__file__)).parent
        shutil.copytree(folder, another / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    # What a node is asked is not what its own code asks.
    (another / "search" / "cluster" / "nodes.py").unlink()
    with ray_head("--num-cpus=1", PYTHONPATH=str(another)) as address:
        asked = ["search", "doctor", "--address", address, "--runs", tmp_path / "runs"]
        done = call(*asked, "--features", tmp_path / "none", status=1)
        well = call(*asked)
        assert not (tmp_path / "runs").exists()
        with create_sweep(tmp_path / "runs" / "first", small_spec(corpus, address=address)):
            pass
        of_a_sweep = call(*asked[:2], "first", *asked[4:], status=1)
    said = " ".join(done.stdout.split())
    assert " 1 nodes with 1 CPU note cluster it asks for no token: whoever reaches it runs " in said
    assert f" mmm-search {VERSION}, torch " in said
    assert f" its mmm-search {VERSION} is not the code that is here -> install the same " in said
    assert f" it cannot read {tmp_path / 'none'} -> " in said
    assert said.endswith(" 2 faults")
    assert well.stdout.endswith("\nnothing is wrong\n")
    # `resume` would refuse it.
    said = " ".join(of_a_sweep.stdout.split())
    assert " fault cluster it asks for no token: " in said
    assert said.endswith(" 1 faults")
