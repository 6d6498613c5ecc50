"""When a sweep whose Ray died goes on by itself, and when it leaves that to somebody."""

import socket
import sys
from pathlib import Path

import pytest

from search.cluster import again

OWN = f"broken off: {again.OWN_DIED} (its raylet does not live any more)"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been put in this process's place."""
    found: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda path, program: found.append(program))
    monkeypatch.setenv(again._TIMES, "")
    return found


def test_with_a_ray_of_its_own_it_goes_on_three_times_an_hour(
    programs: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1e6
    monkeypatch.setattr("time.monotonic", lambda: now)
    for _ in range(5):
        again.go_on(Path("runs"), "first", OWN)
    command = [sys.executable, "-P", "-m", "search", "resume", "first", "--runs", "runs"]
    assert programs == [command] * again.MOST
    assert capsys.readouterr().out.splitlines()[-1] == (
        "going on by itself (3 of at most 3 times an hour): mmm-search resume first --runs runs"
    )
    now += again.WITHIN_S
    again.go_on(Path("runs"), "first", OWN)
    assert len(programs) == again.MOST + 1


def test_where_the_head_of_a_cluster_is_back_it_goes_on_and_elsewhere_not(
    programs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "_BACK_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
        why = f"broken off: {again.HEAD_DIED} 127.0.0.1:{port} does not answer any more"
        again.go_on(Path("runs"), "first", why)
        assert len(programs) == 1
    again.go_on(Path("runs"), "first", why)  # nothing listens there now
    again.go_on(Path("runs"), "first", "broken off: the last 5 trials failed for the same reason")
    assert len(programs) == 1
