"""`mmm-search mlflow-server --auth`: who has no password is not let in."""

import importlib.util
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from benchmarks.mlflow_server import Server
from search.ledger.events import read_history
from search.tracking.accounts import PASSWORD_FILE
from search.tracking.store import count_runs, open_client
from tests.conftest import Corpus
from tests.sweep_parts import call, call_inside, command, environment

_IS_THERE = importlib.util.find_spec("flask_wtf") is not None


@pytest.mark.skipif(_IS_THERE, reason="Flask-WTF is installed")
def test_a_missing_package_is_named(tmp_path: Path) -> None:
    given = ["--backend", "sqlite:///x.db", "--artifacts", tmp_path, "--auth", tmp_path / "auth"]
    said = call_inside("search", "mlflow-server", *given, status=2).stderr
    assert said == (
        "error: --auth needs Flask-WTF, which is not installed; run: pip install"
        " 'mmm-search[server]'\n"
    )
    assert not (tmp_path / "auth").exists()


@dataclass(frozen=True)
class Guarded:
    """A server that asks for a password, and what it wrote."""

    uri: str
    accounts: Path
    log: Path

    @property
    def password(self) -> str:
        return (self.accounts / PASSWORD_FILE).read_text()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    accounts, log = folder / "auth 100%", folder / "server.log"
    server = Server(folder)  # which waits for ours
    given = ["--backend", server.store, "--artifacts", folder / "mlartifacts"]
    with log.open("wb") as out:
        started = command(
            "search", "mlflow-server", *given, "--port", server.port, "--auth", accounts
        )
        process = subprocess.Popen(started, env=environment(), stdout=out, stderr=out)
    try:
        server.wait()
        yield Guarded(server.uri, accounts, log)
    finally:
        process.terminate()
        process.wait(30)


def gives(patch: pytest.MonkeyPatch, password: str) -> None:
    """What every client of MLflow's gives from now on, here and in what is started from here."""
    patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    patch.setenv("MLFLOW_TRACKING_PASSWORD", password)


@pytest.mark.slow  # MLflow's server takes ten seconds to start
@pytest.mark.skipif(not _IS_THERE, reason="Flask-WTF is not installed")
def test_only_who_has_the_password_is_let_in_and_it_is_in_no_log(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [guarded.accounts, *guarded.accounts.iterdir()]:
        if path.suffix != ".db":  # MLflow's own, within a folder that nobody else can enter
            assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{guarded.uri}/api/2.0/mlflow/experiments/get?experiment_id=0")
    client = MlflowClient(tracking_uri=guarded.uri)
    for wrong in ("password1234", "another password"):
        gives(monkeypatch, wrong)
        with pytest.raises(MlflowException, match="401"):
            client.get_experiment("0")
        with pytest.raises(ValueError, match="are not right; set MLFLOW_TRACKING_USERNAME and"):
            open_client(tmp_path / "runs", guarded.uri)
    gives(monkeypatch, guarded.password)
    assert client.get_experiment("0").name == "Default"
    open_client(tmp_path / "runs", guarded.uri)
    assert guarded.password not in guarded.log.read_text()


@pytest.mark.slow
@pytest.mark.skipif(not _IS_THERE, reason="Flask-WTF is not installed")
def test_a_sweep_with_a_wrong_password_loses_nothing_and_is_sent_with_the_right_one(
    guarded: Guarded, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    sweep = ["run", "quick", corpus.manifest.path, "--features", corpus.features_dir]
    sweep += ["--name", "first", "--runs", runs, "--trials", 2, "--epochs", 1, "--serial"]
    not_let_in = (
        f"the MLflow server at {guarded.uri} wants a name and a password, and those that are given"
        " here, if any, are not right; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    )
    gives(monkeypatch, "a wrong one")
    done = call("search", *sweep, "--tracking-uri", guarded.uri)
    sync = f"mmm-search mlflow-sync first --runs {runs}"
    told = f"MLflow did not take everything ({not_let_in}); it is safe in the ledger, send it with:"
    assert f"{told} {sync}" in " ".join(done.stdout.split())
    assert done.stdout.count(" wants a name and a password") == 1
    assert done.stderr == ""
    history = read_history(runs / "first" / "ledger.sqlite")
    assert [trial.state for trial in history.trials.values()] == ["complete", "complete"]
    assert not_let_in in (runs / "first" / "mlflow.log").read_text()
    again = call("search", "mlflow-sync", "first", "--runs", runs, status=2)
    assert again.stderr == f"error: {not_let_in}\n"

    gives(monkeypatch, guarded.password)
    call("search", "mlflow-sync", "first", "--runs", runs)
    assert count_runs(runs, guarded.uri) == 1 + len(history.trials)
    written = [path for path in runs.rglob("*") if path.is_file()]
    for password in ("a wrong one", guarded.password):
        assert not [path for path in written if password.encode() in path.read_bytes()]
