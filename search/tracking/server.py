"""MLflow's own server over a store, on loopback."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Mapping
from pathlib import Path

from search.tracking.accounts import accounts_environment
from search.tracking.store import default_tracking_uri

_POLL_S = 0.5
_PATIENCE_S = 10.0  # until a server that was told to end is killed
_START_S = 120.0  # within which a server answers


def server_command(store: str | None, port: int, artifacts: str | Path | None = None) -> list[str]:
    """MLflow's server on loopback. By itself it asks for no password: it answers only requests that
    name this machine. `store` None: as its environment says.
    """
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
    command += ["--workers", "1"]
    if store is not None:
        command += ["--backend-store-uri", store]
    return command if artifacts is None else [*command, "--artifacts-destination", str(artifacts)]


def server_environment() -> dict[str, str]:
    # Its job runners (seven processes) are for judging language models.
    return {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",  # it starts Python again: uvicorn's, not the user's folder's
    }


def serve(runs: Path, port: int) -> int:
    """Run MLflow's server on loopback until it or this process is told to end; returns the exit
    status.
    """
    return _run(server_command(default_tracking_uri(runs), port), server_environment())


def serve_backend(uri: str, artifacts: str, port: int, accounts: Path | None = None) -> int:
    """The same over any store of MLflow's, with artifacts nowhere but in one place. A password in
    `uri` is on no command line. `accounts`: the folder of those that are let in; None asks nobody.
    """
    # SQLAlchemy 2.1 takes psycopg by itself, of which many have the older one.
    if uri.startswith("postgresql://") and importlib.util.find_spec("psycopg") is None:
        uri = uri.replace("postgresql", "postgresql+psycopg2", 1)
    environment = {**server_environment(), "MLFLOW_BACKEND_STORE_URI": uri}
    command = server_command(None, port, artifacts)
    if accounts is not None:
        command += ["--app-name", "basic-auth"]
        environment |= accounts_environment(accounts)
    return _run(command, environment)


def _run(command: list[str], environment: Mapping[str, str]) -> int:
    """What ends this process ends the server, which consists of several."""
    told: list[int] = []
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:

        def end(number: int, _frame: object) -> None:
            told.append(number)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)

        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, end) for number in signals}
        try:
            patience_s = _PATIENCE_S
            while patience_s > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = server.wait(timeout=_POLL_S)
                    break
                patience_s -= _POLL_S if told else 0.0
            else:
                os.killpg(server.pid, signal.SIGKILL)
                status = server.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if not told:
        return status
    return 0 if told[0] == signal.SIGINT else 128 + told[0]


def open_once_served(page: str, port: int) -> None:
    """Show a page in the browser as soon as something answers at `port`; does not wait for it."""

    def wait() -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                webbrowser.open(page)
                return
            time.sleep(_POLL_S)

    threading.Thread(target=wait, daemon=True).start()
