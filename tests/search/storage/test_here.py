"""Every command that reads a sweep's manifest and features reads them at URLs as well, and says
what it leaves out where they are away.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from mmm.bundle.read import load_bundle
from mmm.bundle.sealed_test import read_openings
from mmm.features.store import list_recipes
from search.ledger.events import read_history
from search.results.export import export_trial
from search.storage.copies import Copies
from search.storage.door import Store
from search.storage.here import staged_here
from search.storage.stage import beside
from tests.conftest import Corpus
from tests.search.confirm.test_confirm import SPACE
from tests.search.storage.test_stage import put
from tests.search.test_reproduce import train_sweep
from tests.sweep_parts import call_inside, small_spec, write_space

MANIFEST, FEATURES = "memory://elsewhere/corpus/manifest.csv", "memory://elsewhere/features"


@pytest.fixture(autouse=True)
def _there(corpus: Corpus) -> Iterator[None]:
    put(corpus.features_dir, FEATURES)
    Store("memory://elsewhere/corpus").put(corpus.manifest.path, "manifest.csv")
    yield
    remove()


def remove(url: str = "memory://elsewhere") -> None:
    """Whoever asks for it is told that nothing is there."""
    files, root = fsspec.url_to_fs(url)
    if files.exists(root):
        files.rm(root, recursive=True)


def files_below(folder: Path) -> list[Path]:
    """But for those with which SQLite reads."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix not in (".sqlite-shm", ".sqlite-wal")
    )


@pytest.fixture(scope="module")
def begun(corpus: Corpus, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep `small` in `runs`; to be copied."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs")
    put(corpus.features_dir, FEATURES)
    Store("memory://elsewhere/corpus").put(corpus.manifest.path, "manifest.csv")
    spec = small_spec(
        corpus,
        trials=2,
        manifest_url=MANIFEST,
        features_url=FEATURES,
        cache=str(folder / "cache"),
    )
    history = train_sweep(folder / "runs" / "small", staged_here(spec))
    export_trial(history, folder / "runs" / "small", None, folder / "runs" / "small" / "bundle")
    return folder / "runs"


@pytest.fixture
def runs(begun: Path, tmp_path: Path) -> Path:
    """On another machine, which was brought nothing yet."""
    shutil.copytree(begun, tmp_path / "runs")
    return tmp_path / "runs"


def search(*arguments: object, status: int = 0) -> str:
    done = call_inside("search", *arguments, status=status)
    return done.stderr if status == 2 else done.stdout


def test_report_brings_what_the_winner_needs_and_no_more(runs: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    asked = ["report", "small", "--runs", runs, "--cache", cache]
    found = json.loads(search(*asked, "--json", "--markdown", tmp_path / "appendix.md"))
    assert found["left_out"] == ""
    text = (tmp_path / "appendix.md").read_text(encoding="utf-8")
    for one in found["classes"]:
        assert f"| {one['name']} | {one['scores']['support']} | " in text
    assert f"Expected calibration error {found['calibration']['error']:.3f}" in text
    brought = {file.parent.name for file in cache.glob("*/[!.]*/values.npy")}
    (folder,) = {file.parent.parent for file in cache.glob("*/[!.]*/values.npy")}
    assert len(brought) == 2 < len(list_recipes(folder))


def test_the_clips_of_errors_html_are_brought_from_beside_the_manifest_and_not_kept(
    corpus: Corpus, runs: Path, tmp_path: Path
) -> None:
    asked = ["report", "small", "--runs", runs, "--cache", tmp_path / "cache", "--with-audio"]
    errors = runs / "small" / "errors.html"
    assert f"wrote {errors}; none of its clips could be read, the first fault: " in search(*asked)
    audio = {one.audio for one in corpus.manifest.utterances}
    for name in audio:
        Store("memory://elsewhere/corpus").put(corpus.manifest.path.parent / name, name)
    assert f"wrote {errors}; it holds audio of the corpus\n" in search(*asked)
    page = errors.read_text(encoding="utf-8")
    num_clips = page.count('src="data:audio/wav;base64,')
    assert num_clips == page.count("<audio ") > 1
    assert not [file for name in audio for file in (tmp_path / "cache").rglob(Path(name).name)]
    shown = {name for name in audio if f"<td>{name}</td>" in page}
    first = min(shown)
    Store("memory://elsewhere/corpus").write(first, b"no sound")
    said = search(*asked)
    left_out = f"1 of {num_clips} clips are not in it, the first: {first}: "
    assert f"; it holds audio of the corpus; {left_out}" in said
    assert "mmm-search-" not in said.partition(left_out)[2].partition("\n")[0]


def test_clips_beside_the_manifest_s_folder_are_found(tmp_path: Path) -> None:
    Store("memory://elsewhere/audio").write("a b.wav", b"sound")
    assert beside(MANIFEST, "../audio/a b.wav", tmp_path).read_bytes() == b"sound"


def test_export_and_reproduce_work_on_another_machine(runs: Path, tmp_path: Path) -> None:
    where = ["--runs", runs, "--cache", tmp_path / "cache"]
    said = search("export", "small", "-o", tmp_path / "best", *where)
    assert "a fresh process reproduced its validation macro_f1" in said
    assert search("reproduce", "small", *where).startswith("Reproduced: trial")
    found = json.loads(search("reproduce", "small", "--json", *where))
    assert (found["is_equal"], found["changed"]) == (True, [])


def test_where_the_url_is_away_what_was_brought_is_taken_and_told(
    runs: Path, begun: Path, tmp_path: Path
) -> None:
    remove()
    assert search("report", "small", "--runs", runs).count("taken as it was brought before") == 2
    said = search("reproduce", "small", "--runs", runs)
    assert said.startswith(f"note: {MANIFEST}")
    assert "Reproduced: trial" in said


def test_a_finished_sweep_is_reported_and_exported_without_its_features(
    runs: Path, tmp_path: Path
) -> None:
    remove()
    where = ["--runs", runs, "--cache", tmp_path / "cache"]
    said = search("report", "small", *where)
    assert "left out, the winner's errors and calibration: memory://elsewhere" in said
    said = search("export", "small", "-o", tmp_path / "best", *where)
    assert "left out, its score computed again: memory://elsewhere" in said
    bundle, kept = load_bundle(tmp_path / "best"), load_bundle(runs / "small" / "bundle")
    assert bundle.sha256 == kept.sha256
    best = read_history(runs / "small" / "ledger.sqlite").best
    assert best is not None
    other = 1 - best[1]
    said = search("export", "small", "--trial", other, "-o", tmp_path / "other", *where, status=2)
    assert said.startswith("error: memory://elsewhere")
    said = search("export", "small", "--onnx", "-o", tmp_path / "other", *where, status=2)
    assert said.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_what_trains_is_refused_where_the_url_is_away_and_writes_nothing(
    runs: Path, tmp_path: Path
) -> None:
    remove()
    before = files_below(runs)
    where = ["--runs", runs, "--cache", tmp_path / "cache"]
    confirm = ["confirm", "small", "--serial"]
    for command in (confirm, ["reproduce", "small"], ["resume", "small", "--serial"]):
        given = where if command[0] != "resume" else [*where, "--trials", 3]
        said = search(*command, *given, status=2)
        assert said.startswith("error: memory://elsewhere")
        assert said.count("\n") == 1
    assert files_below(runs) == before


def test_a_cache_that_cannot_be_made_is_said_with_the_option(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = search("confirm", "small", "--runs", runs, "--cache", tmp_path / "file" / "a", status=2)
    assert "cannot be made (Not a directory)" in said
    assert "name another folder with --cache DIR" in said


def test_plan_and_doctor_look_at_data_at_urls(runs: Path, tmp_path: Path, corpus: Corpus) -> None:
    where = ["--cache", tmp_path / "cache"]
    space = write_space(tmp_path / "space.py", SPACE)
    data = [MANIFEST, "--features", FEATURES]
    assert "trials" in search("plan", space, *data, "--trials", 2, "--epochs", 2, *where)
    given = ["--manifest", MANIFEST, "--features", FEATURES, "--runs", runs, *where]
    for arguments in (["small", "--runs", runs, *where], given):
        said = search("doctor", *arguments)
        assert "features" in said
        assert "nothing is wrong" in said
    remove(FEATURES)
    said = search("doctor", "small", "--runs", runs, *where, status=1)
    assert "holds no features" in " ".join(said.split())
    assert "1 faults" in said


@pytest.mark.slow
def test_the_published_comparison_is_made_and_its_openings_recorded_at_urls(
    corpus: Corpus, tmp_path: Path
) -> None:
    data = [MANIFEST, "--features", FEATURES, "--cache", tmp_path / "cache"]
    asked = ["--seeds", 1, "--epochs", 1, "--open-test", "--json", "-o", tmp_path / "paper"]
    found = json.loads(search("paper", *data, *asked))
    record = Store(FEATURES).read("test_openings.csv").decode()
    assert found["num_openings"] == len(record.splitlines()) - 1 > 0


@pytest.mark.slow
def test_a_confirmation_is_begun_here_and_gone_on_with_elsewhere(
    runs: Path, tmp_path: Path, empty_store: Path
) -> None:
    """Both sweeps are copied to a store, and the test split's opening is on record at the URL."""
    remove("memory://kept")
    asked = ["confirm", "small", "--top", 1, "--storage", "memory://kept"]
    here = ["--runs", runs, "--cache", tmp_path / "cache", "--serial"]
    manifest = tmp_path / "cache" / "manifest.csv"
    Copies(runs / "small", manifest, "memory://kept", None, print).copy(ended=True)
    search(*asked, "--seeds", 1, *here)
    files = Store("memory://kept").files()
    assert {"small/confirm.json", "small-confirm/finalists.json"} <= files.keys()
    shutil.rmtree(runs)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "other").mkdir()
    shutil.copy(empty_store, tmp_path / "other")
    other = ["--runs", tmp_path / "other", "--cache", tmp_path / "there", "--serial"]
    search(*asked, "--seeds", 2, "--open-test", "leader", *other)
    trained = read_history(tmp_path / "other" / "small-confirm" / "ledger.sqlite")
    assert [trial.state for trial in trained.trials.values()] == ["complete"] * 2
    record = Store(FEATURES).read("test_openings.csv").decode()
    assert len(record.splitlines()) == 1 + 2
    (folder,) = {file.parent.parent for file in (tmp_path / "there").glob("*/*/values.npy")}
    assert len(read_openings(folder)) == 2
