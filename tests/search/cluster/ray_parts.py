"""A cluster of Ray's own commands on this machine, for tests."""

import contextlib
import os
import shlex
import shutil
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


def can_mount() -> bool:
    tried = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(tried, capture_output=True, check=False).returncode
    )


@contextlib.contextmanager
def ray_head(
    *options: str,
    token: str | None = None,
    port: int = 0,
    dashboard: bool = False,
    without: Path | None = None,
    **environment: str,
) -> Iterator[str]:
    """What `ray start --head` makes, apart from every other Ray here; its address.
    Its processes find the folder `without` empty.
    """
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
        command = [*_hiding([] if without is None else [without]), *_START, *head, *options]
        with _started(command, {**os.environ, **asked, **environment}):
            yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def node_without(folders: Iterable[Path], address: str) -> Iterator[None]:
    """A node of one core in that cluster which sees nothing in these folders, as where they are not
    mounted; for root.
    """
    node = [*_START, f"--address={address}", "--num-cpus=1"]
    with _started([*_hiding(folders), *node], dict(os.environ)):
        yield


def _hiding(folders: Iterable[Path]) -> list[str]:
    """What begins a command that sees nothing in these folders."""
    hide = [f"mount -t tmpfs none {shlex.quote(str(folder))}" for folder in folders]
    if not hide:
        return []
    return ["unshare", "--mount", "sh", "-c", " && ".join([*hide, 'exec "$@"']), "sh"]


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
