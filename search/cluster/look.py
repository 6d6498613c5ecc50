"""What is at a cluster's address, seen without joining it: the version of its Ray, its nodes, and
whether it can grow.

Ray's own connection ends the process that has no token, and waits for minutes where nobody answers.
So a process of its own asks, and has some seconds for it.
"""

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

LOOK_S = 15.0  # for everything; a head that lives answers within one
_CONNECT_S = 3
_REQUEST_S = 5.0
# Of Ray's C++: after so long without an answer it ends the process.
_RAY_WAITS = {
    "RAY_gcs_rpc_server_connect_timeout_s": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}
_GIVE_IT = (
    "put the cluster's token into ~/.ray/auth_token, or into the file that RAY_AUTH_TOKEN_PATH"
    " names"
)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that lives."""

    address: str
    resources: dict[str, float]  # CPU, GPU, ...: all of them, used or not


@dataclass(frozen=True)
class Cluster:
    """What was seen."""

    address: str  # host:port of its head, whatever it was named by
    ray_version: str
    python_version: str
    has_token: bool  # whether one was sent; a cluster that wants none takes it too
    nodes: tuple[Node, ...]
    # Whether something adds machines to it when they are asked for.
    grows: bool
    # What each such machine has, where the autoscaler says: the first version of Ray's does not.
    may_add: tuple[dict[str, float], ...] | None

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        found = json.loads(text)
        nodes = tuple(Node(**node) for node in found.pop("nodes"))
        may_add = found.pop("may_add")
        return cls(nodes=nodes, may_add=None if may_add is None else tuple(may_add), **found)


class TokenWanted(ValueError):
    """A cluster's token is not the one that was sent, if any was."""


def asks_for_a_token(cluster: Cluster) -> bool:
    """Whether it answers nobody who has none. Raises ValueError where it has stopped answering."""
    if not cluster.has_token:
        return False  # it has answered without one
    try:
        look(cluster.address, RAY_AUTH_MODE="disabled")
    except TokenWanted:
        return True
    return False


def check_token(cluster: Cluster) -> None:
    """Raises ValueError where it asks for no token."""
    if not asks_for_a_token(cluster):
        raise ValueError(
            f"the cluster at {cluster.address} asks for no token, so whoever reaches it runs any"
            " command on its nodes; make one with: ray get-auth-token --generate, copy"
            " ~/.ray/auth_token to every node and start Ray on each with RAY_AUTH_MODE=token, or"
            " give --insecure"
        )


def look(address: str, **environment: str) -> Cluster:
    """The cluster at `address`, `host:port` or `auto`: the one that this machine is a node of.

    Raises ValueError in one sentence where there is none that could be joined from here, after 15 s
    at most.
    """
    if "://" in address:
        raise ValueError(
            f"--address {address}: that is another of Ray's doors; expected host:port of the head,"
            " for example 10.0.0.1:6379, or auto, and the command has to be run on a node of the"
            " cluster"
        )
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "search.cluster.look", address],
            env={**os.environ, **_RAY_WAITS, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOOK_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"--address {address}: something is there, but it did not answer as a Ray cluster"
            f" within {LOOK_S:g} s"
        ) from None
    kind, _, said = done.stdout.strip().rpartition("\n")[2].partition(" ")
    if kind == "cluster":
        return Cluster.from_json(said)
    if kind == "token":
        raise TokenWanted(f"--address {address}: {said}")
    if kind != "fault":
        said = _cause(done.stderr)
    raise ValueError(f"--address {address}: {said}")


def _cause(stderr: str) -> str:
    """Why Ray's C++ ended the process."""
    if "authentication_token_loader" in stderr:
        return f"RAY_AUTH_MODE is token, but there is no token here; {_GIVE_IT}"
    if "Failed to connect to GCS" in stderr:
        return "something is there, but it did not answer as a Ray cluster"
    lines = stderr.strip().splitlines() or ["no reason was given"]
    return f"it could not be asked ({lines[-1][:300]})"


# What follows runs in the process that asks.


def _seen(address: str) -> Cluster:
    """Raises ValueError."""
    import ray
    from ray._private import services, utils
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )

    if address == "auto":
        # As ray.init has it: a token that is there is meant for the cluster of this machine.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        named = os.environ.get("RAY_ADDRESS") or services.find_bootstrap_address(None)
        if named is None and len(several := services.find_gcs_addresses()) > 1:
            raise ValueError(
                f"several Rays run on this machine ({', '.join(sorted(several))}); name one of them"
            )
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = services.canonicalize_bootstrap_address(address)
    except ConnectionError:
        raise ValueError(
            "no Ray runs on this machine; start one with: ray start --head, or join a cluster with:"
            " ray start --address=HOST:6379"
        ) from None
    except (ValueError, OSError) as error:
        raise ValueError(f"expected host:port or auto ({error})") from None
    if found is None:
        raise ValueError("expected host:port or auto; leave it out for a Ray of the sweep's own")
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"no Ray cluster answers at {found} ({error})") from None
    try:
        client = ray._raylet.GcsClient(address=found)
    except ray.exceptions.AuthenticationError:
        raise TokenWanted(
            f"the cluster at {found} wants a token, and the one that is given here, if any, is not"
            f" its token; set RAY_AUTH_MODE=token, and {_GIVE_IT}"
        ) from None
    except ray.exceptions.RpcError as error:
        raise ValueError(f"no Ray cluster answers at {found} ({error})") from None
    return _ask(client, found, ray, services, utils)


def _ask(client: Any, address: str, ray: Any, services: Any, utils: Any) -> Cluster:
    from ray._common.usage import usage_lib

    # Empty for some seconds after the head has started.
    versions: Mapping[str, str] = usage_lib.get_cluster_metadata(client) or {}
    theirs = versions.get("ray_version", ray.__version__), versions.get("python_version", "")
    if versions:
        try:
            utils.check_version_info(versions, "this machine")
        except RuntimeError:
            raise ValueError(
                f"the cluster at {address} has Ray {theirs[0]} and Python {theirs[1]}, here are Ray"
                f" {ray.__version__} and Python {platform.python_version()}; both have to be the"
                f" same: pip install ray=={theirs[0]}, or install what is here on the cluster"
            ) from None
    nodes = client.get_all_node_info(timeout=_REQUEST_S).values()
    alive = {node.node_id.hex(): node for node in nodes if node.state == node.ALIVE}
    if not alive.keys() & set(services.find_node_ids()):
        raise ValueError(
            f"this machine is no node of the cluster at {address}; run the command on one that is,"
            f" or join it with: ray start --address={address} --num-cpus=0"
        )
    raylet = ray._raylet
    grows, may_add = _growth(client, alive.values(), raylet)
    return Cluster(
        address,
        *theirs,
        has_token=raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN,
        nodes=tuple(
            Node(node.node_manager_address, dict(node.resources_total)) for node in alive.values()
        ),
        grows=grows,
        may_add=may_add,
    )


def _growth(
    client: Any, alive: Iterable[Any], raylet: Any
) -> tuple[bool, tuple[dict[str, float], ...] | None]:
    """Whether an autoscaler adds nodes, and what they have."""
    from ray.core.generated import autoscaler_pb2

    def told(key: str) -> bytes | None:
        space = raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode()
        found: bytes | None = client.internal_kv_get(key.encode(), space, timeout=_REQUEST_S)
        return found

    if config := told(raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY):
        groups = autoscaler_pb2.ClusterConfig.FromString(config).node_group_configs
        may_add = tuple(dict(group.resources) for group in groups if group.max_count)
        return bool(may_add), may_add
    # Both versions of the autoscaler run without a file too, and then add nothing. With one, each
    # node has a type of it.
    if told(raylet.GCS_AUTOSCALER_V2_ENABLED_KEY) == b"1":
        return any(node.node_type_name for node in alive), None
    status = client.internal_kv_get(b"__autoscaling_status", None, timeout=_REQUEST_S)
    report = json.loads(status).get("autoscaler_report") if status else None
    types = (report or {}).get("node_type_mapping") or {}
    return any(kind != f"node_{node}" for node, kind in types.items()), None


def main() -> None:
    try:
        seen = _seen(sys.argv[1])
    except TokenWanted as error:
        print("token", " ".join(str(error).split()))
    except ValueError as error:
        print("fault", " ".join(str(error).split()))
    else:
        print("cluster", seen.as_json())


if __name__ == "__main__":
    main()
