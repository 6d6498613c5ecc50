"""`mmm-search mlflow-server --auth`: who has no password is not let in."""

import importlib.util
import stat
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from benchmarks.mlflow_server import Server
from search.tracking.accounts import PASSWORD_FILE
from search.tracking.store import open_client
from tests.sweep_parts import call_inside, command, environment

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


@pytest.mark.slow  # MLflow's server takes ten seconds to start
@pytest.mark.skipif(not _IS_THERE, reason="Flask-WTF is not installed")
def test_only_who_has_the_password_is_let_in_and_it_is_in_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts, log = tmp_path / "auth 100%", tmp_path / "server.log"
    server = Server(tmp_path)  # which waits for ours
    given = ["--backend", server.store, "--artifacts", tmp_path / "mlartifacts"]
    with log.open("wb") as out:
        started = command(
            "search", "mlflow-server", *given, "--port", server.port, "--auth", accounts
        )
        process = subprocess.Popen(started, env=environment(), stdout=out, stderr=out)
    try:
        server.wait()
        password = (accounts / PASSWORD_FILE).read_text()
        for path in [accounts, *accounts.iterdir()]:
            if path.suffix != ".db":  # MLflow's own, within a folder that nobody else can enter
                assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{server.uri}/api/2.0/mlflow/experiments/get?experiment_id=0")
        client = MlflowClient(tracking_uri=server.uri)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        for wrong in ("password1234", "another password"):
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", wrong)
            with pytest.raises(MlflowException, match="401"):
                client.get_experiment("0")
            with pytest.raises(ValueError, match="are not right; set MLFLOW_TRACKING_USERNAME and"):
                open_client(tmp_path / "runs", server.uri)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        assert client.get_experiment("0").name == "Default"
        open_client(tmp_path / "runs", server.uri)
    finally:
        process.terminate()
        process.wait(30)
    assert password not in log.read_text()
