"""A Ray to work on: a local one of our own on loopback, or the cluster at an address."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmm.training.malloc import reusing_holes
from search.ledger.spec import SweepSpec

# Ray reads some of these when it is imported, and its workers inherit all of them.
_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anyone
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # No CSV, JSON and TensorBoard copy of every result, and no snapshots: they are never restored.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def connect(
    address: str | None,
    num_cpus: int,
    num_gpus: float,
    wanted: Mapping[str, float],
    worker_env: Mapping[str, str] | None = None,
) -> None:
    """Start a local Ray with so many CPUs and GPUs, or join the cluster at `address`; `worker_env`
    is for its workers.

    Raises ValueError where no cluster answers, or where it lacks the `wanted` CPU and GPU: Ray
    would wait for them for ever. Who is stopped meanwhile gets a KeyboardInterrupt.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if threading.current_thread() is not threading.main_thread():
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
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
            if address is None:
                os.environ.update(worker_env or {})  # Ray's processes inherit it
                # Without "local" it would join any other Ray that RAY_ADDRESS or a file of an
                # earlier one names.
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    num_gpus=-(-num_gpus // 1) if num_gpus else 0,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    **quiet,
                )
            else:
                ray.init(
                    address=address,
                    runtime_env={"env_vars": dict(worker_env)} if worker_env else None,
                    **quiet,
                )
    except ConnectionError as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there ({error})") from None
    except KeyboardInterrupt:
        disconnect()
        raise
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file():
        token.chmod(0o600)  # Ray creates it readable for everyone
    there = ray.cluster_resources()
    for kind, number in wanted.items():
        if number > there.get(kind, 0.0):
            disconnect()
            raise ValueError(
                f"the cluster has {there.get(kind, 0.0):g} {kind}s, {number:g} are asked for; Ray"
                " would wait for ever"
            )


@contextlib.contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Ray puts handlers of SIGTERM in the place of ours: one that exits, of which it may itself
    take no notice, and, once it has started, one that prints a stack trace and aborts the process.
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
    try:
        with contextlib.suppress(SystemExit):
            yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, handler if handler is not None else signal.SIG_DFL)
        seen = b""
        with contextlib.suppress(BlockingIOError):
            seen = os.read(reading, 1000)
        os.close(reading)
        os.close(writing)
    if signal.SIGTERM in seen:
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


@contextlib.contextmanager
def ray_for(spec: SweepSpec, threads: int) -> Iterator[None]:
    """A local Ray on loopback, or the cluster at `spec.address`; `threads` for each trial."""
    # of one trial: others wait for their turn
    wanted = {"CPU": float(threads), "GPU": spec.gpus_per_trial}
    connect(
        spec.address,
        max(spec.workers * threads, 1),
        spec.gpus_per_trial * spec.workers,
        wanted,
        reusing_holes(os.environ),
    )
    try:
        yield
    finally:
        disconnect()
