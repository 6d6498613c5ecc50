"""A Ray cluster and each of its nodes."""

import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mmm.version import VERSION
from search.cluster.connect import Place, connect, disconnect
from search.cluster.look import Cluster, asks_for_a_token, look
from search.cluster.room import Resources, check_room, spelt
from search.doctor.finding import Finding, fault_of

if TYPE_CHECKING:
    from search.cluster.nodes import NodeReport

_CLOCKS_S = 30.0  # half of what a sweep's lock and its heartbeats allow
_SHOWN = ("CPU", "GPU")


def cluster(
    address: str,
    runs: Path,
    readable: list[Path],
    wanted: Resources,
    workers: int,
    *,
    insecure: bool,
) -> Iterator[Finding]:
    """`readable`: what trials read, as the driver knows it; `wanted`: by each of `workers` trials,
    empty where no sweep is asked about; `insecure`: whether one that asks for no token would do.
    """
    try:
        seen = look(address)
    except ValueError as error:
        yield fault_of("cluster", error)
        return
    yield from _as_seen(seen, wanted, workers, insecure)
    try:
        connect(Place(seen), 0, 0)
    except ValueError as error:
        yield fault_of("cluster", error)
        return
    try:
        yield from _nodes(runs, readable)
    finally:
        disconnect()


def _as_seen(seen: Cluster, wanted: Resources, workers: int, insecure: bool) -> Iterator[Finding]:
    have = _total(seen)
    grows = ", grows when it is asked" if seen.grows else ""
    yield Finding(
        "ok",
        "cluster",
        f"{seen.address}: Ray {seen.ray_version}, Python {seen.python_version},"
        f" {len(seen.nodes)} nodes with {spelt(have) or 'neither CPU nor GPU'}{grows}",
    )
    try:
        is_open = not asks_for_a_token(seen)
    except ValueError as error:
        yield fault_of("cluster", error)
        return
    if is_open:
        yield Finding(
            "note" if insecure else "fault",
            "cluster",
            "it asks for no token: whoever reaches it runs any command on its nodes, and run,"
            " resume, confirm and encode join it only with --insecure",
            "make a token with: ray get-auth-token --generate, copy ~/.ray/auth_token to every node"
            " and start Ray on each with RAY_AUTH_MODE=token",
        )
    if wanted:
        try:
            told = check_room(seen, wanted, workers)
        except ValueError as error:
            yield fault_of("cluster", error)
        else:
            if told is not None:
                yield Finding("note", "cluster", told)


def _total(seen: Cluster) -> Mapping[str, float]:
    return {kind: sum(node.resources.get(kind, 0.0) for node in seen.nodes) for kind in _SHOWN}


def _nodes(runs: Path, readable: list[Path]) -> Iterator[Finding]:
    from search.cluster.nodes import ask_nodes, hash_of_code

    code = hash_of_code()
    runs = runs.absolute()
    made = not runs.is_dir()
    runs.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.NamedTemporaryFile(dir=runs, prefix=".doctor.") as mark:
            for answer in ask_nodes(readable, [runs], Path(mark.name)):
                if answer.report is not None:
                    yield from _of_node(answer.address, answer.report, runs, code)
                else:
                    do = (
                        f"install mmm-search {VERSION} on that node as it is here, or send its code"
                        " with every sweep: --ship"
                    )
                    yield Finding("fault", answer.address, answer.why, do)
    finally:
        if made:
            runs.rmdir()


def _of_node(address: str, said: "NodeReport", runs: Path, code: str) -> Iterator[Finding]:
    text = f"mmm-search {said.mmm_search}, torch {said.torch}, {said.num_gpus} GPUs"
    yield Finding("ok", address, text)
    versions = (
        ("mmm-search", said.mmm_search, VERSION),
        ("torch", said.torch, version("torch")),
    )
    differing = [
        f"{name} {theirs} (here: {ours})"
        for name, theirs, ours in versions
        if theirs.split("+")[0] != ours.split("+")[0]
    ]
    if differing:
        yield Finding(
            "fault",
            address,
            f"other versions: {', '.join(differing)}",
            "install the same on every node: pip install -c constraints.txt 'mmm-search[search]'"
            + (
                ""
                if said.mmm_search == VERSION
                else "; or send this one's with every sweep: --ship"
            ),
        )
    elif said.code != code:
        yield Finding(
            "note",
            address,
            f"its mmm-search {VERSION} is not the code that is here",
            "install the same there, or send this one's with every sweep: --ship",
        )
    if said.unreadable:
        yield Finding(
            "fault",
            address,
            f"it cannot read {', '.join(said.unreadable)}",
            "put them on storage that every node has under the same path",
        )
    if said.unwritable or said.lacks_mark:
        what = "it cannot write into" if said.unwritable else "it has another folder as"
        yield Finding(
            "fault",
            address,
            f"{what} {runs}, where trials leave their weights",
            "put --runs on storage that every node has under the same path",
        )
    ahead_s = max(said.clock - said.asked[1], 0.0) - max(said.asked[0] - said.clock, 0.0)
    if abs(ahead_s) > _CLOCKS_S:
        where = "ahead" if ahead_s > 0 else "behind"
        yield Finding(
            "fault",
            address,
            f"its clock is at least {abs(ahead_s):.0f} s {where}",
            "set the clocks of all nodes by NTP",
        )
