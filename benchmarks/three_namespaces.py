"""Ray nodes in network namespaces of their own, as machines have them: each with its own address,
its own copy of the package and its own /tmp, joined by virtual cables. For root, on Linux with `ip`
and `unshare`.

    python -m benchmarks.three_namespaces [--json FILE]

The head and the driver are in one namespace, three nodes of two slots in others. A fourth one has
an empty folder where the package is, a fifth one where the sweep is: neither may get a trial. Then
the cable of a node that trains is pulled: its trials have to go on on the other two. Only addresses
of these cables and of loopback are used, and all of it is taken away at the end.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.sweep_efficiency import ROOT
from benchmarks.three_nodes import SLOTS_A_NODE, Sweep, at_work, losses

_PREFIX = "mmm-ns"
_NETWORK, _HEAD, _PORT = "10.213.77", "10.213.77.1", 6391
_PACKAGES = ("mmm", "search", "spaces")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def address_of(place: int) -> str:
    return f"{_NETWORK}.{10 + place}"


@contextlib.contextmanager
def cables(nodes: int) -> Iterator[None]:
    """Namespace `mmm-ns-head` with a bridge, and one of each node with a cable to it."""
    names = [f"{_PREFIX}-head", *(f"{_PREFIX}-{place}" for place in range(nodes))]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        head = names[0]
        ip("-n", head, "link", "add", "bridge0", "type", "bridge")
        ip("-n", head, "address", "add", f"{_HEAD}/24", "dev", "bridge0")
        ip("-n", head, "link", "set", "bridge0", "up")
        # Ray asks the kernel by which address it would reach the world.
        ip("-n", head, "route", "add", "default", "dev", "bridge0")
        for place, name in enumerate(names[1:]):
            ip("-n", head, "link", "add", f"cable{place}", "type", "veth", "peer", "name", "eth0")
            ip("-n", head, "link", "set", "eth0", "netns", name)
            ip("-n", head, "link", "set", f"cable{place}", "master", "bridge0", "up")
            ip("-n", name, "address", "add", f"{address_of(place)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "route", "add", "default", "via", _HEAD)
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)


def inside(name: str, mounts: list[str], command: list[str]) -> list[str]:
    """A command in a network namespace, with mounts that nobody else sees."""
    script = " && ".join([*mounts, 'exec "$@"'])
    return [
        *("ip", "netns", "exec", f"{_PREFIX}-{name}"),
        *("unshare", "--mount", "sh", "-c", script, "sh", *command),
    ]


class Processes:
    """Of Ray, each with all that it starts; ended with this one."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def ray(self, name: str, mounts: list[str], *options: str) -> None:
        """`ray start`, with a temporary folder of its own."""
        own = self.folder / name
        (own / "ray").mkdir(parents=True)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        with open(self.folder / f"{name}.log", "wb") as log:
            self._running.append(
                subprocess.Popen(
                    inside(name, [*mounts, f"mount --bind {own / 'ray'} /tmp"], command),
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )


def own_package(place: int, folder: Path) -> list[str]:
    """Mounts of a copy of the package over the package."""
    found = []
    for name in _PACKAGES:
        copy = folder / f"package{place}" / name
        shutil.copytree(ROOT / name, copy, ignore=shutil.ignore_patterns("__pycache__"))
        found.append(f"mount --bind {copy} {ROOT / name}")
    return found


def without(*folders: Path) -> list[str]:
    """Mounts of nothing."""
    return [f"mount -t tmpfs none {folder}" for folder in folders]


def measure(folder: Path) -> dict[str, Any]:
    token = secrets.token_hex(16)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": "/tmp",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    (folder / "runs").mkdir()
    slots = 3 * SLOTS_A_NODE
    with cables(5), Processes(environment, folder) as processes:
        head = ["--head", f"--port={_PORT}", "--num-cpus=0", "--include-dashboard=false"]
        processes.ray("head", [], *head, f"--node-ip-address={_HEAD}")
        # Until it is a node of its own cluster, which the driver's machine has to be.
        while "--block" not in (folder / "head.log").read_text():
            time.sleep(0.2)
        sweep = Sweep(folder, f"{_HEAD}:{_PORT}", 10_000, slots + 4)
        mounts = [own_package(place, folder) for place in range(3)]
        mounts.append(without(*(ROOT / name for name in _PACKAGES)))
        mounts.append(without(folder / "runs"))
        for place, mounted in enumerate(mounts):
            processes.ray(
                str(place),
                mounted,
                f"--address={_HEAD}:{_PORT}",
                f"--node-ip-address={address_of(place)}",
                f"--num-cpus={SLOTS_A_NODE}",
            )
        sweep.command = inside(
            "head", [f"mount --bind {folder / 'head' / 'ray'} /tmp"], sweep.command
        )
        os.environ.update(environment)
        with sweep.running() as driver:
            begin, _ = sweep.until(driver, lambda history: at_work(history) == slots)
            end, steady = sweep.until(driver, lambda _: time.time() > begin + 30.0)
            trials = len(steady.trials)
            ip("-n", f"{_PREFIX}-head", "link", "set", "cable0", "down")
            pulled = time.time()
            noticed, resumed, history = sweep.trained_on(driver)
            # `ip netns exec` and `unshare` become what they start.
            driver.terminate()
            driver.wait(60)
        return {
            "trials": trials,
            "ready_s": end - begin,
            "noticed_s": noticed - pulled,
            "trained_on_s": resumed - pulled,
            "lost": losses(sweep),
            "dead_workers": sum(trial.dead_workers for trial in history.trials.values()),
            "failed": sum(trial.state == "failed" for trial in history.trials.values()),
            "exit_status": driver.returncode,
            "last_line": sweep.log.read_text().splitlines()[-1],
            "said_of_nodes": [
                line for line in sweep.log.read_text().splitlines() if "node 10." in line
            ],
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))):
        print("not run: network namespaces need root, `ip` and `unshare`", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        found = measure(Path(folder))
    print(f"{found['trials']} trials begun on three nodes with addresses of their own")
    print("\n".join(found["said_of_nodes"]))
    print(
        f"a cable pulled: noticed after {found['noticed_s']:.1f} s, both trials trained on after"
        f" {found['trained_on_s']:.1f} s, {found['failed']} trials failed"
    )
    for row in found["lost"]:
        print(
            f"  trial {row['trial']}: {row['epochs_again']} epochs ({row['seconds_again']:.2f} s)"
            " trained again"
        )
    print(f"SIGTERM: exit status {found['exit_status']}; {found['last_line']}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
