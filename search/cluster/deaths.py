"""What Ray says of a worker that died: why, in a sentence, and whether memory or a node was it."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import ray

from search.cluster.again import answers
from search.engine.controller import Death

_OUT_OF_MEMORY = ("low on memory", "memory usage threshold")
_NODE_DIED = ("its node has died", "node was preempted", "died by preemption")
# The worker's process alone: its node needs no look.
_PROCESS_DIED = ("Worker unexpectedly exits", "ray.kill")
_ACTOR = re.compile(r"\b[0-9a-f]{32}\b")  # its id
_ANSWER_S = 2.0


def death_of(text: str) -> Death:
    """Which kind of death it was, by Ray's account of it and by what became of the worker's node
    where the account leaves that open.
    """
    if any(words in text for words in _OUT_OF_MEMORY):
        return "memory"
    if any(words in text for words in _NODE_DIED):
        return "node"
    actor = _ACTOR.search(text)
    if actor is None or any(words in text for words in _PROCESS_DIED):
        return "unknown"
    # Of a raylet that was killed Ray says that a socket closed, of one that was to go, nothing.
    found = ray._private.state.state.actor_table(actor[0])
    nodes = ray.nodes()
    mine = [node for node in nodes if node["NodeID"] == found.get("Address", {}).get("NodeID")]
    is_gone = any(node["NodeID"] in leaving(nodes) or not _answers(node) for node in mine)
    return "node" if is_gone else "unknown"


def _answers(node: Mapping[str, Any]) -> bool:
    """Whether a node's raylet does: the head takes one that died for alive for some seconds."""
    return answers(node["NodeManagerAddress"], node["NodeManagerPort"], _ANSWER_S)


def leaving(nodes: Collection[Any]) -> set[str]:
    """Ids of nodes that are dead, or that are told to go and get nothing more to do."""
    dead = {node["NodeID"] for node in nodes if not node["Alive"]}
    return dead | set(ray._private.state.state.get_draining_nodes())


def cause_of_death(text: str) -> str:
    """What Ray's account of a dead worker says in one sentence: the advice that it adds is as long
    for every one of them.
    """
    lines = text.strip().splitlines()
    if not lines:
        return "no trace was left"
    last = next(
        (line for line in lines if any(words in line for words in _OUT_OF_MEMORY)), lines[-1]
    )
    said = last.split("Worker exit detail: ")[-1]
    for advice in (" Some common causes include", " There are some potential root causes"):
        said = said.split(advice)[0]
    return said.strip()[:300]
