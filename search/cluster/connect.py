"""A Ray to work on: a local one of our own on loopback, or the cluster at an address."""

import contextlib
import logging
import math
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmm.training.malloc import reusing_holes
from search.cluster.look import Cluster, check_token, look
from search.cluster.room import check_room
from search.cluster.shipping import shipped
from search.ledger.spec import SweepSpec, trials_of_gpu

# Ray reads some of these when it is imported, and its workers inherit all of them.
_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anyone
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # No CSV, JSON and TensorBoard copy of every result, and no snapshots: they are never restored.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # Otherwise Tune itself begins a seat of a preempted node again, with the trials it began with.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# As Ray names them; the system takes names of so many bytes (sockaddr_un, without its last zero).
_LONGEST_SOCKET = "session_2026-11-27_05-01-43_847172_{pid}/sockets/plasma_store"
_MOST_BYTES_OF_A_SOCKET = 103 if sys.platform == "darwin" else 107


_LOOPBACK_S = 5.0


@dataclass(frozen=True)
class Place:
    """A Ray that can be had: the cluster that was seen, or None for one of our own."""

    cluster: Cluster | None
    warning: str | None = None  # where not everything that is wanted finds room at a time


def reach(
    address: str | None,
    wanted: Mapping[str, float],
    number: int,
    what: str = "trial",
    *,
    may_wait: bool = True,
    insecure: bool = False,
) -> Place:
    """Where `number` trials, or `what` else wants so much CPU and GPU each, would be run; nothing
    is started or joined. `may_wait`: some of them, for others to end; `insecure`: on a cluster that
    asks for no token, too.

    Raises ValueError in one sentence, after some seconds at most, where that cannot be.
    """
    if address is None:
        _check_temporary_folder()
        _check_home()
        _check_loopback()
        return Place(None)
    cluster = look(address)
    if not insecure:
        check_token(cluster)
    return Place(cluster, check_room(cluster, wanted, number, what, may_wait=may_wait))


def _check_temporary_folder() -> None:
    """Raise ValueError where Ray could not make its sockets, or their names would be longer than
    the system takes.
    """
    folder = ray_folder()
    if not folder.is_absolute():  # of no folder in particular: Ray's processes have others
        raise ValueError(
            f"Ray's sockets would lie in {str(folder)!r}, as RAY_TMPDIR or TMPDIR has it, and that"
            " is no absolute path; set one, for example: export RAY_TMPDIR=/tmp"
        )
    longest = folder / _LONGEST_SOCKET.format(pid=os.getpid())
    too_long = len(os.fsencode(longest)) - _MOST_BYTES_OF_A_SOCKET
    if too_long > 0:
        raise ValueError(
            f"Ray's sockets would lie in {folder}, whose name is {too_long} bytes too long for"
            " that; set RAY_TMPDIR to a shorter one, for example: export RAY_TMPDIR=/tmp"
        )
    if (there := _not_writable(folder)) is not None:
        raise ValueError(
            f"Ray's sockets would lie in {folder}, and {there} is no folder that can be written to;"
            " set RAY_TMPDIR to one that can, for example: export RAY_TMPDIR=/tmp"
        )


def _check_home() -> None:
    """Raise ValueError where Ray could not read, or make, the token that it then asks for."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    if (named := os.environ.get("RAY_AUTH_TOKEN_PATH")) is not None:
        if not (Path(named).is_file() and os.access(named, os.R_OK) and Path(named).stat().st_size):
            raise ValueError(
                f"RAY_AUTH_TOKEN_PATH names {named!r}, which is no file with a token that can be"
                " read; name one, or make a new one in ~/.ray/auth_token with: unset"
                " RAY_AUTH_TOKEN_PATH"
            )
        return
    token = _token_file()
    if token.is_file() and os.access(token, os.R_OK):
        return
    if token.exists():
        raise ValueError(
            f"Ray keeps a token in {token}, which is no file that can be read; put it elsewhere:"
            f" {shlex.join(['mv', str(token), f'{token}.old'])}"
        )
    if (there := _not_writable(token.parent)) is not None:
        raise ValueError(
            f"Ray keeps a token in {token}, and {there} is no folder that can be written to; set"
            " HOME to one that can"
        )


def _check_loopback() -> None:
    """Raise ValueError where processes of this machine do not reach each other, as in a sandbox
    without a network: Ray's C++ would try for a quarter of an hour.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), _LOOPBACK_S).close()
    except OSError as error:
        raise ValueError(
            f"Ray's processes would not reach each other on this machine: 127.0.0.1 does not answer"
            f" ({error}); switch it on (ip link set lo up), or train in one process with --serial"
        ) from None


def _token_file() -> Path:
    """Where the user has no name and there is no HOME, its path begins with ~."""
    return Path(os.path.expanduser("~"), ".ray", "auth_token")  # noqa: PTH111


def _not_writable(folder: Path) -> Path | None:
    """What there is of a folder's path, where nothing can be made in it."""
    there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    is_writable = folder.is_absolute() and there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return None if is_writable else there


def ray_folder() -> Path:
    """Where a Ray that is started here has its sockets and logs."""
    variables = [os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ]
    return Path(next(iter(variables), "/tmp")) / "ray"  # noqa: S108, as Ray has it


def set_defaults() -> None:
    """Before Ray is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = absolute(os.environ["PYTHONPATH"])


def absolute(search_path: str) -> str:
    """PYTHONPATH as it is meant in this folder: Ray's workers start in another."""
    return os.pathsep.join(
        str(Path(entry).absolute()) if entry else entry for entry in search_path.split(os.pathsep)
    )


def connect(
    place: Place,
    num_cpus: int,
    num_gpus: float,
    worker_env: Mapping[str, str] | None = None,
    *,
    ship: bool = False,
) -> None:
    """Start a local Ray with so many CPUs and GPUs, or join the cluster; `worker_env` is for its
    workers, and with `ship` those of a cluster run this machine's code.

    Raises ValueError where that fails. Who is stopped meanwhile gets a KeyboardInterrupt.
    """
    set_defaults()
    if threading.current_thread() is not threading.main_thread():
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    if place.cluster is not None and place.cluster.has_token:
        os.environ["RAY_AUTH_MODE"] = "token"  # Ray by itself takes it where it is told `auto` only
    import ray

    quiet: Mapping[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "configure_logging": True,
    }
    try:
        # Ray puts the folder that it is started in before everything that its workers import. That
        # is the user's, with whatever its files are called; Python's own holds no modules.
        with _sigterm_is_ctrl_c(), contextlib.chdir(sys.prefix):
            if place.cluster is None:
                os.environ.update(worker_env or {})  # Ray's processes inherit it
                # Ray then asks for a token, which it makes where there is none.
                os.environ.pop("RAY_AUTH_MODE", None)
                # Without "local" it would join any other Ray that RAY_ADDRESS or a file of an
                # earlier one names.
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    num_gpus=math.ceil(num_gpus),
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    **quiet,
                )
            else:
                runtime_env: dict[str, object] = {"env_vars": dict(worker_env or {})}
                with contextlib.ExitStack() as packed:
                    if ship:
                        runtime_env |= packed.enter_context(shipped())
                    ray.init(address=place.cluster.address, runtime_env=runtime_env, **quiet)
    except KeyboardInterrupt:
        disconnect()
        raise
    except Exception as error:  # of many kinds, the time-outs a bare Exception
        disconnect()
        what = " ".join(str(error).split())[:300]
        raise ValueError(
            f"Ray did not start on this machine ({what}); its logs are in"
            f" {ray_folder()}/session_latest/logs"
            if place.cluster is None
            else f"the cluster at {place.cluster.address} could not be joined ({what})"
        ) from error
    if (token := _token_file()).is_file():
        token.chmod(0o600)  # Ray creates it readable for everyone


@contextlib.contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Ray puts handlers of SIGTERM in the place of ours: one that exits, of which it may itself
    take no notice, and, once it has started, one that prints a stack trace and aborts the process.

    Ctrl-C counts wherever it came: Python drops what is raised around a fork, and Ray forks much.
    The traceback that it prints of that is not ours to show: what was dropped is raised here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    # The number of each signal is written, whoever handles it.
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    hook = sys.unraisablehook

    def without_ctrl_c(dropped: Any) -> None:
        if dropped.exc_type is not KeyboardInterrupt:
            hook(dropped)

    sys.unraisablehook = without_ctrl_c
    try:
        with contextlib.suppress(SystemExit):
            yield
    finally:
        sys.unraisablehook = hook
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, handler if handler is not None else signal.SIG_DFL)
        seen = b""
        with contextlib.suppress(BlockingIOError):
            seen = os.read(reading, 1000)
        os.close(reading)
        os.close(writing)
    if signal.SIGTERM in seen or signal.SIGINT in seen:
        raise KeyboardInterrupt


def is_connected() -> bool:
    """Whether Ray's process on this machine lives: without it nothing is told of workers any
    more.
    """
    import ray

    own = ray.get_runtime_context().get_node_id()
    return any(node["Alive"] and node["NodeID"] == own for node in ray.nodes())


def disconnect() -> None:
    import ray

    ray.shutdown()


def wanted_by(spec: SweepSpec, threads: int) -> dict[str, float]:
    """What a trial wants of a node."""
    wanted = {"CPU": float(threads), "GPU": spec.gpus_per_trial}
    return {kind: number for kind, number in wanted.items() if number}


def start_ray(place: Place, spec: SweepSpec, threads: int) -> None:
    """A local Ray on loopback, or the cluster that was reached, with `threads` for each trial;
    nothing where it is there already.
    """
    set_defaults()
    import ray

    if not ray.is_initialized():
        num_cpus = max(spec.workers * threads, 1)
        num_gpus = 0
        if spec.gpus_per_trial > 0:  # whole ones, and as many as have room for the workers
            num_gpus = math.ceil(spec.workers / trials_of_gpu(spec.gpus_per_trial))
        connect(place, num_cpus, num_gpus, reusing_holes(os.environ), ship=spec.ship)


@contextlib.contextmanager
def ray_on(place: Place, spec: SweepSpec, threads: int) -> Iterator[None]:
    """The same, until what is inside has ended."""
    start_ray(place, spec, threads)
    try:
        yield
    finally:
        disconnect()
