"""`mmm-search mlflow-server` over a PostgreSQL that is really started, and asks for a
password."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from benchmarks.mlflow_server import Server, free_port
from search.tracking.delivery import sync
from tests.conftest import Corpus
from tests.search.engine.test_controller import Sweep
from tests.sweep_parts import call_inside, command, environment, small_spec

_PROGRAMS = Path("/usr/lib/postgresql")


def program(name: str) -> str | None:
    """On the path, or where Debian has it."""
    found = sorted(str(path) for path in _PROGRAMS.glob(f"*/bin/{name}"))
    return shutil.which(name) or (found[-1] if found else None)


needs_postgresql = pytest.mark.skipif(
    program("pg_ctl") is None or importlib.util.find_spec("psycopg2") is None,
    reason="PostgreSQL or psycopg2 is not installed",
)


@contextlib.contextmanager
def postgresql() -> Iterator[tuple[str, Path]]:
    """One of its own on loopback, that asks for a password; its URI, and the file of the
    password.
    """
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        (folder / "password").write_text(secrets.token_hex(8))
        pgpass = folder / "pgpass"
        pgpass.write_text(f"127.0.0.1:{port}:*:mlflow:{(folder / 'password').read_text()}")
        pgpass.chmod(0o600)
        if user:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(folder / "password", "postgres", "postgres")
        (folder / "password").chmod(0o600)
        data = ["-D", str(folder / "data")]

        def run(*given: str) -> None:
            subprocess.run(
                given, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120, **user
            )

        initdb, pg_ctl = program("initdb"), program("pg_ctl")
        assert initdb is not None
        assert pg_ctl is not None
        password = f"--pwfile={folder / 'password'}"
        run(initdb, *data, "-U", "mlflow", "-A", "scram-sha-256", password, "-E", "UTF8", "-N")
        options = f"-h 127.0.0.1 -p {port} -k {folder} -F"
        run(pg_ctl, *data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://mlflow@127.0.0.1:{port}/postgres", pgpass
        finally:
            run(pg_ctl, *data, "-w", "-m", "immediate", "stop")


def test_a_password_on_the_command_line_is_refused() -> None:
    given = ["mlflow-server", "--artifacts", "mlartifacts"]
    said = call_inside("search", *given, "--backend", "postgresql://a:secret@h/b", status=2).stderr
    assert "keep it in ~/.pgpass" in said
    assert "secret" not in said
    said = call_inside("search", *given, "--backend", "here.db", status=2).stderr
    assert said.startswith("error: --backend 'here.db' is no URI")


@pytest.mark.slow  # MLflow's server takes ten seconds to start
@needs_postgresql
def test_a_sweep_is_kept_in_postgresql_through_our_server(corpus: Corpus, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "runs" / "small", small_spec(corpus, trials=2))
    sweep.run()
    with postgresql() as (backend, pgpass):
        server = Server(tmp_path)  # which waits for ours
        given = ["--backend", backend, "--artifacts", tmp_path / "mlartifacts"]
        with (tmp_path / "server.log").open("wb") as log:
            process = subprocess.Popen(
                command("search", "mlflow-server", *given, "--port", server.port),
                env={**environment(), "PGPASSFILE": str(pgpass)},
                stdout=log,
                stderr=log,
            )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)  # it ends at once where it cannot reach its database
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            server.wait()
            done = sync(tmp_path / "runs", "small", server.uri)
            assert (done.num_runs, done.made) == (3, 3)
            runs = MlflowClient(tracking_uri=server.uri).search_runs(["1"])
            assert len(runs) == 3
            assert "RUNNING" not in {run.info.status for run in runs}
        finally:
            process.terminate()  # and the server with it
            process.wait(30)
        assert pgpass.read_text().rpartition(":")[2] not in (tmp_path / "server.log").read_text()
