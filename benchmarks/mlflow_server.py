"""A real `mlflow server` on loopback that can be killed, frozen and started again, and a proxy
before it that can fail.

Used by benchmarks/mlflow_outbox.py, benchmarks/mlflow_trouble.py and
tests/search/tracking/test_mlflow_trouble.py.
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from search.tracking.server import server_command, server_environment


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """`with Server(folder) as server`: its SQLite store and artifacts are in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.store = f"sqlite:///{folder / 'server.db'}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        # MLflow's server starts workers of its own: they are in one group, to be stopped together.
        with open(self.folder / "server.log", "ab") as log:
            command = server_command(self.store, self.port, self.folder / "artifacts")
            self._process = subprocess.Popen(
                command,
                env=server_environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )

    def wait(self) -> None:
        """Until it answers. Raises TimeoutError."""
        until = time.monotonic() + 300  # a busy machine takes minutes to import MLflow
        while time.monotonic() < until:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise TimeoutError((self.folder / "server.log").read_text())

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)


class Proxy:
    """Forwards requests to a server; while `is_failing`, each is answered 500, every second one
    only after it was carried out.
    """

    def __init__(self, target: Server) -> None:
        self.target = target  # may be exchanged
        self.is_failing = False
        self.failed = 0
        self.carried_out = 0  # of those that failed
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                is_failing, status, content = proxy.is_failing, 500, b"broken on purpose"
                is_lost = is_failing and proxy.failed % 2 == 1
                if not is_failing or is_lost:
                    connection = http.client.HTTPConnection(
                        "127.0.0.1", proxy.target.port, timeout=30
                    )
                    headers = {
                        name: value
                        for name, value in self.headers.items()
                        if name.lower() not in ("host", "connection")
                    }
                    try:
                        connection.request(self.command, self.path, body, headers)
                        answer = connection.getresponse()
                        content = answer.read() if not is_failing else content
                        status = answer.status if not is_failing else 500
                        proxy.carried_out += is_lost and answer.status == 200
                    except OSError:
                        status, content = 502, b"the server is away"
                    finally:
                        connection.close()
                proxy.failed += is_failing
                with contextlib.suppress(
                    BrokenPipeError, ConnectionResetError
                ):  # who asked waits no longer
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def failing(proxy: Proxy) -> Iterator[None]:
    proxy.is_failing = True
    try:
        yield
    finally:
        proxy.is_failing = False
