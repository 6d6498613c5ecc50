"""A cluster of Ray's own commands on this machine, for tests."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

TOKEN = "a token of these tests"
_START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]


@contextlib.contextmanager
def ray_head(
    *options: str,
    token: str | None = None,
    port: int = 0,
    dashboard: bool = False,
    **environment: str,
) -> Iterator[str]:
    """What `ray start --head` makes, apart from every other Ray here; its address."""
    with (
        # short, since Ray's sockets lie below it
        tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder,
        socket.create_server(("0.0.0.0", port)) as free,
    ):
        port = free.getsockname()[1]
        free.close()
        asked = {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        if token is not None:
            asked |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        head = ["--head", f"--port={port}", f"--include-dashboard={str(dashboard).lower()}"]
        with _started([*_START, *head, *options], {**os.environ, **asked, **environment}):
            yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def node_without(folders: Iterable[Path], address: str) -> Iterator[None]:
    """A node of one core in that cluster which sees nothing in these folders, as where they are not
    mounted; for root.
    """
    hide = [f"mount -t tmpfs none {shlex.quote(str(folder))}" for folder in folders]
    alone = ["unshare", "--mount", "sh", "-c", " && ".join([*hide, 'exec "$@"']), "sh"]
    with _started([*alone, *_START, f"--address={address}", "--num-cpus=1"], dict(os.environ)):
        yield


@contextlib.contextmanager
def _started(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """`ray start`, with all that it starts."""
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            told = []
            for line in process.stdout:
                told.append(line)
                if "--block" in line:
                    break
            else:
                raise AssertionError("".join(told))
            # Whatever it says further must not fill the pipe.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
